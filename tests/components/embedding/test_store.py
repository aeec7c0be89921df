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
