"""Several processes train as one does: the same samples, losses equal but for the order of sums, and a death that is noticed."""

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from model.training.distributed import Processes
from tests.model.conftest import make_trainer
from tests.model.training.train_in_processes import one_of

ROOT = Path(__file__).parents[3]
HARNESS = str(Path(__file__).with_name("train_in_processes.py"))


def torchrun(count: int, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={count}",
        HARNESS,
        str(folder),
        *more,
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["sklearn.datasets", "torch._dynamo", "torch.distributed"])


def in_processes(count: int, folder: Path, *more: str) -> None:
    """As torchrun does it, but forked from a process that has imported PyTorch: importing it takes longer than the training."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port = opened.getsockname()[1]
    ranks = [FORKS.Process(target=one_of, args=(rank, count, port, [str(folder), *more])) for rank in range(count)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(120)
    assert [rank.exitcode for rank in ranks] == [0] * count


def drawn(folder: Path, count: int) -> list[dict[str, object]]:
    """What all processes drew together, step by step, each step in the order of ranks."""
    parts = [json.loads((folder / f"drawn-{count}-{rank}.json").read_text()) for rank in range(count)]
    return sorted((one for part in parts for one in part), key=lambda one: one["step"])


def curve(folder: Path, count: int) -> np.ndarray:
    return np.array([list(point.values()) for point in json.loads((folder / f"curve-{count}.json").read_text())])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folders = {}
    for count in (1, 2, 4):
        folders[count] = tmp_path_factory.mktemp(f"processes{count}")
        in_processes(count, folders[count])
    return folders


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_the_samples_do_not_depend_on_the_number_of_processes(runs: dict[int, Path], count: int) -> None:
    assert drawn(runs[count], count) == drawn(runs[1], 1)
    assert len(drawn(runs[1], 1)) == 8 * 20


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_losses_gradients_and_weights_are_equal_to_float_tolerance(runs: dict[int, Path], count: int) -> None:
    np.testing.assert_allclose(curve(runs[count], count), curve(runs[1], 1), rtol=2e-5, atol=1e-6)
    one, many = np.load(runs[1] / "weights-1.npz"), np.load(runs[count] / f"weights-{count}.npz")
    for name in one:  # Adam makes steps of rounding errors where a gradient is zero, as a key's bias has it
        np.testing.assert_allclose(many[name], one[name], rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_what_varies_images_tokens_and_embeddings_does_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    for count, more in ((1, []), (3, ["--micro", "4"])):
        (tmp_path / str(count)).mkdir()
        in_processes(count, tmp_path / str(count), "--varied", *more)
    np.testing.assert_allclose(curve(tmp_path / "3", 3), curve(tmp_path / "1", 1), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_death_ends_the_job_and_the_resumed_one_goes_on_in_another_number(runs: dict[int, Path], tmp_path: Path) -> None:
    start = time.monotonic()
    died = torchrun(2, tmp_path, "--die", "1:6")
    assert time.monotonic() - start < 60
    assert died.returncode != 0
    assert "exitcode  : 7" in died.stderr
    assert [path.name for path in (tmp_path / "work").glob("step-*")] == ["step-000000004"]
    in_processes(3, tmp_path)
    np.testing.assert_allclose(curve(tmp_path, 3), curve(runs[1], 1), rtol=2e-5, atol=1e-6)


@pytest.mark.slow
def test_micro_batches_give_the_same_losses(runs: dict[int, Path], tmp_path: Path) -> None:
    in_processes(2, tmp_path, "--micro", "3")
    np.testing.assert_allclose(curve(tmp_path, 2), curve(runs[1], 1), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("batch", [4, 7, 64])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_shares_are_the_whole_batch_each_place_once(batch: int, count: int) -> None:
    places = [place for rank in range(count) for place in list(range(batch))[Processes(rank, count).share(batch)]]
    assert places == list(range(batch))


def test_micro_batches_alone_give_the_same_gradients(images: np.ndarray, tmp_path: Path) -> None:
    whole = make_trainer(images, tmp_path / "whole", log_every=1)
    parts = make_trainer(images, tmp_path / "parts", log_every=1, micro_batch=5)
    for trainer in (whole, parts):
        trainer.run()
    for name, weight in whole.ema_weights().items():
        torch.testing.assert_close(parts.ema_weights()[name], weight, rtol=1e-3, atol=1e-4)
