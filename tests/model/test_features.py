import numpy as np
import pytest
import torch

from model.config import POOLS
from model.dier import DiER
from model.errors import ConfigError, PermanentTrainingError
from model.features import denoise, denoiser_layers, embed, embed_batches, shuffled_gap, trunk
from model.images import to_tensor
from model.training.divergence import check_point, unused_encoder
from model.weights import load_model, save_model
from tests.model.conftest import small_model

HEALTHY = {"step": 5000, "lr": 1e-3, "loss": 0.1, "grad_norm_encoder": 0.1, "grad_norm_denoiser": 0.5}


@pytest.fixture(scope="module")
def model() -> DiER:
    return DiER(small_model()).eval()


def test_embeddings_do_not_depend_on_the_batch(model: DiER, images: np.ndarray) -> None:
    whole = embed(model, images[:50], 300)
    assert whole.shape == (50, 16)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(embed(model, images[:50], 300, batch_size=7), whole, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def plain_loop(model: DiER, images: np.ndarray, timesteps: list[int], size: int) -> np.ndarray:
    """The embeddings (T, N, embed_dim) as one would write it first."""
    batches = [images[start : start + size] for start in range(0, len(images), size)]
    return np.stack([np.concatenate([model.encoder(to_tensor(x), torch.tensor([t])).numpy() for x in batches]) for t in timesteps])


@pytest.mark.parametrize("in_flight", [None, 1, 2, 3])
@pytest.mark.parametrize("count", [0, 5, 16, 50])
def test_batches_on_their_way_are_the_plain_loops_bit_for_bit(
    model: DiER, images: np.ndarray, in_flight: int | None, count: int
) -> None:
    """However many are under way, with fewer and with more batches than that, the last one short."""
    found = list(embed_batches(model, images[:count], [300, 0, 999], batch_size=16, in_flight=in_flight))
    assert [v.shape for v in found] == [(3, min(16, count - start), 16) for start in range(0, count, 16)]
    assert all(v.dtype == np.float32 for v in found)
    if count:
        np.testing.assert_array_equal(np.concatenate(found, axis=1), plain_loop(model, images[:count], [300, 0, 999], 16))


def test_what_was_given_is_not_written_over_by_later_batches(model: DiER, images: np.ndarray) -> None:
    batches = embed_batches(model, images[:50], [300], batch_size=16)
    first = next(batches)
    before = first.copy()
    list(batches)
    np.testing.assert_array_equal(first, before)


def test_a_batch_filled_up_to_one_shape_has_the_same_embeddings(model: DiER, images: np.ndarray) -> None:
    """What fills it up is neither given nor seen: rows of a batch do not know of each other."""
    plain, filled = (
        np.concatenate(list(embed_batches(model, images[:50], [300], batch_size=16, one_shape=one)), axis=1)
        for one in (False, True)
    )
    assert filled.shape == plain.shape
    np.testing.assert_allclose(filled, plain, rtol=1e-4, atol=1e-5)
    few = next(embed_batches(model, images[:3], [300], batch_size=16, one_shape=True))
    np.testing.assert_allclose(few, plain[:, :3], rtol=1e-4, atol=1e-5)


def test_bf16_points_the_same_way(model: DiER, images: np.ndarray) -> None:
    exact, rounded = (
        np.concatenate(list(embed_batches(model, images[:50], [0, 999], batch_size=16, precision=precision)), axis=1)
        for precision in ("float32", "bf16")
    )
    assert rounded.dtype == np.float32
    assert not np.array_equal(exact, rounded)
    cosine = (exact * rounded).sum(axis=2) / np.linalg.norm(exact, axis=2) / np.linalg.norm(rounded, axis=2)
    assert cosine.min() > 0.999


@pytest.mark.parametrize("pool", POOLS)
def test_the_head_makes_the_embeddings_of_what_stands_before_it(images: np.ndarray, pool: str) -> None:
    model = DiER(small_model(pool=pool)).eval()
    found = trunk(model, images[:50], 300, batch_size=16)
    assert found.dtype == np.float32
    assert found.shape == (50, {"mean": 32, "flat": 16 * 32, "grid": 4 * 32, "attention": 32}[pool])
    v = torch.nn.functional.layer_norm(model.encoder.head(torch.from_numpy(found)), (16,))
    np.testing.assert_allclose(v.detach().numpy(), embed(model, images[:50], 300), rtol=1e-4, atol=1e-5)
    assert not model.encoder.head._forward_pre_hooks


def test_each_denoiser_layer_is_pooled_and_the_noise_is_seeded(model: DiER, images: np.ndarray) -> None:
    first, again, other = (denoiser_layers(model, images[:20], 100, seed=seed) for seed in (0, 0, 1))
    assert [layer.shape for layer in first] == [(20, 32), (20, 32)]
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.allclose(first[1], other[1])


def test_denoising_at_t_zero_gives_the_image_back(model: DiER, images: np.ndarray) -> None:
    noisy, estimate = denoise(model, images[:5], 0, seed=0)
    assert noisy.shape == estimate.shape == (5, 8, 8, 1)
    assert np.abs(noisy.astype(int) - images[:5]).max() <= 8  # sqrt(1 - alpha_bar) is 0.01 there, 1.3 grey levels of noise
    shuffled = denoise(model, images[:5], 500, seed=0, shuffle=True)[1]
    assert not np.array_equal(shuffled, denoise(model, images[:5], 500, seed=0)[1])


def test_a_denoiser_that_ignores_v_has_no_gap(images: np.ndarray) -> None:
    model = DiER(small_model()).eval()
    torch.nn.init.zeros_(model.denoiser.embedding.weight)
    rows = shuffled_gap(model, images[:30], [100, 500], seed=0)
    assert [row["ratio"] for row in rows] == pytest.approx([1.0, 1.0])
    assert "dead encoder" in (unused_encoder(rows, 1.01) or "")
    assert unused_encoder(rows, 0) is None


def test_images_sorted_by_class_are_swapped_between_classes(images: np.ndarray) -> None:
    """Of one image 600 copies, then 600 of another: neighbours have the same v_t, and so have the first 500."""
    model = DiER(small_model()).eval()
    for layer in (model.denoiser.embedding, model.denoiser.modulation):
        torch.nn.init.normal_(layer.weight)  # a denoiser that uses v_t
    pair = np.stack([images[0], 255 - images[0]])
    rows, again = (shuffled_gap(model, np.repeat(pair, 600, axis=0), [300], seed=0, limit=200) for _ in range(2))
    assert abs(rows[0]["ratio"] - 1) > 1e-3
    assert rows == again


def test_a_model_survives_the_disk(model: DiER, tmp_path) -> None:
    save_model(tmp_path, model, model.state_dict())
    loaded = load_model(tmp_path)
    assert not loaded.training
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True))
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x04pickled?")
    with pytest.raises(ConfigError, match="train the model again"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"loss": float("nan")}, "non-finite"),
        ({"grad_norm_encoder": float("inf")}, "non-finite"),
        ({"grad_norm_encoder": 0.0, "grad_norm_denoiser": 0.0}, "gradients collapsed"),
        ({"loss": 0.99}, "predicting no noise"),
    ],
)
def test_each_way_of_going_wrong_has_its_name(changes: dict, named: str) -> None:
    with pytest.raises(PermanentTrainingError, match=named):
        check_point(HEALTHY | changes, 5000)


def test_a_healthy_point_and_an_early_one_pass() -> None:
    check_point(HEALTHY, 5000)
    check_point(HEALTHY | {"loss": 0.99}, 10)
