"""The reader is torchvision's own; the files are in its formats, but small and made of digits."""

import bz2
import gzip
from pathlib import Path

import numpy as np
import pytest

from data.errors import DataError, UnsupportedRequest
from data.sources import Request, load
from data.sources.torchvision import KNOWN
from tests.data.files import digits


def idx(array: np.ndarray, code: int = 8) -> bytes:
    """The MNIST family's format: type code, number of axes, their lengths, the numbers, all big-endian."""
    return bytes([0, 0, code, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def write_mnist(folder: Path, pack=lambda content: content, suffix: str = "") -> None:
    images, labels = digits()
    folder.mkdir(parents=True)
    for split, rows in (("train", slice(0, 100)), ("t10k", slice(100, 140))):
        (folder / f"{split}-images-idx3-ubyte{suffix}").write_bytes(pack(idx(images[rows])))
        (folder / f"{split}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx(labels[rows])))


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "KMNIST"])
def test_mnist_and_its_kin(tmp_path, name):
    write_mnist(tmp_path / name / "raw")
    found = load("torchvision", Request(name, tmp_path))
    images, labels = digits()
    np.testing.assert_array_equal(np.stack(list(found.parts["test"].images()))[..., 0], images[100:140])
    np.testing.assert_array_equal(found.parts["train"].labels, labels[:100])
    assert found.parts["train"].labels.dtype == np.int64
    assert set(found.parts) == {"train", "test"}
    assert len(found.class_names) == 10
    assert found.licence == KNOWN[name].licence


def test_qmnist_labels_are_the_first_of_eight_columns(tmp_path):
    images, labels = digits()
    folder = tmp_path / "QMNIST" / "raw"
    folder.mkdir(parents=True)
    for split, rows in (("train", slice(0, 50)), ("test", slice(50, 80))):
        columns = np.repeat(labels[rows, None], 8, axis=1).astype(">i4") + np.arange(8, dtype=">i4")
        (folder / f"qmnist-{split}-images-idx3-ubyte").write_bytes(idx(images[rows]))
        (folder / f"qmnist-{split}-labels-idx2-int").write_bytes(idx(columns.astype(">i4"), code=12))
    found = load("torchvision", Request("QMNIST", tmp_path))
    np.testing.assert_array_equal(found.parts["test"].labels, labels[50:80])


def test_usps_text_files(tmp_path):
    images, labels = digits()
    big = np.kron(images, np.ones((2, 2), np.uint8))  # (N, 16, 16)
    for name, rows in (("usps.bz2", slice(0, 30)), ("usps.t.bz2", slice(30, 50))):
        lines = [
            " ".join([str(label + 1), *(f"{i}:{v / 127.5 - 1:.6f}" for i, v in enumerate(image.ravel(), 1))])
            for image, label in zip(big[rows], labels[rows].astype(int), strict=True)
        ]
        (tmp_path / name).write_bytes(bz2.compress("\n".join(lines).encode()))
    found = load("torchvision", Request("USPS", tmp_path))
    np.testing.assert_array_equal(found.parts["test"].labels, labels[30:50])
    read = np.stack(list(found.parts["train"].images()))[..., 0].astype(int)
    assert np.abs(read - big[:30]).max() <= 1  # torchvision cuts decimals off


def test_svhn_colour_comes_channels_last(tmp_path, monkeypatch):
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    images, labels = digits()
    colour = np.stack([images, images // 2, images // 3], -1)  # (N, 8, 8, 3)
    for split, rows in (("train", slice(0, 30)), ("test", slice(30, 50))):
        file = tmp_path / f"{split}_32x32.mat"
        savemat(file, {"X": colour[rows].transpose(1, 2, 3, 0), "y": np.where(labels[rows] == 0, 10, labels[rows])[:, None]})
        # A stand-in for the official file, so its checksum is put into torchvision's table.
        monkeypatch.setitem(SVHN.split_list, split, [*SVHN.split_list[split][:2], _md5(file)])
    found = load("torchvision", Request("SVHN", tmp_path))
    np.testing.assert_array_equal(np.stack(list(found.parts["train"].images())), colour[:30])
    np.testing.assert_array_equal(found.parts["test"].labels, labels[30:50])


def _md5(file: Path) -> str:
    from torchvision.datasets.utils import calculate_md5

    return calculate_md5(file)


def test_packed_files_that_are_there_are_unpacked_without_a_network(tmp_path, monkeypatch):
    from torchvision.datasets import FashionMNIST

    folder = tmp_path / "FashionMNIST" / "raw"
    write_mnist(folder, gzip.compress, ".gz")
    # Stand-ins for the official files, so their checksums are put into torchvision's table.
    monkeypatch.setattr(FashionMNIST, "resources", [(name, _md5(folder / name)) for name, _ in FashionMNIST.resources])
    assert len(load("torchvision", Request("FashionMNIST", tmp_path)).parts["train"].labels) == 100


def test_without_files_and_network_it_says_what_to_put_where(tmp_path, monkeypatch):
    from torchvision.datasets import FashionMNIST

    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])  # nothing answers: stands in for being offline
    with pytest.raises(DataError) as caught:
        load("torchvision", Request("FashionMNIST", tmp_path))
    assert "FashionMNIST/raw/t10k-labels-idx1-ubyte" in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("damage", [lambda c: c[:50], lambda c: b"", lambda c: c[:3] + b"\x07" + c[4:]])
def test_damaged_files_are_a_data_error(tmp_path, damage):
    write_mnist(tmp_path / "MNIST" / "raw")
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match="cannot read torchvision's MNIST"):
        load("torchvision", Request("MNIST", tmp_path))


@pytest.mark.parametrize("name", ["CIFAR10", "digits", "os"])
def test_sets_that_need_unpickling_or_do_not_exist_are_a_matter_of_settings(name):
    with pytest.raises(UnsupportedRequest, match="no unpickling"):
        load("torchvision", Request(name))


def test_an_old_pickled_copy_is_never_loaded(tmp_path):
    write_mnist(tmp_path / "MNIST" / "raw")
    for name in ("training.pt", "test.pt"):
        (tmp_path / "MNIST" / "processed").mkdir(exist_ok=True)
        (tmp_path / "MNIST" / "processed" / name).write_bytes(b"never read")
    with pytest.raises(DataError, match="pickled copy"):
        load("torchvision", Request("MNIST", tmp_path))
