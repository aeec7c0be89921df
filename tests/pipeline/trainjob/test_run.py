"""The train task as a TrainJob: made once, waited for, joined, failed, refused; the real Kubernetes client, a stand-in API.

task ── inputs ──> shared claim ──> TrainJob's pods ──> model ──> task's output
"""

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from components.common import artifact
from pipeline import cli
from pipeline.kubeflow import retry
from pipeline.kubeflow.cluster import Cluster
from pipeline.trainjob import client, run
from pipeline.trainjob.manifest import manifest
from tests.pipeline.task.test_task import executor_input, told, words
from tests.pipeline.trainjob import kubernetes_standin as standin
from tests.pipeline.trainjob.kubernetes_standin import NAMESPACE, StandIn, condition, pod, refusal

RUN_ID = "run-1"
NAME = f"dier-{RUN_ID}"


class Task:
    """The train task: its folders, and the command as Kubeflow starts it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.failure_file, self.shared = folder / "permanent-failure" / RUN_ID, folder / "trainjob" / NAME
        self.out = folder / "train" / "model"
        for step, name in (("prepare", "dataset"), ("validate", "verdict")):
            with artifact.create(folder / step / name, name, {}) as place:
                (place / "file").write_text(name)

    def run(self, *more: str, keep: str = "failed", **settings: Any) -> int:
        wanted = Cluster.model_validate({"work": {"claim": "c"}, "trainjob": {"nodes": 2}, **settings})
        job = manifest(wanted)
        line = ["--permanent-failures", str(self.failure_file.parent), "--trainjob", json.dumps(job), "--keep", keep, *more]
        given = json.dumps(executor_input(self.folder, "train"))
        code = cli.main(["task", "--executor-input", given, *line, "--", *words(self.folder, "train")])
        self.err = self.capsys.readouterr().err
        assert "Traceback" not in self.err
        return code

    def train(self, job: dict[str, Any]) -> None:
        """What the pods do: read their command line and leave a model."""
        args = job["spec"]["trainer"]["args"]
        flags = dict(zip(args[3::2], args[4::2], strict=True))
        made_from = {name: artifact.read(Path(flags[f"--{name}"]), name).fingerprint for name in ("dataset", "verdict")}
        with artifact.create(Path(flags["--out"]), "model", made_from) as folder:
            (folder / "weights").write_text("weights")
            artifact.write_json(folder / "summary.json", {"steps": 1, "parameters": {"encoder": 1}, "training_key": "k", "gap": {}})


@pytest.fixture
def task(tmp_path: Path, api: StandIn, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setattr(run, "SHARED", tmp_path / "trainjob")
    monkeypatch.setenv("DIER_RUN_ID", RUN_ID)
    made = Task(tmp_path, capsys)
    api.on_create = made.train
    return made


def test_the_model_of_the_trainjob_becomes_the_tasks(task: Task, api: StandIn) -> None:
    seen = []
    api.on_create = lambda job: (seen.append(job), task.train(job))[0]
    api.conditions = [[], [condition("Suspended"), condition("Failed", status="False")], [], [condition("Complete")]]
    api.pods = [pod("dier-run-1-node-0-0-abc", "Running"), pod("dier-run-1-node-0-1-def", "Pending")]
    assert task.run() == 0, task.err
    args = seen[0]["spec"]["trainer"]["args"]
    expected = words(task.folder, "train")
    for flag, place in (("--dataset", "dataset"), ("--verdict", "verdict"), ("--out", "model")):
        expected[expected.index(flag) + 1] = str(task.shared / place)
    assert args == ["-m", "pipeline.cli", *expected]
    made = artifact.read(task.out, "model")
    assert made.made_from["dataset"] == artifact.read(task.folder / "prepare" / "dataset", "dataset").fingerprint
    assert told(task.folder, "train")["model"]["fingerprint"] == made.fingerprint
    assert f"TrainJob {NAME}: created in {NAMESPACE}, 2 nodes" in task.err
    assert f"TrainJob {NAME}: Suspended, pods: 1 Pending, 1 Running after 0 min" in task.err
    assert not api.jobs  # complete ones are deleted
    assert not task.shared.exists()  # and what they needed


@pytest.mark.parametrize(("keep", "stays"), [("never", False), ("failed", False), ("always", True)])
def test_a_complete_one_stays_only_if_asked(task: Task, api: StandIn, keep: str, stays: bool) -> None:
    assert task.run(keep=keep) == 0
    assert bool(api.jobs) == stays


@pytest.mark.slow
def test_the_role_is_what_is_needed_and_no_more(task: Task, api: StandIn) -> None:
    api.conditions = [[condition("Failed")]]
    api.pods = [pod("p", "Failed", code=1)]
    api.logs = {"p": "said"}
    assert task.run() == 1
    api.conditions = [[condition("Failed")], [condition("Complete")]]
    assert task.run() == 0
    assert set(api.calls) == api.allowed


@pytest.mark.slow
def test_a_failure_says_why_passes_on_the_last_lines_and_keeps_the_job(task: Task, api: StandIn) -> None:
    api.on_create = lambda job: None
    api.conditions = [[], [], [], [condition("Failed", "jobset failed\ndue to one or more job failures")]]
    api.pods = [
        pod("node-0", "Running", restarts=1, before=1),
        pod("node-1", "Failed", code=137),
        pod("node-2", "Running"),
        pod("node-3", "Succeeded", code=0),
    ]
    api.logs = {"node-0 before": "first\nRuntimeError: peer is gone\n", "node-1": "killed\n"}
    assert task.run() == 1
    assert "node-0 ended with exit code 1 (Error); its last lines:" in task.err
    assert task.err.count("[node-0] RuntimeError: peer is gone") == 1  # once, however often it was looked at
    assert "node-1 ended with exit code 137" in task.err
    assert "[node-1] killed" in task.err
    assert "node-2" not in task.err
    assert "node-3" not in task.err
    last = task.err.splitlines()[-1]
    assert last == (
        f"dier: error: the TrainJob {NAME} failed (JobsFailed: jobset failed due to one or more job failures); "
        f"look with kubectl -n {NAMESPACE} describe trainjob {NAME}; a new try goes on from its checkpoints"
    )
    assert list(api.jobs) == [NAME]
    assert not task.out.exists()
    assert not task.failure_file.exists()


def test_two_pods_of_one_process_id_copy_beside_each_other(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In containers every task has the same process id, and a retry may begin while the try before it still copies."""
    source, target = tmp_path / "prepare" / "dataset", tmp_path / "shared" / "dataset"
    copied, inside = shutil.copytree, []

    def slow(*arguments: Any) -> None:
        copied(*arguments)
        if not inside:
            inside.append(arguments[1])
            artifact.copy(source, target, "dataset")  # the retry, from begin to end
            assert arguments[1].is_dir(), "the retry removed the other's copy"

    monkeypatch.setattr(shutil, "copytree", slow)
    assert artifact.copy(source, target, "dataset") == target
    assert [path.name for path in target.parent.iterdir()] == ["dataset"]


@pytest.mark.slow
def test_a_failed_one_is_replaced_on_the_next_try_and_inputs_are_copied_once(task: Task, api: StandIn) -> None:
    api.on_create = lambda job: None
    api.conditions = [[condition("Failed")]]
    assert task.run() == 1
    marked = task.shared / "dataset" / "file"
    before = marked.stat().st_ino
    inodes = []
    api.on_create = lambda job: (inodes.append(marked.stat().st_ino), task.train(job))[0]
    api.conditions = [[condition("Failed")], [condition("Complete")]]
    assert task.run() == 0
    assert "an earlier try's failed; it is replaced" in task.err
    assert inodes == [before]
    assert api.calls.count("create trainjobs") == 2


def test_a_living_one_is_joined_and_never_doubled(task: Task, api: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(retry, "MAX_RETRIES", 1)
        api.faults = {"get trainjobs": [refusal(404, "none"), refusal(503, "away"), refusal(503, "away")]}
        assert task.run() == 1  # a task that made its TrainJob and ended
    assert list(api.jobs) == [NAME]
    api.conditions = [[], [], [condition("Complete")]]
    assert task.run() == 0
    assert "an earlier try of this task made it; waiting for it" in task.err
    assert api.calls.count("create trainjobs") == 1
    assert artifact.read(task.out, "model").kind == "model"


@pytest.mark.slow
def test_an_answer_that_was_lost_makes_no_second_one(task: Task, api: StandIn) -> None:
    api.faults = {"create trainjobs": [(0, None)]}  # made, and the connection breaks
    assert task.run() == 0
    assert f"cannot create the TrainJob {NAME} (1 of 30 times)" in task.err
    assert f"TrainJob {NAME}: there already in {NAMESPACE}" in task.err


def test_an_api_that_is_away_for_a_while_is_waited_for(task: Task, api: StandIn) -> None:
    away = refusal(503, "etcd is away")
    api.faults = {"get trainjobs": [away, away, (0, None)], "list pods": [away], "delete trainjobs": [away]}
    assert task.run() == 0
    assert "(503): Service Unavailable; it says: etcd is away" in task.err


def test_an_api_that_stays_away_ends_the_task(task: Task, api: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "MAX_RETRIES", 3)
    api.faults = {"get trainjobs": [refusal(404, "none"), *[refusal(503, "away")] * 9]}
    assert task.run() == 1
    assert f"the TrainJob goes on: kubectl -n {NAMESPACE} delete trainjob {NAME} ends it" in task.err
    assert task.err.splitlines()[-1].startswith(f"dier: error: cannot get {NAME} in {NAMESPACE} (503)")


def test_a_webhooks_no_is_not_taken_for_missing_rights(task: Task, api: StandIn) -> None:
    api.runtimes = {}
    assert task.run() == 1
    webhook = "validator.trainjob.trainer.kubeflow.org"
    assert f"dier: error: cannot create {NAME} in {NAMESPACE} (403): refused by the webhook {webhook}" in task.err
    assert '"torch-distributed" not found: specified clusterTrainingRuntime must be created' in task.err
    assert task.err.count("\n") == 1
    assert "rights" not in task.err


def test_a_run_without_an_id_makes_nothing(task: Task, api: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIER_RUN_ID")
    assert task.run() == 2
    assert "no DIER_RUN_ID in the environment" in task.err
    assert not api.calls


@pytest.mark.parametrize("missing", ["get trainjobs", "create trainjobs"])
def test_without_rights_it_says_which_file_gives_them(task: Task, api: StandIn, missing: str) -> None:
    api.allowed.discard(missing)
    assert task.run() == 1
    verb = missing.split()[0]
    assert f"dier: error: cannot {verb} {NAME} in {NAMESPACE} (403): not allowed: give the run's service account" in task.err
    assert "pipeline/trainjob/role.yaml" in task.err
    assert api.calls.count(missing) == 1  # no patience with a no


def test_without_rights_to_the_pods_it_goes_on(task: Task, api: StandIn) -> None:
    api.allowed -= {"list pods", "get pods/log"}
    api.conditions = [[], [], [], [condition("Complete")]]
    assert task.run() == 0
    assert task.err.count("going on without the pods' states and logs") == 1
    assert api.calls.count("list pods") == 1


def test_a_field_that_the_trainer_does_not_know_is_refused_by_the_cluster(task: Task, api: StandIn) -> None:
    api.faults = {"create trainjobs": [refusal(400, 'strict decoding error: unknown field "spec.runtimePatches"')]}
    assert task.run() == 1
    assert 'it says: strict decoding error: unknown field "spec.runtimePatches"' in task.err


def test_a_permanent_failure_ends_task_and_trainjob_at_once(task: Task, api: StandIn) -> None:
    def refuse(job: dict[str, Any]) -> None:
        [entry] = [entry for entry in job["spec"]["trainer"]["env"] if entry["name"] == "DIER_PERMANENT_FAILURE"]
        with pytest.MonkeyPatch.context() as patch:  # a rank of the step, in a pod
            patch.setenv(entry["name"], entry["value"])
            args = job["spec"]["trainer"]["args"]
            assert cli.main([*args[2:-1], str(task.shared / "model"), "--set", "train.batch_size=-1"]) == 2

    api.on_create = refuse
    api.conditions = [[]]  # the Trainer would try on
    assert task.run() == 2
    assert not api.jobs
    calls = len(api.calls)
    assert task.run() == 2
    assert "a retry cannot cure" in task.err
    assert len(api.calls) == calls


def test_what_the_pods_mount_is_not_copied(task: Task, api: StandIn) -> None:
    mounted = task.folder / "prepare"
    dataset = {"source": "volume", "path": str(mounted / "dataset"), "fingerprint": "a" * 64}
    volumes = [{"claim": "sets", "mount_path": str(mounted), "steps": []}]
    seen: list[str] = []
    api.on_create = lambda job: (seen.extend(job["spec"]["trainer"]["args"]), task.train(job))[0]
    assert task.run(dataset=dataset, volumes=volumes) == 0
    assert seen[seen.index("--dataset") + 1] == str(mounted / "dataset")
    assert seen[seen.index("--verdict") + 1] == str(task.shared / "verdict")


def test_a_damaged_input_is_found_before_anything_is_made(task: Task, api: StandIn) -> None:
    (task.folder / "prepare" / "dataset" / "file").write_text("other")
    assert task.run() == 3
    assert "does not match its sha256" in task.err
    assert not api.calls
    assert task.run() == 3  # and the next try does not look again
    assert "which a retry cannot cure" in task.err


def test_a_complete_job_without_a_model_is_an_error(task: Task, api: StandIn) -> None:
    api.on_create = lambda job: None
    assert task.run() == 3
    assert "no model artifact at" in task.err


def test_one_that_somebody_deleted_is_said(task: Task, api: StandIn) -> None:
    api.on_create = lambda job: api.jobs.clear()
    assert task.run() == 1
    assert f"the TrainJob {NAME} is gone from {NAMESPACE}: somebody deleted it" in task.err


def test_nobody_there(task: Task, api: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "MAX_RETRIES", 2)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        (tmp_path / "kubeconfig").write_text(standin.kubeconfig(f"http://127.0.0.1:{closed.getsockname()[1]}"))
        assert task.run() == 1
    assert f"cannot get {NAME} in {NAMESPACE}: no answer from http://127.0.0.1:" in task.err


def test_inside_of_a_cluster_it_speaks_as_the_pods_account(
    task: Task, certificate: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("of-the-pod")
    (tmp_path / "namespace").write_text(f"{NAMESPACE}\n")
    inside = "kubernetes.config.incluster_config"
    monkeypatch.setattr(f"{inside}.SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(f"{inside}.SERVICE_CERT_FILENAME", str(certificate[0]))
    monkeypatch.setattr(client, "NAMESPACE", tmp_path / "namespace")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # for the world outside: nobody there
    with standin.serve(certificate) as secure:
        host, port = secure.url.removeprefix("https://").split(":")
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
        secure.on_create = task.train
        assert task.run() == 0, task.err
        assert secure.accounts == {"bearer of-the-pod"}


def test_outside_of_a_cluster(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    assert task.run() == 1
    assert "no Kubernetes to make a TrainJob in" in task.err
