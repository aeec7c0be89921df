"""MedMNIST's own files are not to be had in a test: small files in its layout stand in for them, made of real digits, with their
MD5 put into medmnist's table. Nothing here says anything about MedMNIST's images."""

import hashlib
import time

import numpy as np
import pytest

from data.errors import DataError, UnsupportedRequest
from data.format import MULTI_LABEL
from data.sources import Request, load
from tests.data.files import layout, save

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def info(tmp_path_factory):
    """medmnist's table. The import makes ~/.medmnist, so home is elsewhere meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        from medmnist import INFO
    return INFO


@pytest.fixture
def stand_in(info, tmp_path, monkeypatch):
    """Put a stand-in for a MedMNIST file into a folder, and its MD5 into medmnist's table."""

    def make(flag: str, suffix: str = "", **changed):
        file = save(tmp_path / f"{flag}{suffix}.npz", layout(), **changed)
        monkeypatch.setitem(info[flag], "MD5" + suffix, hashlib.md5(file.read_bytes()).hexdigest())
        return file

    return make


def labels_modulo(classes: int):
    return {f"{s}_labels": layout()[f"{s}_labels"] % classes for s in SPLITS}


@pytest.mark.parametrize(
    ("flag", "task", "classes", "licence"),
    [
        ("pathmnist", "multi-class", 9, "CC BY 4.0"),
        ("dermamnist", "multi-class", 7, "CC BY-NC 4.0"),
        ("breastmnist", "binary-class", 2, "CC BY 4.0"),
        ("retinamnist", "ordinal-regression", 5, "CC BY 4.0"),
    ],
)
def test_task_licence_and_classes_are_medmnists(stand_in, info, tmp_path, flag, task, classes, licence):
    stand_in(flag, **labels_modulo(classes))
    found = load("medmnist", Request(flag, tmp_path))
    assert (found.task, found.licence, len(found.class_names)) == (task, licence, classes)
    assert found.class_names[1] == info[flag]["label"]["1"]
    assert found.parts["train"].labels.shape == (60,)
    assert set(found.parts) == set(SPLITS)
    assert "MD5" in found.notes[0]


def test_chest_keeps_its_fourteen_labels_in_order(stand_in, info, tmp_path):
    several = {f"{s}_labels": np.eye(14, dtype=np.uint8)[layout()[f"{s}_labels"][:, 0]] for s in SPLITS}
    stand_in("chestmnist", **several)
    found = load("medmnist", Request("chestmnist", tmp_path))
    assert found.task == MULTI_LABEL
    np.testing.assert_array_equal(found.parts["val"].labels, several["val_labels"])
    assert found.class_names == [info["chestmnist"]["label"][str(i)] for i in range(14)]


@pytest.mark.parametrize(("size", "suffix"), [(None, ""), (28, ""), (64, "_64"), (128, "_128"), (224, "_224")])
def test_size_picks_the_file(stand_in, tmp_path, size, suffix):
    stand_in("bloodmnist", suffix, **labels_modulo(8))
    assert load("medmnist", Request("bloodmnist", tmp_path, image_size=size)).notes[0].startswith(f"bloodmnist{suffix}.npz")


def test_a_file_with_another_md5_is_refused(stand_in, tmp_path):
    file = stand_in("bloodmnist", **labels_modulo(8))
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(DataError, match=r"has MD5 .* where MedMNIST's is"):
        load("medmnist", Request("bloodmnist", tmp_path))


@pytest.mark.parametrize(
    ("flag", "changed", "says"),
    [
        ("bloodmnist", {}, "holds the label 9, out of range: the 8 classes"),
        ("chestmnist", {}, "does not fit the task"),
    ],
)
def test_labels_that_are_not_this_sets_are_refused(stand_in, tmp_path, flag, changed, says):
    stand_in(flag, **changed)
    with pytest.raises(DataError, match=says):
        load("medmnist", Request(flag, tmp_path))


def test_without_file_and_network_it_says_at_once_what_to_put_where(info, tmp_path, monkeypatch):
    # An address that nothing answers on stands in for being offline.
    monkeypatch.setitem(info["pathmnist"], "url_64", "http://127.0.0.1:9/pathmnist_64.npz")
    start = time.monotonic()
    with pytest.raises(DataError) as caught:
        load("medmnist", Request("pathmnist", tmp_path, image_size=64))
    assert time.monotonic() - start < 10
    for part in ("pathmnist_64.npz", info["pathmnist"]["MD5_64"], info["pathmnist"]["url_64"], str(tmp_path), "data.path"):
        assert part in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (Request("digits"), "no MedMNIST flag"),
        (Request("organmnist3d"), "3-D images"),
        (Request("pathmnist", image_size=32), "32 is no MedMNIST size"),
    ],
)
def test_what_medmnist_does_not_have_is_a_matter_of_settings(info, request_, says):
    with pytest.raises(UnsupportedRequest, match=says):
        load("medmnist", request_)
