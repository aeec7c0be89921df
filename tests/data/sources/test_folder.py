import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.errors import DataError
from data.sources import Request, load
from tests.data.files import digits


def write(root: Path, split: str, rows: slice, mode: str = "L", suffix: str = "png", names: str = "c{}") -> None:
    images, labels = digits()
    for number, (image, label) in enumerate(zip(images[rows], labels[rows], strict=True)):
        folder = root / split / names.format(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).convert(mode).save(folder / f"{number:04d}.{suffix}")


@pytest.fixture
def root(tmp_path) -> Path:
    write(tmp_path, "train", slice(0, 100))
    write(tmp_path, "val", slice(100, 130))
    write(tmp_path, "test", slice(130, 160))
    return tmp_path


def open_folder(root: Path, **settings):
    return load("folder", Request("set", root, **settings))


def images_of(found, split="train"):
    return list(found.parts[split].images())


def test_classes_are_the_folders_of_train_and_nothing_is_lost(root):
    found = open_folder(root, licence="CC0")
    assert found.class_names == [f"c{n}" for n in range(10)]
    assert (found.task, found.licence) == ("multi-class", "CC0")
    images, labels = digits()
    read = {(label, image.tobytes()) for image, label in zip(images_of(found), found.parts["train"].labels, strict=True)}
    assert read == {(label, image.tobytes()) for image, label in zip(images[:100], labels[:100], strict=True)}
    assert {name: len(part.labels) for name, part in found.parts.items()} == {"train": 100, "val": 30, "test": 30}


def test_classes_take_turns_so_that_the_first_few_are_a_mix(root):
    assert open_folder(root).parts["train"].labels[:20].tolist() == [*range(10), *range(10)]


def test_val_and_test_may_be_missing(tmp_path):
    write(tmp_path, "train", slice(0, 100))
    assert set(open_folder(tmp_path).parts) == {"train"}


@pytest.mark.parametrize(
    ("mode", "suffix", "channels"), [("RGB", "jpg", 3), ("L", "JPEG", 1), ("RGBA", "png", 3), ("P", "gif", 3), ("L", "tif", 1)]
)
def test_formats_and_modes(tmp_path, mode, suffix, channels):
    write(tmp_path, "train", slice(0, 40), mode, suffix)
    assert {image.shape for image in images_of(open_folder(tmp_path))} == {(8, 8, channels)}


def test_channels_and_size_are_converted(root):
    write(root, "train", slice(200, 220), "RGB", "jpg")
    assert {image.shape for image in images_of(open_folder(root, channels=3, image_size=16))} == {(16, 16, 3)}


def test_one_folder_of_unlabelled_images_will_do(tmp_path):
    write(tmp_path, "train", slice(0, 40), names="unlabelled")
    assert open_folder(tmp_path).class_names == ["unlabelled"]


def test_images_straight_in_the_folder_are_unlabelled_and_all_of_them_train(tmp_path):
    write(tmp_path, ".", slice(0, 40), names=".")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    found = open_folder(tmp_path)
    assert found.class_names == ["unlabelled"]
    assert "unlabelled" in found.notes[0]
    assert set(found.parts) == {"train"}
    assert found.parts["train"].labels.tolist() == [0] * 40
    assert [image.tobytes() for image in images_of(found)] == [image.tobytes() for image in digits()[0][:40]]


def test_splits_without_class_folders_are_unlabelled(tmp_path):
    for split, rows in (("train", slice(0, 40)), ("val", slice(40, 60)), ("test", slice(60, 80))):
        write(tmp_path, split, rows, names=".")
    found = open_folder(tmp_path)
    assert found.class_names == ["unlabelled"]
    assert {name: len(part.labels) for name, part in found.parts.items()} == {"train": 40, "val": 20, "test": 20}
    groups = found.parts["val"].groups(r"(\d\d)\.png")
    assert groups.tolist() == [f"{n:02d}" for n in range(20)]


def test_hidden_files_and_strangers_are_passed_over(root):
    (root / "train" / "c0" / ".hidden.png").write_bytes(b"no image")
    (root / "train" / "c0" / "notes.txt").write_text("hello")
    (root / ".cache").mkdir()
    assert len(open_folder(root).parts["train"].labels) == 100


def no_folder(root):
    return root / "nothing"


def no_train(root):
    (root / "train").rename(root.parent / "elsewhere")


def odd_folder(root):
    (root / "valid").mkdir()


def no_train_and_no_images(root):
    (root.parent / "empty").mkdir()
    return root.parent / "empty"


def images_beside_splits(root):
    Image.fromarray(digits()[0][0]).save(root / "loose.png")


def classes_in_val_alone(root):
    write(root.parent / "mixed", "train", slice(0, 3), names=".")
    write(root.parent / "mixed", "val", slice(3, 6))
    return root.parent / "mixed"


def loose_image(root):
    Image.fromarray(digits()[0][0]).save(root / "train" / "loose.png")


def strange_class(root):
    (root / "test" / "other").mkdir()


def no_images(root):
    for file in (root / "val").rglob("*.png"):
        file.unlink()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (no_folder, "no folder at"),
        (no_train, "no folder train"),
        (no_train_and_no_images, "no folder train and no images.*unlabelled ones"),
        (odd_folder, "a folder valid: only train, val and test.*train/unlabelled/"),
        (images_beside_splits, r"loose\.png lies outside the folders of the splits"),
        (classes_in_val_alone, "is a class that train does not have .its images lie in no class folder"),
        (loose_image, r"loose\.png lies outside the class folders"),
        (strange_class, "other is a class that train does not have"),
        (no_images, "val has 0 images"),
    ],
)
def test_other_layouts_are_refused_with_what_to_do(tmp_path, spoil, says):
    root = tmp_path / "set"
    for split, rows in (("train", slice(0, 40)), ("val", slice(40, 60)), ("test", slice(60, 80))):
        write(root, split, rows)
    root = spoil(root) or root
    with pytest.raises(DataError, match=says) as caught:
        open_folder(root)
    assert "\n" not in str(caught.value)


def truncated(file):
    file.write_bytes(file.read_bytes()[:60])


def text(file):
    file.write_text("this is no image")


def empty(file):
    file.write_bytes(b"")


def larger(file):
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(file)


def colour(file):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file)


def deep(file):
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(file)


def deep_colour(file):
    """A PNG by hand, since Pillow writes no 16-bit colour."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = (b"\0" + struct.pack(">24H", *[300] * 24)) * 8
    head = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (truncated, "cannot read the image"),
        (text, "cannot read the image"),
        (empty, "cannot read the image"),
        (larger, r"is 8x9 pixels where .* is 8x8; set data\.image_size"),
        (colour, r"is RGB where others are grey; set data\.channels"),
        (deep, "more than 8 bits"),
        (deep_colour, "more than 8 bits"),
    ],
)
def test_a_bad_image_is_named(root, spoil, says):
    bad = root / "train" / "c3" / "0013.png"
    assert bad.is_file()
    spoil(bad)
    with pytest.raises(DataError, match=says) as caught:
        images_of(open_folder(root))
    assert str(bad) in str(caught.value)


def test_a_photo_is_turned_upright(tmp_path):
    folder = tmp_path / "train" / "c"
    folder.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown a quarter turn clockwise
    Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(folder / "a.jpg", exif=exif)
    assert images_of(open_folder(tmp_path))[0].shape == (12, 8, 3)
