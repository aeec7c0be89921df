"""Targets, weights and trivial losses against closed forms written here by hand."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from model.config import NUM_TIMESTEPS, PREDICTIONS, SCHEDULES, ModelConfig
from model.dier import DiER
from model.errors import ConfigError, PermanentTrainingError
from model.features import denoise, shuffled_gap
from model.images import to_images, to_tensor
from model.objective import choose_prediction, clean, loss_weight, target, timestep_shares, too_narrow, trivial_loss
from model.schedule import add_noise, alpha_bars, log_snr
from model.training.divergence import check_point
from tests.model.conftest import make_trainer, small_model

T = torch.tensor([0, 3, 100, 300, 500, 700, 900, 990])


@pytest.fixture
def drawn() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0, noise, error = torch.randn(3, 8, 1, 6, 6, generator=generator, dtype=torch.float64)
    return x0, noise, error


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_what_is_predicted_is_noise_image_or_their_rotation(schedule: str, drawn: tuple[Tensor, ...]) -> None:
    x0, noise, _ = drawn
    alpha_bar = alpha_bars(schedule)[T]
    alpha, sigma = (part.view(-1, 1, 1, 1) for part in (alpha_bar.sqrt(), (1 - alpha_bar).sqrt()))
    assert torch.equal(target("eps", x0, noise, alpha_bar), noise)
    assert torch.equal(target("x0", x0, noise, alpha_bar), x0)
    v = target("v", x0, noise, alpha_bar)
    torch.testing.assert_close(v, alpha * noise - sigma * x0)
    x_t = add_noise(x0, noise, alpha_bar)
    torch.testing.assert_close(alpha * x_t - sigma * v, x0)  # the rotation turned back
    torch.testing.assert_close(sigma * x_t + alpha * v, noise)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_right_prediction_gives_the_image_back(schedule: str, prediction: str, drawn: tuple[Tensor, ...]) -> None:
    x0, noise, _ = drawn
    alpha_bar = alpha_bars(schedule)[T]
    said = target(prediction, x0, noise, alpha_bar)
    torch.testing.assert_close(clean(prediction, add_noise(x0, noise, alpha_bar), said, alpha_bar), x0, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("weighting", ["min_snr", "v_capped"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_weighting_counts_one_error_in_the_image_alike_whatever_is_predicted(
    schedule: str, weighting: str, drawn: tuple[Tensor, ...]
) -> None:
    """w |x0 - estimate|^2, w = min(SNR, 5) or min(SNR + 1, 20), for the prediction that implies that estimate."""
    x0, noise, error = drawn
    alpha_bar = alpha_bars(schedule)[T]
    alpha, sigma = (part.view(-1, 1, 1, 1) for part in (alpha_bar.sqrt(), (1 - alpha_bar).sqrt()))
    x_t, estimate = add_noise(x0, noise, alpha_bar), x0 + error
    said_noise = (x_t - alpha * estimate) / sigma
    said = {"eps": said_noise, "x0": estimate, "v": alpha * said_noise - sigma * estimate}
    snr = np.exp([log_snr(int(t), schedule) for t in T])
    counts = np.minimum(snr, 5) if weighting == "min_snr" else np.minimum(snr + 1, 20)
    expected = torch.from_numpy(counts) * (error**2).mean(dim=(1, 2, 3))
    for prediction, value in said.items():
        weight = loss_weight(weighting, prediction, alpha_bars(schedule))
        assert weight is not None
        found = weight[T] * ((value - target(prediction, x0, noise, alpha_bar)) ** 2).mean(dim=(1, 2, 3))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_auto_is_the_image_where_a_patch_has_more_numbers_than_the_width_and_noise_there_is_warned_of() -> None:
    assert [choose_prediction("auto", numbers, 192) for numbers in (4, 192, 193, 768)] == ["eps", "eps", "x0", "x0"]
    for wanted in PREDICTIONS:
        assert choose_prediction(wanted, 768, 192) == wanted
        wide = {
            "image_height": 16,
            "image_width": 16,
            "channels": 3,
            "patch_size": 8,
            "prediction": wanted,
        }  # 192 numbers, width 32
        said = too_narrow(small_model(**wide))
        assert too_narrow(small_model(prediction=wanted)) is None
        assert (said is None) == (wanted == "x0")
        assert said is None or f"model.prediction {wanted} with patches of 192 numbers and a width of 32" in said


def test_min_snr_in_the_papers_own_numbers() -> None:
    alpha_bar = torch.tensor([20 / 21, 5 / 6, 1 / 2], dtype=torch.float64)  # SNR 20, 5 and 1
    expected = {"eps": [0.25, 1, 1], "v": [5 / 21, 5 / 6, 1 / 2], "x0": [5, 5, 1]}
    for prediction, values in expected.items():
        torch.testing.assert_close(loss_weight("min_snr", prediction, alpha_bar), torch.tensor(values, dtype=torch.float32))
        assert loss_weight("uniform", prediction, alpha_bar) is None
    assert [loss_weight("auto", prediction, alpha_bar) is None for prediction in PREDICTIONS] == [True, True, False]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("mean", "std"), [(-0.5, 1.5), (2.0, 0.5)])
def test_timesteps_are_drawn_so_that_log_snr_is_normal(schedule: str, mean: float, std: float) -> None:
    """Against the normal distribution itself: the share of all t up to a log-SNR is its cumulative distribution."""
    shares = timestep_shares(alpha_bars(schedule), mean=mean, std=std)
    levels = np.array([log_snr(t, schedule) for t in range(NUM_TIMESTEPS)])
    assert shares.sum().item() == pytest.approx(1)
    for level in mean + std * np.array([-2, -1, 0, 1, 2]):
        assert shares[levels <= level].sum().item() == pytest.approx(stats.norm.cdf(level, mean, std), abs=0.02)
    assert torch.equal(timestep_shares(alpha_bars(schedule), fixed=3).nonzero(), torch.tensor([[3]]))


def test_a_training_draws_timesteps_as_it_is_told(images: np.ndarray, tmp_path) -> None:
    def drawn(name: str, **settings: object) -> Tensor:
        trainer = make_trainer(images, tmp_path / name, **settings)
        return torch.cat([trainer.batch(step)[1] for step in range(200)])

    t = drawn("normal", timesteps="log_snr", log_snr_mean=-0.5, log_snr_std=1.5)
    levels = torch.logit(alpha_bars("linear"))[t]
    error = 1.5 / len(t) ** 0.5
    assert levels.mean().item() == pytest.approx(-0.5, abs=4 * error)
    assert levels.std().item() == pytest.approx(1.5, abs=4 * error)
    assert drawn("one", fixed_timestep=999).unique().tolist() == [999]


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_trivial_loss_is_that_of_the_best_guess_that_does_not_look(images: np.ndarray, schedule: str, prediction: str) -> None:
    """Measured: over many t and noises, the mean over images of what should be said is the best such guess."""
    x0 = to_tensor(images).double()
    generator = torch.Generator().manual_seed(1)
    losses = []
    for t in range(0, 1000, 10):
        alpha_bar = alpha_bars(schedule)[torch.full((len(x0),), t)]
        said = target(prediction, x0, torch.randn(x0.shape, generator=generator, dtype=torch.float64), alpha_bar)
        losses.append(said.var(0, unbiased=False).mean().item())
    variance = x0.var(0, unbiased=False).mean().item()
    assert trivial_loss(prediction, alpha_bars(schedule), variance) == pytest.approx(np.mean(losses), rel=0.01)
    shares = timestep_shares(alpha_bars(schedule), mean=-0.5, std=1.5)
    weighed = np.average(losses, weights=shares.view(100, 10).sum(1))
    assert trivial_loss(prediction, alpha_bars(schedule), variance, shares) == pytest.approx(weighed, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_network_that_says_the_same_for_every_image_is_a_collapse_and_a_trained_one_is_not(
    images: np.ndarray, tmp_path, prediction: str
) -> None:
    """For real: the last layer answers with the mean image and nothing else, so that only noise, or what v has of it, is missed."""
    trainer = make_trainer(images, tmp_path / "well", model={"prediction": prediction}, steps=120, lr=2e-3, log_every=40)
    trainer.run()
    assert trainer.curve[-1]["loss"] < 0.85 * trainer.trivial
    x0, t, noise = (torch.cat(parts) for parts in zip(*(trainer.batch(step) for step in range(60)), strict=True))
    alpha_bar = trainer.model.alpha_bar[t]
    wanted = target(prediction, x0, noise, alpha_bar)
    mean = to_tensor(images).mean(0)
    same = {"eps": torch.zeros_like(x0), "x0": mean.expand_as(x0), "v": -(1 - alpha_bar).sqrt().view(-1, 1, 1, 1) * mean}[
        prediction
    ]
    loss = ((wanted - same) ** 2).mean().item()
    assert loss == pytest.approx(trainer.trivial, rel=0.05)
    point = {"step": 5000, "lr": 1e-3, "grad_norm_encoder": 0.1, "grad_norm_denoiser": 0.5}
    words = r"no noise \(1\.0\)" if prediction == "eps" else rf"the same for every image \({trainer.trivial:.3f}\)"
    if prediction != "eps":
        check_point(point | {"loss": loss}, 2000, (), trainer.trivial)  # time is given to fall
    with pytest.raises(PermanentTrainingError, match=f"that of predicting {words}"):
        check_point(point | {"loss": loss}, 4000, (), trainer.trivial)
    check_point(point | {"loss": 0.8 * loss}, 4000, (), trainer.trivial)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_denoised_images_come_from_what_is_predicted(images: np.ndarray, schedule: str, prediction: str) -> None:
    """A denoiser that knows the answer (a stand-in): the clean image comes back, whatever v_t is."""
    model = DiER(small_model(schedule=schedule, prediction=prediction)).eval()
    x0 = to_tensor(images[:6])

    class Oracle(torch.nn.Module):
        def forward(self, x_t: Tensor, t: Tensor, v: Tensor) -> Tensor:
            alpha_bar = alpha_bars(schedule)[t].view(-1, 1, 1, 1)
            noise = (x_t.double() - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt()
            return target(prediction, x0.double(), noise, alpha_bar.flatten()).float()

    model.denoiser = Oracle()
    for t in (20, 300, 600):
        noisy, estimate = denoise(model, images[:6], t, seed=0)
        np.testing.assert_allclose(estimate.astype(int), images[:6].astype(int), atol=1)
        assert not np.array_equal(noisy, estimate)
    t = torch.tensor([20, 100, 300, 500, 700, 900])
    assert model.denoising_loss(x0, t, torch.randn_like(x0), torch.zeros(6, 16)).max() < 1e-5


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_gap_is_told_at_the_models_own_log_snr(images: np.ndarray, schedule: str) -> None:
    rows = shuffled_gap(DiER(small_model(schedule=schedule)).eval(), images[:6], [20, 600], seed=0)
    assert [row["log_snr"] for row in rows] == [log_snr(20, schedule), log_snr(600, schedule)]


@pytest.mark.slow
def test_the_weight_is_in_the_gradient_and_not_in_the_curve(images: np.ndarray, tmp_path) -> None:
    plain, weighted = (make_trainer(images, tmp_path / how, loss_weight=how, micro_batch=5) for how in ("uniform", "min_snr"))
    x0, t, noise = plain.batch(0)
    losses = [one._backward(x0, t, noise) for one in (plain, weighted)]
    assert torch.equal(*losses)
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[t]
    snr = alpha_bar / (1 - alpha_bar)
    counted = (weighted.model(x0, t, noise) * torch.from_numpy(np.minimum(snr, 5) / snr)).mean()
    expected = torch.autograd.grad(counted, list(weighted.model.parameters()))
    for parameter, gradient in zip(weighted.model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_a_model_from_before_these_settings_is_read_as_what_it_was(tmp_path) -> None:
    old = (
        '{"depth": 2, "dim": 32, "heads": 2, "image_height": 8, "image_width": 8, "channels": 1, "patch_size": 2, "embed_dim": 16}'
    )
    (tmp_path / "config.json").write_text(old)
    config = ModelConfig.load(tmp_path / "config.json")
    assert (config.schedule, config.prediction) == ("linear", "eps")
    other = small_model(schedule="cosine", prediction="v")
    other.save(tmp_path / "config.json")
    assert ModelConfig.load(tmp_path / "config.json") == other
    assert torch.equal(DiER(other).alpha_bar, alpha_bars("cosine").float())
    for changes in ({"schedule": "sigmoid"}, {"prediction": "score"}):
        with pytest.raises(ConfigError, match=next(iter(changes))):
            small_model(**changes)


def test_images_survive_being_noised_and_estimated_in_bytes(images: np.ndarray) -> None:
    x0 = to_tensor(images[:4])
    np.testing.assert_array_equal(to_images(clean("x0", torch.zeros_like(x0), x0, torch.ones(4))), images[:4])
