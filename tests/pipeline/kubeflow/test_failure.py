"""Why a run failed: the task and its own last line, at a desk and inside the cluster."""

import base64
import gzip
import json
import time
from pathlib import Path

import pytest

from pipeline.kubeflow import failure as module
from pipeline.kubeflow import retry
from pipeline.kubeflow.api import client as api_client
from pipeline.kubeflow.api.client import Client, inside_client
from pipeline.kubeflow.api.errors import CallFailed
from pipeline.kubeflow.api.workflow import Workflow
from pipeline.kubeflow.failure import Failure, failure, last_error
from tests.pipeline.conftest import TOKEN
from tests.pipeline.kubeflow.argo_manifest import Tried, of_tries
from tests.pipeline.kubeflow.kfp_standin import HANG, RUN_1, StandIn

LATER = "2026-11-28T00:20:00Z"


def of(server: StandIn, *tried: Tried) -> Failure | None:
    return failure(Client(server.url), server.add_run("FAILED", *tried))


def test_the_step_that_failed_first_and_its_last_error(server: StandIn) -> None:
    log = "dier: error: one\ndier: error: leaks is 0.2\nF1128 00:00:00.1 1 main.go:57] failed to execute component: exit status 3"
    found = of(server, Tried("prepare"), Tried("report", "Error", finished=LATER), Tried("validate", "Failed", log))
    assert found == Failure("validate", "leaks is 0.2")
    assert str(found) == "validate: leaks is 0.2"


def test_of_several_tries_the_last_counts(server: StandIn) -> None:
    first = Tried("train", "Failed", "dier: error: first", attempt=0)
    assert of(server, first, Tried("train", attempt=1, finished=LATER)) is None
    assert of(server, first, Tried("train", "Failed", "dier: error: second", attempt=1)) == Failure("train", "second")


def test_one_round_of_a_loop_is_enough(server: StandIn) -> None:
    rounds = [Tried("embed", iteration=0), Tried("embed", "Failed", "dier: error: no memory", iteration=1)]
    assert of(server, *rounds) == Failure("embed", "no memory")


def test_a_pod_that_said_nothing_has_argos_word(server: StandIn) -> None:
    assert of(server, Tried("train", "Failed", "step 5", "main: OOMKilled (exit code 137)")) == Failure(
        "train", "OOMKilled (exit code 137)"
    )
    server.archives = False
    assert of(server, Tried("train", "Error", message="pod deleted")) == Failure("train", "pod deleted")


def test_a_driver_that_could_not_start_its_task(server: StandIn) -> None:
    log = "I1128 00:00:00.1 9 main.go:1] x\nF1128 00:00:00.2 12 main.go:120] KFP driver: failed: cannot find producer task"
    found = of(server, Tried("validate", "Failed", log, driver=True))
    assert found == Failure("validate-driver", "KFP driver: failed: cannot find producer task")


def test_the_exit_handlers_own_failure_counts_last(server: StandIn) -> None:
    handler = Tried("outcome", "Failed", "dier: error: no MLflow", finished="2026-11-28T00:01:00Z")
    assert of(server, handler, Tried("train", "Failed", "dier: error: dead encoder")) == Failure("train", "dead encoder")
    assert of(server, handler) == Failure("outcome", "no MLflow")


def test_a_run_that_did_not_fail_or_has_not_started(server: StandIn) -> None:
    assert of(server, Tried("train")) is None
    assert of(server) is None


def test_packed_nodes_are_read(server: StandIn) -> None:
    """Argo packs what would be too long for etcd."""
    manifest = of_tries([Tried("train", "Failed")])
    nodes = manifest["status"].pop("nodes")
    manifest["status"]["compressedNodes"] = base64.b64encode(gzip.compress(json.dumps(nodes).encode())).decode()
    assert [pod.task for pod in Workflow(manifest).pods if pod.failed] == ["train"]


def test_names_of_pods_are_argos(server: StandIn) -> None:
    tried = Tried("train", attempt=2)
    [pod] = [pod for pod in Workflow(of_tries([tried])).pods if not pod.is_driver]
    assert (pod.name, pod.attempt) == (tried.pod, 2)


def test_no_error_line_is_made_up() -> None:
    assert last_error(["note: dier: error: quoted", "fine"]) == ""


def test_inside_the_cluster_the_mounted_token_is_used_and_nothing_hangs(
    server: StandIn, token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT", raising=False)
    assert inside_client().base == "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(token))
    monkeypatch.setattr(api_client, "INSIDE_TIMEOUT_S", (0.3, 0.3))
    monkeypatch.setattr(retry, "TIMEOUT_S", (60.0, 60.0))
    server.token = TOKEN
    server.add_run("RUNNING", Tried("train", "Failed", "dier: error: NaN"))
    assert failure(inside_client(), RUN_1) == Failure("train", "NaN")
    server.on("GET .*log", HANG)
    server.on("GET .*main-logs:read", HANG)
    start = time.monotonic()
    assert failure(inside_client(), RUN_1) == Failure("train", "")
    server.on("GET .*", HANG)
    with pytest.raises(CallFailed, match="no answer within"):
        failure(inside_client(), RUN_1)
    assert time.monotonic() - start < 5


def test_what_the_api_does_not_know_yet_is_asked_for_again(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_S", 0.01)
    server.add_run("RUNNING", Tried("train"))
    answer = server.answer

    def later(request: object) -> object:
        if len(server.requests) == 3:
            server.tried[RUN_1] = [Tried("train", "Failed", "dier: error: NaN")]
        return answer(request)  # type: ignore[arg-type]

    server.answer = later  # type: ignore[assignment,method-assign]
    assert failure(Client(server.url), RUN_1, patience_s=5) == Failure("train", "NaN")
    assert failure(Client(server.url), server.add_run("RUNNING"), patience_s=0.05) is None
