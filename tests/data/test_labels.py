import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data.errors import DataError
from data.format import MULTI_LABEL
from data.labels import check_range, describe, normalise
from tests.data.files import check_message

ANY_LABELS = hnp.arrays(
    st.one_of(
        hnp.integer_dtypes(),
        hnp.unsigned_integer_dtypes(),
        hnp.floating_dtypes(),
        hnp.boolean_dtypes(),
        hnp.unicode_string_dtypes(),
    ),
    hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5),
)


@given(ANY_LABELS)
def test_labels_come_out_in_one_of_two_shapes_or_are_refused(raw):
    try:
        found = normalise(raw, "x")
    except DataError as error:
        check_message(error)
        return
    assert len(found) == len(raw)
    if found.ndim == 1:
        assert found.dtype == np.int64
        assert (found >= 0).all()
    else:
        assert found.dtype == np.uint8
        assert found.max(initial=0) <= 1
    assert np.array_equal(found.reshape(-1), raw.reshape(-1))


def test_a_column_becomes_a_row_of_classes():
    assert normalise(np.array([[3], [0]], np.uint8), "x").tolist() == [3, 0]


def test_several_columns_stay_yes_no_labels():
    assert normalise(np.array([[1, 0], [1, 1]], np.int64), "x").tolist() == [[1, 0], [1, 1]]


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (np.array([1.0, 2.0]), "float64"),
        (np.array(["cat"]), "integers"),
        (np.array([0, -3]), "negative label -3"),
        (np.array([[0, 2]]), "values 0 .. 2"),
        (np.array([2**64 - 1], np.uint64), "out of range"),
        (np.zeros((2, 2, 2), np.uint8), r"\(2, 2, 2\)"),
    ],
)
def test_bad_labels_are_refused_with_the_value(raw, says):
    with pytest.raises(DataError, match=says):
        normalise(raw, "x")


def test_classes_are_counted_in_train():
    assert describe({"train": np.array([0, 2, 1]), "test": np.array([1])}, None, "x") == ("multi-class", ["0", "1", "2"])
    assert describe({"train": np.array([0, 1])}, ["no", "yes"], "x") == ("binary-class", ["no", "yes"])
    assert describe({"train": np.zeros((3, 4), np.uint8)}, None, "x") == (MULTI_LABEL, ["0", "1", "2", "3"])


@pytest.mark.parametrize(
    ("labels", "names", "says"),
    [
        ({"train": np.array([0, 1, 255])}, None, "label 255.*out of range"),
        ({"train": np.array([0, 1]), "test": np.array([2])}, None, "test holds the label 2, out of range"),
        ({"train": np.array([0, 1, 2])}, ["a", "b"], "train holds the label 2, out of range"),
        ({"train": np.zeros((2, 3), np.uint8)}, ["a"], "3 labels an image where there are 1"),
        ({"train": np.array([0, 1]), "test": np.zeros((2, 2), np.uint8)}, None, "does not fit the task"),
    ],
)
def test_labels_out_of_range_are_refused(labels, names, says):
    with pytest.raises(DataError, match=says):
        describe(labels, names, "x")


def test_a_set_of_one_label_is_no_set_of_several():
    with pytest.raises(DataError, match="does not fit the task"):
        check_range({"train": np.array([0, 1])}, 2, MULTI_LABEL, "x")
