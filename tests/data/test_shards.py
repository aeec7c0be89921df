import json
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pyarrow import parquet

from data import shard_file, shard_writer, shards
from data.errors import DataError
from data.format import Split
from data.shards import ShardedImages, read_manifests
from data.store import open_store
from tests.data.files import check_message, digits

IMAGES = digits()[0][:100, :, :, None]
LABELS = digits()[1][:100].astype(np.int64)


def written(folder: Path, images=IMAGES, labels=LABELS, each=30, blocks=7, store=None, threads=4):
    """Images in shards of `each`, given to the writer in blocks of `blocks`."""
    folder.mkdir(exist_ok=True, parents=True)
    given_ = (images[start : start + blocks] for start in range(0, len(images), blocks))
    where = None if store is None else open_store(store)
    shard_writer.write(folder, where, given_, labels, each * images[0].nbytes, threads)
    return ShardedImages(store or str(folder), read_manifests(folder, store is not None), images.shape[1:])


@pytest.fixture
def made(tmp_path) -> ShardedImages:
    return written(tmp_path / "train")


def test_a_shard_holds_the_megabytes_asked_for():
    assert shard_writer.images_a_shard((28, 28, 3), 64_000_000) == 27210
    assert shard_writer.images_a_shard((1024, 1024, 3), 1_000_000) == 1


def test_a_shard_is_plain_parquet_with_index_label_and_pixels(made, tmp_path):
    table = parquet.read_table(tmp_path / "train" / "00001.parquet")
    assert table.column("index").to_pylist() == list(range(30, 60))
    assert table.column("label").to_pylist() == LABELS[30:60].tolist()
    assert table.column("image").to_pylist() == [image.tobytes() for image in IMAGES[30:60]]
    kind = parquet.ParquetFile(tmp_path / "train" / "00001.parquet").metadata.row_group(0).column(2)
    assert (kind.compression, kind.statistics) == ("UNCOMPRESSED", None)
    manifest = json.loads((tmp_path / "train" / "00001.json").read_text())
    assert (manifest["first"], manifest["images"]) == (30, 30)
    assert manifest["bytes"] == (tmp_path / "train" / "00001.parquet").stat().st_size


def test_several_labels_an_image_are_kept(tmp_path):
    several = np.eye(10, dtype=np.uint8)[LABELS]
    written(tmp_path / "train", labels=several)
    assert parquet.read_table(tmp_path / "train" / "00000.parquet").column("label").to_pylist() == several[:30].tolist()


@pytest.mark.slow
@given(
    images=hnp.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3]))),
    each=st.integers(1, 50),
    blocks=st.integers(1, 50),
    group=st.integers(1, 300),
    threads=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_what_was_written_is_read_back_in_any_order(tmp_path_factory, images, each, blocks, group, threads, seed):
    folder, labels = tmp_path_factory.mktemp("set"), np.arange(len(images))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_file, "GROUP_BYTES", group)
        found = written(folder, images, labels, each, blocks, threads=threads)
    assert (found.shape, found.dtype, len(found)) == (images.shape, np.uint8, len(images))
    rng = np.random.default_rng(seed)
    rows = rng.integers(-len(images), len(images), rng.integers(0, 60))
    np.testing.assert_array_equal(found[rows], images[rows])
    np.testing.assert_array_equal(found[np.sort(rows)], images[np.sort(rows)])
    start, stop, step = rng.integers(-50, 50), rng.integers(-50, 50), rng.choice([-3, -1, 1, 2])
    np.testing.assert_array_equal(found[start:stop:step], images[start:stop:step])
    np.testing.assert_array_equal(np.concatenate([found[rows] for rows in found.shards]), images)
    assert found.shards == Split("train", found, labels).shards
    mask = rng.random(len(images)) < 0.5
    np.testing.assert_array_equal(found[mask], images[mask])


def test_one_image_is_an_image_and_all_are_gone_through_in_order(made):
    np.testing.assert_array_equal(made[np.int64(31)], IMAGES[31])
    np.testing.assert_array_equal(made[-1], IMAGES[-1])
    np.testing.assert_array_equal(made[np.array(5)], IMAGES[5])
    np.testing.assert_array_equal(list(made), IMAGES)
    assert made[[]].shape == (0, 8, 8, 1)


def test_what_is_given_is_the_callers_own(made):
    made[3:5][:] = 0
    np.testing.assert_array_equal(made[3:5], IMAGES[3:5])


@pytest.mark.parametrize("index", [100, -101, [0, 100]])
def test_beyond_the_last_is_an_index_error(made, index):
    with pytest.raises(IndexError, match="100"):
        made[index]


@pytest.mark.parametrize("index", [(0, 1), (..., 0), None, 1.0, [0.5], [[1]], True])
def test_another_index_is_refused(made, index):
    with pytest.raises(TypeError, match="images in shards are indexed by"):
        made[index]


def test_a_set_in_shards_is_not_read_at_once(made):
    for read in (np.asarray, np.array, np.ascontiguousarray):
        with pytest.raises(TypeError, match="100 images in shards are not read at once"):
            read(made)


def test_the_bytes_do_not_depend_on_blocks_or_threads(tmp_path):
    written(tmp_path / "a", blocks=7, threads=1)
    written(tmp_path / "b", blocks=100, threads=4)
    names = sorted(os.listdir(tmp_path / "a"))
    assert names == [f"{number:05d}.{kind}" for number in range(4) for kind in ("json", "parquet")]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    found: list[str] = []
    read = ShardedImages._read
    monkeypatch.setattr(ShardedImages, "_read", lambda self, shard: found.append(shard.name) or read(self, shard))
    return found


def test_in_order_each_shard_is_read_once_and_few_are_held(made, reads):
    for start in range(0, 100, 9):
        made[start : start + 9]
        assert len(made._open) <= 2
    assert reads == [f"{number:05d}.parquet" for number in range(4)]


def test_a_shard_that_is_read_whole_is_not_held(made, reads):
    for rows in made.shards:
        np.testing.assert_array_equal(made[rows], IMAGES[rows])
    assert not made._open
    assert len(reads) == 4


def test_a_few_images_decode_their_row_groups_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_file, "GROUP_BYTES", 10 * 64)
    made = written(tmp_path / "train")
    assert parquet.ParquetFile(tmp_path / "train" / "00000.parquet").metadata.num_row_groups == 3
    decoded: list[int] = []
    real = shard_file.Content._group
    monkeypatch.setattr(shard_file.Content, "_group", lambda self, number: decoded.append(number) or real(self, number))
    rows = np.array([3, 9, 25, 29, 41])
    np.testing.assert_array_equal(made[rows], IMAGES[rows])
    assert decoded == [0, 2, 1]
    for start in range(0, 100, 7):
        np.testing.assert_array_equal(made[start : start + 7], IMAGES[start : start + 7])
    assert len(decoded) == 3 + 3 * 3 + 1, "in order each is decoded once"
    rows = np.random.default_rng(0).permutation(100)
    np.testing.assert_array_equal(made[rows], IMAGES[rows])


def test_a_few_images_read_their_shards_alone(made, reads):
    made[np.array([35, 95])]
    assert reads == ["00001.parquet", "00003.parquet"]


def test_rows_in_any_order_read_each_shard_once(made, reads):
    made[np.random.default_rng(0).permutation(100)]
    assert len(reads) == 4


def test_threads_share_one_reading(made, reads):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda start: made[start : start + 10], [0, 10] * 40))
    assert reads == ["00000.parquet"]
    for number, images in enumerate(found):
        np.testing.assert_array_equal(images, IMAGES[(number % 2) * 10 :][:10])


def test_a_copy_in_another_process_reads_for_itself(made):
    made[0:40]
    copied = pickle.loads(pickle.dumps(made))
    assert not copied._open
    np.testing.assert_array_equal(copied[20:40], IMAGES[20:40])
    with made._lock:  # as a thread may while another one forks
        reader = get_context("fork").Process(target=lambda: os._exit(0 if np.array_equal(made[5:99], IMAGES[5:99]) else 1))
        reader.start()
    reader.join(30)
    assert reader.exitcode == 0


def test_the_sha256_is_looked_at_once_a_process(made, monkeypatch):
    hashed = []
    real = shards.hashlib.sha256
    monkeypatch.setattr(shards.hashlib, "sha256", lambda content: hashed.append(len(content)) or real(content))
    for _ in range(3):
        pickle.loads(pickle.dumps(made))[0]
    assert len(hashed) == 1


def gone(file: Path) -> None:
    file.unlink()


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "says"), [(gone, "no shard at"), (cut_short, "bytes where its manifest says"), (flipped, "does not match its sha256")]
)
def test_a_bad_shard_is_named_with_the_cure_and_the_others_are_read(made, tmp_path, spoil, says):
    spoil(tmp_path / "train" / "00002.parquet")
    np.testing.assert_array_equal(made[0:60], IMAGES[0:60])
    with pytest.raises(DataError, match=says) as caught:
        made[60]
    check_message(caught.value)
    assert str(tmp_path / "train" / "00002.parquet") in str(caught.value)
    assert "prepare the data again" in str(caught.value)


@given(place=st.integers(0, 10**6), value=st.integers(1, 255), cut=st.none() | st.integers(0, 10**6))
def test_any_damage_is_a_data_error(tmp_path_factory, place, value, cut):
    folder = tmp_path_factory.mktemp("set")
    made = written(folder, IMAGES[:9], LABELS[:9])
    file = folder / "00000.parquet"
    content = bytearray(file.read_bytes())
    content[place % len(content)] ^= value
    file.write_bytes(content if cut is None else content[: cut % len(content)])
    with pytest.raises(DataError):
        made[0]


@pytest.fixture(scope="module")
def sound() -> bytes:
    return shard_file.encode(IMAGES[:9], LABELS[:9], 0).to_pybytes()


@given(content=st.binary(max_size=300), place=st.integers(0, 10**6), sound_head=st.booleans())
def test_bytes_that_a_manifest_vouches_for_give_images_or_a_data_error(sound, content, place, sound_head):
    if sound_head:  # a part of a sound file is overwritten
        place %= len(sound)
        content = (sound[:place] + content + sound[place + len(content) :])[: len(sound)]
    found = np.empty((9, 8, 8, 1), np.uint8)
    try:
        shard_file.Content(pa.py_buffer(content), found.shape, "here").copy(np.arange(9), found)
    except DataError as error:
        check_message(error)


def manifest_gone(folder: Path) -> None:
    (folder / "00001.json").unlink()


def manifest_cut_short(folder: Path) -> None:
    (folder / "00001.json").write_text('{"first": 30')


def manifest_of_another_shape(folder: Path) -> None:
    (folder / "00001.json").write_text("[1]")


@pytest.mark.parametrize("spoil", [manifest_gone, manifest_cut_short, manifest_of_another_shape])
def test_a_bad_manifest_is_named(made, tmp_path, spoil):
    spoil(tmp_path / "train")
    with pytest.raises(DataError, match=r"0000[12]\.json.*prepare the data again"):
        read_manifests(tmp_path / "train", in_store=False)


def test_a_source_that_gives_too_few_or_too_many_is_refused(tmp_path):
    for labels in (LABELS[:99], np.append(LABELS, 1)):
        with pytest.raises(DataError, match=f"gave 100 images where it promised {len(labels)}"):
            written(tmp_path / str(len(labels)), labels=labels)
