"""Live points to MLflow, at hand, away, slow, silent, and answering that it cannot."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components.tracking import live
from components.tracking.client import connect, training_run
from components.tracking.live import LiveLog
from tests.components.mlflow_stand_in import StandIn, stand_in

SECRET = "hunter2"


def steps(client: object, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in client.get_metric_history(run_id, name)]  # type: ignore[attr-defined]


def wait_until(true: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_points_arrive_and_a_resumed_training_does_not_double_them(store: str, tmp_path: Path) -> None:
    with LiveLog("k", tmp_path, "e") as log:
        for step in (1, 2, 3):
            log.log(step, {"loss": step / 4})
    with LiveLog("k", tmp_path, "e") as log:  # resumed from the checkpoint at step 2
        log.log(3, {"loss": 0.75})
        log.log(4, {"step": 4, "loss": 1.0, "images_per_second": 7})
        log.log(4, {"probe_t100": 0.5}, prefix="watch/")
    client = connect()
    run = training_run(client, "k", "e")
    assert steps(client, run.id, "train/loss") == [(1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0)]
    assert steps(client, run.id, "train/images_per_second") == [(4, 7.0)]
    assert client.get_run(run.id).data.metrics.keys() == {"train/loss", "train/images_per_second", "watch/probe_t100"}
    assert client.get_run(run.id).info.status == "FINISHED"


def test_a_point_carries_the_time_at_which_it_was_measured(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = int(time.time() * 1000)
    with monkeypatch.context() as away:
        away.setenv("MLFLOW_TRACKING_URI", "sqlite:////nowhere/mlflow.db")
        with LiveLog("k", tmp_path, "e") as log:
            log.log(1, {"loss": 1.0})
    after = int(time.time() * 1000)
    time.sleep(0.01)
    with LiveLog("k", tmp_path, "e"):
        pass
    client = connect()
    (metric,) = client.get_metric_history(training_run(client, "k", "e").id, "train/loss")
    assert before <= metric.timestamp <= after


def test_a_lost_work_folder_does_not_double_what_the_run_has(store: str, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        with LiveLog("k", tmp_path / folder, "e") as log:
            log.log(1, {"loss": 0.5})
    client = connect()
    assert steps(client, training_run(client, "k", "e").id, "train/loss") == [(1, 0.5)]


@pytest.mark.parametrize(("error", "status"), [(ZeroDivisionError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_training_that_ends_early_says_how(store: str, tmp_path: Path, error: type[BaseException], status: str) -> None:
    with pytest.raises(error), LiveLog("k", tmp_path, "e"):
        raise error
    client = connect()
    assert client.get_run(training_run(client, "k", "e").id).info.status == status


def test_a_joined_run_is_not_ended_by_live_logging(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = connect()
    run_id = client.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    with LiveLog("k", tmp_path, "e") as log:
        log.log(1, {"loss": 1.0})
    assert steps(client, run_id, "train/loss") == [(1, 1.0)]
    assert client.get_run(run_id).info.status == "RUNNING"


def test_training_goes_on_without_mlflow_and_the_points_wait(
    closed_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:{closed_port}")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    import mlflow  # noqa: F401  its import is not what is timed

    start = time.monotonic()
    with LiveLog("k", tmp_path, "e") as log:
        for step in range(100):
            log.log(step, {"loss": 1.0})
        assert time.monotonic() - start < 2
    assert time.monotonic() - start < live.CLOSE_S
    first, last = capsys.readouterr().err.strip().splitlines()
    assert "does not answer" in first
    assert SECRET not in first
    assert f"100 live points wait in {tmp_path / 'live.jsonl'}" in last
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ  # the impatience ends with the training


def test_a_folder_that_cannot_be_written_is_one_line_and_training_goes_on(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    with LiveLog("k", tmp_path / "file", "e") as log:
        log.log(1, {"loss": 1.0})
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "cannot keep live points on disk" in line


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A stand-in for a tracking server; live logging tries again soon and gives up soon."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.setattr(live, "FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(live, "LONGEST_WAIT_S", 0.2)
    monkeypatch.setattr(live, "PAUSE_S", 0.05)
    with stand_in() as running:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", running.uri)
        yield running


@pytest.mark.parametrize("mode", ["503", pytest.param("hang", marks=pytest.mark.slow), "lose"])
@pytest.mark.parametrize("first", [0, 5])
def test_a_server_that_fails_for_a_while_gets_every_point_once(server: StandIn, tmp_path: Path, mode: str, first: int) -> None:
    """From the beginning, or after some points. `lose` does as it is asked and never says so."""
    with LiveLog("k", tmp_path, "e") as log:
        for step in range(first):
            log.log(step, {"loss": 1.0, "lr": 0.1})
        wait_until(lambda: len(server.steps("train/lr")) == first)
        server.mode = mode
        asked = len(server.requests)
        for step in range(first, 120):
            log.log(step, {"loss": 1.0, "lr": 0.1})
        wait_until(lambda: len(server.requests) > asked + 1)
        server.mode = "answer"
        wait_until(lambda: len(server.steps("train/lr")) >= 120)
        log.log(120, {"loss": 1.0, "lr": 0.1})
    assert server.steps("train/loss") == server.steps("train/lr") == list(range(121))
    assert server.runs[0]["info"]["status"] == "FINISHED"
    assert len(server.runs) == 1


@pytest.mark.slow
def test_answers_lost_again_and_again_double_nothing(server: StandIn, tmp_path: Path) -> None:
    """The mode changes under it at random moments, for two processes of the same training one after the other."""
    for start in (0, 150):
        stop = threading.Event()

        def trouble(stop: threading.Event = stop) -> None:
            while not stop.wait(0.03):
                server.mode = "answer" if server.mode == "lose" else "lose"

        thread = threading.Thread(target=trouble)
        thread.start()
        with LiveLog("k", tmp_path, "e") as log:
            for step in range(max(0, start - 20), start + 150):  # resumed from 20 steps before
                log.log(step, {"loss": 1.0})
                time.sleep(0.004)
            stop.set()
            thread.join()
            server.mode = "answer"
    assert server.steps("train/loss") == list(range(300))


def test_a_silent_server_holds_up_the_end_for_a_moment_only_and_the_next_start_delivers(
    server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    monkeypatch.setattr(live, "CLOSE_S", 0.5)
    server.mode = "hang"
    log = LiveLog("k", tmp_path, "e")
    start = time.monotonic()
    for step in (1, 2):
        log.log(step, {"loss": 1.0})
    log.close()
    assert time.monotonic() - start < 2
    assert "2 live points wait in" in capsys.readouterr().err
    server.mode = "answer"
    monkeypatch.setattr(live, "CLOSE_S", 10)
    with LiveLog("k", tmp_path, "e"):
        pass  # a training that had nothing left to do
    assert server.steps("train/loss") == [1, 2]


@pytest.mark.slow
def test_the_end_waits_while_mlflow_takes_points(server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long queue takes longer than one batch may."""
    answer = server.answer

    def slow(path: str, body: dict) -> dict:
        time.sleep(0.5 if path.endswith("log-batch") else 0)
        return answer(path, body)

    monkeypatch.setattr(server, "answer", slow)
    monkeypatch.setattr(live, "CLOSE_S", 3)
    server.mode = "503"
    with LiveLog("k", tmp_path, "e") as log:
        for step in range(8 * live.BATCH):
            log.log(step, {"loss": 1.0})
        server.mode = "answer"
    assert server.steps("train/loss") == list(range(8 * live.BATCH))


def test_a_run_that_was_deleted_while_training_is_made_anew_with_every_point(store: str, tmp_path: Path) -> None:
    with LiveLog("k", tmp_path, "e") as log:
        log.log(1, {"loss": 0.5})
        client = connect()
        wait_until(lambda: (tmp_path / "live.sent").exists())
        first = training_run(client, "k", "e").id
        client.delete_run(first)
        log.log(2, {"loss": 0.25})
    second = training_run(client, "k", "e").id
    assert second != first
    assert steps(client, second, "train/loss") == [(1, 0.5), (2, 0.25)]


@pytest.mark.slow
def test_an_outage_is_spoken_of_once_and_so_is_its_end(server: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with LiveLog("k", tmp_path, "e") as log:
        for outage in range(3):
            server.mode = "503"
            asked = len(server.requests)
            log.log(outage, {"loss": 1.0})
            wait_until(lambda asked=asked: len(server.requests) > asked + 1)
            server.mode = "answer"
            wait_until(lambda outage=outage: len(server.steps("train/loss")) == outage + 1)
    away, back = capsys.readouterr().err.strip().splitlines()
    assert "no live points in MLflow" in away
    assert "MLflow is back" in back


def test_the_settings_of_a_training_are_in_its_run_while_it_trains(store: str, tmp_path: Path) -> None:
    with LiveLog("k", tmp_path, "e", settings={"train": {"lr": 0.002, "seed": 3}}) as log:
        log.log(1, {"loss": 1.0})
        wait_until(lambda: (tmp_path / "live.sent").exists())
        client = connect()
        assert client.get_run(training_run(client, "k", "e").id).data.params == {"train.lr": "0.002", "train.seed": "3"}
