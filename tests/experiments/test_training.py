"""The contest's own loop: it learns, it repeats itself, looks change nothing, and what it says it took is what it took."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from experiments.contestant import Budget, Features
from experiments.features import batched
from experiments.training import RECIPE, Learner, step_flops, train
from model.rng import Draws

IMAGES = np.random.default_rng(0).integers(0, 256, (64, 4, 4, 1), np.uint8)
BUDGET = Budget(steps=40, batch_size=16)


class Copier(Learner):
    """Learns to give the 16 pixels back through 4 numbers; `lost` makes its loss no number."""

    def __init__(self, lost: bool = False) -> None:
        super().__init__()
        self.down, self.up, self.lost = nn.Linear(16, 4), nn.Linear(4, 16), lost
        self.losses: list[float] = []

    def forward(self, x0: Tensor, rows: Tensor, draws: Draws) -> Tensor:
        assert np.array_equal(rows.numpy(), np.sort(rows.numpy()))
        x = x0.flatten(1) + 0.01 * draws.normal("noise", 16)
        loss = (self.up(self.down(x)) - x).square().mean()
        self.losses.append(loss.item())
        return loss * torch.nan if self.lost else loss

    def features(self) -> Mapping[str, Features]:
        return {"code": batched(lambda x: self.down(x.flatten(1)))}

    def kept(self) -> nn.Module:
        return self.down


def test_it_learns_and_says_what_it_took() -> None:
    made = Copier()
    trained = train(lambda: made, IMAGES, budget=BUDGET, seed=0, setting=RECIPE | {"lr": 0.02})
    assert np.mean(made.losses[-5:]) < 0.8 * np.mean(made.losses[:5])
    assert trained.steps == 40
    assert trained.parameters == 16 * 4 + 4
    # forward 2 products of 2 x 16 x 16 x 4, backward twice as many but for the gradient of the images
    assert trained.flops == 40 * 5 * 2 * 16 * 16 * 4
    assert trained.cpu_seconds > 0
    assert trained.features["code"](IMAGES).shape == (64, 4)


def test_it_repeats_itself_and_looks_change_nothing() -> None:
    seen: dict[int, np.ndarray] = {}

    def look(step: int, features: Mapping[str, Features]) -> None:
        seen[step] = features["code"](IMAGES)

    def codes(seed: int, looks: tuple[int, ...] = ()) -> np.ndarray:
        budget = Budget(40, 16, looks)
        return train(Copier, IMAGES, budget=budget, seed=seed, setting=RECIPE, look=look).features["code"](IMAGES)

    first = codes(1, (7, 40))
    assert np.array_equal(first, codes(1))
    assert not np.array_equal(first, codes(2))
    assert list(seen) == [7, 40]
    assert np.array_equal(seen[40], first)
    assert not np.array_equal(seen[7], first)


def test_the_global_generator_is_left_as_it_was() -> None:
    before = torch.get_rng_state()
    train(Copier, IMAGES, budget=BUDGET, seed=0, setting=RECIPE)
    assert torch.equal(before, torch.get_rng_state())


def test_features_are_of_the_averaged_weights() -> None:
    made = Copier()
    trained = train(lambda: made, IMAGES, budget=BUDGET, seed=0, setting=RECIPE | {"warmup": 0.0, "lr": 0.05})
    assert not np.allclose(trained.features["code"](IMAGES), made.features()["code"](IMAGES))
    same = train(lambda: made, IMAGES, budget=BUDGET, seed=0, setting=RECIPE | {"ema_decay": 0.0})
    assert np.allclose(same.features["code"](IMAGES), made.features()["code"](IMAGES))


def test_no_steps_leave_the_weights_that_it_begins_with() -> None:
    trained = train(Copier, IMAGES, budget=Budget(0, 16), seed=0, setting=RECIPE)
    assert (trained.flops, trained.cpu_seconds) == (0, 0)


def test_a_lost_training_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="the loss is nan after 0 steps"):
        train(lambda: Copier(lost=True), IMAGES, budget=BUDGET, seed=0, setting=RECIPE)


def test_what_is_fused_on_a_cpu_is_counted() -> None:
    q = torch.rand(2, 4, 8, 16)
    flops = step_flops(lambda: nn.functional.scaled_dot_product_attention(q, q, q))
    assert flops == 2 * (2 * 2 * 4 * 8 * 8 * 16)
