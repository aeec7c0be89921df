import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from data.format import Split
from data.quality import candidates as candidates_module
from data.quality.alignment import SIDE
from data.quality.candidates import CANDIDATES, TILE
from data.quality.descriptors import descriptors
from data.quality.near_duplicates import Pair, References, find, groups
from data.shards import ShardedImages

LIMIT = 0.08


def split_of(name, images):
    return Split(name, images, np.zeros(len(images), np.int64))


def patches(size):
    """Cut-outs of two real photographs that do not overlap: (N, size, size, 3) uint8."""
    cut = [
        photo[top : top + size, left : left + size]
        for photo in load_sample_images().images
        for top in range(0, photo.shape[0] - size + 1, size)
        for left in range(0, photo.shape[1] - size + 1, size)
    ]
    # Sky and plain petals are alike everywhere: only cut-outs with something on them can be told apart.
    return np.stack([patch for patch in cut if patch.mean(2).std() > 15])


@pytest.fixture(scope="module")
def photos():
    return patches(28)


def jpeg(images):
    out = np.empty_like(images)
    for i, image in enumerate(images):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=90)
        out[i] = np.asarray(Image.open(file))
    return out


CHANGES = {
    "itself": lambda x: x,
    "re-encoded": jpeg,
    "flipped left-right": lambda x: x[:, :, ::-1],
    "flipped top-bottom": lambda x: x[:, ::-1],
    "shifted": lambda x: np.roll(x, (1, -1), (1, 2)),
    "brighter": lambda x: np.clip(x * 1.05 + 8.0, 0, 255).astype(np.uint8),
    "darker and flipped": lambda x: (x[:, :, ::-1] * 0.8).astype(np.uint8),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_photographs_are_found_again(photos, change):
    changed = np.ascontiguousarray(CHANGES[change](photos[::4]))
    found = list(find(split_of("test", changed), [split_of("train", photos)], LIMIT))
    right = [pair is not None and pair.other_index == 4 * pair.index for pair in found]
    assert len(found) == len(changed)
    assert np.mean(right) >= 0.9


def test_unrelated_photographs_are_not_near_duplicates(photos):
    found = list(find(split_of("test", photos[::2]), [split_of("train", photos[1::2])], LIMIT))
    assert sum(pair is not None for pair in found) <= 0.01 * len(found)


def test_different_digits_are_not_near_duplicates_in_masses():
    images = (load_digits().images * 255 / 16).astype(np.uint8)[..., None]
    found = list(find(split_of("test", images[1400:]), [split_of("train", images[:1400])], LIMIT))
    assert sum(pair is not None for pair in found) <= 0.02 * len(found)


def test_pictures_larger_than_the_comparison_are_found_again():
    images = patches(SIDE + 36)
    changed = np.ascontiguousarray(np.roll(images, 1, 2)[:, ::-1])
    found = list(find(split_of("test", changed), [split_of("train", images)], LIMIT))
    assert [pair and pair.other_index for pair in found] == list(range(len(images)))


def test_a_group_is_all_that_hangs_together_whatever_is_most_alike(photos):
    """Eight photographs, in six changed versions each: within a photograph some pairs are alike only through others."""
    versions = np.concatenate([np.ascontiguousarray(change(photos[::40])) for change in CHANGES.values()])
    group = groups(versions, LIMIT).reshape(len(CHANGES), -1)
    assert (group == group[0]).all()
    assert len(set(group[0])) == group.shape[1]
    assert groups(versions[:, :2], LIMIT).tolist() == list(range(len(versions)))


def test_the_split_of_the_counterpart_is_named(photos):
    train, val = split_of("train", photos[:50]), split_of("val", photos[50:80])
    test = split_of("test", photos[[10, 60, 90]])
    first, second, third = find(test, [train, val], 0.001)
    assert first == Pair("test", 0, "train", 10, 0.0)
    assert second == Pair("test", 1, "val", 10, 0.0)
    assert third is None


def test_equal_counterparts_give_the_lowest_index(photos):
    twice = np.concatenate([photos[:5], photos[:5], np.resize(photos, (TILE, *photos.shape[1:]))])
    pairs = list(find(split_of("test", photos[:5]), [split_of("train", twice)], LIMIT))
    assert [pair and pair.other_index for pair in pairs] == [0, 1, 2, 3, 4]


def test_blank_and_nearly_blank_images_match_nothing():
    images = np.full((40, 16, 16, 1), 120, np.uint8)
    images[20:] += np.random.default_rng(0).integers(0, 3, (20, 16, 16, 1)).astype(np.uint8)
    assert not descriptors(images).any()
    with np.errstate(all="raise"):
        assert list(find(split_of("test", images), [split_of("train", images)], 1.0)) == [None] * 40


def test_contrast_in_the_border_only_does_not_divide_by_zero():
    images = np.zeros((3, 8, 8, 1), np.uint8)
    images[:, 0, 0] = 255
    with np.errstate(all="raise"):
        assert len(list(find(split_of("test", images), [split_of("train", images)], LIMIT))) == 3


def test_fewer_references_than_candidates_and_odd_shapes():
    images = np.random.default_rng(0).integers(0, 256, (CANDIDATES - 4, 4, 9, 1)).astype(np.uint8)
    assert [pair and pair.other_index for pair in find(split_of("val", images), [split_of("train", images)], LIMIT)] == [0, 1]


def test_images_of_a_few_pixels_have_no_near_duplicates():
    images = np.random.default_rng(0).integers(0, 256, (5, 2, 3, 1)).astype(np.uint8)
    assert list(find(split_of("val", images), [split_of("train", images)], LIMIT)) == [None] * 5


class Sharded(ShardedImages):
    """Images in shards of 20 that count how often one is read, where the last one read is remembered."""

    def __init__(self, images):
        self.images, self.shape, self.dtype, self.reads, self.last = images, images.shape, images.dtype, 0, None
        self.shards = tuple(slice(start, min(start + 20, len(images))) for start in range(0, len(images), 20))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        rows = np.arange(len(self))[index]
        for number in np.atleast_1d(rows) // 20:
            self.reads += number != self.last
            self.last = number
        return self.images[rows]


@pytest.fixture(params=["asked in full", "indexed"])
def search(request, monkeypatch):
    if request.param == "indexed":
        monkeypatch.setattr(candidates_module, "INDEXED", 50)


def test_shards_give_the_same_pairs_and_are_read_seldom(photos, search):
    train, test = photos[::2], np.concatenate([jpeg(photos[::4][:, :, ::-1]), photos[1::4]])
    plain = list(find(split_of("test", test), [split_of("train", train)], LIMIT))
    sharded_train, sharded_test = Sharded(train), Sharded(test)
    assert list(find(split_of("test", sharded_test), [split_of("train", sharded_train)], LIMIT)) == plain
    assert sum(pair is not None for pair in plain) > len(test) / 3
    assert sharded_test.reads == len(sharded_test.shards)
    # once for descriptors, then at most once for each shard of the queries
    assert sharded_train.reads <= len(sharded_train.shards) * (1 + len(sharded_test.shards))


@pytest.mark.slow
def test_an_index_changes_no_group_and_no_split(photos, monkeypatch):
    versions = np.concatenate([np.ascontiguousarray(change(photos[::3])) for change in CHANGES.values()])
    train, val, test = split_of("train", photos[:200]), split_of("val", photos[200:]), split_of("test", versions)
    exact = groups(versions, LIMIT), list(find(test, [train, val], LIMIT)), list(References([train, val]).find(val, LIMIT, 1))
    monkeypatch.setattr(candidates_module, "INDEXED", 50)
    assert References([train, val]).indexed
    assert (groups(versions, LIMIT) == exact[0]).all()
    assert list(find(test, [train, val], LIMIT)) == exact[1]
    assert list(References([train, val]).find(val, LIMIT, 1)) == exact[2]
    assert all(pair is None or pair.other_split == "train" for pair in exact[2])
