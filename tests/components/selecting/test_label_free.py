"""Scores that need no label: known values, and what each of them must tell apart."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from components.selecting import scores
from components.selecting.label_free import AVERAGED, SCORES, VIEWS, gap_nats, label_free, views
from model.config import ModelConfig
from model.dier import DiER

SHAPE = {"depth": 1, "dim": 16, "heads": 2, "image_height": 8, "image_width": 8, "channels": 1, "patch_size": 4, "embed_dim": 8}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return (load_digits().images[:120] * 255 / 16).round().astype(np.uint8)[..., None]


def test_rankme_counts_equal_directions() -> None:
    assert scores.rankme(np.eye(50)[:, :8]) == pytest.approx(8, rel=1e-6)
    assert scores.rankme(np.ones((50, 8))) == pytest.approx(1, rel=1e-6)
    assert scores.rankme(np.zeros((50, 8))) == pytest.approx(1, rel=1e-6)


def test_invariance_and_lidar_see_what_views_do_not_change() -> None:
    """Of ten numbers three tell images apart and seven change with the view; then all ten tell images apart."""
    rng = np.random.default_rng(0)
    image, noise = rng.normal(size=(1, 400, 10)), rng.normal(size=(4, 400, 10))
    some = np.concatenate([np.broadcast_to(image[..., :3], (4, 400, 3)) + 0.01 * noise[..., :3], noise[..., 3:]], axis=2)
    everything = image + 0.01 * noise
    assert scores.invariance(everything) == pytest.approx(np.log(1e4), abs=0.3)
    assert scores.invariance(some) < 1
    assert scores.lidar(some) == pytest.approx(3, abs=0.3)
    assert scores.lidar(everything) == pytest.approx(10, abs=0.3)


def test_invariance_does_not_depend_on_the_scale_of_a_number() -> None:
    x = np.random.default_rng(1).normal(size=(1, 50, 4)) + 0.1 * np.random.default_rng(2).normal(size=(4, 50, 4))
    scale = np.array([1.0, 10.0, 0.01, 3.0])
    assert scores.invariance(x * scale) == pytest.approx(scores.invariance(x), rel=1e-6)
    assert scores.lidar(x * scale) == pytest.approx(scores.lidar(x), rel=1e-6)


def test_clusters_score_higher_than_a_cloud() -> None:
    rng = np.random.default_rng(0)
    cloud = rng.normal(size=(200, 6))
    assert (
        scores.calinski_harabasz(cloud + 10 * np.repeat(rng.integers(2, size=(200, 2)), 3, 1), 0)
        > scores.calinski_harabasz(cloud, 0) + 1
    )
    assert scores.calinski_harabasz(np.ones((200, 6)), 0) == 0
    assert scores.calinski_harabasz(cloud[:9], 0) == 0


def test_ranks_are_averaged_over_scores() -> None:
    assert scores.rank_average({"a": [0.1, 0.2, 9.0], "b": [3.0, 3.0, 1.0]}) == pytest.approx([0.375, 0.625, 0.5])
    assert scores.rank_average({"a": [7.0]}) == [0.0]


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
@pytest.mark.parametrize("t", [50, 700])
def test_the_gap_is_in_nats_whatever_is_predicted(images: np.ndarray, prediction: str, t: int) -> None:
    """A denoiser that is 0.1 off in every pixel of x0 with v, and 0.3 off with zeros: SNR / 2 * pixels * (0.09 - 0.01)."""
    model = DiER(ModelConfig(**SHAPE, prediction=prediction))
    a = float(model.alpha_bar[t])
    snr = a / (1 - a)

    def loss(x0: torch.Tensor, t: torch.Tensor, noise: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        off = torch.where(v[:, 0] == 0, 0.3, 0.1)
        return off**2 * {"eps": snr, "x0": 1, "v": snr + 1}[prediction]  # what the error is in eps, x0 or v

    stub = SimpleNamespace(alpha_bar=model.alpha_bar, config=model.config, denoising_loss=loss)
    found = gap_nats(stub, images, np.ones((len(images), 8), np.float32), t, 0, withheld=True)
    assert found == pytest.approx(0.5 * 64 * snr * 0.08, rel=1e-4)
    assert gap_nats(stub, images, np.ones((len(images), 8), np.float32), t, 0, withheld=False) == 0  # another's v is one too


def test_views_are_mild_and_drawn_from_the_seed(images: np.ndarray) -> None:
    found = views(images, 0)
    assert (found.shape, found.dtype) == ((VIEWS, *images.shape), np.uint8)
    np.testing.assert_array_equal(views(images, 0), found)
    assert (views(images, 1) != found).any()
    apart = np.abs(found.astype(float) - images).mean()
    other = np.abs(images[1:].astype(float) - images[:-1]).mean()
    assert 0 < apart < other / 2
    assert not np.array_equal(found[0], found[1])
    assert (views(np.zeros_like(images), 0) == 0).all()


def test_a_row_a_timestep_with_every_score(images: np.ndarray) -> None:
    model = DiER(ModelConfig(**SHAPE)).eval()
    rows = label_free(model, images, [0, 300, 999], 0, condition_dropout=True)
    assert [row["t"] for row in rows] == [0, 300, 999]
    assert [row["log_snr"] for row in rows] == pytest.approx([9.21, -0.43, -10.12], abs=0.01)
    assert all(set(row) == {"t", "log_snr", "score", *SCORES} for row in rows)
    assert all(0 <= row["score"] <= 1 for row in rows)
    averaged = scores.rank_average({name: [row[name] for row in rows] for name in AVERAGED})
    assert [row["score"] for row in rows] == averaged
    assert label_free(model, images, [0, 300, 999], 0, condition_dropout=True) == rows
