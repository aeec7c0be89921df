"""embed of a dataset that really lies in shards: on a claim and in an S3 store, whole and in parts.

prepare, data.shard_mb ── embed, part 0 of 2 ──┐
                      └── embed, part 1 of 2 ──┴── join ── same fingerprint ── embed
"""

import shutil
from pathlib import Path

import numpy as np
import pytest

from components import embed, prepare
from components.common import artifact
from components.common.settings import DataSettings, EmbedSettings
from components.embedding import store
from components.embedding.parts import join, split
from data.errors import DataError
from data.shards import read_manifests
from tests.components.embedding.test_parts import a_model

pytestmark = pytest.mark.slow  # each prepares a set of its own

DATA = DataSettings(limit=150, near_duplicate_distance=0)
SETTINGS = EmbedSettings(timesteps=[0, 500], batch_size=16)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte holds 15,625 digits: with shards of 64 images a split has several."""
    monkeypatch.setattr(prepare, "MB", 64 * 64)


def prepared(folder: Path, where: str | None) -> Path:
    prepare.run(data_settings=DATA.model_copy(update={"shard_mb": 1, "store": where}), out=folder / "dataset")
    a_model(folder / "model", 0)
    return folder


def embedded(folder: Path, name: str, settings: EmbedSettings = SETTINGS) -> artifact.Artifact:
    embed.run(settings, folder / "dataset", folder / "model", folder / name)
    return artifact.read(folder / name, "embeddings" if settings.part is None else store.PART)


@pytest.mark.parametrize("where", [None, "claim", "s3"])
def test_parts_joined_are_the_whole_wherever_the_shards_lie(tmp_path: Path, s3_store: str, where: str | None) -> None:
    folder = prepared(tmp_path, {None: None, "claim": str(tmp_path / "claim"), "s3": s3_store}[where])
    whole = embedded(folder, "whole")
    assert [len(store.files_of(whole.path, name, 500)) for name in SETTINGS.splits] == [3, 3, 3]
    for number, section in enumerate(split(SETTINGS, 2)):
        embedded(folder, f"part {number}", section)
    join(SETTINGS, [folder / f"part {number}" for number in range(4)], folder / "joined")
    assert artifact.read(folder / "joined", "embeddings").fingerprint == whole.fingerprint


def test_a_sharded_set_has_the_embeddings_of_the_plain_one(tmp_path: Path) -> None:
    """Bit for bit, as 16 divides the 64 images of a shard: the batches are the same."""
    sharded = embedded(prepared(tmp_path / "sharded", None), "embeddings")
    folder = tmp_path / "plain"
    prepare.run(data_settings=DATA, out=folder / "dataset")
    a_model(folder / "model", 0)
    plain = embedded(folder, "embeddings")
    for name in SETTINGS.splits:
        np.testing.assert_array_equal(store.read(sharded, name, 500), store.read(plain, name, 500))


def test_a_part_needs_its_own_shards_alone(tmp_path: Path) -> None:
    """The claim of this task has lost the others."""
    folder = prepared(tmp_path, str(tmp_path / "claim"))
    mine = SETTINGS.model_copy(update={"part": [1, 3]})
    expected = embedded(folder, "expected", mine)
    shutil.copytree(folder / "claim", folder / "kept")
    for name in SETTINGS.splits:
        for number, shard in enumerate(read_manifests(folder / "dataset" / name, in_store=True)):
            if number != 1:  # nine shards of three splits: every third from the second on
                (folder / "claim" / shard.name).unlink()
    assert embedded(folder, "again", mine).fingerprint == expected.fingerprint
    with pytest.raises(DataError, match=r"no shard at .* prepare the data again"):
        embedded(folder, "other", SETTINGS.model_copy(update={"part": [0, 3]}))
