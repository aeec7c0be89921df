"""Bytes that move between the store and the pods of a run: the real dataset of the bundled digits, all other steps played.

pytest tests/standin/test_less_copying.py -s    prints them
"""

import tempfile
from pathlib import Path
from typing import Any

import pytest

from pipeline.steps import STEPS
from tests.standin.backend import Backend
from tests.standin.dier import ready, text
from tests.standin.processes import ProcessPods
from tests.standin.scripted import ScriptedPods

CLAIM = {"dataset": {"claim": "dier-sets"}}


@pytest.mark.slow
@pytest.mark.parametrize(("cluster", "times"), [({}, 6), (CLAIM, 1)], ids=["copied into every pod", "read in place"])
def test_the_dataset_is_moved_once_where_it_is_kept_on_a_claim(cluster: dict[str, Any], times: int) -> None:
    with tempfile.TemporaryDirectory(prefix="standin-") as folder:
        Path(folder).chmod(0o755)  # pods are other users
        backend = ready(Backend(Path(folder) / "kubeflow", ScriptedPods({"prepare": ProcessPods()})))
        backend.cluster.claim("dier-sets", (10001, 10001), 0o770)
        run = backend.run(text(**cluster), timeout=120)
        assert run["state"] == "SUCCEEDED"
        made = backend.path(run["run_id"], "prepare", "dataset")
        size = sum(file.stat().st_size for file in made.rglob("*") if file.is_file())
        moved = {step.name: backend.traffic(run["run_id"], step.name) for step in STEPS}
    total = sum(traffic.uploaded + traffic.downloaded for traffic in moved.values())
    print(f"\ndataset of {size} bytes: {total} bytes between store and pods, {total / size:.2f} times its size")
    assert total // size == times
