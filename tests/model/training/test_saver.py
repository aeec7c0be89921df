"""Checkpoints in a thread: the loop goes on meanwhile, whoever must wait does, and what goes wrong is raised in the loop."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from model.errors import CheckpointError, PermanentTrainingError, Stopped
from model.training import checkpoint
from model.training.checkpoint import PARTS, RunningCheckpoint, hold, newest
from model.training.saver import Saver
from model.training.trainer import Trainer
from tests.model.conftest import Hooks, make_trainer

CPU = torch.device("cpu")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Writing stops before its rename until what this gives is called."""
    go_on = threading.Event()

    def phase(name: str) -> None:
        if name == "manifest":
            assert go_on.wait(20)

    monkeypatch.setattr(checkpoint, "phase", phase)
    return go_on.set


def whole(work: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in work.glob("step-*"))


def test_the_loop_goes_on_and_the_next_save_waits(images: np.ndarray, tmp_path: Path, slow: Callable[[], None]) -> None:
    seen: dict[int, list[int]] = {}

    def look(trainer: Trainer) -> None:
        seen[trainer.step] = whole(tmp_path)
        if trainer.step == 7:
            slow()

    make_trainer(images, tmp_path, Hooks(look)).run()
    assert seen[5] == seen[6] == seen[7] == []  # that of step 4 is under way
    assert seen[9][:1] == [4]  # that of step 8 waited for it
    assert whole(tmp_path) == [8, 12]  # that of the end was waited for


def test_what_is_saved_is_of_its_step_whatever_comes_after(images: np.ndarray, tmp_path: Path, slow: Callable[[], None]) -> None:
    """Weights, moments, average and curve all change while it is written."""
    kept: dict[str, Tensor] = {}

    def look(trainer: Trainer) -> None:
        if trainer.step == 4:
            kept.update({name: tensor.clone() for name, tensor in trainer.ema_weights().items()})
        if trainer.step == 7:
            slow()

    make_trainer(images, tmp_path, Hooks(look), log_every=1, steps=7, checkpoint_every=4, keep_checkpoints=9).run()
    running = checkpoint._read(tmp_path / "step-000000004")
    assert all(torch.equal(running.tensors["ema"][name], tensor) for name, tensor in kept.items())
    assert [point["step"] for point in running.state["curve"]] == [1, 2, 3, 4]


def test_a_disk_that_refuses_ends_the_training_at_a_later_step(
    images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def phase(name: str) -> None:
        if name == "weights":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "phase", phase)
    waiting = Hooks(lambda trainer: time.sleep(0.05))
    trainer = make_trainer(images, tmp_path, waiting, checkpoint_every=4, steps=1000, log_every=1000)
    with pytest.raises(CheckpointError, match=r"checkpoint of step 4 in .*No space left"):
        trainer.run()
    assert 5 <= trainer.step <= 8  # by the next save at the latest
    assert list(tmp_path.glob("*step-*")) == []
    with hold(tmp_path):  # it has let go
        pass


@pytest.mark.parametrize("end", ["stopped", "last"])
def test_a_stop_and_the_end_wait_and_a_refusal_is_told_instead(
    images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """Nobody is told that a step is saved which is not."""

    def phase(name: str) -> None:
        time.sleep(0.05)
        if name == "manifest":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "phase", phase)
    trainer = make_trainer(images, tmp_path, checkpoint_every=1000, steps=3)
    if end == "stopped":
        trainer.callbacks.append(Hooks(stop=lambda: 15 if trainer.step == 2 else 0))
    with pytest.raises(CheckpointError, match="No space left"):
        trainer.run()


def test_a_stop_returns_when_its_checkpoint_is_whole(images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "phase", lambda name: time.sleep(0.03))
    trainer = make_trainer(images, tmp_path)
    trainer.callbacks.append(Hooks(stop=lambda: 15 if trainer.step == 6 else 0))
    with pytest.raises(Stopped):
        trainer.run()
    assert whole(tmp_path) == [4, 6]


def test_an_error_waits_for_the_checkpoint_under_way_and_is_the_one_that_is_raised(
    images: np.ndarray, tmp_path: Path, slow: Callable[[], None]
) -> None:
    def fail(trainer: Trainer) -> None:
        if trainer.step == 5:
            threading.Timer(0.2, slow).start()
            raise PermanentTrainingError("the encoder died")

    with pytest.raises(PermanentTrainingError, match="died"):
        make_trainer(images, tmp_path, Hooks(fail)).run()
    assert whole(tmp_path) == [4]


def test_copies_are_made_once_and_written_over(tmp_path: Path) -> None:
    tensor = torch.zeros(5)
    with Saver(tmp_path, 2, CPU) as saver:
        places = set()
        for step in range(1, 4):
            tensor.fill_(step)
            copies = saver.copy({part: iter([("a", tensor)]) for part in PARTS})
            places.add(copies["ema"]["a"].data_ptr())
            saver.save(RunningCheckpoint(step, copies, {}))
            tensor.fill_(-1)  # it trains on
    assert len(places) == 1
    running = newest(tmp_path, {}, 2, print)
    assert running is not None
    assert all(running.tensors[part]["a"].tolist() == [3] * 5 for part in PARTS)
    assert saver.seconds() > 0


class Waits(TorchDispatchMode):
    """Notes what would wait for the device on CUDA: a number read out of a tensor, a tensor that comes to the host."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in str(func) for name in self.WAITING):
            self.found.append(str(func))
        return func(*args, **kwargs or {})


def test_a_step_waits_for_the_device_nowhere(images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all that varies a step, and without what the batch's own host tensors need."""
    varied = {"views": "crop_flip", "mask_ratio": 0.5, "condition_dropout": 0.3, "loss_weight": "min_snr", "micro_batch": 8}
    trainer = make_trainer(images, tmp_path, **varied)
    made = trainer.batch(0)
    trainer.take = lambda step: made
    host = {name: getattr(Tensor, name) for name in ("cpu", "tolist", "numpy", "item")}
    called: list[str] = []
    for name, method in host.items():
        monkeypatch.setattr(Tensor, name, lambda *a, _name=name, _method=method, **k: (called.append(_name), _method(*a, **k))[1])
    with Waits() as waits:
        for _ in range(3):
            trainer._train_step()
            trainer.step += 1
            trainer._agree()
    assert waits.found == called == []
    trainer.window.point(3, 1e-3)
    assert called  # and it would be seen
