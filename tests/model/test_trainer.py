import math

import numpy as np
import pytest
import torch

from model.errors import TrainingError
from model.trainer import Trainer, Watch, ema_decay, learning_rate
from tests.model.conftest import make_trainer, train_config


def same(a: Trainer, b: Trainer) -> bool:
    tensors = [(a.model.state_dict(), b.model.state_dict()), (a.ema_weights(), b.ema_weights())]
    return all(torch.equal(x[name], y[name]) for x, y in tensors for name in x) and a.curve == b.curve


class StoppedError(Exception):
    pass


def stop_at(step: int) -> Watch:
    def stop(done: int) -> None:
        if done == step:
            raise StoppedError

    return Watch(step=stop)


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


def test_a_damaged_newest_checkpoint_falls_back_loudly(images: np.ndarray, tmp_path) -> None:
    whole = make_trainer(images, tmp_path / "whole")
    whole.run()
    newest = sorted((tmp_path / "whole").glob("step-*.safetensors"))[-1]
    newest.write_bytes(newest.read_bytes()[:100])
    said: list[str] = []
    resumed = make_trainer(images, tmp_path / "whole", Watch(say=said.append))
    resumed.run()
    assert same(whole, resumed)
    assert newest.name in said[0]
    assert "step 8" in said[1]


def test_only_the_newest_two_checkpoints_are_kept(images: np.ndarray, tmp_path) -> None:
    make_trainer(images, tmp_path, steps=20).run()
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["step-000000016.safetensors", "step-000000020.safetensors"]


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
    with pytest.raises(TrainingError, match=r"lower train\.lr"):
        make_trainer(images, tmp_path, lr=1.0, steps=400, warmup_steps=0, log_every=20).run()


def test_a_non_finite_loss_ends_before_a_checkpoint_can_hold_it(images: np.ndarray, tmp_path) -> None:
    trainer = make_trainer(images, tmp_path)
    with torch.no_grad():
        trainer.parameters[0].fill_(float("nan"))
    with pytest.raises(TrainingError, match="non-finite"):
        trainer.run()
    assert list(tmp_path.iterdir()) == []


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
