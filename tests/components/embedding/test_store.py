from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.common import artifact
from components.common.errors import ArtifactError
from components.embedding import store


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("labels", [np.arange(10), np.eye(10, 3, dtype=np.uint8)], ids=["one label", "several"])
def test_pieces_come_back_whole_and_in_order(tmp_path: Path, dtype: str, labels: np.ndarray) -> None:
    v = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    with artifact.create(tmp_path / "out", "embeddings", {}) as folder:
        store.write(store.file_of(folder, "val", 7), labels, [v[:4], v[4:8], v[8:]], dtype)
    made = artifact.read(tmp_path / "out", "embeddings")
    np.testing.assert_array_equal(store.read(made, "val", 7), v.astype(dtype).astype(np.float32))
    table = pq.read_table(tmp_path / "out" / "val" / "t007.parquet")
    assert table["index"].to_pylist() == list(range(10))
    assert table["label"].to_pylist() == labels.tolist()
    assert table.schema.field("embedding").type.list_size == 4
    with pytest.raises(ArtifactError, match=r"embed\.timesteps"):
        store.read(made, "val", 8)


def sharded(folder: Path, v: np.ndarray, lengths: list[int], numbers: list[int] | None = None) -> artifact.Artifact:
    """Embeddings whose split val lies in shards of these lengths; `numbers` = the shards that are there."""
    with artifact.create(folder, "embeddings", {}) as made:
        for number, stop in enumerate(np.cumsum(lengths)):
            first = int(stop) - lengths[number]
            if numbers is None or number in numbers:
                some = [v[first:stop][start : start + 3] for start in range(0, lengths[number], 3)]
                store.write(store.file_of(made, "val", 7, number), np.arange(first, stop), some, "float32", first)
    return artifact.read(folder, "embeddings")


def test_shards_lie_in_files_of_their_own_and_are_read_as_one(tmp_path: Path) -> None:
    v = np.random.default_rng(0).normal(size=(31, 4)).astype(np.float32)
    made = sharded(tmp_path / "out", v, [10, 10, 10, 1])
    files = store.files_of(made.path, "val", 7)
    assert [str(file.relative_to(made.path)) for file in files] == [f"val/t007/0000{number}.parquet" for number in range(4)]
    assert store.files_of(made.path, "val", 8) == []
    np.testing.assert_array_equal(store.read(made, "val", 7), v)
    index = np.concatenate([index for index, _ in store.pieces(files)])
    np.testing.assert_array_equal(index, np.arange(31))
    assert pq.read_table(files[1])["label"].to_pylist() == list(range(10, 20))


def test_shard_100000_comes_after_99999(tmp_path: Path) -> None:
    files = [store.file_of(tmp_path, "val", 7, number) for number in (9, 99_999, 100_000)]
    files[0].parent.mkdir(parents=True)
    for file in files:
        file.touch()
    assert store.files_of(tmp_path, "val", 7) == files


@pytest.mark.parametrize("rows", [[], [0], [30], [3, 4, 11, 12, 29, 30], list(range(31))], ids=len)
def test_chosen_rows_are_read_from_the_pieces_that_hold_them(tmp_path: Path, rows: list[int]) -> None:
    v = np.random.default_rng(0).normal(size=(31, 4)).astype(np.float32)
    made = sharded(tmp_path / "out", v, [10, 10, 10, 1])
    wanted = np.asarray(rows, np.int64)
    np.testing.assert_array_equal(store.read(made, "val", 7, wanted), v[wanted])
    read = [index for index, _ in store.pieces(store.files_of(made.path, "val", 7), wanted)]
    assert sum(map(len, read)) <= 3 * len(rows)


def test_rows_that_are_not_there_are_refused(tmp_path: Path) -> None:
    v = np.zeros((31, 4), np.float32)
    made = sharded(tmp_path / "out", v, [10, 10, 10, 1], numbers=[0, 2])
    assert len(store.read(made, "val", 7, np.array([9, 20, 29]))) == 3
    for missing in (15, 30, 31):
        with pytest.raises(ArtifactError, match=r"has 1 of 2 images asked for of split val at t = 7"):
            store.read(made, "val", 7, np.array([9, missing]))
