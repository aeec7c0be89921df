"""MLflow at hand, away and unwilling: the run of a training, points, errors of one line."""

import contextlib
import http.server
import os
import signal
import sqlite3
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components.common.errors import SettingsError
from components.registry.listing import models
from components.tracking import client
from components.tracking.client import KEY_TAG, KUBEFLOW_TAG, TrackingError, connect, one_line_errors, redact, training_run
from components.tracking.metrics import Point, Points, log_settings

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


def execute(store: str, statement: str, rows: list[tuple[object, ...]]) -> None:
    """Write into a store's own tables: a thousand requests would take long."""
    with contextlib.closing(sqlite3.connect(store.removeprefix("sqlite:///"))) as opened, opened:
        opened.executemany(statement, rows)


def test_the_run_of_a_training_is_found_beside_more_experiments_than_a_page(store: str) -> None:
    first = training_run(connect(), "k1", "one")
    newer = int(time.time() * 1000) + 10**6
    execute(
        store,
        "insert into experiments (experiment_id, name, artifact_location, lifecycle_stage, creation_time, last_update_time) "
        "values (?, ?, 'mlruns', 'active', ?, ?)",
        [(10**6 + i, f"other {i}", newer, newer) for i in range(1000)],
    )
    assert training_run(connect(), "k1", "one") == first


def test_more_registered_models_than_a_page_are_listed(store: str) -> None:
    execute(
        store,
        "insert into registered_models (name, creation_time, last_updated_time) values (?, 1, 1)",
        [(f"m{i:03d}",) for i in range(101)],
    )
    execute(
        store,
        "insert into model_versions (name, version, creation_time, last_updated_time, source, current_stage, status) "
        "values (?, 1, 1, 1, '.', 'None', 'READY')",
        [("m000",), ("m100",)],
    )
    rows = [line.split()[0] for line in models(None).splitlines() if line.strip().startswith("m")]
    assert rows == ["model", "m000", "m100"]
    with pytest.raises(SettingsError, match=r"no registered model 'nobody' .*m000, .*m100\)"):
        models("nobody")


def test_mlflow_run_id_is_joined_and_no_other_run_is_made(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = connect()
    other = client.create_run(client.create_experiment("orchestrator")).info
    monkeypatch.setenv("MLFLOW_RUN_ID", other.run_id)
    run = training_run(client, "k1", "one")
    assert (run.id, run.experiment_id, run.joined) == (other.run_id, other.experiment_id, True)
    assert client.get_run(run.id).data.tags[KEY_TAG] == "k1"
    assert len(client.search_runs([other.experiment_id, "0"])) == 1


def test_the_run_names_the_kubeflow_run_that_it_is_part_of(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = connect()
    run = training_run(client, "k1", "one")
    assert KUBEFLOW_TAG not in client.get_run(run.id).data.tags  # on a desk
    for kubeflow in ("7e5a", "90cc"):  # the second went on from the first one's checkpoint
        monkeypatch.setenv("DIER_RUN_ID", kubeflow)
        assert training_run(client, "k1", "one") == run
        assert client.get_run(run.id).data.tags[KUBEFLOW_TAG] == kubeflow
    monkeypatch.setenv("MLFLOW_RUN_ID", run.id)
    monkeypatch.setenv("DIER_RUN_ID", "joined")
    assert training_run(client, "k1", "one").joined
    assert client.get_run(run.id).data.tags[KUBEFLOW_TAG] == "joined"


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


def test_settings_are_logged_once_and_those_of_a_run_stay(store: str) -> None:
    client = connect()
    run = training_run(client, "k", "e")
    many = {f"k{i}": i for i in range(230)}  # more than MLflow takes at once
    log_settings(client, run.id, {"train": {"lr": 0.002, "views": "off", "micro_batch": None, "list": [1, 2]}, "many": many})
    log_settings(client, run.id, {"train": {"lr": 0.5, "device": "cpu"}})
    found = client.get_run(run.id).data.params
    expected = {"lr": "0.002", "views": "off", "micro_batch": "null", "list": "[1, 2]", "device": "cpu"}
    assert {f"train.{key}": value for key, value in expected.items()}.items() <= found.items()
    assert len(found) == 235


@pytest.fixture(params=[401, 403])
def unwilling_server(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """A real HTTP server that refuses everybody, but says which files a folder has (none); gives (port, code)."""

    class Refuse(http.server.BaseHTTPRequestHandler):
        def _refuse(self) -> None:
            if "?path=" in self.path:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(b'{"files": []}')
                return
            self.send_response(request.param)
            self.end_headers()
            self.wfile.write(b"You are not allowed.\nGo away.")

        do_GET = do_POST = _refuse  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
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


def test_so_is_a_refused_download(unwilling_server: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    port, code = unwilling_server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:{port}")
    file = f"http://me:{SECRET}@127.0.0.1:{port}/api/2.0/mlflow-artifacts/artifacts/model/file"
    with pytest.raises(TrackingError, match=rf"refused access \({code}\)") as caught, one_line_errors():
        mlflow.artifacts.download_artifacts(file, dst_path=str(tmp_path))
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


def fork(action: Callable[[], object]) -> int:
    """Run `action` in a process of its own, which has imported all that this one has; gives its id."""
    process = os.fork()
    if process == 0:
        try:
            action()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return process


@pytest.mark.slow
def test_a_kill_while_the_store_is_made_leaves_none_or_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow writes some 950 kB in dozens of transactions; it cannot open a file that holds some of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")

    def largest() -> int:
        with contextlib.suppress(FileNotFoundError):  # just renamed
            return max((file.stat().st_size for file in tmp_path.iterdir() if "journal" not in file.name), default=0)
        return 0

    def made_before_the_kill(size: int) -> bool:
        process, until = fork(connect), time.monotonic() + 60
        while largest() <= size:
            assert time.monotonic() < until
            time.sleep(0.002)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        for left in tmp_path.glob("mlflow.db.new-*"):
            os.utime(left, (1, 1))  # as old as one that nobody works on any more
        return (tmp_path / "mlflow.db").exists()

    for size in (50_000, 500_000):
        for _ in range(5):  # a busy machine may let this process sleep until it is too late
            if not made_before_the_kill(size):
                break
            (tmp_path / "mlflow.db").unlink()
    assert not (tmp_path / "mlflow.db").exists()
    run = training_run(connect(), "k", "e")
    assert run.id
    assert [file.name for file in tmp_path.glob("mlflow.db*")] == ["mlflow.db"]


@pytest.mark.slow
def test_of_two_processes_that_make_the_store_at_once_neither_loses_the_other_ones_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    process = fork(lambda: training_run(connect(), "theirs", "e"))
    mine = training_run(connect(), "mine", "e")
    assert os.waitpid(process, 0)[1] == 0
    assert mine.id in {run.info.run_id for run in connect().search_runs([mine.experiment_id])}
    with contextlib.closing(sqlite3.connect("mlflow.db")) as opened:
        assert opened.execute("select count(*) from runs").fetchone() == (2,)


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
