import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data import npy_stream
from data.errors import DataError
from tests.data.files import check_message, layout

NUMBERS = st.one_of(
    hnp.integer_dtypes(),
    hnp.unsigned_integer_dtypes(),
    hnp.floating_dtypes(),
    hnp.boolean_dtypes(),
    hnp.unicode_string_dtypes(max_len=5),
)
ARRAYS = hnp.arrays(NUMBERS, hnp.array_shapes(min_dims=1, max_dims=4, max_side=6))


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("stream") / "x.npz"


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> bytes:
    packed = io.BytesIO()
    np.savez_compressed(packed, **layout(20, 8, 8))
    return packed.getvalue()


@pytest.mark.slow
@given(array=ARRAYS, compressed=st.booleans())
def test_an_array_comes_out_as_it_went_in(file, array, compressed):
    (np.savez_compressed if compressed else np.savez)(file, x=array)
    found = npy_stream.whole(file, "x")
    assert found.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("block", [1, 64, 1000, 10**6])
def test_blocks_of_any_size_join_to_the_whole(file, block, monkeypatch):
    monkeypatch.setattr(npy_stream, "BLOCK_BYTES", block)
    images = layout(50)["train_images"]
    np.savez_compressed(file, x=images)
    pieces = list(npy_stream.blocks(file, "x"))
    assert max(len(p) for p in pieces) == min(50, max(1, block // 64))
    np.testing.assert_array_equal(np.concatenate(pieces), images)


def read_all(file: Path) -> None:
    for name in sorted(npy_stream.members(file)):
        npy_stream.header(file, name)
        for _ in npy_stream.blocks(file, name):
            pass


@given(content=st.binary(max_size=300))
def test_arbitrary_bytes_are_a_data_error(file, content):
    file.write_bytes(content)
    with pytest.raises(DataError):
        npy_stream.members(file)


@given(
    content=st.binary(max_size=200), head=st.sampled_from([b"", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x02\x00", b"\x93NUMPY\x03\x00"])
)
def test_arbitrary_bytes_inside_a_sound_zip_are_a_data_error(file, content, head):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", head + content)
    with pytest.raises(DataError):
        read_all(file)


SHAPES = st.lists(st.one_of(st.integers(-3, 2**70), st.just("'a'"), st.booleans()), max_size=5)
TYPES = st.sampled_from(["'|u1'", "'<f8'", "'|O'", "[('a', '|O')]", "'<U0'", "'|V0'", "7", "'nonsense'"])


@given(shape=SHAPES, dtype=TYPES, fortran=st.sampled_from(["False", "True", "0"]))
def test_a_header_that_lies_is_a_data_error_and_allocates_nothing(file, shape, dtype, fortran):
    text = f"{{'descr': {dtype}, 'fortran_order': {fortran}, 'shape': ({''.join(f'{s},' for s in shape)})}}\n".encode()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + b"\x00" * 7)
    try:
        head = npy_stream.header(file, "x")
    except DataError as error:
        check_message(error)
        return
    assert np.prod(head.shape) * head.dtype.itemsize == 7
    assert len(npy_stream.whole(file, "x")) == head.shape[0]


@given(cut=st.integers(0, 10**6))
def test_every_truncation_is_a_data_error(file, good, cut):
    file.write_bytes(good[: cut % len(good)])
    with pytest.raises(DataError):
        read_all(file)


@given(position=st.integers(0, 10**6), value=st.integers(1, 255))
def test_a_changed_byte_is_harmless_or_a_data_error(file, good, position, value):
    position %= len(good)
    file.write_bytes(good[:position] + bytes([good[position] ^ value]) + good[position + 1 :])
    expected = layout(20, 8, 8)
    try:
        found = {name: npy_stream.whole(file, name) for name in npy_stream.members(file)}
    except DataError:
        return
    # Not every byte of a zip matters (times, say, or a name): but numbers that are let through are the right ones.
    for name in found.keys() & expected.keys():
        np.testing.assert_array_equal(found[name], expected[name])


def test_a_wrong_checksum_is_seen_even_behind_an_empty_last_block(file):
    """Some writers end a packed member with a block that holds nothing: the numbers are out before the end is reached."""
    npy = io.BytesIO()
    np.save(npy, layout(1500)["train_images"])
    compressor = zlib.compressobj(wbits=-15)
    packed = compressor.compress(npy.getvalue()) + compressor.flush(zlib.Z_FULL_FLUSH) + compressor.flush()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", packed)
    # Written as stored; its two headers are made to say deflated, with the true size and a wrong checksum.
    content = bytearray(file.read_bytes())
    for start, offset in ((0, 8), (content.rindex(b"PK\x01\x02"), 10)):
        content[start + offset : start + offset + 2] = (8).to_bytes(2, "little")
        content[start + offset + 6 : start + offset + 10] = (zlib.crc32(npy.getvalue()) ^ 1).to_bytes(4, "little")
        content[start + offset + 14 : start + offset + 18] = len(npy.getvalue()).to_bytes(4, "little")
    file.write_bytes(content)
    with pytest.raises(DataError, match="CRC"):
        npy_stream.whole(file, "x")


class Boom:
    """Unpickling this would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_pickled_objects_are_refused_and_never_run(tmp_path):
    file, witness = tmp_path / "x.npz", tmp_path / "unpickled"
    np.savez_compressed(file, x=np.array([Boom(witness)], dtype=object))
    with pytest.raises(DataError, match="pickled Python objects"):
        npy_stream.whole(file, "x")
    assert not witness.exists()
    np.load(file, allow_pickle=True)["x"]
    assert witness.exists(), "the trap itself must work"


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.asfortranarray(np.zeros((3, 4), np.uint8)), "column by column"),
        (np.uint8(3), r"shape \(\)"),
        (np.zeros((3, 0), np.uint8), r"shape \(3, 0\)"),
    ],
)
def test_arrays_that_cannot_be_streamed_are_refused(file, array, says):
    np.savez(file, x=array)
    with pytest.raises(DataError, match=says):
        npy_stream.whole(file, "x")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no npz file at .*nothing\.npz"):
        npy_stream.members(tmp_path / "nothing.npz")


def test_written_npy_is_mapped_by_numpy(tmp_path):
    images = layout(9)["train_images"][..., None]
    assert npy_stream.write(tmp_path / "i.npy", iter([images[:5], images[5:]]), 9) == (8, 8, 1)
    mapped = np.load(tmp_path / "i.npy", mmap_mode="r", allow_pickle=False)
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, images)


def test_writing_fewer_images_than_promised_is_refused(tmp_path):
    with pytest.raises(DataError, match="gave 1 images where it promised 2"):
        npy_stream.write(tmp_path / "i.npy", [np.zeros((1, 8, 8, 1), np.uint8)], 2)
