from pathlib import Path

import numpy as np
import pytest

from data.format import Split
from data.quality import blocks

STATUS = Path("/proc/self/status")


def file_pages():
    """MiB of mapped files in this process's memory."""
    return next(int(line.split()[1]) / 1024 for line in STATUS.read_text().splitlines() if line.startswith("RssFile:"))


@pytest.mark.skipif(not STATUS.is_file(), reason="needs Linux's /proc")
def test_going_through_a_mapped_file_does_not_hold_it(tmp_path, monkeypatch):
    np.save(tmp_path / "images.npy", np.ones((4096, 128, 128, 1), np.uint8))  # 64 MiB
    split = Split("train", np.load(tmp_path / "images.npy", mmap_mode="r"), np.zeros(4096, np.int64))
    monkeypatch.setattr(blocks, "HELD_BYTES", 4 * 2**20)
    before, most = file_pages(), 0.0
    for rows in blocks.blocks_in(split, blocks.at_once(split, 2**20)):
        assert split.images[rows].sum() == 2**20
        most = max(most, file_pages() - before)
    assert most < 24


def test_blocks_cover_every_image_once_and_stay_inside_a_shard():
    class Images:
        shape = (23, 2, 2, 1)

    class Sharded:
        images, shards = Images(), (slice(0, 10), slice(10, 20), slice(20, 23))

    found = list(blocks.blocks_in(Sharded(), 4))
    assert [(rows.start, rows.stop) for rows in found] == [(0, 4), (4, 8), (8, 10), (10, 14), (14, 18), (18, 20), (20, 23)]


def test_an_image_larger_than_a_block_comes_alone():
    class Split:
        class images:  # noqa: N801
            shape = (3, 100, 100, 3)

    assert blocks.at_once(Split(), 10) == 1
