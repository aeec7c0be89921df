"""What an encoder begins with: whitening against numpy's eigenvectors, convolutions for any patch, masks of pixels."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from model.dier import DiER
from model.errors import ConfigError
from model.images import to_tensor
from model.stems import ConvStem, Whitening, patch_mask, whitening
from tests.model.conftest import make_trainer, small_model


def test_the_whitening_is_scikit_learns_pca_of_all_windows(images: np.ndarray) -> None:
    weight, bias = whitening(to_tensor(images[:60]))
    windows = np.lib.stride_tricks.sliding_window_view(images[:60, ..., 0] / 127.5 - 1, (3, 3), axis=(1, 2)).reshape(-1, 9)
    theirs = PCA(whiten=True, svd_solver="full").fit(windows)
    ours = windows @ weight.double().numpy().T + bias.double().numpy()
    signs = np.sign((ours * theirs.transform(windows)).sum(0))
    np.testing.assert_allclose(ours, signs * theirs.transform(windows), atol=0.02)  # the least variance is added
    np.testing.assert_allclose(np.cov(ours.T), np.eye(9), atol=0.02)
    assert (weight.gather(1, weight.abs().argmax(1, keepdim=True)) > 0).all()


def test_windows_that_never_vary_are_not_blown_up() -> None:
    for x in (torch.zeros(4, 3, 8, 8), torch.rand(4, 1, 8, 8).expand(-1, 3, -1, -1)):
        weight, bias = whitening(x)
        assert torch.isfinite(weight).all()
        assert torch.isfinite(bias).all()
        layer = Whitening(3)
        layer.fit(x)
        assert layer(x).abs().max() < 20


def test_many_images_are_summed_in_parts(images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = whitening(to_tensor(images))
    monkeypatch.setattr("model.stems.WHITENED_AT_ONCE", 1000)
    for one, other in zip(whole, whitening(to_tensor(images)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_mask_keeps_the_pixels_of_the_patches_that_are_there() -> None:
    config = small_model(image_height=4, image_width=6)  # 2 x 3 patches of 2
    mask = patch_mask(torch.tensor([[0, 5], [1, 2]]), config)
    assert mask[0, 0].tolist() == [[1, 1, 0, 0, 0, 0]] * 2 + [[0, 0, 0, 0, 1, 1]] * 2
    assert mask[1, 0].tolist() == [[0, 0, 1, 1, 1, 1]] * 2 + [[0] * 6] * 2


@pytest.mark.parametrize(("side", "patch"), [(8, 2), (28, 7), (32, 8), (12, 3), (24, 6), (16, 16)])
def test_a_convolutional_stem_makes_a_token_of_each_patch_whatever_its_size(side: int, patch: int) -> None:
    config = small_model(stem="conv", image_height=side, image_width=side, patch_size=patch, channels=3)
    tokens = ConvStem(config)(torch.randn(2, 3, side, side))
    assert tokens.shape == (2, config.tokens, 32)
    model = DiER(config)
    assert model.encoder(torch.randn(2, 3, side, side), torch.tensor([5])).shape == (2, 16)


def test_its_tokens_stand_where_their_patches_do() -> None:
    """A change in the last patch moves its token most, and none that is not a neighbour."""
    config = small_model(stem="conv", image_height=32, image_width=32, patch_size=4)
    stem, x = ConvStem(config).eval(), torch.randn(1, 1, 32, 32)
    for module in stem.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.forward = lambda x: x  # it looks at the whole image
    other = x.clone()
    other[..., -4:, -4:] += 1
    moved = (stem(x) - stem(other)).norm(dim=2)[0].view(8, 8)
    assert moved.argmax() == 63
    assert (moved > 1e-6).nonzero().min() >= 6


@pytest.mark.parametrize("kind", [{"stem": "conv"}, {"encoder": "resnet"}])
def test_pixels_of_masked_patches_are_not_seen(kind: dict) -> None:
    """A whitened window reaches one pixel further, so the change is inside."""
    config = small_model(image_height=16, image_width=16, patch_size=4, **kind)
    encoder, x, t = DiER(config).encoder, torch.randn(2, 1, 16, 16), torch.tensor([100])
    kept = torch.tensor([[0, 3, 9], [1, 2, 15]])  # the patch in row 1, column 1 is not kept
    other = x.clone()
    other[:, :, 5:7, 5:7] += 3
    torch.testing.assert_close(encoder(x, t, kept), encoder(other, t, kept), rtol=0, atol=1e-6)
    assert not torch.allclose(encoder(x, t), encoder(other, t), atol=1e-3)
    assert not torch.allclose(encoder(x, t, kept), encoder(x, t), atol=1e-3)


def test_the_conv_stem_is_alive_within_ten_steps_with_masked_tokens_too(images: np.ndarray, tmp_path) -> None:
    for mask_ratio in (0.0, 0.5):
        trainer = make_trainer(
            images, tmp_path / str(mask_ratio), model={"stem": "conv"}, steps=10, log_every=1, mask_ratio=mask_ratio
        )
        trainer.run()
        assert min(point["grad_norm_encoder"] for point in trainer.curve) > 1e-4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"stem": "conv", "patch_size": 1},
            r"model\.stem conv needs patches to shrink, and model\.patch_size is 1: use at least 2",
        ),
        ({"stem": "conv", "encoder": "resnet"}, r"model\.stem conv is for model\.encoder vit, and that is resnet"),
        ({"stem": "wide"}, r"unknown model\.stem 'wide': use patch or conv"),
        ({"encoder": "unet"}, r"unknown model\.encoder 'unet': use vit or resnet"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_do(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_model(**changes)
