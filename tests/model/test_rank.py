"""The ranks of v_t: of matrices whose ranks are known, and of what a denoiser of a known rank reads."""

import numpy as np
import pytest
import torch

from model.dier import DiER
from model.features import embed
from model.rank import both, in_words, ranks
from tests.model.conftest import small_model


def test_ranks_of_matrices_that_are_known() -> None:
    assert both(3 * torch.eye(5)) == {"numerical": 5, "effective": pytest.approx(5)}
    assert both(torch.ones(7, 4)) == {"numerical": 1, "effective": pytest.approx(1, abs=1e-5)}
    assert both(torch.diag(torch.tensor([1.0, 1.0, 0.005]))) == {"numerical": 2, "effective": pytest.approx(2, abs=0.05)}
    assert both(torch.zeros(3, 4)) == {"numerical": 0, "effective": 0.0}
    shares = np.array([0.5, 0.25, 0.25])
    assert both(torch.diag(torch.tensor([2.0, 1, 1])))["effective"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))


@pytest.mark.parametrize("changes", [{"condition_dim": 3}, {"condition_dim": 3, "condition": "block"}])
def test_no_more_is_used_than_the_map_lets_through(changes: dict, images: np.ndarray) -> None:
    model = DiER(small_model(**changes)).eval()
    found = ranks(model, images, [0, 500])
    assert found["map"]["numerical"] == 3
    assert found["map"]["effective"] <= 3 + 1e-6
    assert [row["t"] for row in found["v"]] == [0, 500]
    for row in found["v"]:
        assert row["used"]["numerical"] <= 3
        assert row["numerical"] > 3
        assert 3 < row["effective"] <= 15 + 1e-6  # of 16 numbers whose mean is 0
    assert in_words(found, 16).startswith("of 16 numbers in v_t the denoiser reads 3 directions; at t = ")


def test_it_is_of_v_t_about_its_mean(images: np.ndarray) -> None:
    model = DiER(small_model()).eval()
    v = embed(model, images, 300).astype(np.float64)
    values = np.linalg.svd(v - v.mean(0), compute_uv=False)
    shares = values / values.sum()
    expected = np.exp(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())
    assert ranks(model, images, [300])["v"][0]["effective"] == pytest.approx(expected, rel=1e-3)


def test_a_collapsed_encoder_has_none(images: np.ndarray) -> None:
    model = DiER(small_model(embed_norm=False)).eval()
    torch.nn.init.zeros_(model.encoder.head.weight)
    assert ranks(model, images[:20], [300])["v"][0]["used"] == {"numerical": 0, "effective": 0.0}
