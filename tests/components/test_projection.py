import numpy as np

from components.embedding import store
from components.reporting.projection import nearest


def test_the_nearest_of_several_files_are_those_of_sorting_all(tmp_path):
    rng = np.random.default_rng(0)
    v = rng.standard_normal((10_000, 6)).astype(np.float32)
    v[9000:9100] = v[:100]  # copies: the first comes first
    v[5000] = 0
    files = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    store.write(files[0], np.zeros(6000, np.int64), [v[:6000]], "float32")
    store.write(files[1], np.zeros(4000, np.int64), [v[6000:]], "float32", 6000)
    queries = np.concatenate([v[:60], rng.standard_normal((200, 6)).astype(np.float32)])
    unit = v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12)
    cosine = queries / np.linalg.norm(queries, axis=1, keepdims=True) @ unit.T
    found = nearest(queries, files, 7)
    assert (found[:60, :2] == np.stack([np.arange(60), np.arange(9000, 9060)], 1)).all()
    best = -np.sort(-cosine, axis=1)[:, :7]
    np.testing.assert_allclose(np.take_along_axis(cosine, found, 1), best, atol=1e-5)


def test_fewer_images_than_asked_for_leave_minus_one(tmp_path):
    v = np.eye(3, dtype=np.float32)
    store.write(tmp_path / "0.parquet", np.zeros(3, np.int64), [v], "float32")
    assert nearest(v[:1] + 0.1 * v[1:2], [tmp_path / "0.parquet"], 4).tolist() == [[0, 1, 2, -1]]
