"""prepare into shards: the same images as in the plain form, from a folder, a claim and an S3 server."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from components import embed, prepare, validate
from components.common import artifact
from components.common.errors import ArtifactError, SettingsError
from components.common.settings import DataSettings, EmbedSettings, ValidateSettings, parse
from data import decoding, npy_stream
from data.errors import DataError
from data.format import SPLITS, Dataset, open_dataset
from data.shards import ShardedImages
from data.sources import folder as folder_source
from pipeline.cli import main
from tests.components.embedding.test_parts import a_model
from tests.components.test_prepare import npz, peak_growth, prepared
from tests.data.files import check_message, digits, layout, save


def image_folder(root: Path, count: int = 200, splits: tuple[str, ...] = ("train",)) -> dict:
    for split in splits:
        for number, (image, label) in enumerate(zip(*(array[:count] for array in digits()), strict=True)):
            (root / split / str(label)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(root / split / str(label) / f"{number:04d}.png")
    return {"source": "folder", "path": str(root)}


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte holds 15,625 digits: shards of 64 images are several."""
    monkeypatch.setattr(prepare, "MB", 64 * 64)


def assert_same(found: Dataset, expected: Dataset) -> None:
    assert found.info.counts == expected.info.counts
    for name in SPLITS:
        split, other = found.split(name), expected.split(name)
        assert len(split.shards) == -(-len(split) // 64)
        assert isinstance(split.images, ShardedImages)
        np.testing.assert_array_equal(np.concatenate([split.images[rows] for rows in split.shards]), other.images)
        np.testing.assert_array_equal(split.labels, other.labels)


@pytest.mark.parametrize("where", [None, "claim", "s3"])
@pytest.mark.parametrize("source", ["digits", "folder", "npz"])
def test_both_forms_hold_the_same_images_in_the_same_order(tmp_path, s3_store, source, where):
    given = {
        "digits": lambda: {},
        "folder": lambda: image_folder(tmp_path / "images"),
        "npz": lambda: npz(save(tmp_path / "x.npz", layout(150, 20, 70))),
    }[source]()
    store = {None: None, "claim": str(tmp_path / "claim"), "s3": s3_store}[where]
    plain = prepared(tmp_path / "plain", **given)
    found = prepared(tmp_path / "sharded", shard_mb=1, store=store, **given)
    assert (found.info.shard_images, found.info.store) == (64, store)
    assert_same(found, plain)
    shards = len(list((tmp_path / "sharded").rglob("*.parquet")))
    assert shards == (0 if where else sum(len(found.split(name).shards) for name in SPLITS))


def test_the_plain_form_says_nothing_of_shards(tmp_path):
    prepared(tmp_path / "out")
    told = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert sorted(told) == ["class_names", "counts", "image_shape", "licence", "name", "notes", "source", "task"]
    assert "checked" not in (tmp_path / "out" / "manifest.json").read_text()
    assert open_dataset(tmp_path / "out").split("val").shards == (slice(0, told["counts"]["val"]),)


@pytest.mark.parametrize("more", [{}, {"shard_mb": 1}])
def test_the_fingerprint_does_not_depend_on_the_number_of_threads(tmp_path, monkeypatch, more):
    given = image_folder(tmp_path / "images")
    made = []
    for threads in (1, 5):
        monkeypatch.setattr(decoding, "cores", lambda threads=threads: threads)
        prepare.run(DataSettings(**given, **more, image_size=6), tmp_path / str(threads))
        made.append(artifact.read(tmp_path / str(threads), "dataset").fingerprint)
    assert made[0] == made[1]


@pytest.mark.parametrize("more", [{}, {"shard_mb": 1}])
def test_a_set_with_official_splits_is_read_once(tmp_path, monkeypatch, more):
    given = image_folder(tmp_path / "images", 100, SPLITS)
    opened: list[Path] = []
    real = folder_source.open_picture
    monkeypatch.setattr(folder_source, "open_picture", lambda file, *name: opened.append(file) or real(file, *name))
    prepare.run(DataSettings(**given, **more), tmp_path / "out")
    assert len(opened) <= 300 + 1 + 2 * 3, "beside each image once: the first says the channels; of each split, the first the shape"


@pytest.mark.parametrize("more", [{}, {"shard_mb": 1}])
def test_the_first_bad_image_is_named_whichever_thread_meets_it(tmp_path, monkeypatch, more):
    given = image_folder(tmp_path / "images", 200, SPLITS)
    monkeypatch.setattr(decoding, "LONGEST", 10)
    monkeypatch.setattr(decoding, "cores", lambda: 4)
    for name in ("0100", "0150", "0180"):
        next((tmp_path / "images" / "train").rglob(f"{name}.png")).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"0100\.png"):
        prepare.run(DataSettings(**given, **more), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("distinct", [True, False])
@pytest.mark.parametrize("most", [{"SEARCHED": 100}, {"SEARCHED_BYTES": 100 * 64}])
def test_a_large_set_that_is_cut_here_for_a_store_is_never_on_this_disk(tmp_path, monkeypatch, distinct, most):
    """So as in the plain form, images and notes; near-duplicates are looked for where those without copies are few enough."""
    images, labels = (array[:200] if distinct else np.concatenate([array[:40]] * 5) for array in digits())
    arrays = {"train_images": images, "train_labels": labels, "test_images": images[:9], "test_labels": labels[:9]}
    given = npz(save(tmp_path / "x.npz", arrays))
    for name, limit in most.items():
        monkeypatch.setattr(prepare, name, limit)
    plain = prepared(tmp_path / "plain", **given)
    lengths: list[int] = []
    real = npy_stream.write
    monkeypatch.setattr(npy_stream, "write", lambda file, blocks, count: lengths.append(count) or real(file, blocks, count))
    found = prepared(tmp_path / "out", shard_mb=1, store=str(tmp_path / "store"), **given)
    assert_same(found, plain)
    assert found.info.notes == plain.info.notes
    assert lengths == ([] if distinct else [40])


def damage(file: Path, content: bytes) -> None:
    middle = len(content) // 2
    file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])


def test_opening_looks_at_the_sizes_of_shards_and_reading_at_their_bytes(tmp_path):
    found = prepared(tmp_path / "out", shard_mb=1)
    file = tmp_path / "out" / "train" / "00001.parquet"
    whole = file.read_bytes()
    damage(file, whole)
    artifact.read(tmp_path / "out", "dataset")
    found.split("train").images[:64]
    with pytest.raises(DataError, match=r"00001\.parquet does not match its sha256"):
        found.split("train").images[64]
    with pytest.raises(ArtifactError, match=r"00001\.parquet does not match its sha256"):
        artifact.read(tmp_path / "out", "dataset", shards=True)
    with pytest.raises(ArtifactError, match=r"00001\.parquet does not match its sha256"):
        artifact.copy(tmp_path / "out", tmp_path / "claim", "dataset")
    assert not (tmp_path / "claim").exists()
    file.write_bytes(whole[:-1])
    with pytest.raises(ArtifactError, match=r"00001\.parquet .* bytes instead of"):
        artifact.read(tmp_path / "out", "dataset")


def test_a_copy_on_a_claim_is_whole_and_a_damaged_one_is_made_again(tmp_path):
    found = prepared(tmp_path / "out", shard_mb=1)
    copied = artifact.copy(tmp_path / "out", tmp_path / "claim" / "dataset", "dataset")
    file = copied / "val" / "00000.parquet"
    damage(file, file.read_bytes())
    artifact.copy(tmp_path / "out", copied, "dataset")
    for name in SPLITS:
        np.testing.assert_array_equal(open_dataset(copied).split(name).images[:], found.split(name).images[:])


def test_a_shard_that_was_lost_from_a_store_ends_with_3_and_one_line(tmp_path, capfd):
    prepared(tmp_path / "out", shard_mb=1, store=str(tmp_path / "store"))
    lost = sorted((tmp_path / "store").iterdir())[0]
    lost.unlink()
    params = tmp_path / "params.yaml"
    params.write_text("{}")
    wanted = ["--params", str(params), "--dataset", str(tmp_path / "out"), "--out", str(tmp_path / "verdict")]
    assert main(["validate", *wanted]) == 3
    (error,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("dier: error: ")]
    assert f"no shard at {lost}" in error
    prepared(tmp_path / "out", shard_mb=1, store=str(tmp_path / "store"))
    assert lost.is_file()


@pytest.mark.slow
def test_validate_finds_in_an_s3_store_what_it_finds_in_the_plain_form(tmp_path, s3_store):
    verdicts = []
    for name, more in (("plain", {}), ("s3", {"shard_mb": 1, "store": s3_store})):
        prepared(tmp_path / name, **more)
        validate.run(ValidateSettings(), tmp_path / name, tmp_path / f"{name}-verdict")
        verdicts.append(artifact.read(tmp_path / f"{name}-verdict", "verdict"))
    assert verdicts[0].json("verdict.json") == verdicts[1].json("verdict.json")
    tables = [(one.path / "statistics.parquet").read_bytes() for one in verdicts]
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_embed_makes_of_an_s3_store_the_embeddings_of_the_plain_form(tmp_path, s3_store):
    model = a_model(tmp_path / "model", 0)
    wanted = EmbedSettings(timesteps=[0, 400], splits=["train", "val"], dtype="float32", batch_size=64)
    found = []
    for name, more in (("plain", {}), ("s3", {"shard_mb": 1, "store": s3_store})):
        prepared(tmp_path / name, limit=150, **more)
        embed.run(wanted, tmp_path / name, model, tmp_path / f"{name}-embeddings")
        files = sorted((tmp_path / f"{name}-embeddings").rglob("*.parquet"))  # a file a shard, or one a split
        table = pa.concat_tables([parquet.read_table(file, columns=["index", "embedding"]) for file in files])
        found.append((table.column("index").to_pylist(), np.array(table.column("embedding").to_pylist())))
    assert found[0][0] == found[1][0]
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"store": "shards"}, "data.shard_mb is null: set it"),
        ({"shard_mb": 64, "store": "gs://bucket"}, "s3://bucket/prefix"),
        ({"shard_mb": 64, "store": "s3://key:hush@bucket/x"}, "keys go into AWS_ACCESS_KEY_ID"),
        ({"shard_mb": 64, "store": ""}, "a folder, or s3://bucket/prefix"),
        ({"shard_mb": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, says):
    with pytest.raises(SettingsError, match=says) as caught:
        parse({"data": settings}, "params.yaml")
    check_message(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own account of peak memory")
def test_memory_holds_a_few_shards_however_large_the_set(tmp_path):
    tiles = np.kron(digits()[0], np.ones((3, 3), np.uint8))  # (1797, 24, 24)
    grown, sizes = [], []
    for count in (30_000, 300_000):  # far apart: allocators keep some 70 MB more or less by chance
        rows = np.arange(count) % len(tiles)
        arrays = {"train_images": np.stack([tiles[rows]] * 3, -1), "train_labels": digits()[1][rows]}  # 52 and 518 MB
        for name in ("val", "test"):
            arrays |= {f"{name}_images": arrays["train_images"][:500], f"{name}_labels": arrays["train_labels"][:500]}
        grown.append(peak_growth(tmp_path / str(count), np.savez, arrays, shard_mb=4))
        sizes.append(arrays["train_images"].nbytes)
    assert grown[1] - grown[0] < (sizes[1] - sizes[0]) / 4
    assert grown[1] < 350 * 2**20
