"""Does logging slow training down, whatever the tracking server does? python benchmarks/live_log.py [STEPS]

Trains on the bundled digits with tiny networks, so that a step is short and any delay is large beside it. Blocks of steps that log
a point at every step (a hundred times as often as by default) take turns with blocks that log nothing, in the same training; one
training for each kind of server: `hung` takes every connection and never answers, `closed` is a port where nobody listens, `mlflow`
is a real `mlflow server` on this machine, which shares its processors with training.

Printed for each: milliseconds a step without logging, the ratio of a block with logging to the block without beside it (median over
the pairs, its 95 % bootstrap interval), how long a call of `log` took (median, longest), and how long `close` took.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from components.tracking.live import LiveLog
from model.config import ModelConfig
from model.training.callback import Callback
from model.training.options import TrainConfig
from model.training.trainer import Trainer

BLOCK = 20
MODEL = ModelConfig(depth=2, dim=32, heads=2, image_height=8, image_width=8, channels=1, patch_size=2, embed_dim=16, pool="mean")
POINT = {f"value_{i}": 0.5 for i in range(11)}


@contextlib.contextmanager
def hung() -> Iterator[str]:
    """A port that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as opened:
        yield f"http://127.0.0.1:{opened.getsockname()[1]}"


@contextlib.contextmanager
def closed() -> Iterator[str]:
    """A port where nobody listens."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{opened.getsockname()[1]}"


@contextlib.contextmanager
def mlflow() -> Iterator[str]:
    """A real tracking server with a fresh store."""
    with closed() as uri:
        pass  # the port is free again
    with tempfile.TemporaryDirectory() as folder:
        command = ["server", "--host", "127.0.0.1", "--port", uri.rsplit(":", 1)[1], "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        with open(os.devnull, "w") as nothing:
            server = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "mlflow", *command], env=environment, stdout=nothing, stderr=nothing, start_new_session=True
            )
        try:
            while server.poll() is None:
                with contextlib.suppress(OSError), urllib.request.urlopen(f"{uri}/health", timeout=2):  # noqa: S310
                    break
                time.sleep(0.5)
            yield uri
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


SERVERS: tuple[Callable[[], AbstractContextManager[str]], ...] = (hung, closed, mlflow)


def measure(steps: int, log: LiveLog) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of each block (pairs, 2): with logging, without; and of each call of `log`."""
    blocks, calls = np.zeros((steps // BLOCK, 1)), []
    before = time.perf_counter()

    def step(trainer: Trainer) -> None:
        nonlocal before
        done = trainer.step
        now = time.perf_counter()
        blocks[(done - 1) // BLOCK] += now - before
        before = now
        if (done // BLOCK) % 2 == 0:  # the step that begins now is one that logs
            log.log(done, POINT)
            calls.append(time.perf_counter() - now)

    images = (load_digits().images * 255 / 16).round().astype(np.uint8)[..., None]
    config = TrainConfig(steps=steps, batch_size=16, lr=1e-3, warmup_steps=10, log_every=steps, checkpoint_every=10**9)
    timer = Callback()
    timer.on_step = step  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as work:
        trainer = Trainer(MODEL, config, images, Path(work), torch.device("cpu"), [timer])
        before = time.perf_counter()
        trainer.run()
    return blocks.reshape(-1, 2)[1:], np.array(calls)  # the first pair pays for what the first step sets up


def main() -> None:
    """Measure each kind of server; print a line for each."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    steps -= steps % (2 * BLOCK)
    print(f"{steps} steps a server, {torch.get_num_threads()} thread(s)")
    print("server    ms/step   ratio  95 % interval    log, ms: median  longest  close, s")
    draw = np.random.default_rng(0)
    for server in SERVERS:
        with server() as uri, tempfile.TemporaryDirectory() as folder:
            os.environ["MLFLOW_TRACKING_URI"] = uri
            log = LiveLog("benchmark", Path(folder))
            blocks, calls = measure(steps, log)
            before = time.perf_counter()
            log.close()
            ended = time.perf_counter() - before
        ratios = blocks[:, 0] / blocks[:, 1]
        low, high = np.quantile(np.median(draw.choice(ratios, (2000, len(ratios))), axis=1), [0.025, 0.975])
        plain, median, longest = 1000 * np.median(blocks[:, 1]) / BLOCK, 1000 * np.median(calls), 1000 * calls.max()
        ratio = f"{np.median(ratios):>7.3f}  {low:.3f} to {high:.3f}"
        print(f"{server.__name__:<8} {plain:>8.2f} {ratio}  {median:>15.3f} {longest:>8.2f} {ended:>9.2f}", flush=True)


if __name__ == "__main__":
    main()
