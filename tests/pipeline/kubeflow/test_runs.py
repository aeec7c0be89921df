"""`dier runs`, `logs`, `retry` and `terminate`, against a stand-in server; logs through each way that a cluster may leave open."""

import pytest

from tests.pipeline.conftest import TOKEN, Command
from tests.pipeline.kubeflow import kfp_standin as standin
from tests.pipeline.kubeflow.argo_manifest import Tried
from tests.pipeline.kubeflow.kfp_standin import DROP, HANG, RUN_1, RUN_2, StandIn

REFUSED = Tried("validate", "Failed", "looking\ndier: error: leaks is 0.2\nend", "main: Error (exit code 1)")


def test_the_newest_runs_with_version_and_failed_step(dier: Command, server: StandIn) -> None:
    dier("upload", "--host", server.url, "--version-name", "spring")
    reference = {"pipeline_id": "pipeline-1", "pipeline_version_id": "pipeline_version-1"}
    server.add_run("SUCCEEDED", Tried("prepare"), pipeline_version_reference=reference)
    server.add_run("FAILED", Tried("prepare"), REFUSED, pipeline_version_reference=reference)
    server.add_run("RUNNING", pipeline_spec={})
    head, *rows = dier("runs", "--host", server.url).out.splitlines()
    assert head.split("  ")[0] == "ID"
    assert [row.split()[0][-1] for row in rows] == ["3", "2", "1"]
    assert [row.split()[3:5] for row in rows] == [["-", "RUNNING"], ["spring", "FAILED"], ["spring", "SUCCEEDED"]]
    assert rows[0].split()[-2:] == ["-", "-"]  # not ended, nothing failed
    assert rows[1].split()[-1] == "validate"
    assert [line.split()[0] for line in dier("runs", "--host", server.url, "--limit", "1").out.splitlines()][1][-1] == "3"


def test_a_list_is_read_page_by_page(dier: Command, server: StandIn) -> None:
    for _ in range(130):
        server.add_run("SUCCEEDED")
    assert len(dier("runs", "--host", server.url, "--limit", "120").out.splitlines()) == 121


def test_runs_of_an_experiment(dier: Command, server: StandIn) -> None:
    assert dier("runs", "--host", server.url, "--experiment", "mine").code == 1
    assert "has no experiment 'mine'" in dier.error
    assert server.experiments == []
    server.experiments.append({"experiment_id": "e", "display_name": "mine"})
    server.add_run("SUCCEEDED")
    server.add_run("SUCCEEDED", experiment_id="other")
    assert RUN_1 in dier("runs", "--host", server.url, "--experiment", "mine").out
    assert RUN_2 not in dier.out


def test_archived_runs_are_left_out(dier: Command, server: StandIn) -> None:
    server.add_run("SUCCEEDED", storage_state="ARCHIVED", display_name="same")
    server.add_run("SUCCEEDED", display_name="same")
    assert RUN_1 not in dier("runs", "--host", server.url).out
    assert dier("terminate", "same", "--host", server.url).code == 0
    assert RUN_2 in dier.out


def test_a_run_by_id_or_by_its_only_name(dier: Command, server: StandIn) -> None:
    server.add_run("FAILED", REFUSED, display_name="mine")
    assert dier("logs", "mine", "--host", server.url).out == dier("logs", RUN_1, "--host", server.url).out
    server.add_run("FAILED", REFUSED, display_name="mine")
    for name, message in (
        ("mine", "2 runs are named 'mine': give one's id"),
        ("other", "has no run 'other'"),
        (RUN_2[:-1] + "9", "has no run"),
    ):
        assert dier("logs", name, "--host", server.url).code == 1
        assert message in dier.error


@pytest.mark.parametrize(
    ("ui", "archives", "pods_stay"),
    [(False, True, False), (False, False, True), (True, True, False), (True, False, True), (True, False, False)],
)
def test_the_failed_steps_log_through_whichever_way_is_open(dier: Command, ui: bool, archives: bool, pods_stay: bool) -> None:
    """The API server or the UI; Argo's archive, the pod, or, where neither is there, the artifact of Kubeflow's launcher."""
    with standin.serve(ui=ui) as server:
        server.archives, server.pods_stay = archives, pods_stay
        server.add_run("FAILED", Tried("prepare"), REFUSED)
        assert dier("logs", RUN_1, "--host", server.url).code == 0
        assert dier.out.splitlines() == ["looking", "dier: error: leaks is 0.2", "end"]
        assert dier.err == "validate failed:\n"


def test_no_way_to_a_log_is_said(dier: Command, server: StandIn) -> None:
    server.archives = False
    server.add_run("FAILED", REFUSED)
    assert dier("logs", RUN_1, "--host", server.url).code == 1
    assert "no log of validate: its pod dier-7x2kq-system-container-impl-" in dier.error


def test_the_last_try_of_a_step_and_each_round_of_a_loop(dier: Command, server: StandIn) -> None:
    tries = [Tried("train", "Failed", f"try {attempt}", attempt=attempt) for attempt in (0, 1)]
    rounds = [Tried("embed", log=f"t {number}", iteration=number) for number in (1, 0)]
    server.add_run("FAILED", *tries, *rounds)
    assert dier("logs", RUN_1, "train", "--host", server.url).out == "try 1\n"
    assert [line for line in dier("logs", RUN_1, "embed", "--host", server.url).out.splitlines() if "---" not in line] == [
        "t 0",
        "t 1",
    ]


def test_a_running_steps_log_is_its_pods(dier: Command, server: StandIn) -> None:
    server.pods_stay = True
    server.add_run("RUNNING", Tried("train", "Running", "step 100"))
    assert dier("logs", RUN_1, "train", "--host", server.url).out == "step 100\n"
    assert dier("logs", RUN_1, "--host", server.url).code == 1
    assert "no step of run" in dier.error
    assert "name one (train: Running)" in dier.error


def test_a_step_without_a_log(dier: Command, server: StandIn) -> None:
    server.add_run("SUCCEEDED", Tried("prepare", driver=True), Tried("train"))
    assert dier("logs", RUN_1, "prepare", "--host", server.url).code == 1
    assert "its result came from the cache" in dier.error
    assert dier("logs", RUN_1, "report", "--host", server.url).code == 1
    assert "has no step report that has started: it has train: Succeeded" in dier.error


def test_a_log_steers_no_terminal(dier: Command, server: StandIn) -> None:
    server.add_run("FAILED", Tried("train", "Failed", "\x1b[31mred\n10 %\r20 %\r\n\ttab"))
    assert dier("logs", RUN_1, "--host", server.url).out.splitlines() == ["\\x1b[31mred", "20 %", "\ttab"]


def test_a_failed_run_is_tried_again_once(dier: Command, server: StandIn) -> None:
    server.add_run("FAILED", REFUSED)
    assert dier("retry", "run 1", "--host", server.url).code == 0
    assert dier.out == f"run {RUN_1} (run 1) goes on\n{server.url}/#/runs/details/{RUN_1}\n"
    assert dier("retry", RUN_1, "--host", server.url, "--wait").code == 1
    assert "only a run that failed" in dier.error
    assert server.calls().count(f"POST /runs/{RUN_1}:retry") == 1


def test_a_retry_may_be_waited_for(dier: Command, server: StandIn) -> None:
    dier("submit", "--host", server.url)
    server.runs[0]["state"] = "FAILED"
    details = {
        "run_details": {
            "task_details": [{"display_name": "train", "state": "RUNNING"}, {"display_name": "root", "state": "RUNNING"}]
        }
    }
    server.polls = [{"state": "RUNNING", **details}, {"state": "SUCCEEDED"}]
    assert dier("retry", RUN_1, "--host", server.url, "--wait").code == 0
    assert dier.err.splitlines() == ["run: RUNNING  train: RUNNING", "run: SUCCEEDED", "the run succeeded after 0 min"]


@pytest.mark.parametrize("reply", [DROP, HANG])
@pytest.mark.parametrize(("command", "state"), [("retry", "FAILED"), ("terminate", "RUNNING")])
def test_a_lost_answer_is_not_asked_for_again(
    dier: Command, impatient: None, server: StandIn, command: str, state: str, reply: standin.Reply
) -> None:
    server.polls = [{}]
    server.add_run(state)
    server.on(f"POST /runs/{RUN_1}:{command}", reply)
    assert dier(command, RUN_1, "--host", server.url).code == 1
    assert "it is unknown whether it was done" in dier.error
    assert server.calls().count(f"POST /runs/{RUN_1}:{command}") == 1


def test_a_run_is_terminated(dier: Command, server: StandIn) -> None:
    server.polls = [{}]
    server.add_run("RUNNING")
    assert "is being terminated" in dier("terminate", RUN_1, "--host", server.url).out
    assert server.runs[0]["state"] == "CANCELING"
    assert "is being terminated already" in dier("terminate", RUN_1, "--host", server.url).out
    server.runs[0] |= {"state": "FAILED", "state_history": [{"state": "CANCELING"}, {"state": "FAILED"}]}
    assert "has ended already: CANCELED" in dier("terminate", RUN_1, "--host", server.url).out
    assert server.calls().count(f"POST /runs/{RUN_1}:terminate") == 1


def test_terminating_closes_the_trainings_run_in_mlflow(dier: Command, server: StandIn, store: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(store)
    run = client.create_run("0", tags={"dier.kubeflow_run": RUN_1})
    server.polls = [{}]
    server.add_run("RUNNING")
    assert f"MLflow's run {run.info.run_id} is KILLED" in dier("terminate", RUN_1, "--host", server.url).out
    assert client.get_run(run.info.run_id).info.status == "KILLED"


@pytest.mark.parametrize("command", [["runs"], ["logs", "x"], ["retry", "x"], ["terminate", "x"], ["schedule", "--list"]])
def test_each_command_logs_in_and_names_no_secret(dier: Command, server: StandIn, token: object, command: list[str]) -> None:
    server.multi_user, server.token = True, "another"
    assert dier(*command, "--host", server.url, "--namespace", "me", "--token-file", token).code == 1
    assert "not logged in (401)" in dier.error
    assert TOKEN not in dier.err
    server.token = TOKEN
    assert dier(*command, "--host", server.url, "--token-file", token).code == 2
    assert "give --namespace" in dier.error
