"""Views, masked tokens and withheld embeddings: what they do, and that who computes them, and when, does not matter."""

import colorsys
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as v2

from model.config import POOLS
from model.dier import DiER
from model.images import to_tensor
from model.rng import Draws
from model.training.augment import GREYED, JITTERED, LEAST_AREA, STRENGTH, colour, crop, tokens_kept, turn_hue, two_views, vary
from model.training.distributed import Processes
from tests.model.conftest import make_trainer, small_model, train_config
from tests.model.training.test_trainer import StoppedError, same, stop_at

ALL = {
    "views": "crop_flip_colour",
    "identity_share": 0.3,
    "mask_ratio": 0.5,
    "condition_dropout": 0.3,
    "loss_weight": "min_snr",
    "variance_covariance": 0.5,
}


def sampled(x: np.ndarray, drawn: list[float]) -> np.ndarray:
    """One crop, a number at a time: each new pixel's centre is found in the old image, whose four nearest pixels are mixed."""
    height, width = x.shape
    side = math.sqrt(LEAST_AREA + (1 - LEAST_AREA) * drawn[0])
    left, top = width * (1 - side) * drawn[1], height * (1 - side) * drawn[2]
    out = np.empty_like(x)
    for i in range(height):
        for j in range(width):
            down = min(max(top + (i + 0.5) * side - 0.5, 0), height - 1)
            across = min(max(left + (j + 0.5) * side - 0.5, 0), width - 1)
            r, c = int(down), int(across)
            r2, c2 = min(r + 1, height - 1), min(c + 1, width - 1)
            low, right = down - r, across - c
            upper = (1 - right) * x[r, c] + right * x[r, c2]
            lower = (1 - right) * x[r2, c] + right * x[r2, c2]
            out[i, j] = (1 - low) * upper + low * lower
    return out


def test_crops_are_what_a_plain_loop_makes_of_them() -> None:
    generator = torch.Generator().manual_seed(0)
    x, drawn = torch.rand(5, 2, 8, 6, generator=generator), torch.rand(5, 4, generator=generator)
    expected = np.stack([[sampled(channel, drawn[i].tolist()) for channel in image] for i, image in enumerate(x.double().numpy())])
    np.testing.assert_allclose(crop(x, drawn, flip=False).numpy(), expected, atol=2e-6)


def test_a_crop_of_everything_is_the_image_and_a_flip_its_mirror_image() -> None:
    x = torch.rand(2, 3, 8, 6)
    whole = torch.tensor([[1.0, 0.3, 0.8, 0.1], [1.0, 0.3, 0.8, 0.9]])  # the first is mirrored, where that is allowed
    torch.testing.assert_close(crop(x, whole, flip=False), x)
    torch.testing.assert_close(crop(x, whole, flip=True), torch.stack([x[0].flip(2), x[1]]))


def given(config_changes: dict, step: int, places: slice, x0: Tensor) -> dict[str, Tensor]:
    return vary(train_config(**config_changes), 16, step, places, x0)


def test_encoder_and_denoiser_see_different_crops_that_differ_from_step_to_step(images: np.ndarray) -> None:
    x0 = to_tensor(images[:16])
    one, again, other = (given({"views": "crop"}, step, slice(0, 16), x0) for step in (3, 3, 4))
    assert torch.equal(one["x0"], again["x0"])
    assert torch.equal(one["encoder_view"], again["encoder_view"])
    for pair in ((one["x0"], one["encoder_view"]), (one["x0"], x0), (one["encoder_view"], x0), (one["x0"], other["x0"])):
        assert all(not torch.allclose(a, b) for a, b in zip(*pair, strict=True))
    assert set(given({}, 3, slice(0, 16), x0)) == {"x0"}


def colours(number: int, channels: int = 3, **chosen: float) -> tuple[Tensor, Tensor]:
    """Images in [-1, 1], and draws that change colours and make none grey; of the four changes those not `chosen` do nothing."""
    x = 2 * torch.rand(number, channels, 8, 6, generator=torch.Generator().manual_seed(1)) - 1
    values = [0.0, *(chosen.get(name, 0.5) for name in ("brightness", "contrast", "saturation", "hue")), chosen.get("grey", 1.0)]
    return x, torch.tensor(values).expand(number, 6)


@pytest.mark.parametrize("drawn", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("change", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("channels", [1, 3])
def test_each_change_of_colour_is_torchvisions(change: str, channels: int, drawn: float) -> None:
    x, draws = colours(4, channels, **{change: drawn})
    adjust = {"brightness": v2.adjust_brightness, "contrast": v2.adjust_contrast, "saturation": v2.adjust_saturation}[change]
    expected = torch.stack([adjust((image + 1) / 2, 1 + STRENGTH * (2 * drawn - 1)) for image in x])
    torch.testing.assert_close((colour(x, draws) + 1) / 2, expected, rtol=0, atol=3e-4)  # whose weights of grey sum to 0.9999


def test_a_grey_image_is_torchvisions() -> None:
    x, draws = colours(4, grey=0.0)
    expected = torch.stack([v2.rgb_to_grayscale((image + 1) / 2, num_output_channels=3) for image in x])
    torch.testing.assert_close((colour(x, draws) + 1) / 2, expected, rtol=0, atol=3e-4)


def test_a_hue_is_turned_by_its_angle_and_neither_brightness_nor_grey_changes() -> None:
    """In the colour circle of Python's colorsys."""
    x, turn = torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(2)), torch.tensor([-0.1, -0.03, 0.0, 0.04, 0.1])
    turned = turn_hue(x, turn)
    for one, other, angle in zip(x.double(), turned.double(), turn.tolist(), strict=True):
        (y, i, q), (y2, i2, q2) = (colorsys.rgb_to_yiq(*image[:, 0, 1].tolist()) for image in (one, other))
        assert y2 == pytest.approx(y, abs=0.01)
        before, after = complex(i, q), complex(i2, q2)
        expected = before * complex(math.cos(2 * math.pi * angle), math.sin(2 * math.pi * angle))
        assert abs(after - expected) < 0.02
    grey = x[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(turn_hue(grey, turn), grey, rtol=0, atol=2e-4)
    torch.testing.assert_close(turn_hue(turn_hue(x, turn), -turn), x, rtol=0, atol=1e-5)


def test_as_many_views_change_colour_or_lose_it_as_are_meant_to() -> None:
    x = (2 * torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(3)) - 1).expand(4000, -1, -1, -1)
    seen, encoder_view = two_views("crop_flip_colour", Draws(0, 0, slice(0, 4000), torch.device("cpu")), x)
    plain, _ = two_views("crop_flip", Draws(0, 0, slice(0, 4000), torch.device("cpu")), x)
    assert seen.min() >= -1
    assert seen.max() <= 1
    grey = (seen.amax(1) - seen.amin(1)).amax(dim=(1, 2)) < 1e-6
    unchanged = (seen == plain).all(dim=3).all(dim=2).all(dim=1)
    assert grey.float().mean() == pytest.approx(GREYED, abs=0.03)
    assert unchanged.float().mean() == pytest.approx((1 - JITTERED) * (1 - GREYED), abs=0.03)
    assert not torch.equal(seen, encoder_view)


def test_of_some_images_the_encoder_sees_the_denoisers_view() -> None:
    x0 = torch.rand(2000, 1, 8, 8, generator=torch.Generator().manual_seed(4))
    drawn = given({"batch_size": 2000, "views": "crop", "identity_share": 0.2}, 0, slice(0, 2000), x0)
    without = given({"batch_size": 2000, "views": "crop"}, 0, slice(0, 2000), x0)
    alike = (drawn["x0"] == drawn["encoder_view"]).flatten(1).all(dim=1)
    assert alike.float().mean() == pytest.approx(0.2, abs=0.03)
    assert torch.equal(drawn["x0"], without["x0"])
    assert torch.equal(drawn["encoder_view"][~alike], without["encoder_view"][~alike])


def test_a_share_of_identical_views_needs_views() -> None:
    with pytest.raises(ValueError, match=r"train\.identity_share 0\.2 says nothing with train\.views off.*set train\.views"):
        train_config(identity_share=0.2)


def test_a_variant_is_never_called_dier_alone() -> None:
    named = {"mask_ratio": "DiER+mask", "views": "DiER+views", "variance_covariance": "DiER+variance-covariance"}
    for option in ALL:
        beside = {"views": "crop"} if option == "identity_share" else {}
        method = train_config(**beside, **{option: ALL[option]}).method
        assert method == ("DiER+views" if beside else named.get(option, "DiER"))
    assert train_config(**ALL).method == "DiER+views+mask+variance-covariance"


@pytest.mark.parametrize("count", [2, 3])
def test_every_place_of_the_batch_gets_the_same_whoever_computes_it(images: np.ndarray, count: int) -> None:
    x0 = to_tensor(images[:16])
    whole = given(ALL, 7, slice(0, 16), x0)
    assert set(whole) == {"x0", "encoder_view", "ids_keep", "condition_mask"}
    shares = [Processes(rank, count).share(16) for rank in range(count)]
    parts = [given(ALL, 7, share, x0[share]) for share in shares]
    for name, values in whole.items():
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), values, rtol=0, atol=1e-6)


def test_as_many_as_were_asked_for() -> None:
    x0 = torch.zeros(2000, 1, 8, 8)
    drawn = given({"batch_size": 2000, "mask_ratio": 0.75, "condition_dropout": 0.2}, 0, slice(0, 2000), x0)
    assert drawn["ids_keep"].shape == (2000, 4)
    assert all(len(set(row)) == 4 for row in drawn["ids_keep"].tolist())
    assert np.bincount(drawn["ids_keep"].flatten(), minlength=16) == pytest.approx(500, abs=80)
    assert drawn["condition_mask"].mean() == pytest.approx(0.8, abs=0.03)
    assert (tokens_kept(49, 0.9), tokens_kept(1, 0.9), tokens_kept(16, 0.5)) == (5, 1, 8)


@pytest.mark.parametrize("pool", POOLS)
def test_masked_tokens_are_dropped_not_replaced(pool: str) -> None:
    """What is not kept has no influence at all; and keeping everything, in any order, is no masking."""
    encoder = DiER(small_model(pool=pool)).encoder
    x0, t = torch.randn(3, 1, 8, 8), torch.tensor([0, 400, 999])
    ids_keep = torch.tensor([[0, 5], [1, 2], [15, 3]])
    changed = x0.clone()
    for i, places in enumerate(ids_keep.tolist()):
        for place in set(range(16)) - set(places):
            row, column = 2 * (place // 4), 2 * (place % 4)
            changed[i, :, row : row + 2, column : column + 2] = 7.0
    torch.testing.assert_close(encoder(changed, t, ids_keep), encoder(x0, t, ids_keep))
    assert not torch.allclose(encoder(changed, t), encoder(x0, t))
    every = torch.stack([torch.randperm(16) for _ in range(3)])
    torch.testing.assert_close(encoder(x0, t, every), encoder(x0, t), rtol=1e-4, atol=1e-5)


def test_a_withheld_embedding_is_zeros_to_the_denoiser_and_teaches_the_encoder_nothing(images: np.ndarray) -> None:
    model, x0 = DiER(small_model()), to_tensor(images[:4])
    t, noise = torch.tensor([10, 200, 500, 800]), torch.randn(4, 1, 8, 8)
    condition_mask = torch.tensor([1.0, 0.0, 1.0, 0.0])
    losses = model(x0, t, noise, condition_mask=condition_mask)
    v = model.encoder(x0, t)
    torch.testing.assert_close(losses[[0, 2]], model.denoising_loss(x0, t, noise, v)[[0, 2]])
    torch.testing.assert_close(losses[[1, 3]], model.denoising_loss(x0, t, noise, torch.zeros_like(v))[[1, 3]])
    losses[[1, 3]].sum().backward()
    assert all(not parameter.grad.any() for parameter in model.encoder.parameters())


def test_the_denoiser_is_trained_on_its_own_view_and_the_encoder_sees_the_other(images: np.ndarray) -> None:
    model, x0 = DiER(small_model()), to_tensor(images[:4])
    t, noise, encoder_view = torch.tensor([10, 200, 500, 800]), torch.randn(4, 1, 8, 8), to_tensor(images[10:14])
    expected = model.denoising_loss(x0, t, noise, model.encoder(encoder_view, t))
    torch.testing.assert_close(model(x0, t, noise, encoder_view=encoder_view), expected)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("stopped", [3, 7])
def test_with_everything_on_a_stopped_run_ends_where_an_unstopped_one_does(
    images: np.ndarray, tmp_path, stopped: int, pool: str
) -> None:
    model = {"pool": pool, "schedule": "cosine", "prediction": "v"}
    whole = make_trainer(images, tmp_path / "whole", model=model, **ALL)
    whole.run()
    with pytest.raises(StoppedError):
        make_trainer(images, tmp_path / "work", stop_at(stopped), model=model, **ALL).run()
    resumed = make_trainer(images, tmp_path / "work", model=model, **ALL)
    resumed.run()
    assert same(whole, resumed)


@pytest.mark.parametrize("option", ALL)
def test_each_option_changes_the_weights(images: np.ndarray, tmp_path, option: str) -> None:
    beside = {"views": "crop"} if option == "identity_share" else {}
    plain = make_trainer(images, tmp_path / "plain", steps=2, **beside)
    varied = make_trainer(images, tmp_path / "varied", steps=2, **beside, **{option: ALL[option]})
    for one in (plain, varied):
        one.run()
    assert not same(plain, varied)


def test_micro_batches_take_their_own_part_of_everything(images: np.ndarray, tmp_path) -> None:
    whole, small = (make_trainer(images, tmp_path / str(size), micro_batch=size, steps=3, **ALL) for size in (None, 5))
    for one in (whole, small):
        one.run()
    for a, b in zip(whole.parameters, small.parameters, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_the_default_is_the_plain_method_bit_for_bit(images: np.ndarray, tmp_path) -> None:
    """A training written out here: noise, the noise's squared error, clipping, AdamW, the average."""
    trainer = make_trainer(images, tmp_path, steps=20)
    trainer.run()
    model = DiER(small_model())
    draws = make_trainer(images, tmp_path / "draws", steps=20)
    parameters = list(model.parameters())
    average = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0, fused=True)
    for step in range(20):
        x0, t, noise = draws.batch(step)
        optimizer.param_groups[0]["lr"] = 1e-3 * min(1, (step + 1) / 2)
        optimizer.zero_grad()
        a = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0).float()[t].view(-1, 1, 1, 1)
        said = model.denoiser(a.sqrt() * x0 + (1 - a).sqrt() * noise, t, model.encoder(x0, t))
        (torch.nn.functional.mse_loss(said, noise, reduction="none").mean(dim=(1, 2, 3)).sum() / 16).backward()
        norms = [torch.nn.utils.get_total_norm([p.grad for p in part.parameters()]) for part in (model.encoder, model.denoiser)]
        torch.nn.utils.clip_grads_with_norm_(parameters, 1.0, torch.stack(norms).norm())
        optimizer.step()
        torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - min(0.99, (1 + step) / (10 + step)))
    assert all(torch.equal(a, b) for a, b in zip(trainer.parameters, parameters, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(trainer.ema, average, strict=True))
