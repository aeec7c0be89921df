"""The compiled pipeline on the stand-in of Kubeflow, each step in a container as a pod would have it.

run twice, the second time from the cache ── failed at validate ── refused at the gate ── retried ── its train lost ── terminated ──
imported ── fanned out

One installation serves all, so that what does not change comes from its cache; `make test-containers` runs it.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from components.common import artifact
from pipeline.steps import BY_NAME
from tests.pipeline.kubeflow.kfp_standin import serve
from tests.standin.backend import Backend, body_of
from tests.standin.containers import ContainerPods
from tests.standin.dier import log, messages, ready, short, text
from tests.standin.pod import Ended, Pod

pytestmark = pytest.mark.engine
LONG_S = 900
STEPS = ("prepare", "validate", "train", "embed", "probe", "report", "register")
VOLUMES = [{"claim": "mlflow", "mount_path": "/mlflow", "steps": ["train", "register"]}]
WORK = {"claim": "dier-work"}


class Installation(Backend):
    """Runs pods in containers, and can be told to lose one."""

    def __init__(self, folder: Path, image: str) -> None:
        self.pods = ContainerPods(image, network="host")  # where a test's API is
        super().__init__(folder, self.pods)
        ready(self, "sqlite:////mlflow/mlflow.db")
        for name in ("mlflow", "dier-work"):
            self.cluster.claim(name, (0, 10001), 0o2775)

    def dier(self, given: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        """A run of the pipeline with these parameters, to its end."""
        return self.run(text(volumes=VOLUMES, **changes), given or short(), timeout=LONG_S)

    def ran(self, run: dict[str, Any]) -> list[str]:
        """The tasks that started a container."""
        return [pod.task for pod in self.pods.pods if pod.run_id == run["run_id"]]


@pytest.fixture(scope="module")
def kubeflow(image: str, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    if os.geteuid() != 0:
        pytest.skip("claims and scratch volumes of other users need root")
    return Installation(tmp_path_factory.mktemp("kubeflow"), image)


@pytest.fixture(scope="module")
def first(kubeflow: Installation) -> dict[str, Any]:
    run = kubeflow.dier()
    assert run["state"] == "SUCCEEDED", messages(kubeflow, run)
    return run


def states(run: dict[str, Any]) -> dict[str, str]:
    return {one["display_name"]: one["state"] for one in run["run_details"]["task_details"]}


def test_run_twice_the_second_time_from_the_cache(kubeflow: Installation, first: dict[str, Any]) -> None:
    for task, name in (("prepare", "dataset"), ("train", "model"), ("probe", BY_NAME["probe"].kubeflow_output)):
        found = kubeflow.artifact(first["run_id"], task, name)
        made = artifact.sha256(kubeflow.path(first["run_id"], task, name) / artifact.MANIFEST)
        assert found.properties["fingerprint"] == made
    start = time.monotonic()
    second = kubeflow.dier()
    assert second["state"] == "SUCCEEDED", messages(kubeflow, second)
    assert not set(kubeflow.ran(second)) & set(STEPS[:-1])
    assert "register" in kubeflow.ran(second)
    print(f"second run: {time.monotonic() - start:.0f} s, containers {kubeflow.ran(second)}")
    for run in (first, second):
        for execution in kubeflow.metadata.of_run(run["run_id"]):
            moved = kubeflow.traffic(run["run_id"], execution.task_name)
            if moved.files:
                print(f"{execution.task_name:12} {execution.seconds:6.1f} s  {moved.downloaded:>9} in  {moved.uploaded:>9} out")


def test_failed_at_validate(kubeflow: Installation) -> None:
    strict = {"near_duplicate_distance": 0.9, "warn_near_duplicate_share": 0, "max_near_duplicate_share": 0}
    run = kubeflow.dier(short(validate=strict))
    assert run["state"] == "FAILED"
    assert kubeflow.ran(run)[-1] == "data-gate"
    verdict = kubeflow.path(run["run_id"], "validate", "verdict")
    assert (verdict / "docs" / "index.html").is_file()
    assert log(kubeflow, run, "data-gate").count("dier: error: ") == 1


def test_refused_at_the_gate(kubeflow: Installation, first: dict[str, Any]) -> None:
    run = kubeflow.dier({**short(register={"min_accuracy": 1.0}), "register_min_accuracy": 1.0})
    assert run["state"] == "FAILED"
    assert states(run)["model-gate"] == "FAILED"
    assert not set(kubeflow.ran(run)) & set(STEPS[:-1])
    registration = kubeflow.path(run["run_id"], "register", "registration") / "registration.json"
    assert json.loads(registration.read_text())["gate"]["passed"] is False
    assert log(kubeflow, run, "model-gate").count("dier: error: ") == 1


def test_retried(kubeflow: Installation, first: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its embed fails once, for something that is no fault of its inputs; tried again by the API it goes on there."""
    failing = iter([True])

    def lost(pod: Pod) -> Ended:
        return Ended(1, "dier: error: the disk is full\n") if pod.task == "embed" and next(failing, False) else kubeflow.pods(pod)

    monkeypatch.setattr(kubeflow.servers, "run_pod", lost)
    run = kubeflow.dier(short(embed={"batch_size": 100}))
    assert run["state"] == "FAILED"
    assert "the disk is full" in log(kubeflow, run, "embed")
    kubeflow.retry_run(run["run_id"])
    again = kubeflow.wait(run["run_id"], LONG_S)
    assert again["state"] == "SUCCEEDED", messages(kubeflow, again)
    assert "train" not in kubeflow.ran(again)


def test_a_deleted_train_goes_on_from_its_checkpoint(kubeflow: Installation, first: dict[str, Any]) -> None:
    """With the stock manifests: a lost pod is tried again, on the claim that holds what it had saved."""
    given = short(train={"steps": 400, "checkpoint_every": 20, "seed": 7})
    run_id = kubeflow.create_run(body_of(text(volumes=VOLUMES, work=WORK, retry={"wait": "1s"}), given))["run_id"]
    pod = _training(kubeflow, run_id)
    kubeflow.delete_pod(run_id, pod.name)
    run = kubeflow.wait(run_id, LONG_S)
    assert run["state"] == "SUCCEEDED", messages(kubeflow, run)
    assert kubeflow.ran(run).count("train") == 2
    assert "going on from the checkpoint of step" in log(kubeflow, run, "train", 1)


def test_terminated(kubeflow: Installation, first: dict[str, Any]) -> None:
    given = short(train={"steps": 5000, "checkpoint_every": 20, "seed": 8})
    with serve(backend=kubeflow) as api:
        wanted = text(volumes=VOLUMES, work=WORK, outcome={"task": "always"}, env={"KF_PIPELINES_ENDPOINT": api.url})
        made = kubeflow.create_run(body_of(wanted, given))
        api.runs.append({"storage_state": "AVAILABLE", **made})
        run_id = made["run_id"]
        _training(kubeflow, run_id)
        start = time.monotonic()
        kubeflow.terminate_run(run_id)
        assert kubeflow.get_run(run_id)["state"] == "CANCELING"
        run = kubeflow.wait(run_id, LONG_S)
    assert run["state"] == "FAILED"  # Kubeflow 2.17.0 has no other word at the end
    assert time.monotonic() - start < 60
    assert kubeflow.ran(run)[-1] == "outcome"
    found = json.loads((kubeflow.path(run_id, "outcome", "outcome") / "outcome.json").read_text())
    assert (found["state"], found["run"]) == ("CANCELED", run_id), log(kubeflow, run, "outcome")


def test_imported(kubeflow: Installation, first: dict[str, Any]) -> None:
    uri = kubeflow.artifact(first["run_id"], "prepare", "dataset").uri
    run = kubeflow.dier(dataset={"source": "importer", "uri": uri})
    assert run["state"] == "SUCCEEDED", messages(kubeflow, run)
    assert "prepare" not in kubeflow.ran(run)
    made = [kubeflow.path(one["run_id"], "train", "model") / artifact.MANIFEST for one in (first, run)]
    assert artifact.sha256(made[0]) == artifact.sha256(made[1])


def test_fanned_out(kubeflow: Installation, first: dict[str, Any]) -> None:
    run = kubeflow.dier(embed={"fan_out": True, "parallelism": 2})
    assert run["state"] == "SUCCEEDED", messages(kubeflow, run)
    assert kubeflow.ran(run).count("embed") == 2
    one = kubeflow.path(first["run_id"], "embed", "embeddings") / artifact.MANIFEST
    joined = kubeflow.path(run["run_id"], "embed-join", "embeddings") / artifact.MANIFEST
    assert artifact.sha256(one) == artifact.sha256(joined)


def _training(kubeflow: Installation, run_id: str) -> Pod:
    """The train pod, once it has saved a checkpoint."""
    for _ in range(LONG_S * 2):
        claim = kubeflow.cluster.claims[WORK["claim"]]
        pods = [pod for pod in kubeflow.pods.pods if pod.run_id == run_id and pod.task == "train"]
        if pods and any(path.stat().st_mtime > _started(kubeflow, run_id) for path in claim.rglob("manifest.json")):
            return pods[-1]
        time.sleep(0.5)
    raise AssertionError("train saved no checkpoint")


def _started(kubeflow: Installation, run_id: str) -> float:
    folder = kubeflow.cluster.folder / "pods"
    return min((path.stat().st_mtime for path in folder.iterdir()), default=time.time())
