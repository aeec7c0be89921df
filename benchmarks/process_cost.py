"""What a process and those that it starts cost: seconds, memory, bytes. Linux only.

Processor seconds, the largest resident set and bytes are the kernel's own count, taken after the process has ended and before it
is reaped; those of its children are in it, once they were waited for. Memory of several processes at once is sampled.
"""

import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_S, SEVERAL_S = 0.05, 0.5
"""Between two samples of one process's memory, and of several: telling what these share takes the kernel longer."""
KIB = 1024


@dataclass(frozen=True)
class Cost:
    """Of one process with its children. Bytes called for go through read() and write(): neither mapped files nor sockets are in
    them, and those from the page cache are; bytes on disk are what reached a device."""

    code: int
    seconds: float
    cpu_seconds: float
    memory: int
    """Bytes resident at most: of the largest process, or of all together where that was sampled higher. Mapped files count."""
    anonymous: int
    """Bytes resident at most that are no file's: what a limit on memory cannot take back. Sampled."""
    read: int
    written: int
    disk_read: int
    disk_written: int


def measure(command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None) -> Cost:
    """Run `command` with its output in `log`, and give its cost. A child's peak starts at the caller's memory: keep that small."""
    ended = threading.Event()
    with log.open("wb") as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)  # noqa: S603
        sampler = Sampler(process.pid, ended)
        sampler.start()
        try:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays, so that its counts can be read
            seconds = time.perf_counter() - start
            counts = dict(re.findall(r"(\w+): (\d+)", Path(f"/proc/{process.pid}/io").read_text("ascii")))
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        finally:
            ended.set()
            sampler.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    return Cost(
        code=process.returncode,
        seconds=seconds,
        cpu_seconds=used.ru_utime + used.ru_stime,
        memory=max(used.ru_maxrss * KIB, sampler.memory),
        anonymous=sampler.anonymous,
        read=int(counts["rchar"]),
        written=int(counts["wchar"]),
        disk_read=int(counts["read_bytes"]),
        disk_written=int(counts["write_bytes"]) - int(counts["cancelled_write_bytes"]),
    )


class Sampler(threading.Thread):
    """Looks at the memory of a process and its descendants until `ended`."""

    def __init__(self, pid: int, ended: threading.Event) -> None:
        super().__init__(daemon=True)
        self._pid, self._ended = pid, ended
        self.memory = self.anonymous = 0

    def run(self) -> None:
        """Sample."""
        pause = SAMPLE_S
        while not self._ended.wait(pause):
            pids = list(descendants(self._pid))
            resident, anonymous = (sum(parts) for parts in zip(*(_memory(pid, alone=len(pids) == 1) for pid in pids), strict=True))
            self.memory, self.anonymous = max(self.memory, resident), max(self.anonymous, anonymous)
            pause = SAMPLE_S if len(pids) == 1 else SEVERAL_S


def descendants(pid: int) -> Iterator[int]:
    """A process, its children, and theirs."""
    yield pid
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in file.read_text("ascii").split()]
        except OSError:  # the thread has ended since
            continue
        for child in children:
            yield from descendants(child)


def _memory(pid: int, *, alone: bool) -> tuple[int, int]:
    """Bytes resident, and of these anonymous; a page that several processes share counts for each in part."""
    file, resident, anonymous = ("status", "VmRSS", "RssAnon") if alone else ("smaps_rollup", "Pss", "Pss_Anon")
    try:
        found = dict(re.findall(r"^(\w+):\s+(\d+) kB", Path(f"/proc/{pid}/{file}").read_text("ascii", "replace"), re.MULTILINE))
    except OSError:  # it has ended since
        return 0, 0
    return int(found.get(resident, 0)) * KIB, int(found.get(anonymous, 0)) * KIB
