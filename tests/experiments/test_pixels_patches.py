"""The rows without a network, against their definitions written out."""

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA

from experiments.contestant import Budget, Setting, Trained
from experiments.methods import METHODS
from experiments.methods.patches import Patches, normalised, random_windows
from model.images import to_tensor

RANDOM = np.random.default_rng(0)
IMAGES = np.kron(RANDOM.integers(0, 256, (60, 8, 8, 3)), np.ones((1, 2, 2, 1))).astype(np.uint8)  # neighbours are alike
GIVEN = {"patches": 10, "side": 4, "threshold": 0.25, "regularised": 0.1}


@pytest.fixture(autouse=True)
def _few_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["experiments.methods.patches"], "WINDOWS", 5000)


def made(name: str, **setting: Setting) -> Trained:
    return METHODS[name](IMAGES, None, budget=Budget(0, 16), seed=0, setting={"family": "natural", **setting})


def test_pixels_are_the_pixels() -> None:
    x = made("pixels").features["pixels"](IMAGES)
    assert np.array_equal(np.rint((x + 1) * 127.5).astype(np.uint8), IMAGES.reshape(60, -1))


def test_pca_is_scikit_learns_at_three_sizes() -> None:
    trained = made("pca", embed_dim=8)
    expected = PCA(8, svd_solver="full").fit_transform(IMAGES.reshape(60, -1).astype(np.float64) / 127.5 - 1)
    assert list(trained.features) == [f"{n} components{w}" for n in (8, 4, 2) for w in ("", ", whitened")]
    assert np.allclose(np.abs(trained.features["4 components"](IMAGES)), np.abs(expected[:, :4]), atol=1e-2)
    assert np.allclose(trained.features["8 components, whitened"](IMAGES).std(0), 1, atol=0.05)


def test_windows_are_of_the_images_in_unfolds_order() -> None:
    windows = random_windows(IMAGES, 4, 200, seed=1)
    every = F.unfold(to_tensor(IMAGES), 4).mT.reshape(-1, 48)
    assert torch.cdist(windows, every).amin(dim=1).max() < 0.02  # cdist rounds; another window is 1 away


def test_whitened_windows_vary_alike_in_every_direction() -> None:
    found = Patches(IMAGES, {**GIVEN, "regularised": 1e-6}, seed=0)
    windows = normalised(random_windows(IMAGES, 4, 5000, seed=0))  # those that it was computed from
    values = torch.linalg.eigvalsh(torch.cov(((windows - found.mean) @ found.whiten).T))
    spread = values[values > 0.01]  # the mean was taken out of each, and blocks of 2 x 2 are alike: some directions are empty
    assert spread.numel() >= 12
    assert spread.min() > 0.98
    assert spread.max() < 1.02


def test_patches_are_averages_of_what_exceeds_the_threshold() -> None:
    found = Patches(IMAGES, GIVEN, seed=0)
    x = to_tensor(IMAGES[:2])
    window = normalised(x[1, :, 12:16, 12:16].reshape(1, -1)) - found.mean  # the last one, in the last cell
    response = (window @ found.whiten @ found.filters.T)[0]
    whole = found(x).view(2, 2, 10, 2, 2)
    assert torch.allclose(found.filters.norm(dim=1), torch.ones(10), atol=1e-5)
    # the cells are averages of 7 x 7 windows (of 13 x 13, the middle one shared): check one against a sum over them all
    maps = torch.stack(
        [
            (normalised(x[1, :, i : i + 4, j : j + 4].reshape(1, -1)) - found.mean) @ found.whiten @ found.filters.T
            for i in range(6, 13)
            for j in range(6, 13)
        ]
    )[:, 0]  # (49, 10)
    assert torch.allclose(maps[-1], response)
    assert torch.allclose(whole[1, 0, :, 1, 1], F.relu(maps - 0.25).mean(0), atol=1e-4)
    assert torch.allclose(whole[1, 1, :, 1, 1], F.relu(-maps - 0.25).mean(0), atol=1e-4)


@pytest.mark.parametrize(("name", "numbers"), [("patches", 80), ("patches_pca", 8)])
def test_patches_unrestricted_and_at_an_embeddings_size(name: str, numbers: int) -> None:
    setting = {"patches": 10} | ({"embed_dim": 8} if name == "patches_pca" else {})
    assert made(name, **setting).features[name](IMAGES).shape == (60, numbers)
