"""prepare with data.canvas: splits by original, whole copies of each, the same in shards, and nothing that validate minds."""

import json

import numpy as np
import pytest

from components import prepare, validate
from components.common import artifact
from components.common.errors import SettingsError
from components.common.settings import DataSettings, ValidateSettings
from data.format import SPLITS
from data.scatter import Scatter
from data.shards import ShardedImages
from tests.components.test_prepare import npz, prepared
from tests.data.files import layout, save

CANVAS = {"canvas": 16, "copies": 6}


def test_copies_are_of_the_splits_that_there_are_without_a_canvas(tmp_path):
    plain, found = prepared(tmp_path / "plain"), prepared(tmp_path / "out", **CANVAS)
    assert (found.info.image_shape, found.info.copies) == ([16, 16, 1], 6)
    for name in SPLITS:
        originals, copies = plain.split(name), found.split(name)
        np.testing.assert_array_equal(copies.labels, np.repeat(originals.labels, 6))
        total = originals.images.sum(axis=(1, 2, 3), dtype=np.int64)
        np.testing.assert_array_equal(copies.images.sum(axis=(1, 2, 3), dtype=np.int64), np.repeat(total, 6))
        for row in (0, 100, len(originals) - 1):
            for copy in copies.images[6 * row : 6 * row + 6]:
                windows = np.lib.stride_tricks.sliding_window_view(copy[..., 0], (8, 8))
                assert (windows == originals.images[row][..., 0]).all(axis=(2, 3)).sum() == 1
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["copies"] == 6
    train = found.split("train").images
    assert found.info.occupancy == pytest.approx(np.count_nonzero(train) / train.size, abs=1e-6)
    assert "pasted on a blank canvas of 16x16 at 6 random places, seed 0" in found.info.notes[-1]
    assert found.info.notes[:-1] == plain.info.notes


def test_auto_puts_the_bundled_digits_on_a_canvas_and_no_other_set(tmp_path):
    found = prepared(tmp_path / "digits", canvas="auto", copies=6)
    assert (found.info.image_shape, found.info.copies) == ([16, 16, 1], 6)
    given = npz(save(tmp_path / "x.npz", layout(60, 20, 20)))
    for copies in (1, 6):
        other = prepared(tmp_path / f"other{copies}", canvas="auto", copies=copies, **given)
        assert (other.info.image_shape, other.info.copies) == ([8, 8, 1], 1)


def test_without_a_canvas_the_dataset_is_silent_about_copies(tmp_path):
    prepared(tmp_path / "out")
    told = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert not {"copies", "occupancy"} & told.keys()


@pytest.mark.parametrize("form", [{}, {"shard_mb": 1}])
def test_the_limit_counts_originals_and_size_and_channels_come_before_the_canvas(tmp_path, form):
    file = save(tmp_path / "x.npz", layout())
    given_ = {"image_size": 6, "channels": 3, "limit": 25, **form}
    plain = prepared(tmp_path / "plain", **npz(file, **given_))
    found = prepared(tmp_path / "out", **npz(file, **given_, canvas=12, copies=2))
    assert found.info.counts == {"train": 50, "val": 40, "test": 50}
    assert found.info.image_shape == [12, 12, 3]
    for name in SPLITS:
        images = [plain.split(name).images[rows] for rows in plain.split(name).shards]
        scatter = Scatter(12, 2, 0, name)
        expected = np.concatenate(list(scatter.pasted(images, np.arange(len(plain.split(name))))))
        np.testing.assert_array_equal(found.split(name).images[:], expected)
        assert len(found.split(name).labels) == found.info.counts[name]


def test_shards_hold_the_same_copies(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "MB", 64 * 256)
    plain = prepared(tmp_path / "plain", **CANVAS, limit=100)
    found = prepared(tmp_path / "out", **CANVAS, limit=100, shard_mb=1, store=str(tmp_path / "store"))
    assert (found.info.shard_images, found.info.copies, found.info.occupancy) == (64, 6, plain.info.occupancy)
    for name in SPLITS:
        assert isinstance(found.split(name).images, ShardedImages)
        np.testing.assert_array_equal(found.split(name).images[:], plain.split(name).images)
        np.testing.assert_array_equal(found.split(name).labels, plain.split(name).labels)


def test_several_labels_are_repeated_with_their_image(tmp_path):
    several = {f"{s}_labels": np.eye(10, dtype=np.uint8)[layout()[f"{s}_labels"][:, 0]] for s in SPLITS}
    found = prepared(tmp_path / "out", **npz(save(tmp_path / "x.npz", layout(), **several)), canvas=16, copies=2)
    np.testing.assert_array_equal(found.split("val").labels, np.repeat(several["val_labels"], 2, axis=0))


def test_two_runs_give_one_fingerprint_and_another_seed_another(tmp_path):
    file, made = save(tmp_path / "x.npz", layout()), []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        prepare.run(DataSettings(**npz(file), **CANVAS, seed=seed), tmp_path / name)
        made.append(artifact.read(tmp_path / name, "dataset").fingerprint)
    assert made[0] == made[1] != made[2]


@pytest.mark.parametrize(
    ("more", "said"), [({"canvas": 8}, "no larger than an image of 8x8"), ({"canvas": 9, "copies": 5}, "4 places")]
)
def test_a_canvas_that_does_not_fit_is_a_matter_of_settings(tmp_path, more, said):
    with pytest.raises(SettingsError, match=said):
        prepare.run(DataSettings(**more), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("canvas", [12, 16, 32])
def test_validate_minds_nothing_on_scattered_digits(tmp_path, canvas):
    """Neither doubles inside a split nor leaks; a look-alike of another split seldom lands within a pixel of the same place."""
    prepared(tmp_path / "out", canvas=canvas, copies=6)
    validate.run(ValidateSettings(), tmp_path / "out", tmp_path / "verdict")
    verdict = artifact.read(tmp_path / "verdict", "verdict").json("verdict.json")
    assert (verdict["passed"], verdict["warnings"]) == (True, 0)
    found = {one["name"]: one["observed"] for one in verdict["expectations"]}
    assert (found["duplicates"], found["leaks"]) == (0, 0)
    assert found["near_duplicates"] < 0.01
