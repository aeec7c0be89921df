"""`dier trial`: prepare to probe in a row with other settings, for a tuner; at the end the validation metrics, a line each.

Neither the report nor the registry: what a tuner finds is trained again by the pipeline. Test images are probed as ever, but none
of their figures is printed: whoever chooses settings by them has no test set any more.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from components.common.progress import say
from pipeline import run_step
from pipeline.steps import BY_NAME, OUTPUT

LAST = "probe"
METRIC = "val_{}={:.6f}"
"""What Katib's collector reads by its default filter: name=value, a number without exponent."""


def trial(params: str, overrides: Sequence[str], root: Path) -> int:
    """Run the steps below `root`, and print each validation metric; give the exit code of the step that failed, or 0."""
    for name in list(BY_NAME)[: list(BY_NAME).index(LAST) + 1]:
        code = run_step.run(_words(name, params, overrides, root))
        if code:
            return code
    metrics = json.loads((root / OUTPUT[LAST] / "metrics.json").read_text("utf-8"))
    say(f"trial: t = {metrics['t']}, chosen by {metrics['chosen_by']} on val")
    for metric, row in metrics["val"].items():
        if row["value"] is not None and math.isfinite(row["value"]):
            print(METRIC.format(metric, row["value"]), flush=True)
    return 0


def _words(name: str, params: str, overrides: Sequence[str], root: Path) -> list[str]:
    """The step's command line, its artifacts below `root`."""
    step = BY_NAME[name]
    words = [name, "--params", params, "--out", str(root / step.output)]
    for given in step.inputs:
        words += [f"--{given}", str(root / given)]
    return words + [word for override in overrides for word in ("--set", override)]
