"""Points on disk: cut off anywhere, killed, refused by the disk, acknowledged by one run or another."""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.tracking.metrics import Point
from components.tracking.spool import Spool

ROOT = Path(__file__).parents[3]


def point(step: int, **values: float) -> Point:
    return Point(step, values or {"loss": step / 4}, 1000 + step)


def waiting(spool: Spool, run: str = "r") -> list[Point]:
    batch = spool.pending(run, 10**6)
    return batch.points if batch else []


def test_points_come_back_in_order_and_only_once_acknowledged_are_they_gone(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "deep" / "work")
    points = [point(step) for step in (3, 1, 2)]
    for one in points:
        assert spool.append(one) is None
    batch = spool.pending("r", 2)
    assert batch is not None
    assert batch.points == points[:2]
    assert waiting(spool) == points
    spool.acknowledge("r", batch.end)
    assert waiting(Spool(spool.path.parent)) == waiting(spool) == points[2:]
    assert spool.waiting() == 1


def test_another_run_has_acknowledged_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append(point(1))
    spool.acknowledge("r", spool.pending("r", 1).end)
    assert waiting(spool) == []
    assert waiting(spool, "of another server") == [point(1)]


def test_a_step_that_comes_again_is_not_taken_again_but_what_is_new_about_it_is(tmp_path: Path) -> None:
    Spool(tmp_path).append(point(5, loss=1.0, rate=7.0))
    spool = Spool(tmp_path)  # resumed from before step 5
    spool.append(point(5, loss=1.0, rate=8.0, probe=0.5))
    spool.append(point(5, loss=float("nan"), other=float("inf")))
    assert waiting(spool) == [point(5, loss=1.0, rate=7.0), point(5, probe=0.5)]


@given(st.data())
def test_whatever_is_cut_off_the_rest_is_there_and_more_can_follow(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder))
        for step in range(4):
            spool.append(point(step))
        raw = spool.path.read_bytes()
        cut = data.draw(st.integers(0, len(raw)))
        spool.path.write_bytes(raw[:cut])
        spool.acknowledge("r", data.draw(st.sampled_from([0, len(raw)])))  # the note may have survived what it speaks of
        again = Spool(Path(folder))
        for step in range(6):
            again.append(point(step))
        acknowledged = 4 if cut >= len(raw) - 1 and again.sent else 0  # a line that lacks but its end is whole
        assert waiting(again) == [point(step) for step in range(acknowledged, 6)]


def test_lines_that_are_no_points_are_passed_over(tmp_path: Path) -> None:
    lines = [b"\0" * 20, b"12", b'{"step": 1}', b'{"step": 1, "values": [2], "time": 3}', b"\xff\xfe", b""]
    (tmp_path / "live.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    spool = Spool(tmp_path)
    assert waiting(spool) == []
    assert spool.waiting() == 0
    spool.append(point(1))
    assert waiting(spool) == [point(1)]


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'{"run": "r", "bytes": -1}', b'{"run": "r", "bytes": "x"}', b'{"run": "r"}'])
def test_a_damaged_note_means_that_mlflow_is_asked(tmp_path: Path, note: bytes) -> None:
    Spool(tmp_path).append(point(1))
    (tmp_path / "live.sent").write_bytes(note)
    assert waiting(Spool(tmp_path)) == [point(1)]


KILLED = """
import sys
from components.tracking.metrics import Point
from components.tracking.spool import Spool

spool = Spool(__import__("pathlib").Path(sys.argv[1]))
for step in range(10**9):
    spool.append(Point(step, {"loss": step / 4}, 1000 + step))
    print(step, flush=True)
"""


def test_a_killed_process_leaves_every_point_that_append_took(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}) as process:
        assert process.stdout is not None
        taken = [int(process.stdout.readline()) for _ in range(500)]
        process.send_signal(signal.SIGKILL)
        taken += [int(line) for line in process.stdout if line.endswith("\n")]
    found = waiting(Spool(tmp_path))
    assert found[: len(taken)] == [point(step) for step in taken]
    assert len(found) - len(taken) in (0, 1)  # one that it took and had no time to speak of


def test_what_the_disk_refuses_waits_and_is_not_torn(tmp_path: Path) -> None:
    """A file may not grow over a limit: the real refusal of the system, in the midst of a line."""
    spool = Spool(tmp_path)
    spool.append(point(1))
    size = spool.path.stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, before[1]))
        assert isinstance(spool.append(point(2)), OSError)
        assert isinstance(spool.append(point(3)), OSError)
        assert spool.path.stat().st_size == size + 10
        assert waiting(spool) == [point(1)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert spool.append(point(4)) is None
    assert waiting(spool) == [point(step) for step in (1, 2, 3, 4)]
    assert [json.loads(line)["step"] for line in spool.path.read_bytes().splitlines()] == [1, 2, 3, 4]
