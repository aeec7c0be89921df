"""MLflow at hand, away and unwilling: the run of a training, points, errors of one line."""

import http.server
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.common.errors import SettingsError
from components.tracking import client
from components.tracking.client import KEY_TAG, TrackingError, connect, one_line_errors, redact, training_run
from components.tracking.metrics import Point, Points

SECRET = "hunter2"


def steps(client: object, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in client.get_metric_history(run_id, name)]  # type: ignore[attr-defined]


def test_a_training_has_one_run_whatever_the_experiment(store: str) -> None:
    client = connect()
    first = training_run(client, "k1", "one")
    assert training_run(client, "k1", "two") == first
    assert training_run(client, "k2", "one").id != first.id
    assert client.get_experiment_by_name("two") is None
    assert not first.joined


def test_mlflow_run_id_is_joined_and_no_other_run_is_made(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = connect()
    other = client.create_run(client.create_experiment("orchestrator")).info
    monkeypatch.setenv("MLFLOW_RUN_ID", other.run_id)
    run = training_run(client, "k1", "one")
    assert (run.id, run.experiment_id, run.joined) == (other.run_id, other.experiment_id, True)
    assert client.get_run(run.id).data.tags[KEY_TAG] == "k1"
    assert len(client.search_runs([other.experiment_id, "0"])) == 1


def test_a_deleted_run_or_experiment_is_named(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = connect()
    gone = client.create_experiment("gone")
    client.delete_experiment(gone)
    with pytest.raises(TrackingError, match="experiment 'gone' is deleted"):
        training_run(client, "k", "gone")
    monkeypatch.setenv("MLFLOW_RUN_ID", "abc")
    with pytest.raises(TrackingError, match="MLFLOW_RUN_ID abc names no run"):
        training_run(client, "k", "there")
    monkeypatch.delenv("MLFLOW_RUN_ID")
    run = training_run(client, "k", "there")
    client.delete_run(run.id)
    monkeypatch.setenv("MLFLOW_RUN_ID", run.id)
    with pytest.raises(TrackingError, match="names a deleted run"):
        training_run(client, "k", "there")


def test_points_are_logged_once_and_only_finite_ones(store: str) -> None:
    client = connect()
    run = training_run(client, "k", "e")
    assert Points(client, run.id).add([Point(1, {"a": 1.0, "b": float("nan")}), Point(2, {"a": 2.0})]) == 2
    assert Points(client, run.id).add([Point(2, {"a": 9.0}), Point(3, {"a": 3.0})]) == 1
    assert steps(client, run.id, "a") == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert steps(client, run.id, "b") == []


def test_a_batch_that_arrives_after_the_run_was_asked_is_taken_once(store: str) -> None:
    """A request that was given up on may be carried out late: between the question what the run has and the second attempt."""
    client = connect()
    run = training_run(client, "k", "e")
    late, again = Points(client, run.id), Points(client, run.id)
    for one in (late, again):
        one.add([Point(0, {"a": float("nan"), "b": float("nan")})])  # asks, logs nothing
    late.add([Point(1, {"a": 1.0, "b": 2.0}, 1000)])
    again.add([Point(1, {"a": 1.0, "b": 2.0}, 1000), Point(2, {"a": 3.0}, 1001)])
    assert steps(client, run.id, "a") == [(1, 1.0), (2, 3.0)]
    assert steps(client, run.id, "b") == [(1, 2.0)]


def test_an_update_supersedes_and_is_not_repeated(store: str) -> None:
    client = connect()
    run = training_run(client, "k", "e")
    for value in (1.0, 2.0, 2.0):
        Points(client, run.id).add([Point(5, {"a": value})], update=True)
        time.sleep(0.002)  # MLflow orders by the millisecond
    assert steps(client, run.id, "a") == [(5, 1.0), (5, 2.0)]
    assert client.get_run(run.id).data.metrics["a"] == 2.0


def test_more_points_than_mlflow_takes_at_once(store: str) -> None:
    client = connect()
    run = training_run(client, "k", "e")
    assert Points(client, run.id).add([Point(step, {"a": 0.0}) for step in range(2500)]) == 2500
    assert len(client.get_metric_history(run.id, "a")) == 2500


@pytest.fixture(params=[401, 403])
def unwilling_server(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """A real HTTP server that refuses everybody; gives (port, code)."""

    class Refuse(http.server.BaseHTTPRequestHandler):
        def _refuse(self) -> None:
            self.send_response(request.param)
            self.end_headers()
            self.wfile.write(b"You are not allowed.\nGo away.")

        do_GET = do_POST = _refuse  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, request.param
        server.shutdown()


def test_refused_access_is_one_line_without_the_password(
    unwilling_server: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, code = unwilling_server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:{port}")
    with pytest.raises(TrackingError, match=rf"refused access \({code}\)") as caught, one_line_errors():
        connect().search_experiments()
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)


def test_an_unreachable_server_is_one_line(closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError, match="does not answer: start the server, or set MLFLOW_TRACKING_URI"), one_line_errors():
        connect().search_experiments()


def test_a_file_that_is_no_database_is_found_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mlflow.db"
    file.write_bytes(b"this is not a database " * 100)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{file}")
    with pytest.raises(TrackingError, match="cannot open the MLflow store"):
        connect()


def test_looking_into_a_store_that_is_not_there_does_not_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(SettingsError, match="no MLflow store"):
        connect(must_exist=True)
    assert not list(tmp_path.iterdir())


def test_the_check_of_a_store_leaves_it_alone(store: str) -> None:
    file = Path(store.removeprefix("sqlite:///"))
    before = file.read_bytes()
    client._check_sqlite(store, file, True)
    assert file.read_bytes() == before
    assert sqlite3.connect(file).execute("select count(*) from runs").fetchone() == (0,)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("at http://me:pw@host:5000/x", "at http://***@host:5000/x"),
        ("postgresql://u:p@ss@db/x and https://t@h", "postgresql://***@db/x and https://***@h"),
        ("http://host/path@2x", "http://host/path@2x"),
    ],
)
def test_redact(text: str, clean: str) -> None:
    assert redact(text) == clean
