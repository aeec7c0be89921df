"""The variance and covariance terms: lightly's, and the same gradients whatever the number of micro-batches and processes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from lightly.loss import VICRegLoss
from torch import Tensor

from model.dier import DiER
from model.training.distributed import Processes
from model.training.trainer import Trainer
from model.training.variance_covariance import gradient_of_share, variance_covariance
from tests.model.conftest import make_trainer, small_model
from tests.model.training.test_distributed import curve, harness

WEIGHT = 0.5


def embeddings(number: int, spread: float = 1.0) -> Tensor:
    """Of 8 numbers, some of which vary together."""
    drawn = torch.randn(number, 8, generator=torch.Generator().manual_seed(0))
    return spread * drawn @ torch.rand(8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("spread", [1e-3, 0.3, 3.0])
@pytest.mark.parametrize("number", [2, 40])
def test_the_term_is_lightlys_for_two_views_that_are_one(number: int, spread: float) -> None:
    v = embeddings(number, spread)
    torch.testing.assert_close(variance_covariance(v), VICRegLoss(lambda_param=0, mu_param=1, nu_param=1 / 25)(v, v))


def test_it_is_zero_for_numbers_that_vary_enough_and_not_together_and_grows_by_either_fault() -> None:
    apart = torch.linalg.qr(torch.cat([torch.ones(40, 1), embeddings(40)], dim=1))[0][:, 1:] * 39**0.5  # deviations of 1
    assert variance_covariance(1.01 * apart) == pytest.approx(0, abs=1e-6)
    assert variance_covariance(0.5 * apart) == pytest.approx(0.5, abs=1e-3)
    twice = 1.01 * torch.cat([apart[:, :4], apart[:, :4]], dim=1)
    assert variance_covariance(twice) == pytest.approx(0.08 * 8 * 1.01**4 / 8, rel=1e-3)
    assert variance_covariance(torch.ones(40, 8)) == pytest.approx(0.99, abs=1e-4)


def one_pass(trainer: Trainer) -> list[Tensor]:
    """Gradients of the first step by autograd through the whole batch at once, with both losses in one sum."""
    model = DiER(small_model())
    x0, t, noise = trainer.batch(0)
    v = model.encoder(x0, t)
    loss = model.denoising_loss(x0, t, noise, v).mean() + WEIGHT * variance_covariance(v)
    return list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("micro", [None, 5, 1])
def test_the_gradients_are_those_of_one_sum_over_the_whole_batch(images: np.ndarray, tmp_path: Path, micro: int | None) -> None:
    trainer = make_trainer(images, tmp_path, variance_covariance=WEIGHT, micro_batch=micro)
    x0, t, noise = trainer.batch(0)
    losses = trainer._backward(x0=x0, t=t, noise=noise)
    for parameter, expected in zip(trainer.parameters, one_pass(trainer), strict=True):
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-3, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(losses, DiER(small_model())(x0, t, noise))  # what is watched is the denoising loss alone


def test_halves_of_a_batch_by_themselves_would_have_other_gradients(images: np.ndarray, tmp_path: Path) -> None:
    """So the test above can fail."""
    v = embeddings(16)
    whole = gradient_of_share(v, WEIGHT, 16, Processes())
    halves = [gradient_of_share(half, WEIGHT / 2, 8, Processes()) for half in v.split(8)]
    assert (torch.cat(halves) - whole).abs().max() > 0.1 * whole.abs().max()


def test_the_encoder_is_given_the_terms_gradient_where_the_embedding_is_withheld(images: np.ndarray, tmp_path: Path) -> None:
    trainer = make_trainer(images, tmp_path, variance_covariance=WEIGHT)
    x0, t, noise = trainer.batch(0)
    trainer._backward(x0=x0, t=t, noise=noise, condition_mask=torch.zeros(16))
    assert all(parameter.grad is not None for parameter in trainer.parameters)
    assert trainer.model.encoder.head.weight.grad.abs().max() > 0


@pytest.mark.slow
def test_embeddings_spread_by_it(images: np.ndarray, tmp_path: Path) -> None:
    """Without it the default's v_t of a few steps point one way; with it each number varies over images."""
    deviation = {}
    for weight in (0.0, 1.0):
        trainer = make_trainer(images, tmp_path / str(weight), steps=40, log_every=20, variance_covariance=weight)
        trainer.run()
        with torch.no_grad():
            x0, t, _ = trainer.batch(100)
            deviation[weight] = float(trainer.model.encode(x0, t).std(dim=0).mean())
    assert deviation[1.0] > 1.5 * deviation[0.0]


TRAININGS = {
    name: asked | {"changes": {"variance_covariance": WEIGHT}}
    for name, asked in {
        "one": {"processes": 1},
        "three": {"processes": 3},  # of 6, 7 and 7 images
        "micro": {"processes": 2, "micro": 3},
        "sharded": {"processes": 2, "sharded": True},
        "sharded micro": {"processes": 3, "sharded": True, "micro": 3},
    }.items()
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a folder for each of TRAININGS, and one without the term."""
    folder = tmp_path_factory.mktemp("runs")
    done = harness(folder, TRAININGS | {"plain": {"processes": 1}})
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TRAININGS if name != "one"])
def test_processes_shards_and_micro_batches_train_as_one_does(runs: Path, name: str) -> None:
    np.testing.assert_allclose(curve(runs / name), curve(runs / "one"), rtol=2e-5, atol=1e-6)
    assert not np.allclose(curve(runs / "plain"), curve(runs / "one"), rtol=2e-3)
