import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from model.errors import CheckpointError, PermanentTrainingError, Stopped
from model.training import checkpoint
from model.training import trainer as trainer_module
from model.training.options import ema_decay, learning_rate
from model.training.trainer import Trainer
from tests.model.conftest import Hooks, make_trainer, train_config


def same(a: Trainer, b: Trainer) -> bool:
    tensors = [(a.model.state_dict(), b.model.state_dict()), (a.ema_weights(), b.ema_weights())]
    return all(torch.equal(x[name], y[name]) for x, y in tensors for name in x) and a.curve == b.curve


def checkpoints(work: Path) -> list[str]:
    return sorted(path.name for path in work.glob("step-*"))


class StoppedError(Exception):
    pass


def stop_at(step: int) -> Hooks:
    def stop(trainer: Trainer) -> None:
        if trainer.step == step:
            raise StoppedError

    return Hooks(stop)


def check_resumes(images: np.ndarray, tmp_path: Path, **changes: object) -> None:
    """A training that is stopped and goes on ends, bit for bit, where one does that was not."""
    whole = make_trainer(images, tmp_path / "whole", **changes)
    whole.run()
    with pytest.raises(StoppedError):
        make_trainer(images, tmp_path / "work", stop_at(7), **changes).run()
    resumed = make_trainer(images, tmp_path / "work", **changes)
    resumed.run()
    assert same(whole, resumed)


@pytest.mark.slow
def test_two_runs_are_bit_identical_and_the_seed_matters(images: np.ndarray, tmp_path) -> None:
    runs = [make_trainer(images, tmp_path / str(i), seed=seed) for i, seed in enumerate([0, 0, 1])]
    for run in runs:
        run.run()
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


@pytest.mark.parametrize("stopped", [3, 4, 7, 11])
def test_a_stopped_run_ends_where_an_unstopped_one_does(images: np.ndarray, tmp_path, stopped: int) -> None:
    """Bit for bit, though the stop falls before, on and after checkpoints (every 4) and log points (every 3)."""
    whole = make_trainer(images, tmp_path / "whole", log_every=3)
    whole.run()
    with pytest.raises(StoppedError):
        make_trainer(images, tmp_path / "work", stop_at(stopped), log_every=3).run()
    resumed = make_trainer(images, tmp_path / "work", log_every=3)
    resumed.run()
    assert same(whole, resumed)
    assert [point["step"] for point in resumed.curve] == [3, 6, 9, 12]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, [16, 20]),
        ({"keep_checkpoints": 1}, [20]),
        ({"keep_checkpoints": 4}, [8, 12, 16, 20]),
        ({"checkpoint_every": 1000, "checkpoint_minutes": 1e-9, "keep_checkpoints": 3}, [18, 19, 20]),
        ({"checkpoint_every": 1000, "checkpoint_minutes": 60.0}, [20]),
    ],
    ids=["two", "one", "four", "each is late", "none is late"],
)
def test_checkpoints_come_by_steps_or_minutes_and_the_newest_are_kept(
    images: np.ndarray, tmp_path, changes: dict, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "SAVING_SHARE", math.inf)
    make_trainer(images, tmp_path, steps=20, **changes).run()
    assert checkpoints(tmp_path) == [f"step-{step:09d}" for step in steps]


def test_checkpoints_by_the_clock_are_further_apart_where_saving_is_slow(
    images: np.ndarray, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of 2 s that came each minute, say, would cost 3 % of the time."""
    slow = checkpoint.save

    def save(*arguments) -> None:
        slow(*arguments)
        time.sleep(0.2)

    monkeypatch.setattr(checkpoint, "save", save)
    make_trainer(images, tmp_path, steps=20, checkpoint_every=1000, checkpoint_minutes=1e-9, keep_checkpoints=9).run()
    assert checkpoints(tmp_path) == ["step-000000001", "step-000000020"]  # the next one is due after 10 s


@pytest.mark.parametrize(
    ("part", "kind"), [("weights.safetensors", "flipped"), ("state.json", "truncated"), ("manifest.json", "removed")]
)
def test_a_damaged_newest_checkpoint_falls_back_and_ends_with_the_same_bits(
    images: np.ndarray, tmp_path, part: str, kind: str
) -> None:
    whole = make_trainer(images, tmp_path)
    whole.run()
    file = tmp_path / checkpoints(tmp_path)[-1] / part
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 16
    file.write_bytes({"truncated": content[: len(content) // 2], "flipped": content, "removed": b""}[kind])
    if kind == "removed":
        file.unlink()
    said: list[str] = []
    resumed = make_trainer(images, tmp_path, Hooks(message=said.append))
    resumed.run()
    assert same(whole, resumed)
    assert "step-000000012" in said[0]
    assert said[1:] == ["train: going on from the checkpoint of step 8"]


SCORES = {2: 0.3, 4: 0.5, 6: 0.5, 8: 0.4, 10: 0.2, 12: 0.5}
"""The first of the best is step 4's."""


def offering(images: np.ndarray, work: Path, scores: dict[int, float], stopped: int = 0) -> Trainer:
    """A trainer that is offered made-up scores, and stopped after a step."""

    def offer(trainer: Trainer) -> None:
        if trainer.step in scores:
            trainer.offer(scores[trainer.step])

    return make_trainer(images, work, Hooks(offer), stop_at(stopped))


@pytest.mark.parametrize("stopped", [0, 3, 5, 8, 11])
def test_the_best_average_is_kept_bit_for_bit_through_stops_and_does_not_change_training(
    images: np.ndarray, tmp_path, stopped: int
) -> None:
    plain = make_trainer(images, tmp_path / "plain")
    plain.run()
    until = make_trainer(images, tmp_path / "until", stop_at(4))
    with pytest.raises(StoppedError):
        until.run()
    if stopped:
        with pytest.raises(StoppedError):
            offering(images, tmp_path / "work", SCORES, stopped).run()
    trainer = offering(images, tmp_path / "work", SCORES)
    trainer.run()
    again = make_trainer(images, tmp_path / "work")  # it is over: nothing is offered any more
    again.run()
    for one in (trainer, again):
        assert one.best is not None
        assert (one.best.step, one.best.score) == (4, 0.5)
        assert all(torch.equal(value, one.best.weights[name]) for name, value in until.ema_weights().items())
        assert same(one, plain)


@pytest.mark.parametrize("kind", ["flipped", "removed"])
def test_a_damaged_best_average_makes_the_checkpoint_a_damaged_one(images: np.ndarray, tmp_path, kind: str) -> None:
    offering(images, tmp_path, {2: 0.3, 10: 0.6}).run()
    file = tmp_path / "step-000000012" / "best.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    if kind == "removed":
        file.unlink()
    resumed = offering(images, tmp_path, {10: 0.6})
    said: list[str] = []
    resumed.callbacks.append(Hooks(message=said.append))
    resumed.run()
    assert "best.safetensors" in said[0]
    assert resumed.best is not None
    assert (resumed.best.step, resumed.best.score) == (10, 0.6)


def test_a_wish_to_stop_is_granted_after_the_step_and_saved(images: np.ndarray, tmp_path) -> None:
    whole = make_trainer(images, tmp_path / "whole")
    whole.run()
    trainer = make_trainer(images, tmp_path / "work")
    trainer.callbacks.append(Hooks(stop=lambda: 15 if trainer.step == 6 else 0))  # neither a checkpoint nor a point is due at 6
    with pytest.raises(Stopped, match="step 6") as caught:
        trainer.run()
    assert caught.value.exit_code == 143
    assert checkpoints(tmp_path / "work") == ["step-000000004", "step-000000006"]
    resumed = make_trainer(images, tmp_path / "work")
    resumed.run()
    assert same(whole, resumed)


def test_no_step_is_twice_in_the_logs(images: np.ndarray, tmp_path) -> None:
    """Stopped at 7, when 2, 4 and 6 are logged and 4 is saved; and the line of 6 was cut off."""
    with pytest.raises(StoppedError):
        make_trainer(images, tmp_path, stop_at(7), log_every=2).run()
    rates = tmp_path / "rates.csv"
    assert [line.split(",")[0] for line in rates.read_text().splitlines()] == ["2", "4", "6"]
    rates.write_text(rates.read_text()[:-3])
    trainer = make_trainer(images, tmp_path, log_every=2)
    trainer.run()
    assert [point["step"] for point in trainer.curve] == [2, 4, 6, 8, 10, 12]
    lines = [line.split(",") for line in rates.read_text().splitlines()]
    assert [int(step) for step, _, _ in lines] == [2, 4, 6, 8, 10, 12]


def test_another_run_configuration_is_refused(images: np.ndarray, tmp_path) -> None:
    def trainer(**changes: object) -> Trainer:
        configuration = {"train.lr": 0.1, "dataset": "a" * 64, "model/dier.py": "b" * 64} | changes
        return make_trainer(images, tmp_path, configuration=configuration)

    trainer().run()
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(CheckpointError) as caught:
        trainer(**{"train.lr": 0.2, "model/dier.py": "c" * 64, "model.pool": "flat"}).run()
    for part in ("train.lr was 0.1, is 0.2", f"model/dier.py was {'b' * 12}, is {'c' * 12}", 'model.pool was absent, is "flat"'):
        assert part in str(caught.value)
    assert "dataset" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert before == {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    trainer().run()


def test_a_folder_has_one_training_at_a_time(images: np.ndarray, tmp_path) -> None:
    second = make_trainer(images, tmp_path)
    first = make_trainer(images, tmp_path, Hooks(lambda trainer: second.run()))
    with pytest.raises(CheckpointError, match="another training is using"):
        first.run()
    second.run()  # the first has let go


@pytest.mark.slow
def test_the_loss_falls(images: np.ndarray, tmp_path) -> None:
    trainer = make_trainer(images, tmp_path, steps=150, log_every=50)
    trainer.run()
    losses = [point["loss"] for point in trainer.curve]
    assert losses[-1] < 0.6 * losses[0]


def test_bf16_trains_too(images: np.ndarray, tmp_path) -> None:
    trainer = make_trainer(images, tmp_path, precision="bf16")
    trainer.run()
    assert all(p.dtype == torch.float32 for p in trainer.parameters)
    assert math.isfinite(trainer.curve[-1]["loss"])


def test_an_absurd_learning_rate_ends_with_cause_and_cure(images: np.ndarray, tmp_path) -> None:
    with pytest.raises(PermanentTrainingError, match=r"lower train\.lr"):
        make_trainer(images, tmp_path, lr=1.0, steps=400, warmup_steps=0, log_every=20).run()


@pytest.mark.parametrize("log_every", [4, 7], ids=["seen by the curve", "seen by saving"])
def test_a_non_finite_loss_ends_before_a_checkpoint_can_hold_it(images: np.ndarray, tmp_path, log_every: int) -> None:
    trainer = make_trainer(images, tmp_path, log_every=log_every)
    with torch.no_grad():
        trainer.parameters[0].fill_(float("nan"))
    with pytest.raises(PermanentTrainingError, match="non-finite"):
        trainer.run()
    assert checkpoints(tmp_path) == []


def test_bucket_losses_average_to_the_loss(images: np.ndarray, tmp_path) -> None:
    trainer = make_trainer(images, tmp_path, steps=1, log_every=1, warmup_steps=1)
    x0, t, noise = trainer.batch(0)
    losses = trainer.model(x0, t, noise)
    trainer.run()
    point = trainer.curve[0]
    assert point["loss"] == pytest.approx(losses.mean().item(), rel=1e-5)
    assert point["loss_t200_399"] == pytest.approx(losses[(t >= 200) & (t < 400)].mean().item(), rel=1e-5)


def test_learning_rate_warms_up_then_stays_or_falls_along_a_cosine() -> None:
    constant = train_config(steps=100, warmup_steps=10, lr=0.1)
    assert learning_rate(constant, 0) == pytest.approx(0.01)
    assert learning_rate(constant, 9) == learning_rate(constant, 99) == pytest.approx(0.1)
    cosine = train_config(steps=110, warmup_steps=10, lr=0.1, lr_decay="cosine")
    assert learning_rate(cosine, 60) == pytest.approx(0.05)
    assert learning_rate(cosine, 110) == pytest.approx(0, abs=1e-12)


def test_the_average_follows_its_recursion(images: np.ndarray, tmp_path) -> None:
    trainer = make_trainer(images, tmp_path)
    expected = trainer.parameters[0].detach().clone()
    for step in range(5):
        trainer._train_step()
        trainer.step += 1
        decay = ema_decay(trainer.config, step)
        expected = decay * expected + (1 - decay) * trainer.parameters[0].detach()
    torch.testing.assert_close(trainer.ema[0], expected)
    assert ema_decay(trainer.config, 0) == 0.1
    assert ema_decay(trainer.config, 10**6) == 0.99
