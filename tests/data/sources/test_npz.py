import numpy as np
import pytest

from data.errors import DataError
from data.format import MULTI_LABEL
from data.sources import Request, load
from tests.data.files import layout, save


def open_npz(path):
    return load("npz", Request("set", path, licence="CC0"))


def images_of(found, split):
    return np.stack(list(found.parts[split].images()))


def test_grey_images_gain_a_channel_and_keep_their_order(tmp_path):
    arrays = layout()
    found = open_npz(save(tmp_path / "x.npz", arrays))
    assert (found.name, found.source, found.licence, found.task) == ("set", "npz", "CC0", "multi-class")
    for split in ("train", "val", "test"):
        np.testing.assert_array_equal(images_of(found, split)[..., 0], arrays[f"{split}_images"])
        np.testing.assert_array_equal(found.parts[split].labels, arrays[f"{split}_labels"][:, 0])


def test_colour_images_and_flat_labels(tmp_path):
    arrays = layout()
    changed = {f"{s}_images": np.stack([arrays[f"{s}_images"]] * 3, -1) for s in ("train", "val", "test")}
    found = open_npz(save(tmp_path / "x.npz", arrays, **changed, train_labels=arrays["train_labels"][:, 0].astype(">i8")))
    assert images_of(found, "val").shape == (20, 8, 8, 3)
    assert found.parts["train"].labels.dtype == np.dtype(np.int64)


def test_images_can_be_read_twice(tmp_path):
    found = open_npz(save(tmp_path / "x.npz", layout()))
    np.testing.assert_array_equal(images_of(found, "test"), images_of(found, "test"))


def test_val_may_be_missing(tmp_path):
    found = open_npz(save(tmp_path / "x.npz", layout(), drop=("val_images", "val_labels")))
    assert set(found.parts) == {"train", "test"}


def test_several_labels_an_image(tmp_path):
    arrays = layout()
    several = {f"{s}_labels": np.eye(10, dtype=np.uint8)[arrays[f"{s}_labels"][:, 0]] for s in ("train", "val", "test")}
    found = open_npz(save(tmp_path / "x.npz", arrays, **several))
    assert found.task == MULTI_LABEL
    assert found.parts["train"].labels.shape == (60, 10)
    assert len(found.class_names) == 10


def test_class_names_are_taken_when_there(tmp_path):
    names = ["zero", "eins", "deux", "tre", "four", "five", "six", "sieben", "huit", "nio"]
    assert open_npz(save(tmp_path / "x.npz", layout(), class_names=np.array(names))).class_names == names


A = layout()
BAD = {
    "no labels": ({"drop": ("test_labels",)}, "no array test_labels"),
    "no images": ({"drop": ("train_images",)}, "no array train_images"),
    "no test": ({"drop": ("test_images", "test_labels")}, "no array test_images"),
    "half a val": ({"drop": ("val_labels",)}, "no array val_labels"),
    "float images": ({"train_images": A["train_images"] / 255}, "float64.*uint8"),
    "wide images": ({"train_images": A["train_images"].astype(np.int64)}, "int64.*uint8"),
    "volumes": ({"train_images": np.zeros((60, 8, 8, 8), np.uint8)}, "3-D images"),
    "colour volumes": ({"train_images": np.zeros((60, 8, 8, 8, 3), np.uint8)}, "3-D images"),
    "channels first": ({"train_images": np.zeros((60, 3, 8, 8), np.uint8)}, "channels first"),
    "rows of pixels": ({"train_images": A["train_images"].reshape(60, 64)}, r"\(60, 64\)"),
    "empty split": ({"val_images": A["val_images"][:0], "val_labels": A["val_labels"][:0]}, "val_images has 0 images"),
    "fewer labels": ({"train_labels": A["train_labels"][:-1]}, "60 images and train_labels 59 labels"),
    "float labels": ({"train_labels": A["train_labels"].astype(float)}, "train_labels has type float64"),
    "negative labels": ({"train_labels": A["train_labels"].astype(int) - 1}, "negative label -1"),
    "label unknown to train": ({"test_labels": A["test_labels"] + 1}, "test holds the label 10, out of range"),
    "label beyond train's size": ({"train_labels": A["train_labels"] + 200}, "out of range"),
    "pickled images": ({"train_images": A["train_images"].astype(object)}, "pickled"),
    "pickled labels": ({"train_labels": A["train_labels"].astype(object)}, "pickled"),
    "pickled names": ({"class_names": np.array(["a", "b"], dtype=object)}, "pickled"),
    "numbers for names": ({"class_names": np.arange(10)}, "class_names is int64"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_in_one_line(tmp_path, case):
    changes, says = BAD[case]
    with pytest.raises(DataError, match=says) as caught:
        open_npz(save(tmp_path / "x.npz", layout(), **changes))
    assert "\n" not in str(caught.value)
