import numpy as np
import pytest

from data.format import Split
from data.npy_stream import blocks_of
from data.quality.statistics import BLOCK_BYTES, SCHEMA, bad_labels, class_counts, copies, image_statistics, numbered
from data.shards import ShardedImages


def split_of(images, labels=None):
    return Split("val", images, np.zeros(len(images), np.int64) if labels is None else labels)


def test_statistics_agree_with_numpy_on_each_image():
    images = np.random.default_rng(0).integers(0, 256, (7, 5, 6, 3)).astype(np.uint8)
    images[2] = 255
    images[3] = 0
    table = image_statistics(split_of(images, np.arange(7)))
    assert table.schema.equals(SCHEMA)
    found = table.to_pandas()
    pixels = images.reshape(7, -1).astype(float)
    np.testing.assert_allclose(found["mean"], pixels.mean(1))
    np.testing.assert_allclose(found["std"], pixels.std(1), atol=1e-9)
    np.testing.assert_allclose(found["saturated_share"], (pixels == 255).mean(1))
    assert found["min"].tolist() == pixels.min(1).tolist()
    assert found["max"].tolist() == pixels.max(1).tolist()
    assert found["index"].tolist() == found["label"].tolist() == list(range(7))
    assert found["split"].unique().tolist() == ["val"]


def test_a_constant_image_has_a_standard_deviation_of_exactly_zero():
    images = np.full((256, 31, 29, 3), 0, np.uint8) + np.arange(256, dtype=np.uint8)[:, None, None, None]
    assert (image_statistics(split_of(images)).column("std").to_numpy() == 0).all()


def test_hashes_are_equal_for_equal_images_only():
    images = np.zeros((3, 4, 4, 1), np.uint8)
    images[1, 0, 0, 0] = 1
    first, second, third = image_statistics(split_of(images)).column("hash").to_pylist()
    assert first == third != second


def test_several_blocks_give_what_one_block_gives():
    images = np.random.default_rng(1).integers(0, 256, (40, 1, 600, 600), dtype=np.uint8).reshape(40, 600, 600, 1)
    assert len(list(blocks_of(images, BLOCK_BYTES))) > 1
    whole = image_statistics(split_of(images))
    apart = [image_statistics(split_of(images[i : i + 1])) for i in range(40)]
    assert whole.column("hash").to_pylist() == [table.column("hash")[0].as_py() for table in apart]
    assert whole.column("std").to_pylist() == [table.column("std")[0].as_py() for table in apart]


def test_several_labels_an_image_leave_the_label_empty():
    labels = np.array([[1, 0], [1, 1]], np.uint8)
    assert image_statistics(split_of(np.zeros((2, 3, 3, 1), np.uint8), labels)).column("label").to_pylist() == [None, None]
    assert class_counts(labels, 2).tolist() == [2, 1]


@pytest.mark.parametrize(
    ("labels", "classes", "bad"),
    [
        (np.array([0, 2, 3, -1]), 3, [False, False, True, True]),
        (np.array([0.0, 1.5, np.nan, np.inf]), 3, [False, True, True, True]),
        (np.array([[0, 1], [2, 0]], np.uint8), 2, [False, True]),
        (np.array(["a", "b"]), 2, [True, True]),
    ],
)
def test_bad_labels_are_named(labels, classes, bad):
    assert bad_labels(labels, classes).tolist() == bad


def test_labels_out_of_range_are_not_counted_as_a_class():
    assert class_counts(np.array([0, 0, 2, 9, -1]), 3).tolist() == [2, 0, 1]


def test_copies_are_found_by_numbers_for_hashes():
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1) * np.ones((1, 4, 4, 1), np.uint8)
    table = image_statistics(split_of(images[[3, 1, 3, 0, 1, 3]]))
    numbers = numbered(table)
    assert numbers.dtype == np.int32
    assert numbers.tolist() == [0, 1, 0, 2, 1, 0]
    assert copies(numbers).tolist() == [False, False, True, False, True, True]


class Recording(ShardedImages):
    """Images in shards of 5 that note what is read of them."""

    shards = (slice(0, 5), slice(5, 10), slice(10, 12))

    def __init__(self, images):
        self.images, self.shape, self.dtype, self.read = images, images.shape, images.dtype, []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        rows = np.arange(len(self))[index]
        self.read.append(sorted({number for number, shard in enumerate(self.shards) if np.isin(rows, np.arange(12)[shard]).any()}))
        return self.images[rows]


def test_shards_are_read_one_after_another_and_give_what_one_file_gives():
    images = np.random.default_rng(0).integers(0, 256, (12, 5, 5, 3)).astype(np.uint8)
    sharded = Recording(images)
    assert image_statistics(split_of(sharded)).equals(image_statistics(split_of(images)))
    assert sharded.read == [[0], [1], [2]]
