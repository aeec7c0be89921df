"""Train on two nodes, each a container of the image, made by the Kubeflow SDK as Kubeflow Trainer makes pods.

test ── SDK: one network, two containers, torchrun in each ──> dier train on a shared folder ──> model

And the whole train task of the compiled pipeline, which makes its TrainJob through the real client of Kubernetes:

task in a container ── TrainJob ──> stand-in of the Kubernetes API ── two containers ──> model on the claim ──> the task's output
"""

import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.common import artifact
from components.common.settings import parse
from pipeline import cli
from pipeline.kubeflow.cluster import Cluster
from pipeline.kubeflow.pipeline import compiled
from pipeline.trainjob.manifest import LONGEST, name_of, text
from tests.containers.conftest import USER
from tests.containers.trainjob_nodes import Nodes as Containers
from tests.pipeline.conftest import certificate  # noqa: F401
from tests.pipeline.task.test_task import executor_input, told
from tests.pipeline.trainjob import kubernetes_standin as standin
from tests.pipeline.trainjob.kubernetes_standin import NAMESPACE, StandIn

pytestmark = pytest.mark.engine

SHARED = "/workspace"
"""Where the SDK mounts a job's folder into every node."""
SETTINGS = {
    "model": {"size": "demo", "depth": 1},
    "train": {
        "steps": 60,
        "batch_size": 64,
        "warmup_steps": 5,
        "log_every": 20,
        "checkpoint_every": 20,
        "min_gap": 0,
        "device": "cpu",
    },
}


def train(words: list[str]) -> None:
    """The script of every rank, sent as source: the step's own command line."""
    import sys

    from pipeline.cli import main

    sys.exit(main(words))


class Nodes:
    """Jobs of two nodes that share one folder."""

    def __init__(self, engine: Any, image: str, home: Path) -> None:
        from kubeflow.trainer import ContainerBackendConfig, TrainerClient
        from kubeflow.trainer.backends.container.types import TrainingRuntimeSource

        container = {"name": "node", "image": image}
        template: Any = {"spec": {"template": {"spec": {"containers": [container]}}}}
        runtime = {
            "apiVersion": "trainer.kubeflow.org/v1alpha1",
            "kind": "ClusterTrainingRuntime",
            "metadata": {"name": "torch-distributed", "labels": {"trainer.kubeflow.org/framework": "torch"}},
            "spec": {
                "mlPolicy": {"numNodes": 2},
                "template": {"spec": {"replicatedJobs": [{"name": "node", "template": template}]}},
            },
        }
        (home / "runtime.yaml").write_text(yaml.safe_dump(runtime))
        source = TrainingRuntimeSource(sources=[f"file://{home / 'runtime.yaml'}"])
        config = ContainerBackendConfig(container_runtime="docker", pull_policy="Never", runtime_source=source, auto_remove=False)
        self.engine, self.client = engine, TrainerClient(backend_config=config)
        self.folders = home / ".kubeflow" / "trainer" / "containers"
        self.made: list[str] = []

    def start(self, name: str, **paths: str) -> Path:
        """Start the job; gives the folder that its nodes share. A folder that is there already is used again."""
        from kubeflow.trainer import CustomTrainer
        from kubeflow.trainer.options import Name

        folder = self.folders / name
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)  # the container's user is nobody to this machine
        places = {"dataset": "dataset", "verdict": "verdict", "work": "work", "out": "model"} | paths
        words = ["train", "--params", json.dumps(SETTINGS)]
        words += [word for flag, place in places.items() for word in (f"--{flag}", f"{SHARED}/{place}")]
        environment = {"DIER_PERMANENT_FAILURE": f"{SHARED}/permanent-failure", "OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": ""}
        trainer = CustomTrainer(func=train, func_args={"words": words}, num_nodes=2, env=environment)
        self.client.train(runtime="torch-distributed", trainer=trainer, options=[Name(name)])
        self.made.append(name)
        return folder

    def end(self, name: str, limit_s: float = 300) -> str:
        """Wait for the end; `Complete` or `Failed`."""
        job = self.client.wait_for_job_status(name, {"Complete", "Failed"}, timeout=int(limit_s), polling_interval=1)
        return str(job.status)

    def node(self, name: str, rank: int) -> Any:
        return self.engine.containers.get(f"{name}-node-{rank}")

    def log(self, name: str) -> str:
        return "\n".join(self.node(name, rank).logs().decode() for rank in (0, 1))

    def remove(self) -> None:
        while self.made:
            self.client.delete_job(self.made.pop())


@pytest.fixture(scope="module")
def open_image(engine: Any, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image without its entry point: on a cluster a pod's command replaces it, the SDK's containers would get both."""
    folder, tag = tmp_path_factory.mktemp("open"), "localhost/dier-open:test"
    (folder / "Containerfile").write_text(f"FROM {image}\nENTRYPOINT []\n")
    engine.images.build(path=str(folder), dockerfile="Containerfile", tag=tag)
    yield tag
    engine.images.remove(tag, force=True)


@pytest.fixture
def nodes(engine: Any, open_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    monkeypatch.setenv("HOME", str(tmp_path))  # the SDK keeps its jobs' folders there
    made = Nodes(engine, open_image, tmp_path)
    yield made
    made.remove()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    limit = json.dumps({"data": {"limit": 300}})
    assert cli.main(["prepare", "--params", limit, "--out", str(folder / "dataset")]) == 0
    assert cli.main(["validate", "--params", "{}", "--dataset", str(folder / "dataset"), "--out", str(folder / "verdict")]) == 0
    return folder


def share(nodes: Nodes, name: str, prepared: Path) -> None:
    """Put dataset and verdict where the nodes will see them."""
    for kind in ("dataset", "verdict"):
        shutil.copytree(prepared / kind, nodes.folders / name / kind)


def test_two_nodes_train_one_model(nodes: Nodes, prepared: Path) -> None:
    share(nodes, "two", prepared)
    folder = nodes.start("two")
    assert nodes.end("two") == "Complete", nodes.log("two")
    made = artifact.read(folder / "model", "model")
    assert made.json("summary.json")["steps"] == 60
    assert made.made_from["dataset"] == artifact.read(prepared / "dataset", "dataset").fingerprint
    assert "2 processes, 60 steps" in nodes.log("two")
    alone = ["train", "--params", json.dumps(SETTINGS), "--dataset", str(prepared / "dataset")]
    alone += ["--verdict", str(prepared / "verdict"), "--work", str(folder / "alone"), "--out", str(folder / "one")]
    assert cli.main(alone) == 0
    two, one = (artifact.read(folder / name, "model").json("summary.json")["gap"] for name in ("model", "one"))
    furthest = max(abs(a["loss"] / b["loss"] - 1) for a, b in zip(two, one, strict=True))
    print(f"\ntwo nodes beside one process, losses over t after 60 steps: {furthest:.1e} apart at most")
    assert furthest < 1e-3  # the same samples; sums of floats in another order


def test_a_failing_step_fails_the_job_and_leaves_its_exit_code(nodes: Nodes) -> None:
    folder = nodes.start("bad")
    assert nodes.end("bad") == "Failed"
    assert "dier: error: no dataset artifact at /workspace/dataset" in nodes.log("bad")
    assert json.loads((folder / "permanent-failure").read_text()) == {"code": 3}
    assert not (folder / "model").exists()


def test_a_lost_node_ends_the_job_within_a_minute_and_the_next_try_goes_on(
    nodes: Nodes, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share(nodes, "lost", prepared)
    monkeypatch.setitem(SETTINGS["train"], "steps", 4000)
    folder = nodes.start("lost")
    limit = time.monotonic() + 200
    while not list(folder.glob("work/*/step-*")):
        assert time.monotonic() < limit, nodes.log("lost")
        assert nodes.node("lost", 0).status in ("created", "running"), nodes.log("lost")
        time.sleep(0.5)
    nodes.node("lost", 1).kill("SIGKILL")
    start = time.monotonic()
    assert nodes.node("lost", 0).wait(timeout=90)["StatusCode"] != 0
    seconds = time.monotonic() - start
    print(f"\nthe other node ended {seconds:.0f} s after the kill")
    assert seconds < 60
    assert nodes.end("lost") == "Failed"
    assert not (folder / "permanent-failure").exists()  # another try may cure it
    nodes.remove()
    latest = max(int(place.name.rpartition("-")[2]) for place in folder.glob("work/*/step-*"))
    nodes.start("lost")
    limit = time.monotonic() + 200
    while not [place for place in folder.glob("work/*/step-*") if int(place.name.rpartition("-")[2]) > latest]:
        assert time.monotonic() < limit, nodes.log("lost")
        time.sleep(0.5)
    assert f"train: going on from the checkpoint of step {latest}" in nodes.log("lost")


def test_the_trainjobs_own_command_trains_with_what_the_trainer_tells_its_pods(
    engine: Any, image: str, prepared: Path, tmp_path: Path
) -> None:
    """The manifest as rendered; the variables are those that the Trainer's torch plugin sets, two processes a node."""
    work, name = tmp_path / "work", "m" * LONGEST  # the longest name makes the longest address
    work.mkdir()
    work.chmod(0o777)
    for kind in ("dataset", "verdict"):
        shutil.copytree(prepared / kind, work / kind)
    cluster = Cluster.model_validate({"image": image, "work": {"claim": "c"}, "trainjob": {"nodes": 2}})
    paths = {flag: Path("/state") / flag for flag in ("dataset", "verdict", "work", "out")}
    trainer = yaml.safe_load(text(cluster, parse(SETTINGS, "test"), name, paths))["spec"]["trainer"]
    network = engine.networks.create("dier-trainjob")
    pods = []
    try:
        for rank in range(trainer["numNodes"]):
            told = {"PET_NNODES": "2", "PET_NPROC_PER_NODE": "2", "PET_NODE_RANK": str(rank), "PET_MASTER_PORT": "29500"}
            pod = engine.containers.create(
                trainer["image"],
                trainer["args"],
                entrypoint=trainer["command"],
                name=f"{name}-node-0-{rank}.{name}",
                environment={**told, "PET_MASTER_ADDR": f"{name}-node-0-0.{name}", "OMP_NUM_THREADS": "1"},
                network="dier-trainjob",
                volumes={str(work): {"bind": "/state", "mode": "rw"}},
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
            )
            pods.append(pod)
        for pod in pods:
            pod.start()
        codes = [pod.wait(timeout=300)["StatusCode"] for pod in pods]
        assert codes == [0, 0], "\n".join(pod.logs().decode() for pod in pods)
        assert "4 processes, 60 steps" in pods[0].logs().decode()
    finally:
        for pod in pods:
            pod.remove(force=True)
        network.remove()
    assert artifact.read(work / "out", "model").json("summary.json")["steps"] == 60


# the train task of the compiled pipeline ------------------------------------------------------------------------------------------

RUN_ID = "9b2f0f2e-8f4e-4f0c-9e55-0d7a8b1c2d3e"
TASK = Path("/task")
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


class TrainTask:
    """The container of the task train as Kubeflow's launcher starts it, on a claim that it shares with the TrainJob's nodes."""

    def __init__(self, engine: Any, image: str, api: StandIn, authority: Path, home: Path, prepared: Path) -> None:
        self.engine, self.image, self.api, self.home = engine, image, api, home
        self.claim, self.folder, self.account = home / "claim", home / "task", home / "account"
        for place in (self.claim, self.folder, self.folder / "train", self.account):
            place.mkdir()
            place.chmod(0o777)
        for step, kind in (("prepare", "dataset"), ("validate", "verdict")):
            shutil.copytree(prepared / kind, self.folder / step / kind)
        (self.account / "token").write_text("of-the-pod")
        (self.account / "namespace").write_text(NAMESPACE)
        shutil.copy(authority, self.account / "ca.crt")
        self.nodes = Containers(engine, {"dier-work": self.claim})
        api.runner, api.backoff_s = self.nodes, 1.0
        self.log = ""

    def words(self) -> list[str]:
        """The compiled command with what Kubeflow resolves of it: its inputs, its outputs and the executor input, nothing else."""
        wanted = {"image": self.image, "work": {"claim": "dier-work"}, "trainjob": {"nodes": 2}, "shared_memory": None}
        spec = next(yaml.safe_load_all(compiled(parse({}, "test"), Cluster.model_validate(wanted))))
        container = spec["deploymentSpec"]["executors"]["exec-train"]["container"]
        values = {
            f"inputs.artifacts['{name}_in'].path": str(TASK / step / name)
            for step, name in (("prepare", "dataset"), ("validate", "verdict"))
        }
        values |= {f"outputs.artifacts['{name}'].path": str(TASK / "train" / name) for name in ("model", *shown_by(spec))}
        told = executor_input(TASK, "train")
        told["inputs"]["parameterValues"] = {f"{name}_settings": SETTINGS[name] for name in SETTINGS}
        given = json.dumps(told)
        return [
            given if word == "{{$}}" else re.sub(r"{{\$\.([^}]*)}}", lambda found: values.get(found[1], found[0]), word)
            for word in [*container["command"], *container["args"]]
        ]

    def run(self) -> int:
        """Exit code; what it printed is the log."""
        host, port = self.api.url.removeprefix("https://").split(":")
        container = self.engine.containers.create(
            self.image,
            self.words()[1:],
            user=f"{USER}:{USER}",
            environment={
                "KUBERNETES_SERVICE_HOST": host,
                "KUBERNETES_SERVICE_PORT": port,
                "DIER_RUN_ID": RUN_ID,
                "MLFLOW_TRACKING_URI": "",
            },
            network_mode="host",
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            tmpfs={"/tmp": "mode=1777"},
            volumes={
                str(self.claim): {"bind": "/state", "mode": "rw"},
                str(self.folder): {"bind": str(TASK), "mode": "rw"},
                str(self.account): {"bind": ACCOUNT, "mode": "ro"},
            },
        )
        try:
            container.start()
            code = container.wait(timeout=500)["StatusCode"]
            self.log = container.logs().decode()
            return int(code)
        finally:
            container.remove(force=True)


def shown_by(spec: dict[str, Any]) -> set[str]:
    """The outputs of train beside its artifact."""
    return set(spec["components"]["comp-train"]["outputDefinitions"]["artifacts"]) - {"model"}


@pytest.fixture
def train_task(engine: Any, image: str, prepared: Path, tmp_path: Path, certificate: tuple[Path, Path]) -> Iterator[TrainTask]:  # noqa: F811
    with standin.serve(certificate) as api:
        made = TrainTask(engine, image, api, certificate[0], tmp_path, prepared)
        yield made
        for life in api.lives.values():
            life.end()
        made.nodes.remove()


def test_the_whole_train_task_trains_on_two_nodes(train_task: TrainTask, prepared: Path) -> None:
    assert train_task.run() == 0, train_task.log
    made = artifact.read(train_task.folder / "train" / "model", "model")
    assert made.json("summary.json")["steps"] == 60
    assert made.made_from["dataset"] == artifact.read(prepared / "dataset", "dataset").fingerprint
    metadata = {name: found["fingerprint"] for name, found in told(train_task.folder, "train").items() if name == "model"}
    assert metadata == {"model": made.fingerprint}
    name = name_of(RUN_ID)
    assert f"TrainJob {name}: created in {NAMESPACE}, 2 nodes" in train_task.log
    assert {node.host for node in train_task.nodes.started} == {f"{name}-node-0-{rank}.{name}" for rank in (0, 1)}
    assert len(train_task.nodes.started) == 2  # none had to start again
    assert {node.env["DIER_PERMANENT_FAILURE"].rpartition("/")[0] for node in train_task.nodes.started} == {
        "/state/permanent-failure"
    }
    assert not train_task.api.jobs
    assert train_task.api.accounts == {"bearer of-the-pod"}


def test_a_pod_that_is_deleted_comes_back_and_both_go_on_from_their_checkpoint(
    train_task: TrainTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SETTINGS["train"], "steps", 600)
    train_task.api.backoff_s = 20  # its peer must have noticed: a new node that finds the old peer waits for it in vain
    codes: list[int] = []
    task = threading.Thread(target=lambda: codes.append(train_task.run()))
    task.start()
    limit = time.monotonic() + 200
    while not list(train_task.claim.glob("train/*/step-*")):
        assert time.monotonic() < limit
        time.sleep(0.2)
    life = train_task.api.lives[name_of(RUN_ID)]
    life.delete_pod(life.pods[1].name)
    task.join(timeout=400)
    assert codes == [0], train_task.log
    assert len(train_task.nodes.started) >= 4  # both started again
    assert artifact.read(train_task.folder / "train" / "model", "model").json("summary.json")["steps"] == 600
    assert any("going on from the checkpoint of step" in log for pod in life.pods.values() for log in pod.logs)
