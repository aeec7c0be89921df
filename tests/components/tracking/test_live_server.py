"""Live points to a real tracking server that is killed, and started again, while a real training runs."""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sklearn.datasets import load_digits

from components.tracking import live
from components.tracking.live import LiveLog
from model.training.trainer import Trainer
from tests.components.registry.test_registry_servers import answers, free_port
from tests.model.conftest import Hooks, make_trainer

pytestmark = pytest.mark.slow

Metric = tuple[str, int, float]


class Server:
    """`mlflow server` on one port and one store, however often it is started."""

    def __init__(self, store: str, folder: Path) -> None:
        self.port, self.store, self._folder = free_port(), store, folder
        self.log = folder / "server.log"
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        command = ["server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1", "--backend-store-uri", self.store]
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", *command], env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def send(self, number: signal.Signals) -> None:
        os.killpg(self._process.pid, number)

    def stop(self, number: signal.Signals) -> None:
        self.send(number)
        self._process.wait(30)
        while answers(f"{self.uri}/health"):
            time.sleep(0.05)


@pytest.fixture(scope="module")
def server(migrated_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Not started: the first test begins without it, and leaves it to the next."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copyfile(migrated_store, folder / "mlflow.db")
    made = Server(f"sqlite:///{folder / 'mlflow.db'}", folder)
    yield made
    if answers(f"{made.uri}/health"):
        made.stop(signal.SIGKILL)


def stored(server: Server, key: str) -> list[Metric]:
    """Every value of a training in the store's own tables: MLflow's client is not asked."""
    of_training = "select run_uuid from tags where key = 'dier.training_key' and value = ?"
    with contextlib.closing(sqlite3.connect(server.store.removeprefix("sqlite:///"))) as opened:
        return opened.execute(f"select key, step, value from metrics where run_uuid in ({of_training})", [key]).fetchall()


def test_points_that_a_training_left_are_there_after_its_next_start(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first process sees no server at all."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    with LiveLog("left", tmp_path / "work", "e") as log:
        for step in range(0, 2000, 10):
            log.log(step, {"loss": 1 / (1 + step), "images_per_second": 100.0})
    assert stored(server, "left") == []
    server.start()
    until = time.monotonic() + 150
    while not answers(f"{server.uri}/health"):
        assert time.monotonic() < until, server.log.read_text()[-2000:]
        time.sleep(0.1)
    with LiveLog("left", tmp_path / "work", "e") as log:
        log.log(1990, {"loss": 1 / 1991, "images_per_second": 200.0})  # a step that came again
        log.log(2000, {"loss": 1 / 2001, "images_per_second": 100.0})
    steps = range(0, 2010, 10)
    expected = [("train/loss", step, 1 / (1 + step)) for step in steps]
    expected += [("train/images_per_second", step, 100.0) for step in steps]
    assert sorted(stored(server, "left")) == sorted(expected)
    sent = json.loads((tmp_path / "work" / "live.sent").read_text())
    assert sent["bytes"] == (tmp_path / "work" / "live.jsonl").stat().st_size


def test_a_server_killed_and_restarted_while_training_has_every_point_once(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Up, killed (SIGKILL, in the midst of whatever it did), up again, frozen (SIGSTOP), thawed; training is never held up."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")  # so that frozen counts as away while it is frozen
    monkeypatch.setattr(live, "LONGEST_WAIT_S", 0.5)
    if not answers(f"{server.uri}/health"):  # this test alone was asked for
        server.start()
    with contextlib.closing(contextlib.ExitStack()) as ending:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        enough = threading.Event()
        logged: dict[tuple[str, int], float] = {}
        log = LiveLog("k", tmp_path / "work", "e")

        class EnoughError(Exception):
            pass

        def step(trainer: Trainer) -> None:
            if enough.is_set():
                raise EnoughError

        def point(trainer: Trainer, row: dict[str, float], rate: float) -> None:
            values = {**row, "images_per_second": rate}
            at = int(values.pop("step"))
            log.log(at, values)
            logged.update({(f"train/{name}", at): value for name, value in values.items()})

        images = (load_digits().images * 255 / 16).round().astype("uint8")[..., None]
        trainer = make_trainer(images, tmp_path, Hooks(step, point), steps=10**6, log_every=5, checkpoint_every=10**6)

        def train() -> None:
            with contextlib.suppress(EnoughError):
                trainer.run()

        training = threading.Thread(target=train)
        training.start()
        ending.callback(training.join)
        ending.callback(enough.set)

        def goes_on_until(true: Callable[[], bool], seconds: float) -> None:
            until, last, moved = time.monotonic() + seconds, trainer.step, time.monotonic()
            while not true():
                time.sleep(0.05)
                assert training.is_alive()
                if trainer.step > last:
                    last, moved = trainer.step, time.monotonic()
                assert time.monotonic() < moved + 10, "training stands still"
                assert time.monotonic() < until, server.log.read_text()[-2000:]

        def arrived(since: int) -> bool:
            return any(key == "train/loss" and at >= since for key, at, _ in stored(server, "k"))

        goes_on_until(lambda: arrived(trainer.step - 100), 60)
        server.stop(signal.SIGKILL)
        killed_at = trainer.step
        goes_on_until(lambda: trainer.step > killed_at + 100, 60)
        assert not arrived(killed_at + 50)
        server.start()
        goes_on_until(lambda: arrived(killed_at + 100), 60)
        server.send(signal.SIGSTOP)
        frozen_at = trainer.step
        goes_on_until(lambda: trainer.step > frozen_at + 200, 60)
        time.sleep(1.5)  # past the timeout: a request was given up on that the server will take when it thaws
        server.send(signal.SIGCONT)
        goes_on_until(lambda: arrived(frozen_at + 200), 60)
        enough.set()
        training.join()
        log.close()
        assert sorted(stored(server, "k")) == sorted((name, at, value) for (name, at), value in logged.items())
    told = capsys.readouterr().err
    assert "training goes on, they wait in" in told
    assert "wait in" not in told.splitlines()[-1]
