"""Images of a step from one file or shards, when they are needed or by threads ahead; and that these end with the training."""

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from model.training.batches import SMALL, Batches, choose_workers
from model.training.distributed import Processes
from model.training.order import make_order
from model.training.shares import Shares
from tests.data.test_shards import written
from tests.model.conftest import make_trainer
from tests.model.training.test_trainer import StoppedError, same, stop_at

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
    """Images that cannot be read."""

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
    batches = Batches(shares_of(mapped), CPU)
    for step in (0, 1, 7, 3):
        found = batches.take(step)
        assert found.dtype == torch.uint8
        np.testing.assert_array_equal(found.numpy(), mapped[make_order(0, 300, None, 16, 8).rows(step, slice(0, 16))])


def test_the_next_step_is_announced_to_the_system(mapped: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda file, offset, size, advice: told.append((offset - 128) // size))
    batches = Batches(shares_of(mapped), CPU)
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
        Batches(shares_of(quiet), CPU).take(0)


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


def test_shards_on_disk_give_the_same_training_as_their_stand_in(images: np.ndarray, tmp_path: Path) -> None:
    stand_in = ShardedImagesDouble(images, 40)
    on_disk = written(tmp_path / "shards", images, np.zeros(len(images), np.int64), each=40)
    assert on_disk.shards == stand_in.shards
    trainers = [make_trainer(of, tmp_path / str(i), shards=of.shards) for i, of in enumerate((stand_in, on_disk))]  # type: ignore[arg-type]
    for trainer in trainers:
        trainer.run()
    assert same(*trainers)


def test_what_goes_wrong_in_reading_comes_out_as_it_is() -> None:
    with pytest.raises(OSError, match=r"^the images went away$"):
        Batches(shares_of(np.zeros((30, 8, 8, 1), np.uint8).view(Failing)), CPU).take(0)


@pytest.mark.parametrize("stopped", [3, 7])
def test_with_workers_a_training_is_the_same_and_resumes_exactly(images: np.ndarray, tmp_path: Path, stopped: int) -> None:
    plain = make_trainer(images, tmp_path / "plain", workers=0)
    plain.run()
    with pytest.raises(StoppedError):
        make_trainer(images, tmp_path / "work", stop_at(stopped), workers=2).run()
    assert not reading()
    resumed = make_trainer(images, tmp_path / "work", workers=2)
    resumed.run()
    assert same(plain, resumed)
    assert not reading()


def reading() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("images")]


def test_workers_hand_out_steps_in_turn_again_after_a_jump_and_read_ahead(mapped: np.ndarray) -> None:
    batches, plain = (Batches(shares_of(mapped), CPU, workers) for workers in (2, 0))
    for step in (0, 1, 2, 9, 10, 3, 19):
        assert torch.equal(batches.take(step), plain.take(step))
        assert 0 < len(reading()) <= 2
        assert len(batches._begun) == 4
    batches.close()
    assert not reading()
    batches.close()


def test_what_a_worker_cannot_read_is_said_where_the_step_is_taken(images: np.ndarray, tmp_path: Path) -> None:
    trainer = make_trainer(images.view(Failing), tmp_path, workers=2)
    with pytest.raises(OSError, match=r"^the images went away$"):
        trainer.run()
    assert not reading()


def test_workers_are_chosen_by_device_size_and_cores(images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, large = torch.device("cuda"), np.broadcast_to(np.zeros(1, np.uint8), (1000, 224, 224, 3))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(16), raising=False)
    of = shares_of(large, 128)
    assert of.bytes_a_step == 128 * 224 * 224 * 3 > SMALL
    assert choose_workers(None, of, cuda) == 4
    assert choose_workers(None, of, CPU) == 0
    assert choose_workers(None, shares_of(images), cuda) == 0
    assert choose_workers(3, shares_of(images), CPU) == 3
    sharded = shares_of(large, 128, shards=[slice(0, 500), slice(500, 1000)])
    assert [choose_workers(asked, sharded, cuda) for asked in (None, 4, 0)] == [1, 1, 0]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "6")
    assert choose_workers(None, of, cuda) == 1  # two cores each


@pytest.mark.parametrize(("device", "set_"), [("cpu", []), ("cuda", []), ("cuda:1", [torch.device("cuda:1")])])
def test_a_worker_takes_its_process_s_gpu_where_that_has_a_number(
    images: np.ndarray, monkeypatch: pytest.MonkeyPatch, device: str, set_: list[torch.device]
) -> None:
    found: list[torch.device] = []

    def set_device(device: torch.device) -> None:  # as PyTorch's own, which refuses a device without a number
        torch.cuda._utils._get_device_index(device)
        found.append(device)

    monkeypatch.setattr(torch.cuda, "set_device", set_device)
    Batches(shares_of(images), torch.device(device), workers=1)._set_device()
    assert found == set_
