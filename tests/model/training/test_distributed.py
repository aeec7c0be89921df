"""Several processes train as one does: the same samples, losses equal but for the order of sums, and a death that is noticed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.training.distributed import Processes
from tests.model.conftest import make_trainer

ROOT = Path(__file__).parents[3]
HARNESS = str(Path(__file__).with_name("train_in_processes.py"))
TRAININGS: dict[str, dict[str, Any]] = {
    "one": {"processes": 1},
    "two": {"processes": 2},
    "four": {"processes": 4},
    "micro": {"processes": 2, "micro": 3},
    "varied": {"processes": 1, "varied": True},
    "varied micro": {"processes": 3, "varied": True, "micro": 4},
    "died": {"processes": 4, "die": [2, 6]},
    "stopped": {"processes": 2, "stop": 2, "seconds": {"each": 0.1}, "agree_s": 0.1},
    "busy": {"processes": 2, "seconds": {"3": 3, "8": 3}, "timeout": 1},
}


def harness(folder: Path, trainings: dict[str, dict[str, Any]], *launcher: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *launcher, HARNESS, str(folder), json.dumps(trainings)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a folder for each of TRAININGS."""
    folder = tmp_path_factory.mktemp("runs")
    done = harness(folder, TRAININGS)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def codes(runs: Path, name: str) -> list[int]:
    return list(json.loads((runs / name / "codes.json").read_text()))


def drawn(folder: Path) -> list[dict[str, Any]]:
    """What all processes drew together, step by step, each step in the order of ranks."""
    parts = [json.loads(file.read_text()) for file in sorted(folder.glob("drawn-*.json"))]
    return sorted((one for part in parts for one in part), key=lambda one: one["step"])


def curve(folder: Path) -> np.ndarray:
    return np.array([list(point.values()) for point in json.loads((folder / "curve.json").read_text())])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["two", "four"])
def test_the_samples_do_not_depend_on_the_number_of_processes(runs: Path, name: str) -> None:
    assert drawn(runs / name) == drawn(runs / "one")
    assert len(drawn(runs / "one")) == 8 * 20


@pytest.mark.slow
@pytest.mark.parametrize("name", ["two", "four"])
def test_losses_gradients_and_weights_are_equal_to_float_tolerance(runs: Path, name: str) -> None:
    np.testing.assert_allclose(curve(runs / name), curve(runs / "one"), rtol=2e-5, atol=1e-6)
    one, many = (np.load(runs / folder / "weights.npz") for folder in ("one", name))
    for weight in one:  # Adam makes steps of rounding errors where a gradient is zero, as a key's bias has it
        np.testing.assert_allclose(many[weight], one[weight], rtol=1e-3, atol=1e-4, err_msg=weight)


@pytest.mark.slow
def test_micro_batches_give_the_same_losses(runs: Path) -> None:
    np.testing.assert_allclose(curve(runs / "micro"), curve(runs / "one"), rtol=2e-5, atol=1e-6)


@pytest.mark.slow
def test_what_varies_images_tokens_and_embeddings_does_not_depend_on_the_number_of_processes(runs: Path) -> None:
    np.testing.assert_allclose(curve(runs / "varied micro"), curve(runs / "varied"), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_death_ends_every_process_and_torchrun_names_it_and_another_number_goes_on(runs: Path, tmp_path: Path) -> None:
    assert codes(runs, "died") == [1, 1, 7, 1]
    assert [path.name for path in (runs / "died" / "work").glob("step-*")] == ["step-000000004"]
    shutil.copytree(runs / "died", tmp_path / "died")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    died = harness(tmp_path, {"died": {"die": [1, 7]}}, *launcher)
    assert died.returncode != 0
    assert "exitcode  : 7" in died.stderr
    done = harness(tmp_path, {"died": {"processes": 2}})
    assert done.returncode == 0, done.stderr[-3000:]
    np.testing.assert_allclose(curve(tmp_path / "died"), curve(runs / "one"), rtol=2e-5, atol=1e-6)


@pytest.mark.slow
def test_where_steps_are_slow_a_wish_to_stop_is_granted_within_a_step_or_two(runs: Path) -> None:
    """One of two processes has it, from step 2 on; steps take as long as may pass between two agreements."""
    assert codes(runs, "stopped") == [0, 0]
    newest = max(path.name for path in (runs / "stopped" / "work").glob("step-*"))
    assert newest in ("step-000000002", "step-000000003")


@pytest.mark.slow
def test_the_others_wait_for_the_first_process_longer_than_for_a_collective_operation(runs: Path) -> None:
    """It evaluates, say, for three times as long, amid training and at its end."""
    assert codes(runs, "busy") == [0, 0]
    np.testing.assert_allclose(curve(runs / "busy"), curve(runs / "two"), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("batch", [4, 7, 64])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_shares_are_the_whole_batch_each_place_once(batch: int, count: int) -> None:
    places = [place for rank in range(count) for place in list(range(batch))[Processes(rank, count).share(batch)]]
    assert places == list(range(batch))


@pytest.mark.parametrize("batch", [4, 7, 20, 64])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("most", [1, 2, 3, 5, None])
def test_all_take_their_shares_in_as_many_micro_batches_none_empty(batch: int, count: int, most: int | None) -> None:
    for rank in range(count):
        processes = Processes(rank, count)
        own = range(batch)[processes.share(batch)]
        sizes = [len(part) for part in np.array_split(own, processes.pieces(batch, most))]
        assert sum(sizes) == len(own)
        assert min(sizes) > 0
        assert max(sizes) <= max(most or batch, 1 + (most == 1 and batch % count > 0))


def test_micro_batches_alone_give_the_same_gradients(images: np.ndarray, tmp_path: Path) -> None:
    whole = make_trainer(images, tmp_path / "whole", log_every=1)
    parts = make_trainer(images, tmp_path / "parts", log_every=1, micro_batch=5)
    for trainer in (whole, parts):
        trainer.run()
    for name, weight in whole.ema_weights().items():
        torch.testing.assert_close(parts.ema_weights()[name], weight, rtol=1e-3, atol=1e-4)
