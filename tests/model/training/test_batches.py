"""Images of a step from one file or shards, by this process or workers; and that workers end, whatever happens."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from model.errors import ConfigError, TrainingError
from model.training import batches as batches_module
from model.training.batches import SMALL, Batches, choose_workers
from model.training.distributed import Processes
from model.training.order import make_order
from model.training.shares import Shares
from tests.model.conftest import make_trainer
from tests.model.training.test_trainer import StoppedError, same, stop_at

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")


class ShardedImagesDouble:
    """Stands in for data.shards.ShardedImages: says which shards were read, how often."""

    def __init__(self, images: npt.NDArray[np.uint8], size: int) -> None:
        self._images, self._size = images, size
        self.shape, self.dtype = images.shape, images.dtype
        self.shards = tuple(slice(start, min(start + size, len(images))) for start in range(0, len(images), size))
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: Any) -> npt.NDArray[np.uint8]:
        rows = np.arange(len(self))[index]
        self.read += sorted(set((np.atleast_1d(rows) // self._size).tolist()))
        return self._images[index]


class Failing(np.ndarray):
    """Images that cannot be read, of which a worker has the same."""

    def __getitem__(self, index: Any) -> Any:
        raise OSError("the images went away")


def shares_of(images: Any, batch: int = 16, rank: int = 0, count: int = 1, shards: Any = None) -> Shares:
    return Shares(images, make_order(0, len(images), shards, batch, 8), Processes(rank, count).share(batch))


@pytest.fixture
def mapped(images: np.ndarray, tmp_path: Path) -> np.ndarray:
    """Images in a mapped file, large enough each to be announced."""
    large = np.repeat(np.repeat(images, 8, 1), 8, 2)  # (300, 64, 64, 1)
    np.save(tmp_path / "images.npy", large)
    return np.load(tmp_path / "images.npy", mmap_mode="r")


def test_a_step_is_the_rows_of_its_order(mapped: np.ndarray) -> None:
    batches = Batches(shares_of(mapped), 20, CPU)
    for step in (0, 1, 7, 3):
        found = batches.take(step)
        assert found.dtype == torch.uint8
        np.testing.assert_array_equal(found.numpy(), mapped[make_order(0, 300, None, 16, 8).rows(step, slice(0, 16))])


def test_the_next_step_is_announced_to_the_system(mapped: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda file, offset, size, advice: told.append((offset - 128) // size))
    batches = Batches(shares_of(mapped), 20, CPU)
    assert mapped.offset == 128
    order = make_order(0, 300, None, 16, 8)
    batches.take(0)
    assert told == [*order.rows(0, slice(0, 16)), *order.rows(1, slice(0, 16))]
    batches.take(1)
    assert told[32:] == order.rows(2, slice(0, 16)).tolist()  # and none twice


def test_small_images_and_images_in_memory_are_not_announced(images: np.ndarray, mapped: np.ndarray, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(os, "posix_fadvise", lambda *told: pytest.fail("announced"))
    np.save(tmp_path / "small.npy", images)
    for quiet in (np.load(tmp_path / "small.npy", mmap_mode="r"), np.asarray(mapped).copy(), mapped[10:]):
        Batches(shares_of(quiet), 20, CPU).take(0)


def test_a_worker_is_handed_a_mapped_file_by_name(mapped: np.ndarray) -> None:
    shares = shares_of(mapped)
    packed = pickle.dumps(shares)
    assert len(packed) < 5000 < mapped.nbytes
    assert torch.equal(pickle.loads(packed)[3], shares[3])


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_a_process_reads_each_of_its_own_shards_once_an_epoch_and_no_other(images: np.ndarray, count: int) -> None:
    read: list[int] = []
    parts = []
    for rank in range(count):
        sharded = ShardedImagesDouble(images[:256], 16)
        shares = shares_of(sharded, 64, rank, count, sharded.shards)
        parts.append(torch.cat([shares[step] for step in range(4)]))  # 4 x 64 = 256: an epoch
        assert len(sharded.read) == len(set(sharded.read)) == 16 // count
        assert len(shares._open) == 8 // count
        read += sharded.read
    assert sorted(read) == list(range(16))
    assert sorted(part.tobytes() for part in torch.cat(parts).numpy()) == sorted(image.tobytes() for image in images[:256])


def test_a_training_on_shards_resumes_exactly_and_is_not_that_on_one_file(images: np.ndarray, tmp_path: Path) -> None:
    def make(name: str, *callbacks: Any) -> Any:
        sharded = ShardedImagesDouble(images, 40)
        made = make_trainer(sharded, tmp_path / name, *callbacks, shards=sharded.shards, model={"prediction": "x0"})  # type: ignore[arg-type]
        assert 0 < len(sharded.read) <= 8  # what a trivial guess costs
        return made

    whole = make("whole")
    whole.run()
    with pytest.raises(StoppedError):
        make("work", stop_at(7)).run()
    resumed = make("work")
    resumed.run()
    assert same(whole, resumed)
    plain = make_trainer(images, tmp_path / "plain", model={"prediction": "x0"})
    plain.run()
    assert not same(whole, plain)


def test_what_goes_wrong_in_reading_comes_out_as_it_is() -> None:
    with pytest.raises(OSError, match=r"^the images went away$"):
        Batches(shares_of(np.zeros((30, 8, 8, 1), np.uint8).view(Failing)), 20, CPU).take(0)


@pytest.mark.slow
def test_with_workers_a_training_is_the_same_and_resumes_exactly(images: np.ndarray, tmp_path: Path) -> None:
    plain = make_trainer(images, tmp_path / "plain", workers=0)
    state = torch.get_rng_state()
    plain.run()
    with pytest.raises(StoppedError):
        make_trainer(images, tmp_path / "work", stop_at(7), workers=2).run()
    resumed = make_trainer(images, tmp_path / "work", workers=2)
    resumed.run()
    assert same(plain, resumed)
    assert torch.equal(torch.get_rng_state(), state)


def take_all(batches: Batches, steps: range) -> None:
    for step in steps:
        batches.take(step)


@pytest.mark.slow
def test_workers_hand_out_steps_in_turn_again_after_a_jump_and_say_what_went_wrong(mapped: np.ndarray) -> None:
    batches, plain = (Batches(shares_of(mapped), 20, CPU, workers) for workers in (2, 0))
    try:
        for step in (0, 1, 2, 9, 10, 3, 19):
            assert torch.equal(batches.take(step), plain.take(step))
        assert len(batches._processes) == 2
        batches.take(4)
        for worker in batches._processes:
            os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(TrainingError, match=r"a process that reads images ended.*train\.workers") as caught:
            take_all(batches, range(5, 20))
        assert "\n" not in str(caught.value)
    finally:
        batches.close()
    failing = Batches(shares_of(np.zeros((30, 8, 8, 1), np.uint8).view(Failing)), 20, CPU, 1)
    with pytest.raises(OSError, match=r"^the images went away$"):
        failing.take(0)
    processes = failing._processes
    failing.close()
    assert not any(process.is_alive() for process in processes)


TRAINING = """
import os, signal, sys, time
import numpy as np, torch
from pathlib import Path
from tests.model.conftest import Hooks, small_model, train_config
from model.training.trainer import Trainer

def main():
    came = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: came.append(number))
    def each(trainer):
        print(trainer.step, *(worker.pid for worker in trainer.batches._processes), flush=True)
        time.sleep(0.05)
        if sys.argv[1] == "error" and trainer.step == 3:
            raise ZeroDivisionError
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1), np.uint8)
    hooks = Hooks(each, stop=lambda: max(came, default=0))
    config = train_config(steps=2000, workers=2)
    Trainer(small_model(), config, images, Path(sys.argv[2]), torch.device("cpu"), [hooks]).run()

if __name__ == "__main__":
    main()
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("end", ["SIGINT", "SIGTERM", "SIGKILL", "error"])
def test_workers_end_with_the_training_however_it_ends(tmp_path: Path, end: str) -> None:
    """A signal goes to the whole group, as a terminal and timeout send it: the step is ended all the same, and saved."""
    (tmp_path / "training.py").write_text(TRAINING)
    training = subprocess.Popen(
        [sys.executable, tmp_path / "training.py", end, tmp_path / "work"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert training.stdout is not None
    assert training.stderr is not None
    words: list[str] = []
    while not words or int(words[0]) < 3:
        words = training.stdout.readline().split()
        assert words, training.stderr.read()
    workers = list(map(int, words[1:]))
    assert len(workers) == 2
    if end == "SIGKILL":
        os.kill(training.pid, signal.SIGKILL)
    elif end != "error":
        os.killpg(training.pid, getattr(signal, end))
    _, said = training.communicate(timeout=60)
    if end in ("SIGINT", "SIGTERM"):
        assert "which is saved: the same command goes on from there" in said
        assert list((tmp_path / "work").glob("step-*"))
    until = time.monotonic() + 20
    while any(map(alive, workers)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(alive, workers))


def test_workers_are_chosen_by_device_size_cores_and_shared_memory(
    images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda, large = torch.device("cuda"), np.broadcast_to(np.zeros(1, np.uint8), (1000, 224, 224, 3))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(16), raising=False)
    monkeypatch.setattr(batches_module, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(batches_module.shutil, "disk_usage", lambda path: Usage(2**30))
    of = shares_of(large, 128)
    assert of.bytes_a_step == 128 * 224 * 224 * 3 > SMALL
    assert choose_workers(None, of, cuda) == 4
    assert choose_workers(None, of, CPU) == 0
    assert choose_workers(None, shares_of(images), cuda) == 0
    assert choose_workers(None, shares_of(large, 128, shards=[slice(0, 500), slice(500, 1000)]), cuda) == 1
    assert choose_workers(3, shares_of(images), CPU) == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert choose_workers(None, of, cuda) == 1  # two cores each
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    monkeypatch.setattr(batches_module.shutil, "disk_usage", lambda path: Usage(64 * 2**20))
    assert choose_workers(None, of, cuda) == 1  # the 64 MiB of a container engine: one a step, and two ahead
    with pytest.raises(ConfigError, match=r"train\.workers 4 need 165 MiB of shared memory, and .* has 64 free.*lower it"):
        choose_workers(4, of, cuda)


class Usage:
    def __init__(self, free: int) -> None:
        self.free = free
