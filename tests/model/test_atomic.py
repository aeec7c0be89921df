"""Files and folders that are whole or absent, whoever writes them at once."""

import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from model.atomic import LEFTOVER, MANIFEST, copy_folder, leftovers, put_in_place, read_manifest, seal, temporary, write_whole


def write_often(file: Path, letter: str) -> None:
    for _ in range(20):
        write_whole(file, letter * 100_000)


def test_many_processes_write_one_file_and_it_is_always_whole(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "file"
    with ProcessPoolExecutor(4, mp_context=get_context("fork")) as pool:
        jobs = [pool.submit(write_often, file, letter) for letter in "abcd"]
        seen = set()
        while not all(job.done() for job in jobs):
            if file.exists():
                text = file.read_text()
                seen.add((len(text), len(set(text))))
    assert [job.result() for job in jobs] == [None] * 4
    assert seen == {(100_000, 1)}
    assert [path.name for path in file.parent.iterdir()] == ["file"]


def test_a_failure_leaves_what_was_there_and_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_whole(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(file, "new \ud800")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


def test_a_device_is_written_to_and_stays(tmp_path: Path) -> None:
    file = tmp_path / "nowhere"
    file.symlink_to("/dev/null")
    write_whole(file, "text")
    assert file.is_symlink()


def put_often(folder: Path, letter: str) -> None:
    for number in range(30):
        beside = temporary(folder / "out")
        beside.mkdir()
        (beside / "file").write_text(letter * number)
        put_in_place(beside, folder / "out")


def test_many_processes_put_one_folder_in_place_and_leave_nothing_beside_it(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4, mp_context=get_context("fork")) as pool:
        jobs = [pool.submit(put_often, tmp_path, letter) for letter in "abcd"]
    assert [job.result() for job in jobs] == [None] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_leftovers_are_known_by_their_names_and_by_how_long_nothing_changed(tmp_path: Path) -> None:
    killed, at_work, other = (temporary(tmp_path / name) for name in ("model", "model", "dataset"))
    for path in (killed, at_work, other, tmp_path / ".model.partial"):
        path.mkdir()
        (path / "file").write_text("text")
    assert LEFTOVER.fullmatch(killed.name)["name"] == "model"
    long_ago = time.time() - 2 * 86400
    for path in (killed, killed / "file", at_work, other, other / "file"):
        os.utime(path, (long_ago, long_ago))
    assert leftovers(tmp_path, "model") == [killed]
    assert leftovers(tmp_path) == sorted([killed, other])
    assert leftovers(tmp_path / "nowhere") == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 3}', "[" * 100_000], ids=["empty", "list", "bare", "number", "deep"])
def test_what_is_no_manifest_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(ValueError, match=r"its manifest\.json is no manifest"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("umask", [0o007, 0o022, 0o077])
def test_what_is_sealed_or_copied_has_the_modes_that_the_umask_gives(tmp_path: Path, umask: int) -> None:
    """Whatever a library, or the place that it was copied from, thinks of who may read it."""
    before = os.umask(umask)
    try:
        source = tmp_path / "source"
        (source / "inner").mkdir(parents=True)
        for name, mode in (("weights", 0o600), ("inner/open", 0o666)):
            (source / name).touch()
            (source / name).chmod(mode)
        copy_folder(source, tmp_path / "new" / "copy")
        seal(source, kind="x")
        digest = read_manifest(source).digest
        seal(tmp_path / "new" / "copy", kind="x")
    finally:
        os.umask(before)
    assert read_manifest(tmp_path / "new" / "copy").digest == digest  # modes are in no manifest
    for folder in (source, tmp_path / "new" / "copy"):
        assert {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()} == {0o666 & ~umask}
        assert {path.stat().st_mode & 0o777 for path in [folder, folder / "inner"]} == {0o777 & ~umask}
