"""The task at the end of a run: what it records, ends and tells, against real servers on loopback where it speaks to one."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from components.common import artifact
from pipeline import cli
from pipeline.kubeflow.failure import Failure
from pipeline.task import outcome
from tests.pipeline.kubeflow import kfp_standin as standin
from tests.pipeline.kubeflow.argo_manifest import Tried
from tests.pipeline.task.test_task import executor_input
from tests.pipeline.task.test_task import told as told_kubeflow

RUN = "2fe6be4a-9d24-4e7c-8ab9-000000000001"


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIER_RUN_ID", RUN)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    failed = Failure("train", "train.lr 0.1: the loss is not finite")
    monkeypatch.setattr(outcome, "_asked", lambda run, told: ("FAILED", failed) if told == "FAILED" else ("CANCELED", None))


def record(folder: Path, status: dict[str, Any], *more: str) -> dict[str, Any]:
    out = folder / "outcome" / "outcome"
    given = json.dumps(executor_input(folder, "outcome"))
    assert cli.main(["outcome", "--executor-input", given, "--status", json.dumps(status), *more, "--out", str(out)]) == 0
    found = artifact.read(out, "outcome").json("outcome.json")
    assert told_kubeflow(folder, "outcome")["outcome"] == found
    return dict(found)


@pytest.mark.parametrize(
    ("said", "state", "task", "message"),
    [
        ("COMPLETE", "SUCCEEDED", "", ""),
        ("SUCCEEDED", "SUCCEEDED", "", ""),  # kfp's local runner
        ("FAILED", "FAILED", "train", "train.lr 0.1: the loss is not finite"),
        ("RUNNING", "CANCELED", "", ""),  # what Kubeflow says of steps that were terminated, and the API says why
    ],
)
def test_the_outcome_is_recorded(tmp_path: Path, said: str, state: str, task: str, message: str) -> None:
    found = record(tmp_path, {"state": said, "pipelineJobResourceName": "dier-x7k2p", "pipelineTaskName": "steps", "error": {}})
    assert found == {"state": state, "run": RUN, "failed_task": task, "message": message}


def test_an_api_that_is_away_is_said_and_fails_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(run: str, told: str) -> tuple[str, Failure | None]:
        raise ConnectionError("no answer")

    monkeypatch.setattr(outcome, "_asked", away)
    assert record(tmp_path, {"state": "FAILED"})["failed_task"] == ""
    assert "could not ask the pipelines' API how the run ended: ConnectionError: no answer" in capsys.readouterr().err
    assert record(tmp_path, {"state": "RUNNING"})["state"] == "UNKNOWN"


@pytest.mark.parametrize(
    ("known", "tries", "told", "ends"),
    [
        ("CANCELING", [], "RUNNING", ("CANCELED", "", "")),
        ("RUNNING", [], "RUNNING", ("SUCCEEDED", "", "")),  # its last step came from the cache
        ("RUNNING", [Tried("train", "Failed", "dier: error: lower train.lr")], "RUNNING", ("FAILED", "train", "lower train.lr")),
        ("RUNNING", [], "FAILED", ("FAILED", "", "")),
    ],
)
def test_the_pipelines_api_says_how_the_run_ended(
    known: str, tries: list[Tried], told: str, ends: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(outcome, "PATIENCE_S", 0.0)
    with standin.serve() as server:
        run, server.polls = server.add_run(known, *tries), [{"state": known}]
        monkeypatch.setenv("DIER_RUN_ID", run)
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
        found = record(tmp_path, {"state": told})
    assert (found["state"], found["failed_task"], found["message"]) == ends


@pytest.fixture
def posted() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    found: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook/secret-part", found
    server.shutdown()
    server.server_close()


def test_the_webhook_is_told_in_one_line(
    tmp_path: Path, posted: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(outcome.WEBHOOK, posted[0])
    record(tmp_path, {"state": "FAILED"})
    assert posted[1] == [{"text": f"run {RUN}: FAILED, train: train.lr 0.1: the loss is not finite"}]


def test_a_webhook_that_is_away_is_said_without_its_address(
    tmp_path: Path, closed_port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = ("file:///secret-part", "http://127.0.0.1/a secret-part", "http://127.0.0.1:secret-part/", "http://[secret-part/")
    for address in (f"http://127.0.0.1:{closed_port}/secret-part", *broken):
        monkeypatch.setenv(outcome.WEBHOOK, address)
        record(tmp_path, {"state": "COMPLETE"})
        said = capsys.readouterr().err
        assert "could not tell the webhook" in said
        assert "secret-part" not in said


@pytest.mark.parametrize("text", ["", "[]", "7", "{"])
def test_a_status_that_is_none_is_refused(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = json.dumps(executor_input(tmp_path, "outcome"))
    assert cli.main(["outcome", "--executor-input", given, "--status", text, "--out", str(tmp_path / "outcome")]) == 2
    assert "is no final status; dier outcome runs" in capsys.readouterr().err
