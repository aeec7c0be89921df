"""What the two forms of a dataset cost to write and to read: python -m benchmarks.shards IMAGES.npz [--store s3://bucket/prefix]

`prepare` of the npz runs once a form, each in a process of its own: seconds, processor seconds and peak memory (Linux). Then all
training images are read in order, form after form, in blocks of 1,000, and in rounds: MB of pixels a second, by the wall clock and
by processor time, each with a fresh `open_dataset`, the files in the page cache. `bare` is a plain read of the same bytes from one
file; `+ sha256` is the first reading of a process, which checks each shard. With `--moto`, the store is moto's S3 server on this
machine, in a process of its own.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.contest import load
from data import shards
from data.format import open_dataset
from data.store import open_store

BLOCK = 1000
PREPARE = """
import json, sys, time
from pathlib import Path
from components.common.settings import DataSettings
from components.prepare import run
peak = lambda: int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) / 1024
before, start, cpu = peak(), time.perf_counter(), time.process_time()
run(DataSettings(**json.loads(sys.argv[1])), Path(sys.argv[2]))
print(json.dumps([time.perf_counter() - start, time.process_time() - cpu, peak() - before]))
"""


def main() -> None:
    """Prepare in each form, then read in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("npz", type=Path)
    parser.add_argument("--shard-mb", type=int, default=64)
    parser.add_argument("--store", help="s3://bucket/prefix to compare with, reached as AWS_* say")
    parser.add_argument("--moto", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    moto = start_moto() if given.moto else None
    try:
        with tempfile.TemporaryDirectory() as folder:
            compare(given, Path(folder), "s3://dier/benchmark" if given.moto else given.store)
    finally:
        if moto is not None:
            moto.terminate()
            moto.wait()


def compare(given: argparse.Namespace, folder: Path, store: str | None) -> None:
    """Write every form into `folder` (and `store`), print what that took, and how fast each is read."""
    sharded = {"shard_mb": given.shard_mb}
    forms = {"plain": {}, "shards": sharded} | ({"s3": sharded | {"store": store}} if store else {})
    for name, more in forms.items():
        settings = json.dumps({"source": "npz", "path": str(given.npz)} | more)
        command = [sys.executable, "-c", PREPARE, settings, str(folder / name)]
        seconds, cpu, peak = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)  # noqa: S603
        print(f"prepare {name}: {seconds:.1f} s, {cpu:.1f} s of processor, {peak:.0f} MiB", flush=True)
    size = open_dataset(folder / "plain").split("train").images.nbytes
    readers: dict[str, Callable[[], object]] = {"bare": partial(bare, folder / "plain" / "train" / "images.npy")}
    readers["plain"] = partial(in_order, folder / "plain", False)
    for name in list(forms)[1:]:
        readers[name] = partial(in_order, folder / name, False)
        readers[f"{name} + sha256"] = partial(in_order, folder / name, True)
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in readers}
    for turn in range(given.rounds + 1):  # the first warms up
        for name, read in readers.items():
            wall, cpu = time.perf_counter(), time.process_time()
            read()
            if turn:
                spent = time.perf_counter() - wall, time.process_time() - cpu
                rates[name].append((size / 1e6 / spent[0], size / 1e6 / spent[1]))
    print(load())
    for name, found in rates.items():
        walls, cpus = zip(*found, strict=True)
        shown = f"{median(walls):.0f} MB/s [{min(walls):.0f}, {max(walls):.0f}], {median(cpus):.0f} MB a second of processor"
        print(f"read {name}: {shown}", flush=True)


def bare(file: Path) -> None:
    """The bytes of a file, a block at a time."""
    with file.open("rb", buffering=0) as opened:
        while opened.read(2 * 2**20):
            pass


def in_order(path: Path, first_time: bool) -> None:
    """All training images, in blocks inside the shards; as a process does that reads them for the first time, or again."""
    if first_time:
        shards._CHECKED.clear()
    split = open_dataset(path).split("train")
    for rows in split.shards:
        for start in range(rows.start, rows.stop, BLOCK):
            split.images[start : min(start + BLOCK, rows.stop)].sum(dtype="uint8")  # a map is read when it is looked at


def start_moto() -> subprocess.Popen[bytes]:
    """moto's server on a free port, with the bucket `dier`; the environment of this process points to it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(  # noqa: S603
        [Path(sys.executable).parent / "moto_server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.environ |= {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    for _ in range(100):
        try:
            urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/dier", method="PUT")).close()
            break
        except OSError:
            time.sleep(0.2)
    open_store("s3://dier/benchmark").size("x")  # or say what is wrong
    return server


if __name__ == "__main__":
    main()
