import math

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from components.probing.classifier import fit_grid
from components.probing.conclusions import comparisons, peak, warnings
from components.probing.metrics import Bootstrap, Estimate, correct, evaluate
from components.probing.representations import Candidate, denoiser_blocks
from components.probing.sweep import Scored, best_of

DIGITS = load_digits()
X, Y = DIGITS.data.astype(np.float32), DIGITS.target
SEVERAL = np.stack([Y % 2, Y > 4, Y == 3], axis=1).astype(np.uint8)


def fitted(x: np.ndarray, y: np.ndarray, classes: int, c: float = 0.1):
    return dict(fit_grid(x, y, classes, [c], 500))[c]


def test_the_probe_is_scikit_learns_with_the_standardisation_folded_in() -> None:
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500)).fit(X[:600], Y[:600])
    ours = fitted(X[:600], Y[:600], 10)
    np.testing.assert_allclose(ours.scores(X[600:]), theirs.predict_proba(X[600:]), atol=2e-3)
    assert ours.converged


def test_two_classes() -> None:
    data = load_breast_cancer()
    x = data.data.astype(np.float32)
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=0.1)).fit(x[:400], data.target[:400])
    np.testing.assert_allclose(fitted(x[:400], data.target[:400], 2).scores(x[400:]), theirs.predict_proba(x[400:]), atol=2e-3)


def test_several_labels_are_probed_one_by_one_and_a_constant_one_is_learnt() -> None:
    labels = np.column_stack([SEVERAL, np.zeros(len(Y), np.uint8)])
    scores = fitted(X[:600], labels[:600], 0).scores(X[600:])
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=0.1)).fit(X[:600], labels[:600, 1])
    np.testing.assert_allclose(scores[:, 1], theirs.predict_proba(X[600:])[:, 1], atol=2e-3)
    assert (scores[:, 3] < 0.01).all()


def test_a_class_that_train_lacks_is_never_predicted_and_keeps_its_column() -> None:
    some = Y[:600] != 4
    scores = fitted(X[:600][some], Y[:600][some], 10).scores(X[600:])
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
    assert found["auc"].value == pytest.approx(roc_auc_score(Y[600:], scores, multi_class="ovr"), abs=1e-6)
    for estimate in found.values():
        assert estimate.low <= estimate.value <= estimate.high


def test_the_auc_of_a_resample_is_scikit_learns_with_weights_and_ties() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 300)
    scores = np.round(rng.random(300) + 0.3 * labels, 1).astype(np.float32)  # many ties
    boot = Bootstrap(300, 100, 0)
    draws = [roc_auc_score(labels, scores, sample_weight=counts) for counts in boot.counts]
    found = evaluate(np.stack([1 - scores, scores], axis=1), labels, boot)["auc"]
    assert found.value == pytest.approx(roc_auc_score(labels, scores))
    np.testing.assert_allclose([found.low, found.high], np.quantile(draws, [0.025, 0.975]))


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
    assert found["accuracy"].value == pytest.approx(getACC(official, scores, task))
    assert found["auc"].value == pytest.approx(getAUC(official, scores, task), abs=1e-6)


def test_the_interval_of_a_share_has_its_textbook_width() -> None:
    values = (np.arange(1000) < 800).astype(np.float64)
    found = Bootstrap(1000, 4000, 0).mean(values)
    half = 1.96 * math.sqrt(0.8 * 0.2 / 1000)
    assert found.value == 0.8
    assert found.low == pytest.approx(0.8 - half, abs=0.003)
    assert found.high == pytest.approx(0.8 + half, abs=0.003)


def test_one_class_alone_has_no_auc_and_gives_null() -> None:
    found = evaluate(np.array([[0.2, 0.8], [0.4, 0.6]], np.float32), np.array([1, 1]), Bootstrap(2, 100, 0))
    assert found["auc"].row() == {"value": None, "low": None, "high": None}
    assert found["accuracy"].value == 1


def scored(t: int | None, right: np.ndarray, representation: str = "dier") -> Scored:
    candidate = Candidate(representation, t, lambda split: X)
    share = right.mean()
    probe = fitted(X[:100], Y[:100], 10)
    return Scored(candidate, 0.1, probe, {"accuracy": Estimate(share, share - 0.01, share + 0.01)}, right.astype(np.float64))


def right(share: float) -> np.ndarray:
    return np.arange(2000) < 2000 * share


@pytest.mark.parametrize(
    ("shares", "kind", "t", "cure"),
    [
        ([0.80, 0.90, 0.85], "interior", 100, ""),
        ([0.90, 0.85, 0.80], "edge", 0, "train.steps"),
        ([0.80, 0.85, 0.90], "edge", 200, "beyond t = 200 to embed.timesteps"),
        ([0.80, 0.8005, 0.80], "none", 100, "data.val_fraction"),
        ([0.80, 0.80, 0.80], "none", 0, "model.encoder_time"),
        ([0.80, 0.90], "none", 100, "embed.timesteps"),
    ],
)
def test_a_peak_is_named_only_where_there_is_one_and_else_what_to_change(shares: list[float], kind: str, t: int, cure: str) -> None:
    found = peak([scored(100 * i, right(share)) for i, share in enumerate(shares)], Bootstrap(2000, 200, 0))
    assert (found["kind"], found["t"]) == (kind, t)
    assert f"t = {t}" in found["sentence"]
    assert cure in found["sentence"]


def test_comparisons_say_what_the_interval_says() -> None:
    gains = {
        "pixels": Estimate(0.02, 0.01, 0.03),
        "untrained": Estimate(-0.02, -0.03, -0.01),
        "denoiser_block1": Estimate(0, -0.01, 0.01),
    }
    first, second, third = comparisons(gains)
    assert "beats raw pixels" in first
    assert "falls below the untrained encoder" in second
    assert "cannot be told from the denoiser's block 1" in third


def test_what_looks_wrong_is_named() -> None:
    poor = {"dier": scored(0, right(0.5)), "pixels": scored(None, right(0.8), "pixels")}
    assert "Poor at every t" in warnings(poor, 0.1)[0]
    assert "model.embed_dim" in warnings(poor, 0.1)[0]
    assert "Near chance" in warnings({"dier": scored(0, right(0.11))}, 0.1)[0]
    assert "lower train.lr" in warnings({"dier": scored(0, right(0.11))}, 0.1)[0]
    assert warnings({"dier": scored(0, right(0.9)), "pixels": scored(None, right(0.8), "pixels")}, 0.1) == []


def test_the_first_of_equals_is_chosen() -> None:
    best = best_of([scored(0, right(0.8)), scored(100, right(0.9)), scored(200, right(0.9))])
    assert best["dier"].candidate.t == 100


def test_correct_counts_labels_where_there_are_several() -> None:
    scores = np.array([[0.9, 0.1, 0.7]], np.float32)
    assert correct(scores, np.array([[1, 0, 0]], np.uint8)) == pytest.approx(2 / 3)


def test_denoiser_blocks_are_spread_or_as_asked() -> None:
    assert denoiser_blocks(None, 12) == [3, 6, 9]
    assert denoiser_blocks(None, 2) == [0, 1]
    assert denoiser_blocks([11], 12) == [11]
    with pytest.raises(Exception, match="block 12 does not exist"):
        denoiser_blocks([12], 12)
