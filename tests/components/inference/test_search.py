"""`dier search`: neighbours by cosine, exact and by an index, in a file of embed-images and in the embeddings artifact."""

import stat
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from components.common import artifact
from components.common.errors import ArtifactError, SettingsError
from components.embedding import store
from components.inference import output
from components.inference import search as searching
from components.inference.search import Exact, open_index, search
from components.inference.vectors import open_vectors, unit
from data.named_images import Origin
from pipeline.cli import main
from tests.data.files import digits, save

ASK = {"rows": [], "images": [], "k": 3, "model": None, "split": None, "t": None, "index": None, "fit": False}


def written(file: Path, vectors: np.ndarray, **record: object) -> Path:
    """A file as embed-images writes it."""
    told = {"model": None, "version": None, "weights": "w", "t": [300], **record}
    rows = output.Rows(file, told)
    for start in range(0, len(vectors), 1000):
        piece = vectors[start : start + 1000]
        origins = [Origin("x.npz", "images", start + n) for n in range(len(piece))]
        rows.add(origins, {"embedding": output.vectors(piece.astype(np.float32))})
    rows.close()
    return file


def random_vectors(number: int, width: int = 16, seed: int = 0) -> np.ndarray:
    """In clusters, as embeddings are."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(20, width))
    return (centres[random.integers(0, 20, number)] + 0.3 * random.normal(size=(number, width))).astype(np.float32)


def expected(vectors: np.ndarray, row: int, k: int) -> list[int]:
    unit_vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit_vectors @ unit_vectors[row]
    cosines[row] = -np.inf
    return np.argsort(-cosines, kind="stable")[:k].tolist()


def test_the_nearest_by_cosine_are_found_whatever_their_length_and_the_row_itself_left_out(tmp_path: Path) -> None:
    vectors = random_vectors(9000) * np.random.default_rng(1).uniform(0.1, 10, (9000, 1)).astype(np.float32)
    file = written(tmp_path / "e.parquet", vectors)
    hits = search(file, **{**ASK, "rows": [8500, 3], "k": 5})
    assert [hit["query"] for hit in hits] == ["8500"] * 5 + ["3"] * 5
    assert [hit["index"] for hit in hits] == expected(vectors, 8500, 5) + expected(vectors, 3, 5)
    assert [hit["rank"] for hit in hits] == [1, 2, 3, 4, 5] * 2
    first = hits[0]
    assert (first["file"], first["array"], first["row"]) == ("x.npz", "images", first["index"])
    a, b = vectors[8500], vectors[first["index"]]
    assert first["cosine"] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-5)


def test_more_neighbours_than_rows_are_all_rows(tmp_path: Path) -> None:
    file = written(tmp_path / "e.parquet", random_vectors(4))
    for index in (None, tmp_path / "i"):
        hits = search(file, **{**ASK, "rows": [2], "k": 50, "index": index})
        assert sorted(hit["index"] for hit in hits) == [0, 1, 3]


def test_a_vector_of_zeros_is_near_nothing(tmp_path: Path) -> None:
    vectors = random_vectors(10)
    vectors[4] = 0
    hits = search(written(tmp_path / "e.parquet", vectors), **{**ASK, "rows": [4]})
    assert [hit["cosine"] for hit in hits] == [0, 0, 0]


def test_an_index_is_made_once_and_finds_nearly_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = random_vectors(20_000)
    file, index = written(tmp_path / "e.parquet", vectors), tmp_path / "new" / "e.faiss"
    opened = open_vectors(file, None, None)
    queries = opened.rows(np.arange(0, 20_000, 100))
    _, exact = Exact(opened).search(queries, 10)
    _, found = open_index(index, opened).search(queries, 10)
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), exact.tolist(), strict=True)]) > 0.95
    assert "an index of 20000 embeddings" in capsys.readouterr().err
    assert stat.S_IMODE(index.stat().st_mode) == stat.S_IMODE(file.stat().st_mode)  # others may read it

    before = index.read_bytes()
    monkeypatch.setattr(searching, "build", lambda vectors: pytest.fail("made again"))
    _, again = open_index(index, opened).search(queries, 10)
    np.testing.assert_array_equal(again, found)
    assert index.read_bytes() == before


def test_an_index_of_other_embeddings_is_made_again_and_another_file_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = random_vectors(300), random_vectors(300, seed=5)
    ask = {**ASK, "rows": [7], "index": tmp_path / "i"}
    search(written(tmp_path / "1.parquet", one), **ask)
    hits = search(written(tmp_path / "2.parquet", other), **ask)
    assert "an index of other embeddings, made again" in capsys.readouterr().err
    assert [hit["index"] for hit in hits] == expected(other, 7, 3)
    other[7] = other[8]  # the same number of bytes, and the same file
    hits = search(written(tmp_path / "2.parquet", other), **ask)
    assert "an index of other embeddings, made again" in capsys.readouterr().err
    assert (hits[0]["index"], round(hits[0]["cosine"], 5)) == (8, 1)
    with safe_open(tmp_path / "i", "np") as opened:
        told, blob = opened.metadata(), opened.get_tensor("index")
    save_file({"index": blob[:100]}, tmp_path / "i", told)
    assert search(tmp_path / "2.parquet", **ask) == hits
    assert "a damaged index, made again" in capsys.readouterr().err
    mine = tmp_path / "thesis.txt"
    mine.write_text("chapter 1")
    with pytest.raises(SettingsError, match=r"thesis.txt is no index of dier search"):
        search(tmp_path / "2.parquet", **{**ASK, "rows": [7], "index": mine})
    assert mine.read_text() == "chapter 1"


def test_the_embeddings_artifact_is_searched_at_a_split_and_t(tmp_path: Path) -> None:
    made = {(split, t): random_vectors(50, seed=t + len(split)) for split in ("val", "test") for t in (100, 300)}
    with artifact.create(tmp_path / "embeddings", "embeddings", {"dataset": "d", "model": "m"}) as folder:
        for (split, t), vectors in made.items():
            for shard in (0, 1):  # a split in two files
                here = slice(25 * shard, 25 * shard + 25)
                labels = np.arange(50)[here] % 3
                store.write(store.file_of(folder, split, t, shard), labels, [vectors[here]], "float16", here.start)
        artifact.write_json(folder / "embeddings.json", {"splits": ["val", "test"], "timesteps": [100, 300]})
    with pytest.raises(SettingsError, match=r"has more than one split \(there are: val, test\): give one with --split"):
        search(tmp_path / "embeddings", **{**ASK, "rows": [1]})
    with pytest.raises(SettingsError, match=r"has no t 200 \(there are: 100, 300\)"):
        search(tmp_path / "embeddings", **{**ASK, "rows": [1], "split": "val", "t": 200})
    hits = search(tmp_path / "embeddings", **{**ASK, "rows": [40], "split": "test", "t": 300})
    assert [hit["index"] for hit in hits] == expected(made["test", 300].astype(np.float16).astype(np.float32), 40, 3)
    assert [hit["label"] for hit in hits] == [hit["index"] % 3 for hit in hits]
    with pytest.raises(SettingsError, match="does not say which registered model made it: give --model"):
        search(tmp_path / "embeddings", **{**ASK, "images": [tmp_path / "x.png"], "split": "test", "t": 300})

    # what is not searched is not read, and what is has to be as it was written
    damaged = store.file_of(tmp_path / "embeddings", "val", 100, 1)
    damaged.write_bytes(damaged.read_bytes().replace(b"PAR1", b"PAR2"))
    assert search(tmp_path / "embeddings", **{**ASK, "rows": [40], "split": "test", "t": 300}) == hits
    for index in (None, tmp_path / "i"):
        with pytest.raises(ArtifactError, match=r"damaged artifact .*00001\.parquet does not match its sha256"):
            search(tmp_path / "embeddings", **{**ASK, "rows": [1], "split": "val", "t": 100, "index": index})


def test_what_cannot_be_searched_is_said(tmp_path: Path) -> None:
    file = written(tmp_path / "e.parquet", random_vectors(10))
    pq.write_table(pa.table({"index": [0]}), tmp_path / "other.parquet")
    (tmp_path / "broken.parquet").write_text("x")
    table, nameless = pq.read_table(file), tmp_path / "nameless.parquet"
    pq.write_table(table.replace_schema_metadata({"dier": '{"weights": "w", "t": [300]}'}), nameless)
    for path, ask, kind, says in (
        (file, {"rows": [10]}, SettingsError, "has no row 10: they go from 0 to 9"),
        (file, {"rows": [-1]}, SettingsError, "has no row -1"),
        (file, {"rows": [1], "t": 3}, SettingsError, "leave out --split and --t"),
        (tmp_path / "none.parquet", {"rows": [1]}, ArtifactError, "no embeddings at"),
        (tmp_path / "other.parquet", {"rows": [1]}, ArtifactError, "holds no embeddings as dier embed-images writes them"),
        (nameless, {"rows": [1]}, ArtifactError, r"holds no embeddings as dier embed-images writes them \('model'\)"),
        (tmp_path / "broken.parquet", {"rows": [1]}, ArtifactError, "holds no embeddings as dier embed-images writes them"),
        (tmp_path, {"rows": [1]}, ArtifactError, "no embeddings artifact at"),
    ):
        with pytest.raises(kind, match=says):
            search(path, **{**ASK, **ask})


@pytest.mark.slow
def test_an_image_is_searched_by_the_model_that_made_the_embeddings(
    glyphs: str, folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = digits()[0][:50]
    npz, file = save(tmp_path / "x.npz", {"images": images}), tmp_path / "e.parquet"
    assert main(["embed-images", "--model", glyphs, str(npz), "--out", str(file)]) == 0
    Image.fromarray(images[17]).save(tmp_path / "17.png")
    capsys.readouterr()
    assert main(["search", str(file), "--image", str(tmp_path / "17.png"), "--row", "3", "--model", glyphs, "-k", "2"]) == 0
    head, *lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert head == ["query", "rank", "cosine", "index", "file", "array", "row"]
    assert [line[:2] for line in lines] == [
        ["3", "1"],
        ["3", "2"],
        [str(tmp_path / "17.png"), "1"],
        [str(tmp_path / "17.png"), "2"],
    ]
    assert lines[2][2:] == ["1.0000", "17", str(npz), "images", "17"]

    assert main(["search", str(file), "--image", str(tmp_path / "17.png")]) == 2
    assert "give --model to search by an image" in capsys.readouterr().err
    assert main(["search", str(file), "--image", str(tmp_path / "17.png"), "--model", str(folders / "resnet")]) == 2
    assert "give the --model that made them" in capsys.readouterr().err
    assert main(["search", str(file)]) == 2


def test_a_name_with_tabs_or_newlines_stays_in_its_cell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = output.Rows(tmp_path / "e.parquet", {"model": None, "version": None, "weights": "w", "t": [300]})
    rows.add([Origin(f"a\tb\n{n}.png") for n in range(3)], {"embedding": output.vectors(random_vectors(3))})
    rows.close()
    assert main(["search", str(tmp_path / "e.parquet"), "--row", "0"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert {len(line) for line in lines} == {7}
    assert {line[4] for line in lines[1:]} == {r"a\tb\n1.png", r"a\tb\n2.png"}


def test_unit_vectors_have_length_one() -> None:
    np.testing.assert_allclose(np.linalg.norm(unit(random_vectors(5)), axis=1), 1, rtol=1e-6)
