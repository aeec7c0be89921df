"""Evaluation of features: what chooses, what is read, and that each measure is what its name says."""

from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler, normalize

from experiments import evaluate
from experiments.contestant import Floats
from experiments.evaluate import Evaluation, few_labels, pack, unpack
from experiments.sets import ImageSet
from model.images import Images

CLASSES = 4
SPLITS = {"train": 400, "val": 150, "test": 170}


def image_set() -> ImageSet:
    """Noise of 6 x 6, and one bright quarter that says the class, half the time drowned."""
    rng = np.random.default_rng(0)
    images, labels = {}, {}
    for split, number in SPLITS.items():
        y = rng.integers(CLASSES, size=number)
        x = rng.integers(0, 120, size=(number, 6, 6, 1))
        for image, label in zip(x, y, strict=True):
            image[3 * (label // 2) : 3 * (label // 2) + 3, 3 * (label % 2) : 3 * (label % 2) + 3] += rng.integers(0, 110)
        images[split], labels[split] = x.astype(np.uint8), y.astype(np.int64)
    return ImageSet("made", "digits", images, labels)


class Unreadable(Mapping):
    """Splits, of which nobody may read test."""

    def __init__(self, splits: Mapping) -> None:
        self.splits = splits

    def __getitem__(self, split: str) -> np.ndarray:
        assert split != "test", "test was read"
        return self.splits[split]

    def __iter__(self) -> Iterator[str]:
        return iter(self.splits)

    def __len__(self) -> int:
        return len(self.splits)


def pixels(images: Images) -> Floats:
    return images.reshape(len(images), -1).astype(np.float32)


def dull(images: Images) -> Floats:
    return pixels(images)[:, :2]


@pytest.fixture
def made() -> ImageSet:
    return image_set()


def test_bits_come_back() -> None:
    right = np.random.default_rng(0).random(37) < 0.5
    assert np.array_equal(unpack(pack(right), 37), right)
    assert len(pack(np.ones(10_000, bool))) < 1700


def test_val_chooses_the_better_variant_and_the_first_of_equals(made: ImageSet) -> None:
    found = Evaluation(made, test=False).choose({"dull": dull, "pixels": pixels, "again": pixels})
    assert list(found) == ["pixels", "again", "dull"]
    assert found["pixels"] == found["again"] > found["dull"]


@pytest.mark.slow
def test_test_is_not_read_unless_asked_for(made: ImageSet) -> None:
    class Known(ImageSet):
        @property
        def classes(self) -> int:
            return CLASSES

    hidden = Known(made.name, made.family, Unreadable(made.images), Unreadable(made.labels))
    evaluation = Evaluation(hidden, test=False)
    record = evaluation.score(pixels)
    assert "test" not in record["probes"]["all"]
    assert "right" not in record["knn"]
    assert evaluation.curve({"t=0": pixels})[0]["val"] == record["probes"]["10k"]["val"]
    evaluation.choose({"pixels": pixels})


@pytest.mark.slow
def test_what_is_right_on_test_is_kept_for_each_image(made: ImageSet) -> None:
    record = Evaluation(made, test=True).score(pixels)
    for part in (*record["probes"].values(), record["knn"]):
        right = unpack(part["right"], SPLITS["test"])
        assert right.mean() == pytest.approx(part["test"])
        assert part["test"] > 0.5
    assert record["dimension"] == 36
    assert 1 <= record["rank"] <= 36
    assert record["few"]["50"]["test"] > record["few"]["1"]["test"]
    assert record["probes"]["all"]["images"] == 400


@pytest.mark.slow
def test_the_sizes_are_nested_samples_of_train(made: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "SIZES", {"1k": 50, "10k": 200})
    evaluation = Evaluation(made, test=True)
    record = evaluation.score(pixels)
    assert [probe["images"] for probe in record["probes"].values()] == [50, 200, 400]
    assert set(evaluation._sample(50)) < set(evaluation._sample(200))
    monkeypatch.setattr(evaluate, "LARGEST_FIT", 36 * 300)
    assert Evaluation(made, test=False).score(pixels)["probes"]["all"]["images"] == 300


def test_few_labels_are_as_many_of_each_class_and_differ_by_draw(made: ImageSet) -> None:
    y = made.labels["train"]
    rows = few_labels(y, 5, 0)
    assert np.bincount(y[rows]).tolist() == [5] * CLASSES
    assert not np.array_equal(rows, few_labels(y, 5, 1))
    assert np.array_equal(rows, few_labels(y, 5, 0))
    assert len(few_labels(y, 10_000, 0)) == len(y)


@pytest.mark.slow
def test_neighbours_are_scikit_learns(made: ImageSet) -> None:
    record = Evaluation(made, test=True).score(pixels)["knn"]
    scaler = StandardScaler().fit(pixels(made.images["train"]))
    x = {split: normalize(scaler.transform(pixels(made.images[split]))) for split in SPLITS}

    def weights(distance: np.ndarray) -> np.ndarray:
        return np.exp((1 - distance**2 / 2) / evaluate.TEMPERATURE)  # of unit vectors the cosine

    theirs = KNeighborsClassifier(record["k"], algorithm="brute", weights=weights).fit(x["train"], made.labels["train"])
    assert np.array_equal(unpack(record["right"], SPLITS["test"]), theirs.predict(x["test"]) == made.labels["test"])


def test_how_linear_features_are_in_the_pixels(made: ImageSet) -> None:
    evaluation = Evaluation(made, test=False)
    mixed = np.random.default_rng(1).normal(size=(36, 5)).astype(np.float32)
    curve = evaluation.curve({"mixed": lambda x: pixels(x) @ mixed, "bent": lambda x: np.cos(pixels(x) @ mixed / 30)})
    assert curve[0]["r2"] > 0.99
    assert curve[1]["r2"] < 0.3


def test_the_regression_is_scikit_learns(made: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "RIDGE", (0.1,))
    evaluation = Evaluation(made, test=False)
    bent = np.cos(pixels(made.images["train"])[:, :7] / 40), np.cos(pixels(made.images["val"])[:, :7] / 40)
    order = evaluation._sample(10_000)
    x, x_val = (pixels(made.images[split]).astype(np.float64) / 255 for split in ("train", "val"))
    alpha = 0.1 * ((x - x.mean(0)) ** 2).sum() / x.shape[1]
    guess = Ridge(alpha).fit(x[order], bent[0][order]).predict(x_val)
    theirs = 1 - ((bent[1] - guess) ** 2).sum() / ((bent[1] - bent[1].mean(0)) ** 2).sum()
    assert evaluation._regression(bent[0][order], bent[1]) == pytest.approx(theirs, abs=1e-6)


@pytest.mark.slow
def test_large_images_have_no_regression(made: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "RIDGE_PIXELS", 35)
    assert Evaluation(made, test=False).score(pixels)["r2"] is None
