"""`dier submit --wait`, in this process and as the installed command."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.kubeflow import retry
from tests.pipeline.conftest import ROOT, TOKEN, Command
from tests.pipeline.kubeflow import kfp_standin as standin
from tests.pipeline.kubeflow.argo_manifest import Tried
from tests.pipeline.kubeflow.kfp_standin import DROP, HANG, HTML, RUN_1, Reply, StandIn, refusal


def steps(**states: str) -> dict[str, Any]:
    """Task details as the API gives them: drivers and graphs stand between the steps."""
    noise = [{"display_name": "root", "state": "RUNNING"}, {"display_name": "train-driver", "state": "SUCCEEDED"}]
    return {"run_details": {"task_details": noise + [{"display_name": name, "state": state} for name, state in states.items()]}}


def test_waiting_shows_the_steps_and_ends_with_success(dier: Command, server: StandIn) -> None:
    server.polls = [
        {"state": "PENDING"},
        {"state": "RUNNING", **steps(prepare="RUNNING")},
        {"state": "RUNNING", **steps(prepare="RUNNING")},
        {"state": "RUNNING", **steps(prepare="SUCCEEDED", train="RUNNING")},
        {"state": "SUCCEEDED", **steps(prepare="SUCCEEDED", train="SUCCEEDED")},
    ]
    assert dier("submit", "--host", server.url, "--wait").code == 0
    assert dier.err.splitlines()[2:] == [
        "run: PENDING",
        "run: RUNNING  prepare: RUNNING",
        "prepare: SUCCEEDED  train: RUNNING",
        "run: SUCCEEDED  train: SUCCEEDED",
        "the run succeeded after 0 min",
    ]


@pytest.mark.parametrize("state", ["FAILED", "CANCELED", "SKIPPED"])
def test_any_other_end_is_an_error_that_names_the_failed_steps(dier: Command, server: StandIn, state: str) -> None:
    details = steps(prepare="SUCCEEDED", validate="FAILED")
    details["run_details"]["task_details"][-1]["error"] = {"code": 2, "message": "main: Error\n(exit code 3)"}
    server.polls = [{"state": "RUNNING"}, {"state": state, **details}]
    assert dier("submit", "--host", server.url, "--wait").code == 1
    assert f"the run ended {state} after 0 min: validate; dier logs {RUN_1}, or {server.url}/#/runs/details/{RUN_1}" in dier.error


def test_a_failure_that_is_no_steps_is_named_too(dier: Command, server: StandIn) -> None:
    driver = {"run_details": {"task_details": [{"display_name": "train-driver", "state": "FAILED"}]}}
    server.polls = [{"state": "FAILED", **driver}]
    dier("submit", "--host", server.url, "--wait")
    assert ": train-driver; dier logs" in dier.error
    server.polls = [{"state": "FAILED", "error": {"code": 2, "message": "quota"}}]
    dier("submit", "--host", server.url, "--wait")
    assert "after 0 min: quota; dier logs" in dier.error


def test_waiting_ends_with_the_failed_steps_own_last_line(dier: Command, server: StandIn) -> None:
    log = "checking\ndier: error: validation failed: leaks is 0.15, allowed 0.001\nF1128 00:10:00.1 1 main.go:57] exit status 3\n"
    server.tried[RUN_1] = [Tried("prepare"), Tried("validate", "Failed", log, "main: Error (exit code 1)")]
    server.polls = [{"state": "RUNNING"}, {"state": "FAILED", **steps(prepare="SUCCEEDED", validate="FAILED")}]
    add = server.add_run
    server.add_run = lambda state, *tried, **more: add(state, *server.tried[RUN_1], **more)  # type: ignore[method-assign]
    assert dier("submit", "--host", server.url, "--wait").code == 1
    assert "the run ended FAILED after 0 min: validate: validation failed: leaks is 0.15, allowed 0.001; dier logs" in dier.error


def test_a_run_that_was_terminated_ended_so(dier: Command, server: StandIn) -> None:
    """The API calls it FAILED."""
    history = [{"state": state} for state in ("PENDING", "RUNNING", "CANCELING", "FAILED")]
    server.polls = [{"state": "FAILED", "state_history": history}]
    dier("submit", "--host", server.url, "--wait")
    assert "the run ended CANCELED" in dier.error


def test_an_api_that_is_away_for_a_while_is_waited_for(dier: Command, server: StandIn) -> None:
    server.polls = [refusal(503, 14, "starting"), DROP, {"state": "RUNNING"}, refusal(500, 13, "x"), {"state": "SUCCEEDED"}]
    assert dier("submit", "--host", server.url, "--wait").code == 0
    assert "cannot see the run (2 of 30 times)" in dier.err
    assert server.calls().count("POST /runs") == 1


def test_patience_is_for_failures_in_a_row(dier: Command, server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "MAX_RETRIES", 1)
    server.polls = [DROP, {"state": "RUNNING"}, DROP, {"state": "SUCCEEDED"}]
    assert dier("submit", "--host", server.url, "--wait").code == 0


@pytest.mark.parametrize(("reply", "polls"), [(refusal(503, 14, "gone"), 4), (refusal(401, 16, "expired"), 1), (HTML, 1)])
def test_waiting_ends_when_it_is_no_use(
    dier: Command, server: StandIn, monkeypatch: pytest.MonkeyPatch, reply: Reply, polls: int
) -> None:
    monkeypatch.setattr(retry, "MAX_RETRIES", 3)
    server.polls = [reply]
    assert dier("submit", "--host", server.url, "--wait").code == 1
    assert server.calls().count(f"GET /runs/{RUN_1}") == polls
    assert f"no longer waiting, but the run goes on: {server.url}/#/runs/details/{RUN_1}" in dier.err
    assert str(reply.status) in dier.error or reply == HTML


def test_a_token_that_is_replaced_while_waiting_is_used(dier: Command, server: StandIn, token: Path) -> None:
    answer = server.answer

    def replace_after_the_run_is_made(request: standin.Request) -> Reply:
        reply = answer(request)
        if request.call == "POST /runs":
            token.write_text("another-one")
            server.token = "another-one"
        return reply

    server.token, server.answer = TOKEN, replace_after_the_run_is_made  # type: ignore[method-assign]
    assert dier("submit", "--host", server.url, "--token-file", token, "--wait").code == 0
    assert server.requests[-1].headers["authorization"] == "Bearer another-one"


def test_a_long_step_is_heard_of(dier: Command, server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "STILL_S", 0.0)
    running = {"state": "RUNNING", **steps(train="RUNNING")}
    server.polls = [running, running, {"state": "SUCCEEDED"}]
    assert dier("submit", "--host", server.url, "--wait").code == 0
    assert "run: still RUNNING after 0 min (train)" in dier.err


def run(server: StandIn, compiled_file: Path, home: Path, *options: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "pipeline.cli", "submit", "--pipeline", str(compiled_file), *options]
    environment = {**os.environ, "HOME": str(home), "KF_PIPELINES_ENDPOINT": server.url}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a runner in the background hands it down ignored
    )


def wait_until(server: StandIn, call: str) -> None:
    limit = time.monotonic() + 20
    while call not in server.calls():
        assert time.monotonic() < limit, server.calls()
        time.sleep(0.02)


@pytest.mark.slow
def test_exit_codes_and_output_of_the_real_command(server: StandIn, compiled_file: Path, tmp_path: Path) -> None:
    done = run(server, compiled_file, tmp_path, "--run-name", "first", "--wait")
    out, err = done.communicate(timeout=30)
    name = server.versions[0]["display_name"]
    assert (done.returncode, out) == (0, f"run {RUN_1} (first) of version {name}\n{server.url}/#/runs/details/{RUN_1}\n")
    assert err.splitlines() == ["new pipeline dier", "new experiment dier", "run: SUCCEEDED", "the run succeeded after 0 min"]
    server.polls = [{"state": "FAILED", **steps(train="FAILED")}]
    done = run(server, compiled_file, tmp_path, "--wait")
    assert "dier: error: the run ended FAILED" in done.communicate(timeout=30)[1]
    assert done.returncode == 1
    assert list(tmp_path.iterdir()) == []  # nothing is left in the home folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (f"GET /runs/{RUN_1}", "no longer waiting, but the run goes on: "),
        ("POST /runs", "it is unknown whether the run was created"),
    ],
)
def test_ctrl_c_says_what_becomes_of_the_run(server: StandIn, compiled_file: Path, tmp_path: Path, call: str, message: str) -> None:
    server.on(call, HANG)
    started = run(server, compiled_file, tmp_path, "--wait")
    wait_until(server, call)
    started.send_signal(signal.SIGINT)
    err = started.communicate(timeout=20)[1]
    assert message in err
    assert err.splitlines()[-1] == "dier: error: interrupted"
    assert started.returncode == 130
