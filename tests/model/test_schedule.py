import math

import numpy as np
import pytest
import torch

from model.config import NUM_TIMESTEPS
from model.schedule import add_noise, alpha_bars, log_snr, remove_noise


def test_alpha_bar_is_the_product_of_one_minus_linear_betas() -> None:
    expected = np.cumprod(1 - np.linspace(1e-4, 0.02, NUM_TIMESTEPS))
    np.testing.assert_allclose(alpha_bars().numpy(), expected, rtol=1e-12)


def test_the_cosine_schedule_follows_its_closed_form_until_its_last_step() -> None:
    """cos^2((t / T + s) / (1 + s) * pi / 2), with the last beta capped at 0.999, where it would be 1."""
    places = (np.arange(NUM_TIMESTEPS) + 1) / NUM_TIMESTEPS
    wanted = np.cos((places + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    found = alpha_bars("cosine").numpy()
    np.testing.assert_allclose(found[:-1], wanted[:-1], rtol=1e-9)
    assert wanted[-1] < 1e-30
    assert found[-1] == pytest.approx(found[-2] * 0.001)


def test_the_cosine_schedules_log_snr_falls_and_is_its_own() -> None:
    values = [log_snr(t, "cosine") for t in range(0, NUM_TIMESTEPS, 37)]
    assert values == sorted(values, reverse=True)
    assert log_snr(0, "cosine") == pytest.approx(10.1, abs=0.05)
    assert log_snr(999, "cosine") == pytest.approx(-19.8, abs=0.1)
    assert log_snr(500, "cosine") == pytest.approx(0.0, abs=0.05)  # half way, signal and noise are about even
    assert log_snr(500) < -2


@pytest.mark.parametrize("t", [0, 100, 500, 999])
def test_log_snr_is_signal_over_noise(t: int) -> None:
    alpha_bar = float(np.prod(1 - np.linspace(1e-4, 0.02, NUM_TIMESTEPS)[: t + 1]))
    assert log_snr(t) == pytest.approx(math.log(alpha_bar) - math.log1p(-alpha_bar), rel=1e-9)


def test_log_snr_falls_with_t_from_almost_clean_to_almost_noise() -> None:
    values = [log_snr(t) for t in range(0, NUM_TIMESTEPS, 37)]
    assert values == sorted(values, reverse=True)
    assert log_snr(0) == pytest.approx(9.21, abs=0.01)
    assert log_snr(999) == pytest.approx(-10.12, abs=0.01)


def test_noised_images_keep_unit_variance_and_removing_the_noise_undoes_adding_it() -> None:
    x0, noise = torch.randn(2, 64, 3, 16, 16, dtype=torch.float64)
    alpha_bar = alpha_bars()[torch.arange(64) * 15]
    x_t = add_noise(x0, noise, alpha_bar)
    assert x_t.var().item() == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(remove_noise(x_t, noise, alpha_bar), x0)
