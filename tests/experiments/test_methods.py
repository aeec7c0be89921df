"""Each method of the contest, small: what it gives, that it repeats itself, and what it may not look at."""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from experiments.contestant import Budget, Features, Floats, Trained
from experiments.features import Projected, remembered, side_by_side
from experiments.methods import METHODS, TRAINED
from experiments.methods.ddae import DDAE, Layers
from experiments.methods.reconstruction import MAE
from experiments.networks import NETWORK, encoder_features, make_encoder, patch_side, read, tokens
from experiments.training import RECIPE
from model.blocks import patchify
from model.images import to_tensor
from model.rng import Draws

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), np.uint8)
LABELS = np.random.default_rng(1).integers(0, 3, 40)
SMALL = {"depth": 1, "dim": 32, "heads": 2, "embed_dim": 8}
SETTINGS: Mapping[str, dict[str, Any]] = {
    "dier": {**SMALL, "read_at": [0, 500], "joint": [100, 600], "tokens_at": [0]},
    "ddae": {"depth": 2, "dim": 32, "heads": 2, "read_at": [0, 20]},
    "simclr": SMALL,
    "vicreg": {**SMALL, "projection": 16},
    "mae": {**SMALL, "decoder_dim": 32},
    "autoencoder": SMALL,
    "supervised": SMALL,
    "untrained": SMALL,
    "patches": {"patches": 6},
    "patches_pca": {"patches": 6, "embed_dim": 8},
    "pca": {"embed_dim": 8},
}


@pytest.fixture(autouse=True)
def _few_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["experiments.methods.patches"], "WINDOWS", 5000)


def trained(name: str, *, steps: int = 2, seed: int = 0, look: Any = None, looks: tuple[int, ...] = (), **setting: Any) -> Trained:
    budget = Budget(steps, 16, looks)
    setting = {"family": "natural", **SETTINGS.get(name, {}), **setting}
    labels = LABELS if name == "supervised" else None
    return METHODS[name](IMAGES, labels, budget=budget, seed=seed, setting=setting, look=look)


def values(features: Mapping[str, Features]) -> dict[str, Floats]:
    return {name: function(IMAGES[:6]) for name, function in features.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_method_gives_features_that_repeat_themselves(name: str) -> None:
    first = trained(name)
    found, again = values(first.features), values(trained(name).features)
    for variant, x in found.items():
        assert x.dtype == np.float32
        assert x.ndim == 2
        assert np.isfinite(x).all()
        assert np.array_equal(x, again[variant])
        one = first.features[variant](IMAGES[3:5])
        assert np.allclose(one, x[3:5], atol=1e-4), "an image's features depend on the others"
    if name in TRAINED:
        assert first.steps == 2
        assert first.flops > 0
        assert first.cpu_seconds > 0
        other = values(trained(name, seed=1).features)
        assert not any(np.allclose(other[variant], x) for variant, x in found.items())


@pytest.mark.parametrize("name", TRAINED)
def test_a_method_is_looked_at_while_it_trains(name: str) -> None:
    seen: list[tuple[int, tuple[str, ...]]] = []
    final = trained(name, looks=(1, 2), look=lambda step, features: seen.append((step, tuple(features))))
    assert seen == [(1, tuple(final.features)), (2, tuple(final.features))]


@pytest.mark.parametrize("name", METHODS)
def test_a_setting_that_a_method_does_not_know_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} knows no setting 'temprature'"):
        trained(name, temprature=0.2)


@pytest.mark.parametrize("name", ["simclr", "vicreg", "mae", "supervised", "ddae"])
def test_views_need_the_sets_family(name: str) -> None:
    with pytest.raises(ValueError, match="no family of views ''"):
        trained(name, family="")


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_the_encoders_begin_with_the_weights_that_dier_begins_with(kind: str) -> None:
    encoder = make_encoder(IMAGES, read("x", {**SMALL, "encoder": kind}, NETWORK), seed=3)
    dier = trained("dier", steps=1, seed=3, lr=1e-12, ema_decay=0.0, encoder=kind)
    assert np.allclose(encoder_features(encoder)["v"](IMAGES), dier.features["t=0"](IMAGES), atol=1e-4)


@pytest.mark.parametrize("name", ["simclr", "autoencoder", "untrained"])
def test_a_method_takes_the_resnet_as_well(name: str) -> None:
    found = trained(name, encoder="resnet", pool="grid").features
    assert {variant: x.shape for variant, x in values(found).items()} == {"v": (6, 8), "tokens": (6, 128)}


def test_mae_is_for_a_vit() -> None:
    with pytest.raises(ValueError, match="cannot leave patches out of encoder 'resnet'"):
        trained("mae", encoder="resnet")


def test_encoders_do_not_look_at_t() -> None:
    encoder = make_encoder(IMAGES, read("x", SMALL, NETWORK), seed=0)
    for weights in encoder.timestep.parameters():
        torch.nn.init.normal_(weights)
    x = to_tensor(IMAGES)
    assert torch.equal(encoder(x, torch.tensor([0])), encoder(x, torch.tensor([900])))


def test_several_t_stand_side_by_side_and_in_the_numbers_of_one() -> None:
    found = values(trained("dier", joint=[0, 500]).features)
    assert np.array_equal(found["t=0+500"], np.concatenate([found["t=0"], found["t=500"]], axis=1))
    assert found["t=0+500, PCA"].shape == (6, SMALL["embed_dim"])


def test_projected_features_are_the_principal_components_of_the_training_images() -> None:
    joint = side_by_side([lambda images: images[:, :4, :4].reshape(len(images), -1).astype(np.float32)] * 2)
    found = Projected(joint, IMAGES, 4)(IMAGES)
    x = joint(IMAGES)
    u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    assert np.allclose(np.abs(found), np.abs(u[:, :4] * s[:4]), rtol=1e-2, atol=1.0)


def test_mae_sees_the_kept_patches_alone_and_counts_the_others_alone() -> None:
    given = read("mae", {**SMALL, "patch_size": 4}, {**RECIPE, **NETWORK, "mask_ratio": 0.75, "augment": False, "least_area": None})
    network = MAE(make_encoder(IMAGES, given, 0), {**given, "decoder_depth": 1, "decoder_dim": 32})
    draws = Draws(0, 0, slice(0, 4), torch.device("cpu"))
    order = draws.uniform("mask", 16).argsort(dim=1, stable=True)
    x = to_tensor(IMAGES[:4]).requires_grad_()
    network(x, torch.arange(4), draws).backward()
    assert x.grad is not None
    touched = patchify(x.grad, 4).abs().sum(2) > 0  # of a hidden patch the loss has its normalised pixels
    assert touched.all()
    outputs = tokens(network.encoder, x, order[:, :4])
    assert outputs.shape[1] == 4
    (seen,) = torch.autograd.grad(outputs.square().sum(), x)
    changed = patchify(seen, 4).abs().sum(2) > 0
    assert torch.equal(changed.nonzero()[:, 1].view(4, 4), order[:, :4].sort(dim=1).values)


def test_ddae_has_no_encoder_and_remembers_one_pass() -> None:
    given = {**RECIPE, "family": "garments", "augment": False, "loss_weight": "uniform", "read_at": [0], "timesteps": "uniform"}
    network = DDAE(IMAGES, {**given, **SETTINGS["ddae"], "log_snr_mean": 0.0, "log_snr_std": 1.0}, seed=0)
    assert not list(network.model.encoder.parameters())
    layers, passes = Layers(network.model, 0), list[int]()
    hook = network.model.denoiser.register_forward_pre_hook(lambda _module, _inputs: passes.append(1))
    first = [layers(20, f"block {block}, {way}", IMAGES) for block in (0, 1) for way in ("mean", "grid")]
    assert len(passes) == 1
    assert [x.shape for x in first] == [(40, 32), (40, 128)] * 2
    assert np.allclose(first[1].reshape(40, 4, 32).mean(1), first[0], atol=1e-5)
    layers(50, "block 0, mean", IMAGES)
    layers(50, "block 0, mean", IMAGES.copy())
    assert len(passes) == 3
    hook.remove()


def test_untrained_is_dier_before_its_first_step() -> None:
    encoder = make_encoder(IMAGES, read("x", SMALL, NETWORK), 5).eval()
    assert np.array_equal(trained("untrained", seed=5).features["v"](IMAGES), encoder_features(encoder)["v"](IMAGES))


@pytest.mark.parametrize(("side", "patch", "smaller"), [(28, 7, 4), (32, 8, 4), (24, 6, 3), (16, 4, 2), (8, 2, 1)])
def test_patches_divide_every_sets_images(side: int, patch: int, smaller: int) -> None:
    images = np.zeros((1, side, side, 1), np.uint8)
    assert (patch_side(images), patch_side(images, 8)) == (patch, smaller)


def test_features_of_two_arrays_asked_in_turn_are_computed_once_each_and_may_be_overwritten() -> None:
    computed: list[int] = []

    def of(images: np.ndarray) -> np.ndarray:
        computed.append(len(images))
        return np.full((len(images), 2), len(images), np.float32)

    features = remembered(of)
    train, val = np.zeros((3, 4, 4, 1), np.uint8), np.zeros((5, 4, 4, 1), np.uint8)
    for _ in range(2):
        for images in (train, val):
            found = features(images)
            assert (found == len(images)).all()
            found[:] = -1
    assert computed == [3, 5]
