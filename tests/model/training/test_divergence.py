"""The failures of training: each made to happen for real where that is cheap, else on a constructed curve."""

import re

import numpy as np
import pytest

from model.errors import PermanentTrainingError
from model.features import shuffled_gap
from model.training.divergence import check_point, encoder_faded, encoder_is_dead, unused_encoder
from tests.model.conftest import make_trainer

TIMESTEPS = [0, 100, 300, 500, 700]


def curve(losses: list[float], encoder: list[float] | float = 0.03, every: int = 100) -> list[dict[str, float]]:
    norms = encoder if isinstance(encoder, list) else [encoder] * len(losses)
    return [
        {"step": every * (i + 1), "loss": loss, "lr": 1e-3, "grad_norm_encoder": norm, "grad_norm_denoiser": 0.5}
        for i, (loss, norm) in enumerate(zip(losses, norms, strict=True))
    ]


def check(points: list[dict[str, float]], warmup: int = 100) -> None:
    """As the trainer does, a point at a time."""
    for i, point in enumerate(points):
        check_point(point, int(point["step"]) - warmup, points[:i])


@pytest.mark.parametrize(
    "losses",
    [
        [1.0, 1.0, 0.8, 0.3, 0.2],
        [0.5, 0.2, 1.3, 1.1, 0.2, 0.1],  # a spike of 200 steps
        [1.0, 1.0, 1.0, 0.8],  # the last steps of warm-up, and 200 more
    ],
)
def test_what_heals_is_no_collapse(losses: list[float]) -> None:
    check(curve(losses))


def test_a_loss_that_goes_back_to_predicting_nothing_is_a_collapse_even_while_warming_up() -> None:
    points = curve([0.6, 0.2, 0.9, 1.0, 1.0, 0.999], [0.03, 0.02, 1e-8, 1e-8, 1e-8, 5e-9])
    check(points[:-1], warmup=5000)
    with pytest.raises(PermanentTrainingError, match=r"step 600 .* back from 0\.200 \(step 200\) .* 5\.0e-09.*lower train\.lr"):
        check(points, warmup=5000)


def test_a_loss_that_never_fell_is_a_collapse_once_warm_up_is_long_over() -> None:
    check(curve([1.0] * 50), warmup=4800)
    with pytest.raises(PermanentTrainingError, match=r"still that of predicting no noise"):
        check(curve([1.0] * 51), warmup=4800)


def test_gradients_that_vanish_are_a_collapse_whatever_the_loss() -> None:
    points = [point | {"grad_norm_denoiser": 0.0} for point in curve([0.3] * 4, [1e-9] * 4)]
    with pytest.raises(PermanentTrainingError, match=r"gradients collapsed by step 400: norms 1\.0e-09"):
        check(points)


def test_sparse_points_stand_for_the_steps_between_them() -> None:
    with pytest.raises(PermanentTrainingError, match="step 2000"):
        check(curve([0.2, 0.95], every=1000))


@pytest.mark.slow
def test_too_high_a_learning_rate_loses_the_loss_again(images: np.ndarray, tmp_path) -> None:
    """For real: the loss falls while the rate warms up, and goes back to 1 and beyond as the rate gets higher."""
    trainer = make_trainer(images, tmp_path, lr=1.0, steps=1500, warmup_steps=300, log_every=20, checkpoint_every=10**6)
    with pytest.raises(PermanentTrainingError, match=r"back from 0\.\d+ \(step \d+\).*lower train\.lr"):
        trainer.run()


@pytest.mark.slow
def test_a_healthy_encoder_is_not_taken_for_dead_while_it_is_young(images: np.ndarray, tmp_path) -> None:
    """For real; one that a high rate killed for real is in tests/components/training/test_online_probe.py."""
    model = {"dim": 48, "heads": 3, "embed_dim": 32}
    trainer = make_trainer(images, tmp_path, model=model, batch_size=32, lr=0.002, steps=300, warmup_steps=50, checkpoint_every=300)
    trainer.run()
    gap = shuffled_gap(trainer.ema_model(), trainer.images, TIMESTEPS, seed=0)
    assert not encoder_is_dead(row["ratio"] for row in gap)


def test_an_encoder_that_lost_its_gradient_needs_a_lower_rate() -> None:
    gap = [{"t": t, "ratio": 1.00001} for t in TIMESTEPS]
    line = unused_encoder(gap, 1.01, curve([0.2] * 8, [0.03] * 5 + [0.001] * 3))
    assert "gradient norm fell from 3.0e-02 to 1.0e-03: lower train.lr" in (line or "")


def test_a_slow_encoder_is_given_time_rather_than_a_lower_rate() -> None:
    gap = [{"t": t, "ratio": 1.001} for t in TIMESTEPS]
    line = unused_encoder(gap, 1.01, curve([0.2] * 10, [0.01 * i for i in range(10)]))
    assert re.match(r"dead encoder.*at most 1\.001 times.*train longer", line or "")
    assert unused_encoder(gap, 1.0005) is None


def test_spikes_and_short_curves_are_not_fading() -> None:
    assert not encoder_faded([])
    assert not encoder_faded(curve([0.2] * 3, [0.1, 0.001, 0.001]))
    assert not encoder_faded(curve([0.2] * 8, [1e7, 0.03, 0.03, 0.03, 0.03, 0.01, 0.01, 0.01]))
    assert encoder_faded(curve([0.2] * 8, [0.03, 0.03, 0.03, 0.03, 0.03, 0.001, 50.0, 0.001]))
