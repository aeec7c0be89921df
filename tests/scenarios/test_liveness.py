"""Is v_t used? After the default run the denoiser must need each image's own v_t."""

import os
import subprocess

import pytest

from components.common import artifact
from tests.scenarios.conftest import BIN, ROOT


@pytest.mark.slow
def test_after_the_default_run_another_images_embedding_costs_at_least_twice_the_loss() -> None:
    """Reads the default run's model; `dvc repro` trains it where it isn't there yet (minutes), and does nothing where it is."""
    where = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run([BIN / "dvc", "repro", "train"], cwd=ROOT, env=where, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    gap = {row["t"]: row for row in artifact.read(ROOT / "artifacts" / "model", "model").json("summary.json")["gap"]}
    assert gap[100]["loss_shuffled"] >= 2 * gap[100]["loss"]
