"""Latency and throughput of a running `dier serve`, at 1, 8 and 64 clients at a time, each asking again as soon as it is answered.

    dier serve dier@champion &
    python -m benchmarks.serve http://127.0.0.1:8080 --seconds 5 --pid $!

Three requests: one picture as png, one image as JSON, 64 images as npy; all of noise. The clients are threads of this process,
which takes a part of the same cores: a server alone on a machine does better. With the server's --pid (Linux) there is the
processor time that a request took of it, which other work on the machine changes little.
"""

import argparse
import http.client
import io
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import PIL.Image

CLIENTS = (1, 8, 64)


def requests(shape: tuple[int, int, int]) -> dict[str, tuple[int, str, bytes]]:
    """What each request is: its images, content type and body."""
    images = np.random.default_rng(0).integers(0, 256, (64, *shape), np.uint8)
    picture, packed = io.BytesIO(), io.BytesIO()
    PIL.Image.fromarray(images[0, ..., 0] if shape[2] == 1 else images[0]).save(picture, "PNG")
    np.save(packed, images)
    return {
        "1 png": (1, "image/png", picture.getvalue()),
        "1 json": (1, "application/json", json.dumps({"inputs": images[:1].tolist()}).encode()),
        "64 npy": (64, "application/x-npy", packed.getvalue()),
    }


def client(host: str, port: int, kind: str, body: bytes, until: float) -> tuple[list[float], int]:
    """Ask until then: the seconds that each answer took, and how many were none."""
    connection, took, failed = http.client.HTTPConnection(host, port, timeout=120), [], 0
    while (start := time.perf_counter()) < until:
        connection.request("POST", "/invocations", body, {"Content-Type": kind})
        response = connection.getresponse()
        response.read()
        took.append(time.perf_counter() - start)
        failed += response.status != 200
    return took, failed


def processor_ms(pid: int | None) -> float:
    """What a process has used so far, in all of its threads."""
    if pid is None:
        return float("nan")
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print a line a request and number of clients."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--pid", type=int)
    given = parser.parse_args()
    address = urlsplit(given.url)
    host, port = address.hostname or "127.0.0.1", address.port or 80
    asked = http.client.HTTPConnection(host, port)
    asked.request("GET", "/model")
    shape = tuple(json.loads(asked.getresponse().read())["image_shape"])
    print(
        f"{'request':8} {'clients':>7} {'requests/s':>10} {'images/s':>9} {'p50 ms':>8} {'p95 ms':>8} {'cpu ms':>7} {'failed':>6}"
    )
    for name, (images, kind, body) in requests(shape).items():
        for clients in CLIENTS:
            start, used = time.perf_counter(), processor_ms(given.pid)
            with ThreadPoolExecutor(clients) as pool:
                every = list(pool.map(lambda _: client(host, port, kind, body, start + given.seconds), range(clients)))  # noqa: B023
            seconds = time.perf_counter() - start
            took = np.array([one for each, _ in every for one in each])
            rate, (p50, p95) = len(took) / seconds, 1000 * np.quantile(took, [0.5, 0.95])
            cpu = (processor_ms(given.pid) - used) / len(took)
            failed = sum(number for _, number in every)
            print(f"{name:8} {clients:7} {rate:10.1f} {rate * images:9.1f} {p50:8.1f} {p95:8.1f} {cpu:7.1f} {failed:6}", flush=True)


if __name__ == "__main__":
    main()
