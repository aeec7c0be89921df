from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from pipeline.atomic_text import write_whole


def write_often(file: Path, letter: str) -> None:
    for _ in range(50):
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
