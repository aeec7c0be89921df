"""The probe of many images: fitted on a sample, scored in pieces, with intervals from groups of images."""

import math
import mmap
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import ndtri
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from components.common.errors import ArtifactError
from components.common.settings import ProbeSettings
from components.probing import candidate, metrics, sweep
from components.probing.candidate import Candidate, Pass, gather, images_of
from components.probing.classifier import Linear, fit_grid
from components.probing.conclusions import sampled
from components.probing.grouped import placements
from components.probing.metrics import EXACT, Bootstrap, Estimate, estimate_of, evaluate, value_of
from components.probing.representations import CANDIDATES, Sources
from components.probing.sweep import Sweep, halves
from data import shard_writer
from data.format import Dataset, DatasetInfo, Split, SplitName, open_dataset, write_info
from data.shards import ShardedImages, read_manifests
from model import features
from model.config import ModelConfig
from model.dier import DiER
from model.rng import generator

MANY = 25_000


def guesses(images: int, seed: int = 0, classes: int = 3, rare: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N, K) that are right more often than not, with ties, and labels (N,), the last class rare."""
    rng = np.random.default_rng(seed)
    shares = np.r_[np.full(classes - 1, (1 - rare) / (classes - 1)), rare]
    labels = rng.choice(classes, images, p=shares)
    scores = rng.normal(size=(images, classes)) + 1.5 * (labels[:, None] == np.arange(classes))
    return np.round(scores, 2), labels


def one_by_one(images: int, resamples: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> Bootstrap:
    """The bootstrap that resamples images, of more of them than is usual."""
    with monkeypatch.context() as patch:
        patch.setattr(metrics, "EXACT", images)
        return Bootstrap(images, resamples, seed)


@pytest.mark.slow
@pytest.mark.parametrize("several", [False, True])
def test_intervals_from_groups_are_those_of_the_exact_bootstrap(several: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends within 6 % of the width: 2,000 resamples give each an error of 1.5 % of it, and there are two of each."""
    scores, labels = guesses(MANY)
    if several:
        labels = (labels[:, None] == np.arange(3)).astype(np.uint8)
    exact, grouped = (evaluate(scores, labels, boot) for boot in (one_by_one(MANY, 2000, 0, monkeypatch), Bootstrap(MANY, 2000, 0)))
    for name, expected in exact.items():
        found, width = grouped[name], expected.high - expected.low
        assert found.value == pytest.approx(expected.value, abs=1e-12)
        assert found.low == pytest.approx(expected.low, abs=0.06 * width), name
        assert found.high == pytest.approx(expected.high, abs=0.06 * width), name


@pytest.mark.slow
def test_the_interval_of_an_auc_is_delongs() -> None:
    """Closed form: var V10 / m + var V01 / n, over the placements of m positive and n other images."""
    rng = np.random.default_rng(1)
    positive = np.arange(MANY) < 600
    scores = rng.normal(size=MANY) + positive
    yes, no = scores[positive], scores[~positive]
    beats = yes[:, None] > no
    error = math.sqrt(beats.mean(1).var(ddof=1) / len(yes) + beats.mean(0).var(ddof=1) / len(no))
    found = estimate_of("auc", scores[:, None], positive[:, None].astype(np.uint8), Bootstrap(MANY, 4000, 0))
    assert found.value == pytest.approx(beats.mean())
    assert found.draws.std() == pytest.approx(error, rel=0.04)
    ends = beats.mean() + ndtri(0.025) * error, beats.mean() + ndtri(0.975) * error
    assert [found.low, found.high] == pytest.approx(list(ends), abs=0.08 * (ends[1] - ends[0]))


def test_the_placements_are_the_shares_of_rightly_ordered_pairs_ties_half() -> None:
    rng = np.random.default_rng(0)
    positive, scores = rng.random(300) < 0.2, np.round(rng.random(300), 1)
    right = (scores[positive][:, None] > scores[~positive]) + 0.5 * (scores[positive][:, None] == scores[~positive])
    found = placements(scores, positive)
    np.testing.assert_allclose(found[positive], right.mean(1))
    np.testing.assert_allclose(found[~positive], right.mean(0))
    assert found[positive].mean() == pytest.approx(roc_auc_score(positive, scores))


def test_a_difference_stays_paired() -> None:
    """Two probes that err on nearly the same images: the difference has the error of what is unlike alone."""
    rng = np.random.default_rng(0)
    one = (rng.random(40_000) < 0.8).astype(np.float64)
    other = np.where(rng.random(40_000) < 0.01, 1 - one, one)
    boot = Bootstrap(40_000, 1000, 0)
    found, paired = boot.mean(one).minus(boot.mean(other)), boot.mean(one - other)
    error = (one - other).std() / math.sqrt(40_000)
    np.testing.assert_allclose(found.draws, paired.draws, atol=1e-12)
    assert found.draws.std() == pytest.approx(error, rel=0.06)
    assert boot.mean(one).draws.std() > 3 * found.draws.std()


def test_up_to_a_size_images_are_resampled_one_by_one_with_the_numbers_they_always_had() -> None:
    assert Bootstrap(EXACT, 100, 0).groups is None
    rng = np.random.default_rng([3, 300])
    np.testing.assert_array_equal(
        Bootstrap(300, 100, 3).counts, [np.bincount(rng.integers(300, size=300), minlength=300) for _ in range(100)]
    )


def test_the_groups_are_of_one_size_but_for_an_image_and_hold_no_order() -> None:
    groups = Bootstrap(MANY, 100, 0).groups
    assert groups is not None
    assert set(np.bincount(groups)) == {2, 3}
    assert abs(np.corrcoef(groups, np.arange(MANY))[0, 1]) < 0.03


def test_values_of_many_images_are_scikit_learns() -> None:
    scores, labels = guesses(MANY, classes=2, rare=0.3)
    guess = scores.argmax(1)
    assert value_of("accuracy", scores, labels) == pytest.approx((guess == labels).mean())
    assert value_of("balanced_accuracy", scores, labels) == pytest.approx(balanced_accuracy_score(labels, guess))
    assert value_of("auc", scores, labels) == pytest.approx(roc_auc_score(labels, scores[:, 1]))


def test_many_images_of_one_class_have_no_auc() -> None:
    found = evaluate(np.zeros((MANY, 2)), np.zeros(MANY, np.int64), Bootstrap(MANY, 100, 0))
    assert found["auc"].row() == {"value": None, "low": None, "high": None}
    assert value_of("auc", np.zeros((MANY, 2)), np.zeros(MANY, np.int64)) == -1
    assert found["balanced_accuracy"].value == 1


def test_a_resample_without_a_rare_class_leaves_it_out() -> None:
    scores, labels = guesses(MANY, rare=1e-9)
    labels[0] = 2
    scores[0] = [0, 0, 9]
    found = evaluate(scores, labels, Bootstrap(MANY, 200, 0))
    assert np.isfinite(found["auc"].draws).all()
    assert found["balanced_accuracy"].draws.std() > 0.02  # it is in some, in none of about a third


def test_no_interval_of_an_auc_ends_beyond_1() -> None:
    scores, labels = np.r_[2.0, 0.5, np.linspace(0, 1, MANY)], np.r_[1, 1, np.zeros(MANY, np.int64)]
    found = evaluate(np.stack([-scores, scores], 1), labels, Bootstrap(len(labels), 500, 0))["auc"]
    assert 0 <= found.low < found.value < found.high <= 1
    assert found.draws[np.isfinite(found.draws)].max() <= 1


def test_an_empty_split_gives_none() -> None:
    none: Estimate = estimate_of("auc", np.empty((0, 2)), np.empty(0, np.int64), Bootstrap(0, 100, 0))
    assert none.row() == {"value": None, "low": None, "high": None}


@pytest.mark.parametrize(
    "labels", [np.random.default_rng(0).integers(0, 7, 500), np.random.default_rng(0).integers(0, 2, (500, 40))]
)
def test_the_halves_are_drawn_within_combinations_of_labels(labels: np.ndarray) -> None:
    groups = np.unique(labels, axis=0, return_inverse=True)[1].ravel()
    order = np.lexsort((np.random.default_rng([3, 500]).random(500), groups))
    one, other = halves(labels, 3)
    np.testing.assert_array_equal(one, np.sort(order[::2]))
    np.testing.assert_array_equal(other, np.sort(order[1::2]))


def test_a_fit_needs_no_second_copy_of_its_features() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 4000)
    x = (rng.normal(size=(4000, 500)) + labels[:, None]).astype(np.float32)
    kept = x.copy()
    (_, expected) = next(fit_grid(x, labels, 2, [0.1], 3))
    np.testing.assert_array_equal(x, kept)
    tracemalloc.start()
    (_, found) = next(fit_grid(x, labels, 2, [0.1], 3, overwrite=True))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < x.nbytes / 2
    np.testing.assert_array_equal(found.weight, expected.weight)
    assert abs(x.mean(0)).max() < 1e-3


def dataset(folder: Path, counts: dict[str, int], side: int = 8) -> Dataset:
    """Images of noise with a trace of their class."""
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        (folder / split).mkdir(parents=True)
        labels = rng.integers(0, 3, count)
        np.save(folder / split / "labels.npy", labels)
        images = rng.integers(0, 180, (count, side, side, 1)) + 25 * labels[:, None, None, None]
        np.save(folder / split / "images.npy", images.astype(np.uint8))
    write_info(folder, DatasetInfo("made up", "tests", "none", "multi-class", list("abc"), [side, side, 1], counts, []))
    return open_dataset(folder)


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """Images of three splits and a model whose blocks differ."""
    made = dataset(tmp_path, {"train": 1300, "val": 700, "test": 60})
    settings = ProbeSettings(c_grid=[0.01, 0.1], bootstrap=100, baseline_timesteps=[10], max_iter=20)
    return Sources(settings, made, DiER(ModelConfig(2, 16, 2, 8, 8, 1, 4, 8)).eval())


@pytest.mark.parametrize("name", list(CANDIDATES))
def test_features_of_some_images_are_those_of_all(name: Any, sources: Sources) -> None:
    """Also of the denoiser, whose noise is an image's own; the last bits depend on which images a matrix product holds together."""
    rows = np.sort(np.random.default_rng(1).permutation(1300)[:90])
    for found in CANDIDATES[name](sources):
        whole = gather(found.pieces("train", None), 1300)
        np.testing.assert_allclose(found.features("train", rows), whole[rows], rtol=1e-4, atol=1e-5)


def test_the_noise_of_an_image_is_its_own_and_what_it_was() -> None:
    """500 successive images of a set are one draw."""
    shape = torch.Size((1, 2, 2))
    drawn = [
        torch.randn((n, *shape), generator=generator(3, "layers", 10, start)) for start, n in ((0, 500), (500, 500), (1000, 30))
    ]
    whole = features._noise_of(np.arange(1030), 1030, shape, 3, 10)
    some = np.array([0, 499, 500, 998, 1029])
    torch.testing.assert_close(whole, torch.cat(drawn), rtol=0, atol=0)
    torch.testing.assert_close(features._noise_of(some, 1030, shape, 3, 10), whole[some], rtol=0, atol=0)


def test_one_pass_gives_all_blocks_and_what_does_not_fit_in_memory_is_kept_in_a_file(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = list(CANDIDATES["denoiser_given_v"](sources))
    rows = np.arange(0, 1300, 2)
    expected = [one.features("train", rows) for one in blocks]
    monkeypatch.setattr(candidate, "IN_MEMORY", 1000)
    monkeypatch.setattr(candidate, "PIECE_BYTES", 777)
    asked: list[int] = []
    fresh = Sources(sources.settings, sources.dataset, sources.model)
    seen = sources.model.denoiser.layer_means
    monkeypatch.setattr(sources.model.denoiser, "layer_means", lambda x, *rest: asked.append(len(x)) or seen(x, *rest))
    for one, before in zip(CANDIDATES["denoiser_given_v"](fresh), expected, strict=True):
        np.testing.assert_array_equal(one.features("train", rows), before)
    assert sum(asked) == len(rows)


def test_a_pass_forgets_the_last_place() -> None:
    made, calls = Pass(), []

    def compute(split: SplitName, rows: np.ndarray | None) -> Iterator[dict[int, np.ndarray]]:
        calls.append((split, None if rows is None else len(rows)))
        yield {0: np.full((2, 3), len(calls), np.float32)}

    def first(place: str, split: SplitName, rows: np.ndarray | None) -> float:
        return float(gather(made.pieces(place, split, rows, 0, compute), 2)[0, 0])

    assert [first("a", "train", np.arange(2)), first("a", "val", None), first("a", "train", np.arange(2))] == [1, 2, 1]
    assert [first("a", "train", np.arange(3)), first("b", "val", None), first("a", "val", None)] == [3, 4, 5]


class Recorder:
    """Images that note which of them are read, shard by shard."""

    shape = (100, 1, 1, 1)

    def __init__(self) -> None:
        self.read: list[list[int]] = []

    def __getitem__(self, place: Any) -> np.ndarray:
        found = np.arange(100)[place]
        self.read.append(found.tolist())
        return found.reshape(-1, 1, 1, 1).astype(np.uint8)


@pytest.mark.parametrize("rows", [None, np.array([0, 39, 40, 41, 45, 99])])
def test_images_are_read_once_in_order_and_never_across_shards(rows: np.ndarray | None) -> None:
    images = Recorder()
    split: Any = SimpleNamespace(images=images, shards=(slice(0, 40), slice(40, 70), slice(70, 100)))
    found = list(images_of(split, rows, 25))
    numbers = np.concatenate([some for some, _ in found])
    np.testing.assert_array_equal(numbers, np.arange(100) if rows is None else rows)
    np.testing.assert_array_equal(np.concatenate([x.ravel() for _, x in found]), numbers)
    for some in images.read:
        assert len(some) <= 25
        assert len({sum(i >= edge for edge in (40, 70)) for i in some}) == 1


@pytest.mark.parametrize("name", list(CANDIDATES))
def test_of_images_in_shards_each_is_read_once_for_the_same_features(
    name: Any, sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = Sources(sources.settings, sources.dataset, sources.model, (100,))
    plain = sources.dataset.split("train")
    folder = tmp_path / "shards"
    folder.mkdir()
    blocks = (plain.images[start : start + 300] for start in range(0, 1300, 300))
    shard_writer.write(folder, None, blocks, plain.labels, 400 * 64, 1)
    images: Any = ShardedImages(str(folder), read_manifests(folder, False), (8, 8, 1))
    in_shards, read = Split("train", images, plain.labels), []
    expected = [gather(one.pieces("train", None), 1300) for one in CANDIDATES[name](sources)]
    real = ShardedImages._read
    monkeypatch.setattr(Dataset, "split", lambda dataset, split: in_shards)
    monkeypatch.setattr(ShardedImages, "_read", lambda self, shard: read.append(shard.name) or real(self, shard))
    sources = Sources(sources.settings, sources.dataset, sources.model, (100,))
    for one, whole in zip(CANDIDATES[name](sources), expected, strict=True):
        np.testing.assert_allclose(gather(one.pieces("train", None), 1300), whole, rtol=1e-4, atol=1e-5)
    in_order = [f"{number:05d}.parquet" for number in range(4)]
    assert read == in_order * (2 if name == "pca" else 1)  # PCA reads what it is fitted on, then what it projects


def test_a_mapped_file_is_given_back_as_it_is_read(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every 10,000 bytes of 83,200 but for what is left of a block, sampled or not."""
    monkeypatch.setattr(candidate, "HELD_BYTES", 10_000)
    released: list[str] = []
    release = Split.release
    monkeypatch.setattr(Split, "release", lambda split: released.append(split.name) or release(split))
    split = sources.dataset.split("train")
    assert isinstance(split.images.base, mmap.mmap)
    for rows in (None, np.arange(0, 1300, 2)):
        released.clear()
        found = np.concatenate([x for _, x in images_of(split, rows, 20)])
        np.testing.assert_array_equal(found, np.asarray(split.images)[slice(None) if rows is None else rows])
        assert 6 <= len(released) <= 8


def test_a_gap_in_a_representation_is_an_error() -> None:
    with pytest.raises(ArtifactError, match="1 of 2 images"):
        gather([np.zeros((1, 3), np.float32)], 2)


def test_a_gap_among_many_images_is_an_error_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Sweep(ProbeSettings(bootstrap=100), dataset(tmp_path, {"train": 90, "val": 60, "test": 60}))
    monkeypatch.setattr(sweep, "EXACT", 50)
    probe = Linear(np.zeros((2, 3), np.float32), np.zeros(2, np.float32), multi_label=False, converged=True)
    short = Candidate("dier", 0, lambda split, rows: [np.zeros((40, 3), np.float32)])
    with pytest.raises(ArtifactError, match="40 of 60 images"):
        made._scores(short, "val", [probe])


def test_a_large_train_split_is_sampled_and_a_number_that_is_given_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = dataset(tmp_path, {"train": 900, "val": 60, "test": 60})
    assert len(Sweep(ProbeSettings(bootstrap=100), made).train_images) == 900
    monkeypatch.setattr(sweep, "LARGEST_FIT", 300)
    null, given = (Sweep(ProbeSettings(bootstrap=100, train_limit=limit), made).train_images for limit in (None, 500))
    assert (len(null), len(given)) == (300, 500)
    assert set(null) < set(given)
    assert (np.diff(null) > 0).all()
    assert sampled(300, 900) == ["The probes were fitted on a random sample of 300 of 900 training images (probe.train_limit)."]
    assert sampled(900, 900) == []


def test_val_and_test_are_scored_in_pieces_with_the_same_result(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    (pixels,) = CANDIDATES["pixels"](sources)

    def pieces(split: SplitName, rows: np.ndarray | None) -> Iterator[np.ndarray]:
        for x in pixels.pieces(split, rows):
            yield from np.array_split(x, len(x) // 50)

    made, asked, real = Sweep(sources.settings, sources.dataset), [], Linear.scores
    at_once = made.score(pixels)
    monkeypatch.setattr(sweep, "EXACT", 50)
    monkeypatch.setattr(Linear, "scores", lambda probe, x: asked.append(len(x)) or real(probe, x))
    found = made.score(Candidate("pixels", None, pieces))
    assert max(asked) == 50
    assert found.c == at_once.c
    assert found.val["accuracy"].value == at_once.val["accuracy"].value
    assert found.val["auc"].value == pytest.approx(at_once.val["auc"].value, abs=1e-5)
    np.testing.assert_array_equal(made.test(found).guess, made.test(at_once).guess)
