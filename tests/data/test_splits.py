import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data.errors import DataError
from data.splits import RARE, choose, stratified

CLASSES = hnp.arrays(np.int64, st.integers(1, 120), elements=st.integers(0, 5))
FRACTIONS = st.floats(0.01, 0.9)
SEEDS = st.integers(0, 2**40)


@given(CLASSES, FRACTIONS, SEEDS)
def test_split_is_disjoint_complete_ascending_and_stratified(labels, fraction, seed):
    kept, taken = stratified(labels, fraction, seed)
    assert sorted([*kept, *taken]) == list(range(len(labels)))
    assert list(kept) == sorted(kept)
    assert list(taken) == sorted(taken)
    for label in np.unique(labels):
        total, out = (labels == label).sum(), (labels[taken] == label).sum()
        assert abs(out - fraction * total) <= 1
        if total > 1:
            assert 0 < out < total
        else:
            assert out == 0


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 80), st.integers(2, 4)), elements=st.integers(0, 1)), FRACTIONS, SEEDS)
def test_split_of_several_labels_is_disjoint_and_keeps_frequent_combinations_in_proportion(labels, fraction, seed):
    kept, taken = stratified(labels, fraction, seed)
    assert sorted([*kept, *taken]) == list(range(len(labels)))
    for combination in np.unique(labels, axis=0):
        total = (labels == combination).all(axis=1).sum()
        if total >= RARE:
            assert abs((labels[taken] == combination).all(axis=1).sum() - fraction * total) <= 1


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30)), min_size=1, max_size=120), FRACTIONS, SEEDS)
def test_groups_stay_whole_and_classes_of_one_class_groups_stand_on_both_sides(images, fraction, seed):
    labels, groups = np.array(images).T
    kept, taken = stratified(labels, fraction, seed, groups=groups)
    assert sorted([*kept, *taken]) == list(range(len(labels)))
    assert not set(groups[kept]) & set(groups[taken])
    labels = groups % 3
    kept, taken = stratified(labels, fraction, seed, groups=groups)
    for label in np.unique(labels):
        sizes = np.unique(groups[labels == label], return_counts=True)[1]
        out = (labels[taken] == label).sum()
        assert (0 < out < sizes.sum()) == (len(sizes) > 1)
        if len(sizes) > 1:
            assert abs(out - fraction * sizes.sum()) <= sizes.max() + 1


@given(CLASSES, FRACTIONS, SEEDS)
def test_same_seed_same_split(labels, fraction, seed):
    first, second = (stratified(labels, fraction, seed) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_another_seed_or_stream_gives_another_split():
    labels = np.arange(200) % 4
    taken = [tuple(stratified(labels, 0.3, seed, stream)[1]) for seed, stream in ((0, 0), (1, 0), (0, 1))]
    assert len(set(taken)) == 3


def test_a_class_that_few_groups_hold_stays_on_both_sides():
    """Every patient has healthy images, two of forty also a sick one."""
    groups = np.repeat(np.arange(40), 10)
    labels = np.zeros(400, np.int64)
    labels[[5, 15]] = 1
    for seed in range(20):
        kept, taken = stratified(labels, 0.2, seed, groups=groups)
        assert (labels[kept].sum(), labels[taken].sum()) == (1, 1)


def test_official_splits_are_kept_whole_and_unnoted():
    labels = {"train": np.arange(30) % 3, "val": np.arange(9) % 3, "test": np.arange(6) % 3}
    splits, notes = choose(labels, 0.2, 0.2, 0)
    assert {name: (c.part, len(c.rows)) for name, c in splits.items()} == {
        "train": ("train", 30),
        "val": ("val", 9),
        "test": ("test", 6),
    }
    assert notes == []


def test_missing_val_and_test_are_cut_from_train_without_overlap():
    labels = {"train": np.arange(100) % 5}
    splits, notes = choose(labels, 0.25, 0.2, 7)
    assert {name: len(c.rows) for name, c in splits.items()} == {"train": 60, "val": 20, "test": 20}
    assert sorted(np.concatenate([c.rows for c in splits.values()])) == list(range(100))
    assert all(c.part == "train" for c in splits.values())
    assert [note.split()[0] for note in notes] == ["test", "val"]
    assert all("seed 7" in note for note in notes)


def test_official_test_never_moves_when_val_is_cut():
    labels = {"train": np.arange(100) % 5, "test": np.arange(10) % 5}
    splits, _ = choose(labels, 0.1, 0.5, 0)
    assert splits["test"].part == "test"
    assert len(splits["test"].rows) == 10
    assert splits["val"].part == "train"


@pytest.mark.parametrize("labels", [np.arange(4), np.zeros(0, np.int64)], ids=["one image a class", "no image"])
def test_a_split_without_images_is_refused(labels):
    with pytest.raises(DataError, match="has 0 images"):
        choose({"train": labels}, 0.5, 0.4, 0)


def test_a_fraction_of_zero_is_refused_with_the_setting_to_raise():
    with pytest.raises(DataError, match=r"val has 0 images.*data\.val_fraction"):
        choose({"train": np.arange(100) % 5, "test": np.arange(10) % 5}, 0.0, 0.2, 0)
