"""Images by the names that a person gives: which, in which order, and what is said of those that cannot be used."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import transform
from data.errors import DataError
from data.named_images import LONGEST, NamedImages
from tests.data.files import check_message, digits, layout, save

GREY = (8, 8, 1)


def picture(file: Path, image: np.ndarray) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(file)
    return file


def read(*paths: Path, shape: tuple[int, int, int] = GREY, **how) -> tuple[np.ndarray, list]:
    named = NamedImages(paths, shape, **how)
    blocks = list(named.blocks())
    images, origins = np.concatenate([b.images for b in blocks]), [o for b in blocks for o in b.origins]
    assert len(named) == len(images) == len(origins)
    return images, origins


def test_folders_are_read_by_name_at_any_depth(tmp_path: Path) -> None:
    images, _ = digits()
    for number, name in enumerate(["b.png", "a.bmp", "z/1.png", "c/d/2.png", ".hidden.png", ".cache/3.png"]):
        picture(tmp_path / name, images[number])
    (tmp_path / "notes.txt").write_text("no image")
    found, origins = read(tmp_path)
    assert [o.file.removeprefix(f"{tmp_path}/") for o in origins] == ["a.bmp", "b.png", "c/d/2.png", "z/1.png"]
    assert all(o.array is None and o.row is None for o in origins)
    np.testing.assert_array_equal(found[..., 0], images[[1, 0, 3, 2]])


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    images, _ = digits()
    picture(tmp_path / "elsewhere" / "1.png", images[0])
    picture(tmp_path / "named" / "b" / "2.png", images[1])
    for name, target in (("named/a", "elsewhere"), ("named/c", "elsewhere"), ("elsewhere/up", "named"), ("named/b/up", "named")):
        (tmp_path / name).symlink_to(tmp_path / target)
    found, origins = read(tmp_path / "named")
    assert [o.file.removeprefix(f"{tmp_path}/") for o in origins] == ["named/a/1.png", "named/b/2.png"]
    np.testing.assert_array_equal(found[..., 0], images[:2])


def test_a_folder_that_cannot_be_read_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "1.png", digits()[0][0])
    closed = tmp_path / "closed"
    closed.mkdir()
    scandir = os.scandir

    def refusing(path: str) -> object:  # to root, which tests may run as, no mode of a folder is closed
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataError, match=r"cannot read the folder .*closed \(Permission denied\)") as found:
        NamedImages([tmp_path], GREY)
    check_message(found.value)


def test_an_npz_gives_its_arrays_of_images_in_the_order_of_splits(tmp_path: Path) -> None:
    arrays = layout(train=300)
    file = save(tmp_path / "x.npz", arrays, drop=("val_images", "val_labels"), other=arrays["val_images"])
    found, origins = read(file)
    np.testing.assert_array_equal(found[..., 0], np.concatenate([arrays["train_images"], arrays["test_images"]]))
    assert len(arrays["train_images"]) > LONGEST  # so rows go on from block to block
    assert (origins[0].array, origins[0].row) == ("train_images", 0)
    assert (origins[299].row, origins[300].array, origins[300].row) == (299, "test_images", 0)
    found, origins = read(file, arrays=["other"])
    np.testing.assert_array_equal(found[..., 0], arrays["val_images"])
    assert {o.array for o in origins} == {"other"}


def test_several_are_read_in_the_order_given(tmp_path: Path) -> None:
    images, _ = digits()
    folder = picture(tmp_path / "folder" / "1.png", images[0]).parent
    alone = picture(tmp_path / "2.png", images[1])
    file = save(tmp_path / "x.npz", {"images": images[2:4]})
    found, _ = read(file, alone, folder)
    np.testing.assert_array_equal(found[..., 0], images[[2, 3, 1, 0]])


def test_another_size_is_refused_unless_it_may_be_fitted(tmp_path: Path) -> None:
    wide = np.repeat(np.repeat(digits()[0][0], 2, 0), 3, 1)  # (16, 24): its central 16x16 goes into 8x8
    file = picture(tmp_path / "wide.png", wide)
    with pytest.raises(DataError, match=r"wide.png is 16x24x1 .* takes 8x8x1; --fit") as found:
        read(file)
    check_message(found.value)
    fitted, _ = read(file, fit=True)
    assert fitted.shape == (1, *GREY)
    np.testing.assert_array_equal(fitted[0], transform.fit(wide[..., None], 8, 1))  # what prepare makes of it
    packed = save(tmp_path / "x.npz", {"images": wide[None]})
    with pytest.raises(DataError, match="images holds images of 16x24x1"):
        read(packed)
    np.testing.assert_array_equal(read(packed, fit=True)[0], fitted)


def test_grey_and_colour_are_not_mixed_up(tmp_path: Path) -> None:
    grey = digits()[0][0]
    file = picture(tmp_path / "grey.png", grey)
    with pytest.raises(DataError, match=r"is 8x8x1 .* takes 8x8x3"):
        read(file, shape=(8, 8, 3))
    found, _ = read(file, shape=(8, 8, 3), fit=True)
    np.testing.assert_array_equal(found[0], np.stack([grey] * 3, -1))
    Image.fromarray(np.dstack([found[0], np.full((8, 8), 255, np.uint8)])).save(tmp_path / "see-through.png")
    np.testing.assert_array_equal(read(tmp_path / "see-through.png", shape=(8, 8, 3))[0], found)  # transparency is dropped
    for name in ("grey.gif", "grey.webp", "coloured.png"):  # of equal channels it is grey, whatever the format calls it
        Image.fromarray(found[0]).save(tmp_path / name, lossless=True)
        np.testing.assert_array_equal(read(tmp_path / name)[0][0, ..., 0], grey)
    found[0, 0, 0, 2] ^= 1
    with pytest.raises(DataError, match=r"is 8x8x3 .* takes 8x8x1"):
        read(picture(tmp_path / "colour.png", found[0]))


def test_a_picture_that_cannot_be_used_ends_it_or_is_left_out(tmp_path: Path) -> None:
    images, _ = digits()
    picture(tmp_path / "1.png", images[0])
    (tmp_path / "2.png").write_bytes(b"no picture")
    picture(tmp_path / "3.png", images[1][:4])
    picture(tmp_path / "4.png", images[2])
    with pytest.raises(DataError, match=r"cannot read the image .*2.png"):
        read(tmp_path)
    left_out: list[str] = []
    blocks = list(NamedImages([tmp_path], GREY).blocks(left_out.append))
    np.testing.assert_array_equal(np.concatenate([b.images for b in blocks])[..., 0], images[[0, 2]])
    assert [Path(o.file).name for b in blocks for o in b.origins] == ["1.png", "4.png"]
    assert [text.split(".png")[0][-1] for text in left_out] == ["2", "3"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere", "no image, folder or npz at"),
        ("empty", "has 0 images"),
        ("notes.txt", "is no image by its name"),
        ("labels.npz", "has no array images, nor one of a split"),
        ("floats.npz", "images must be uint8"),
        ("broken.npz", "cannot read"),
    ],
)
def test_what_holds_no_images_is_said_before_anything_is_read(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    save(tmp_path / "labels.npz", {"labels": np.arange(3)})
    save(tmp_path / "floats.npz", {"images": np.zeros((2, 8, 8))})
    (tmp_path / "broken.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match=says) as found:
        NamedImages([tmp_path / name], GREY)
    check_message(found.value)


def test_a_name_that_is_no_utf8_is_read_all_the_same(tmp_path: Path) -> None:
    file = tmp_path / "caf\udce9.png"  # Latin-1, as old archives have it
    try:
        picture(file, digits()[0][0])
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    _, origins = read(tmp_path)
    assert origins[0].file.endswith("caf\ufffd.png")
