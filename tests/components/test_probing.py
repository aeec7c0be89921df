import math
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from scipy.special import expit
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from components.common.settings import ProbeSettings
from components.probing.baselines import BASELINES, BaselineName
from components.probing.candidate import Candidate
from components.probing.classifier import Linear, fit_grid
from components.probing.conclusions import chance, comparisons, peak, warnings
from components.probing.metrics import Bootstrap, Estimate, choosing_metric, correct, evaluate
from components.probing.representations import CANDIDATES, Sources, denoiser_blocks
from components.probing.sweep import Scored, Sweep, halves
from data.format import MULTI_LABEL, Dataset, DatasetInfo, SplitName, open_dataset, write_info
from model.config import ModelConfig
from model.dier import DiER

DIGITS = load_digits()
X, Y = DIGITS.data.astype(np.float32), DIGITS.target
SEVERAL = np.stack([Y % 2, Y > 4, Y == 3], axis=1).astype(np.uint8)


def fitted(x: np.ndarray, y: np.ndarray, classes: int, c: float = 0.1):
    return dict(fit_grid(x, y, classes, [c], 500))[c]


def test_the_probe_is_scikit_learns_with_the_standardisation_folded_in() -> None:
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500)).fit(X[:600], Y[:600])
    ours = fitted(X[:600], Y[:600], 10)
    np.testing.assert_allclose(expit(ours.scores(X[600:])), theirs.predict_proba(X[600:]), atol=2e-3)
    assert ours.converged


def test_two_classes() -> None:
    data = load_breast_cancer()
    x = data.data.astype(np.float32)
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=0.1)).fit(x[:400], data.target[:400])
    ours = fitted(x[:400], data.target[:400], 2)
    np.testing.assert_allclose(expit(ours.scores(x[400:])), theirs.predict_proba(x[400:]), atol=2e-3)


def test_several_labels_are_probed_one_by_one_and_a_constant_one_is_learnt() -> None:
    labels = np.column_stack([SEVERAL, np.zeros(len(Y), np.uint8)])
    scores = expit(fitted(X[:600], labels[:600], 0).scores(X[600:]))
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=0.1)).fit(X[:600], labels[:600, 1])
    np.testing.assert_allclose(scores[:, 1], theirs.predict_proba(X[600:])[:, 1], atol=2e-3)
    assert (scores[:, 3] < 0.01).all()


def test_a_class_that_train_lacks_is_never_predicted_and_keeps_its_column() -> None:
    some = Y[:600] != 4
    scores = expit(fitted(X[:600][some], Y[:600][some], 10).scores(X[600:]))
    assert scores.shape == (len(X) - 600, 10)
    assert scores[:, 4].max() == 0
    assert (scores.argmax(1) == Y[600:]).mean() > 0.75


def test_stopping_early_is_noticed() -> None:
    (_, probe), *_ = fit_grid(X[:600], Y[:600], 10, [100.0], 3)
    assert not probe.converged


def test_metrics_are_scikit_learns() -> None:
    scores = fitted(X[:200], Y[:200], 10, 0.001).scores(X[600:])
    found = evaluate(scores, Y[600:], Bootstrap(len(X) - 600, 100, 0))
    guess = scores.argmax(1)
    assert found["accuracy"].value == pytest.approx((guess == Y[600:]).mean())
    assert found["balanced_accuracy"].value == pytest.approx(balanced_accuracy_score(Y[600:], guess))
    assert found["auc"].value == pytest.approx(roc_auc_score(Y[600:], expit(scores), multi_class="ovr"), abs=1e-6)
    for estimate in found.values():
        assert estimate.low <= estimate.value <= estimate.high


def test_the_auc_of_a_resample_is_scikit_learns_with_weights_and_ties() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 300)
    scores = np.round(rng.random(300) + 0.3 * labels, 1).astype(np.float32)  # many ties
    boot = Bootstrap(300, 100, 0)
    draws = [roc_auc_score(labels, scores, sample_weight=counts) for counts in boot.counts]
    found = evaluate(np.stack([-scores, scores], axis=1), labels, boot)["auc"]
    assert found.value == pytest.approx(roc_auc_score(labels, scores))
    np.testing.assert_allclose([found.low, found.high], np.quantile(draws, [0.025, 0.975]))


@pytest.mark.parametrize("multi_label", [True, False])
def test_the_auc_ranks_images_whose_probabilities_round_to_one(multi_label: bool) -> None:
    """Logits of 40 to 80: as probabilities all of them are 1, in float64 too, and an AUC of them 0.5."""
    x = np.linspace(40, 80, 40, dtype=np.float32)[:, None]
    labels = (np.arange(40) >= 20).astype(np.int64)
    if multi_label:
        probe, truth = Linear(np.ones((1, 1), np.float32), np.zeros(1, np.float32), True, True), labels[:, None]
    else:  # class 2 against 0, with 1 never likely
        weight = np.array([[0], [-1], [1]], np.float32)
        probe, truth = Linear(weight, np.zeros(3, np.float32), False, True), 2 * labels
    assert set(expit(probe.scores(x))[:, -1]) == {1.0}
    assert evaluate(probe.scores(x), truth, Bootstrap(40, 100, 0))["auc"].value == 1


@pytest.mark.slow
@pytest.mark.parametrize("task", ["multi-class", "binary-class", "multi-label, binary-class"])
def test_metrics_are_medmnists(task: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # importing medmnist makes a folder there
    from medmnist.evaluator import getACC, getAUC

    labels = {"multi-class": Y, "binary-class": Y % 2, "multi-label, binary-class": SEVERAL}[task]
    classes = 0 if labels.ndim == 2 else int(labels.max()) + 1
    scores = fitted(X[:300], labels[:300], classes, 0.001).scores(X[600:])
    found = evaluate(scores, labels[600:], Bootstrap(len(X) - 600, 100, 0))
    official = labels[600:] if labels.ndim == 2 else labels[600:, None]
    assert found["accuracy"].value == pytest.approx(getACC(official, expit(scores), task))
    assert found["auc"].value == pytest.approx(getAUC(official, expit(scores), task), abs=1e-6)


def test_the_interval_of_a_share_has_its_textbook_width() -> None:
    values = (np.arange(1000) < 800).astype(np.float64)
    found = Bootstrap(1000, 4000, 0).mean(values)
    half = 1.96 * math.sqrt(0.8 * 0.2 / 1000)
    assert found.value == 0.8
    assert found.low == pytest.approx(0.8 - half, abs=0.003)
    assert found.high == pytest.approx(0.8 + half, abs=0.003)


def test_one_class_alone_has_no_auc_and_gives_null() -> None:
    found = evaluate(np.array([[-1.0, 1.0], [-0.4, 0.4]]), np.array([1, 1]), Bootstrap(2, 100, 0))
    assert found["auc"].row() == {"value": None, "low": None, "high": None}
    assert found["accuracy"].value == 1


RIGHT_OR_WRONG = 2000
VAL = Bootstrap(RIGHT_OR_WRONG, 200, 0)
CHOOSING, TESTING = halves(np.zeros(RIGHT_OR_WRONG, np.int64), 0)
HALF = Bootstrap(len(TESTING), 200, 0)
PROBE = fitted(X[:100], Y[:100], 10)


def scored(t: int | None, right: np.ndarray, representation: str = "dier") -> Scored:
    values = right.astype(np.float64)
    val = {"accuracy": VAL.mean(values)}
    candidate = Candidate(representation, t, lambda split, rows: [X])
    return Scored(candidate, 0.1, PROBE, val, float(values[CHOOSING].mean()), HALF.mean(values[TESTING]))


def right(share: float) -> np.ndarray:
    return np.arange(RIGHT_OR_WRONG) < RIGHT_OR_WRONG * share


@pytest.mark.parametrize(
    ("shares", "kind", "t", "cure"),
    [
        ([0.80, 0.90, 0.85], "interior", 100, ""),
        ([0.90, 0.85, 0.80], "edge", 0, "train.steps"),
        ([0.80, 0.85, 0.90], "edge", 200, "beyond t = 200 to embed.timesteps"),
        ([0.80, 0.8015, 0.80], "none", 100, "data.val_fraction"),
        ([0.80, 0.80, 0.80], "none", 0, "model.encoder_time"),
        ([0.80, 0.90], "none", 100, "embed.timesteps"),
        ([0.80, 0.9015, 0.90], "plateau", 100, "the gain over t = 200 is within chance"),
        ([0.80, 0.90, 0.9015], "plateau", 200, "the gain over t = 100 is within chance"),
        ([0.9015, 0.90, 0.80], "plateau", 0, "model.prediction x0"),
    ],
)
def test_a_peak_is_named_only_where_there_is_one_and_else_what_to_change(shares: list[float], kind: str, t: int, cure: str) -> None:
    found = peak([scored(100 * i, right(share)) for i, share in enumerate(shares)], "accuracy")
    assert (found["kind"], found["t"]) == (kind, t)
    assert f"t = {t}" in found["sentence"]
    assert cure in found["sentence"]
    assert ("on the other half" in found["sentence"]) is (len(shares) > 2)


def test_a_peak_on_the_images_that_chose_it_alone_is_none() -> None:
    """On all of val t = 100 is 5 points above both ends, significantly; on the half that did not choose it, it is not."""
    flat, lucky = right(0.8), right(0.8)
    lucky[CHOOSING[-100:]] = True
    gain = VAL.mean(lucky.astype(float) - flat)
    assert (gain.value, gain.low > 0.03) == (0.05, True)
    found = peak([scored(0, flat), scored(100, lucky), scored(200, flat)], "accuracy")
    assert (found["kind"], found["t"]) == ("none", 100)
    assert "the gain over t = 0 and t = 200 is within chance" in found["sentence"]


def test_the_halves_of_val_hold_each_class_alike() -> None:
    one, other = halves(Y, 0)
    assert sorted([*one, *other]) == list(range(len(Y)))
    assert np.abs(np.bincount(Y[one]) - np.bincount(Y[other])).max() <= 1
    both = halves(SEVERAL, 0)
    np.testing.assert_allclose(SEVERAL[both[0]].mean(0), SEVERAL[both[1]].mean(0), atol=0.005)


def differences(**values: float) -> dict[str, Estimate]:
    """An interval of 0.01 to each side."""
    return {name: Estimate(value, value + np.linspace(-0.0105, 0.0105, 101)) for name, value in values.items()}


def test_comparisons_say_what_the_interval_says() -> None:
    first, second = comparisons(differences(pixels=0.02, untrained=-0.02), "accuracy")
    assert "beats raw pixels: +2.00 points [+1.00, +3.00]" in first
    assert "falls below the untrained encoder" in second
    by_auc = comparisons(differences(pca=0.0), "auc")
    assert by_auc == ["On test by AUC DiER cannot be told from PCA of the pixels: +0.0000 [-0.0100, +0.0100]."]


def test_the_denoiser_that_is_given_v_says_that_it_contains_dier() -> None:
    first, second, caveat = comparisons(differences(denoiser_given_v_block0=0, denoiser_given_v_block1=0.02), "accuracy")
    assert "cannot be told from the denoiser's block 0, which is given v_t" in first
    assert "beats the denoiser's block 1, which is given v_t" in second
    assert "contain DiER's embedding" in caveat
    assert {0, 10, 20, 50} < set(ProbeSettings().baseline_timesteps)  # most of what DDAE tries


def test_what_looks_wrong_is_named() -> None:
    poor = {"dier": scored(0, right(0.5)), "pixels": scored(None, right(0.8), "pixels")}
    assert "Poor at every t" in warnings(poor, "accuracy", 0.1)[0]
    assert "model.embed_dim" in warnings(poor, "accuracy", 0.1)[0]
    assert "Near chance" in warnings({"dier": scored(0, right(0.11))}, "accuracy", 0.1)[0]
    assert "lower train.lr" in warnings({"dier": scored(0, right(0.11))}, "accuracy", 0.1)[0]
    assert warnings({"dier": scored(0, right(0.9)), "pixels": scored(None, right(0.8), "pixels")}, "accuracy", 0.1) == []


def test_chance_is_what_the_commonest_class_or_a_guess_scores() -> None:
    labels = np.array([0, 0, 0, 1])
    assert (chance(labels, "accuracy"), chance(labels, "balanced_accuracy"), chance(SEVERAL, "auc")) == (0.75, 0.5, 0.5)


def dataset(folder: Path, labels: np.ndarray, images: np.ndarray, task: str = "multi-class") -> Dataset:
    """A dataset of these images, a third a split."""
    third = len(labels) // 3
    for place, split in enumerate(("train", "val", "test")):
        (folder / split).mkdir(parents=True)
        here = slice(place * third, (place + 1) * third)
        np.save(folder / split / "labels.npy", labels[here])
        np.save(folder / split / "images.npy", images[here])
    counts = dict.fromkeys(("train", "val", "test"), third)
    names = [str(i) for i in range(labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1)]
    write_info(folder, DatasetInfo("made up", "tests", "none", task, names, list(images.shape[1:]), counts, []))
    return open_dataset(folder)


def sweep_of(*args: Any) -> Sweep:
    return Sweep(ProbeSettings(c_grid=[0.01, 0.1], bootstrap=100), dataset(*args))


def noise_and_signal(labels: np.ndarray, strength: float) -> list[Candidate]:
    """Two timesteps: at 0 noise alone, at 100 a hint of the labels (N, L) in noise."""
    third = len(labels) // 3
    places = {"train": 0, "val": 1, "test": 2}
    noise = np.random.default_rng(0).normal(size=(2, len(labels), labels.shape[1])).astype(np.float32)
    noise[1] += strength * labels

    def pieces(split: SplitName, rows: np.ndarray | None, x: np.ndarray) -> list[np.ndarray]:
        here = x[places[split] * third : (places[split] + 1) * third]
        return [here if rows is None else here[rows]]

    return [Candidate("dier", t, partial(pieces, x=x)) for t, x in zip((0, 100), noise, strict=True)]


def test_several_rare_labels_choose_by_auc(tmp_path: Path) -> None:
    """Naming no label is right for 95 % of them at every t: accuracy would take the first t, whatever it is."""
    labels = (np.random.default_rng(1).random((900, 3)) < 0.05).astype(np.uint8)
    sweep = sweep_of(tmp_path, labels, np.zeros((900, 4, 4, 1), np.uint8), MULTI_LABEL)
    found = [sweep.score(one) for one in noise_and_signal(labels, 1.0)]
    assert sweep.chosen_by == "auc"
    assert found[0].val["accuracy"].value >= found[1].val["accuracy"].value
    assert sweep.best(found, lambda one: one.representation)["dier"].candidate.t == 100


def test_skewed_classes_choose_by_balanced_accuracy(tmp_path: Path) -> None:
    """The common class is 96 % of the images: a t that never finds the rare one must not be chosen for its accuracy."""
    labels = (np.random.default_rng(1).random(1800) < 0.04).astype(np.int64)
    sweep = sweep_of(tmp_path, labels, np.zeros((1800, 4, 4, 1), np.uint8))
    never, some = (sweep.score(one) for one in noise_and_signal(labels[:, None], 2.0))
    some.val["accuracy"] = differences(a=never.val["accuracy"].value - 0.01)["a"]
    assert sweep.chosen_by == "balanced_accuracy"
    assert sweep.best([never, some], lambda one: one.representation)["dier"].candidate.t == 100


@pytest.mark.parametrize(
    ("counts", "metric"),
    [
        ([60, 40], "accuracy"),
        ([70, 30], "balanced_accuracy"),
        ([20] + [10] * 9, "accuracy"),
        ([25] + [10] * 9, "balanced_accuracy"),
    ],
)
def test_the_choosing_metric_is_balanced_accuracy_above_twice_the_others(counts: list[int], metric: str) -> None:
    assert choosing_metric(np.repeat(np.arange(len(counts)), counts), multi_label=False) == metric


def test_labels_that_val_lacks_are_skipped_and_without_any_accuracy_chooses(tmp_path: Path) -> None:
    labels = (np.random.default_rng(1).random((90, 2)) < 0.3).astype(np.uint8)
    labels[30:60, 1] = 0
    images = np.zeros((90, 4, 4, 1), np.uint8)
    some = sweep_of(tmp_path / "some", labels, images, MULTI_LABEL)
    (one, _) = noise_and_signal(labels, 1.0)
    assert some.chosen_by == "auc"
    assert math.isfinite(some.score(one).val["auc"].value)
    labels[30:60] = 0
    none = sweep_of(tmp_path / "none", labels, images, MULTI_LABEL)
    assert none.chosen_by == "accuracy"
    assert none.score(one).val["auc"].row()["value"] is None


def test_one_val_image_is_no_reason_to_fail(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, np.zeros(3, np.int64), np.zeros((3, 4, 4, 1), np.uint8))
    found = [sweep.score(Candidate("dier", t, lambda split, rows: [X[:1]])) for t in (0, 1, 2)]
    assert peak(found, sweep.chosen_by)["kind"] == "none"


def test_pca_chooses_its_components_and_whitening_on_val(tmp_path: Path) -> None:
    """Two strong directions tell the classes apart, all others are weak noise, which whitening would blow up."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 360)
    directions, centres = np.repeat(np.eye(2), 32, axis=1), np.array([[60, 0], [-30, 50], [-30, -50]])
    pixels = (centres[labels] + rng.normal(0, 30, (360, 2))) @ directions + rng.normal(0, 4, (360, 64)) + 128
    images = np.clip(np.rint(pixels), 0, 255).reshape(360, 8, 8, 1).astype(np.uint8)
    sweep = sweep_of(tmp_path, labels, images)
    sources = Sources(sweep.settings, sweep.dataset, DiER(ModelConfig(1, 16, 2, 8, 8, 1, 4, 40)))
    found = [sweep.score(one) for one in CANDIDATES["pca"](sources)]
    assert [one.candidate.variant for one in found] == [
        f"{k} components, {how}" for k in (10, 20, 40) for how in ("not whitened", "whitened")
    ]
    best = sweep.best(found, lambda one: one.representation)["pca"]
    whole = found[-1]  # what it was before: all components, whitened by the standardisation
    assert "not whitened" in best.candidate.variant
    assert sweep.test(best).test["accuracy"].value > sweep.test(whole).test["accuracy"].value + 0.05
    spread = found[0].candidate.features("train", np.arange(120)).std(0)
    assert spread[0] > 10 * spread[-1]


def test_the_table_of_baselines_the_setting_and_the_features_name_the_same() -> None:
    assert set(BASELINES) == set(CANDIDATES) == set(get_args(BaselineName))


def test_correct_counts_labels_where_there_are_several() -> None:
    scores = np.array([[2.0, -2.0, 1.0]])
    assert correct(scores, np.array([[1, 0, 0]], np.uint8)) == pytest.approx(2 / 3)


def test_denoiser_blocks_are_spread_or_as_asked() -> None:
    assert denoiser_blocks(None, 12) == [3, 6, 9]
    assert denoiser_blocks(None, 2) == [0, 1]
    assert denoiser_blocks([11], 12) == [11]
    with pytest.raises(Exception, match="block 12 does not exist"):
        denoiser_blocks([12], 12)
