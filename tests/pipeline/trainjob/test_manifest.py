"""The TrainJob: fits the Trainer's schema, says the same as the pipeline's train task, and the pipeline makes and waits for it."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from components.common.errors import SettingsError
from pipeline import cli
from pipeline.kubeflow.cluster import Cluster, load
from pipeline.kubeflow.cluster_sections import Security
from pipeline.trainjob.manifest import LONGEST, manifest, name_of, named
from tests.pipeline.kubeflow.test_compile import DIGEST, compile_with, kubernetes, strict
from tests.pipeline.trainjob.trainjob_schema import check

ROOT = Path(__file__).parents[3]
EVERYTHING: dict[str, Any] = {
    "image": DIGEST,
    "image_pull_secrets": ["registry-login"],
    "gpu": {"type": "nvidia.com/gpu", "count": 8, "steps": ["train"]},
    "node_selector": {"labels": {"gpu": "a100"}},
    "tolerations": [
        {"key": "gpu", "operator": "Exists", "effect": "NoSchedule", "steps": ["train"]},
        {"key": "other", "operator": "Exists", "steps": ["prepare"]},
    ],
    "resources": {"train": {"cpu_request": "4", "cpu_limit": "8", "memory_request": "16Gi", "memory_limit": "32Gi"}},
    "shared_memory": "8Gi",
    "work": {"claim": "dier-work", "sub_path": "mine"},
    "volumes": [
        {"claim": "sets", "mount_path": "/sets", "sub_path": "a", "steps": []},
        {"claim": "raw", "mount_path": "/raw", "steps": ["prepare"]},
    ],
    "dataset": {"source": "volume", "path": "/sets/blood", "fingerprint": "c" * 64},
    "secrets": [
        {"name": "mlflow", "env": {"uri": "MLFLOW_TRACKING_URI"}, "optional": True},
        {"name": "s3", "env": {"key": "AWS_SECRET_ACCESS_KEY"}, "steps": ["prepare"]},
    ],
    "env": {"HTTPS_PROXY": "http://proxy.example:3128"},
    "certificate_authority": {"config_map": "our-ca", "key": "ca.pem"},
    "security": {"run_as_user": 4321, "run_as_group": 99},
    "pods": {
        "labels": {"team": "vision"},
        "annotations": {"cost/centre": "7: images"},
        "node_affinity": [{"key": "zone", "values": ["a", "b"]}, {"key": "spot", "operator": "DoesNotExist"}],
    },
    "service_account": "dier-run",
    "time_limits": {"train": 600},
    "trainjob": {
        "nodes": 4,
        "runtime": "torch-ours",
        "runtime_kind": "TrainingRuntime",
        "service_account": "dier-node",
        "labels": {"kueue.x-k8s.io/queue-name": "gpus"},
    },
}
SMALLEST: dict[str, Any] = {"work": {"claim": "dier-work"}, "trainjob": {"nodes": 2}}


def made(**settings: Any) -> dict[str, Any]:
    job = manifest(Cluster.model_validate(settings), ["train", "--out", "/state/model"])
    return named(job, name_of("1"), "/state/permanent-failure/1")


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    [patch] = job["spec"]["runtimePatches"]
    [node] = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert node["name"] == "node"
    return node["template"]["spec"]["template"]


@pytest.mark.parametrize("settings", [EVERYTHING, SMALLEST, {}, {"trainjob": {"labels": {}}, "shared_memory": None}])
def test_it_fits_the_published_schema(settings: dict[str, Any]) -> None:
    check(made(**settings))


def spoil(job: dict[str, Any], kind: str) -> None:
    spec, pod = job["spec"], pod_of(job)["spec"]
    match kind:
        case "field of the job":
            spec["numNodes"] = 2
        case "field of an older Trainer":
            spec["podTemplateOverrides"] = []
        case "field of the trainer":
            spec["trainer"]["numProcsPerNode"] = 8
        case "field of the pod":
            pod["nodeselector"] = {}
        case "field that may not be patched":
            pod["restartPolicy"] = "Never"
        case "field of a volume":
            pod["volumes"][0]["persistentVolumeClaim"]["claim"] = "x"
        case "nodes as text":
            spec["trainer"]["numNodes"] = "4"
        case "processes as text":
            spec["trainer"]["numProcPerNode"] = "auto"
        case "quantity as a list":
            spec["trainer"]["resourcesPerNode"]["limits"]["memory"] = ["1Gi"]
        case "no runtime":
            del spec["runtimeRef"]
        case "another version":
            job["apiVersion"] = "trainer.kubeflow.org/v2"
        case "name":
            job["metadata"]["name"] = "1-dier"


@pytest.mark.parametrize(
    "kind",
    [
        "field of the job",
        "field of an older Trainer",
        "field of the trainer",
        "field of the pod",
        "field that may not be patched",
        "field of a volume",
        "nodes as text",
        "processes as text",
        "quantity as a list",
        "no runtime",
        "another version",
        "name",
    ],
)
def test_the_schema_refuses(kind: str) -> None:
    job = made(**EVERYTHING)
    before = copy.deepcopy(job)
    spoil(job, kind)
    assert job != before
    with pytest.raises(jsonschema.ValidationError):
        check(job)


def test_every_setting_of_the_cluster_file_reaches_the_trainjob() -> None:
    job = made(**EVERYTHING)
    spec, trainer = job["spec"], job["spec"]["trainer"]
    labels = {"kueue.x-k8s.io/queue-name": "gpus", "team": "vision"}
    assert job["metadata"] == {"name": "dier-1", "labels": labels, "annotations": {"cost/centre": "7: images"}}
    assert spec["runtimePatches"][0]["manager"] == "dier.dev/dier"
    assert spec["runtimeRef"] == {"apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": "torch-ours"}
    assert spec["activeDeadlineSeconds"] == 600
    assert (trainer["image"], trainer["command"]) == (DIGEST, ["torchrun"])
    assert trainer["args"] == ["-m", "pipeline.cli", "train", "--out", "/state/model"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (4, 8)
    assert trainer["resourcesPerNode"] == {
        "requests": {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "8"},
        "limits": {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "8"},
    }
    environment = {entry["name"]: entry.get("value") or entry["valueFrom"]["secretKeyRef"] for entry in trainer["env"]}
    ca = dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"), "/etc/dier/ca/ca.pem")
    assert environment == {
        **Cluster.model_validate(EVERYTHING).environment(),
        **ca,
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "25",
        "DIER_UMASK": "007",
        "DIER_CPU_REQUEST": "4",
        "DIER_PERMANENT_FAILURE": "/state/permanent-failure/1",
        "MLFLOW_TRACKING_URI": {"name": "mlflow", "key": "uri", "optional": True},
    }
    pod = pod_of(job)
    assert pod["metadata"] == {"labels": labels, "annotations": {"cost/centre": "7: images"}}
    pod = pod["spec"]
    assert pod["serviceAccountName"] == "dier-node"
    assert pod["imagePullSecrets"] == [{"name": "registry-login"}]
    conditions = [{"key": "zone", "operator": "In", "values": ["a", "b"]}, {"key": "spot", "operator": "DoesNotExist"}]
    terms = {"nodeSelectorTerms": [{"matchExpressions": conditions}]}
    assert pod["affinity"] == {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    assert pod["nodeSelector"] == {"gpu": "a100"}
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
    who = {"runAsUser": 4321, "runAsGroup": 99, "runAsNonRoot": True}
    assert pod["securityContext"] == who | {"fsGroup": 99, "fsGroupChangePolicy": "OnRootMismatch"}
    [container] = pod["containers"]
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    sources = {volume["name"]: {key: value for key, value in volume.items() if key != "name"} for volume in pod["volumes"]}
    mounted = {mount["mountPath"]: (sources[mount["name"]], mount.get("subPath")) for mount in container["volumeMounts"]}
    assert mounted == {
        "/state": ({"persistentVolumeClaim": {"claimName": "dier-work"}}, "mine"),
        "/dev/shm": ({"emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}}, None),
        "/etc/dier/ca": ({"configMap": {"name": "our-ca"}}, None),
        "/sets": ({"persistentVolumeClaim": {"claimName": "sets"}}, "a"),
    }


@pytest.mark.parametrize(
    ("user", "group", "expected"), [(None, None, {}), (None, 0, {"runAsGroup": 0}), (1000660000, None, {"runAsUser": 1000660000})]
)
def test_who_it_runs_as_may_be_left_to_the_cluster(user: Any, group: Any, expected: dict[str, int]) -> None:
    """OpenShift gives a user of its own, and a group to the volumes: asking for another one is refused there."""
    security = Security.model_construct(run_as_user=user, run_as_group=group)
    job = manifest(Cluster.model_validate(SMALLEST).model_copy(update={"security": security}))
    assert pod_of(job)["spec"]["securityContext"] == expected | {"runAsNonRoot": True}


def test_volumes_have_names_of_their_own() -> None:
    pod = pod_of(made(**EVERYTHING))["spec"]
    assert all(re.fullmatch("dier-[-a-z0-9]+", volume["name"]) for volume in pod["volumes"])


def test_the_printed_manifest_repeats_itself_without_anchors() -> None:
    assert "&id" not in yaml.safe_dump(made(**EVERYTHING))


def test_the_longest_name_still_makes_names_of_pods() -> None:
    """jobset@08dfbdf pkg/webhooks/jobset_webhook.go:246: of the last pod, with the five letters that the Job adds."""
    assert len(f"{'m' * LONGEST}-node-0-{1000 - 1}-abcde") == 63
    named(made(**SMALLEST), "m" * LONGEST)
    with pytest.raises(SettingsError, match="no name of a TrainJob"):
        named(made(**SMALLEST), "m" * (LONGEST + 1))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"env": {"PET_NNODES": "2"}}, "env: PET_NNODES is what Kubeflow Trainer tells the nodes itself"),
        ({"secrets": [{"name": "s", "env": {"a": "PET_MASTER_ADDR"}}]}, "PET_MASTER_ADDR is what Kubeflow Trainer"),
        ({"secrets": [{"name": "s", "env": {"a": "T"}}], "env": {"T": "x"}}, "env and secrets: the variable T comes twice"),
        ({"secrets": [{"name": "s", "env": {"a": "T"}}, {"name": "r", "env": {"a": "T"}}]}, "the variable T comes twice"),
        ({"volumes": [{"claim": "a", "mount_path": "/dev/shm", "steps": ["train"]}]}, "the mount_path /dev/shm comes twice"),
        ({"image_pull_secrets": ["a", "a"]}, "image_pull_secrets: the name a comes twice"),
        ({"env": {f"V{number}": "" for number in range(128)}}, "env and secrets: 131, but a TrainJob takes 128 at most"),
        ({"image": "i" * 501}, "image: 501 characters, but a TrainJob takes 500 at most"),
        ({"trainjob": {"nodes": 2, "labels": {"a b": "c"}}}, "labels: 'a b' is no key that Kubernetes takes"),
        ({"trainjob": {"nodes": 2, "labels": {"a": "c d"}}}, "labels: a: 'c d' is no label's value"),
    ],
)
def test_what_a_cluster_would_refuse_is_refused_when_compiling(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        compile_with(**SMALLEST | settings)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_gpus_there_is_one_process_a_node() -> None:
    job = made(**SMALLEST, node_selector={"labels": {"gpu": "a100"}, "steps": ["embed"]}, gpu={"count": 8, "steps": ["embed"]})
    assert job["spec"]["trainer"]["numProcPerNode"] == 1
    assert "resourcesPerNode" not in job["spec"]["trainer"]
    assert "nodeSelector" not in pod_of(job)["spec"]


# the command ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster_file(tmp_path: Path) -> Path:
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump(EVERYTHING))
    return file


def run(cluster: Path, *more: str) -> int:
    return cli.main(["trainjob", "--cluster", str(cluster), "--params", str(ROOT / "params.yaml"), *more])


def test_the_command_prints_the_same_manifest_each_time(cluster_file: Path, tmp_path: Path, capsys: Any) -> None:
    line = ["--param", "train.steps=700", "--name", "mine", "--work", "/sets/w"]
    assert run(cluster_file, *line) == 0
    printed = capsys.readouterr().out
    assert run(cluster_file, *line, "--out-file", str(tmp_path / "m")) == 0
    assert (tmp_path / "m").read_text() == printed
    assert "4 nodes with 8 processes each" in capsys.readouterr().err
    job = yaml.safe_load(printed)
    check(job)
    words = job["spec"]["trainer"]["args"]
    assert words[:3] == ["-m", "pipeline.cli", "train"]
    flags = dict(zip(words[3::2], words[4::2], strict=True))
    assert list(flags) == ["--params", "--dataset", "--verdict", "--work", "--out"]
    assert (flags["--dataset"], flags["--work"], flags["--out"]) == ("/state/dataset", "/sets/w", "/state/model")
    assert json.loads(flags["--params"])["train"]["steps"] == 700
    assert "DIER_PERMANENT_FAILURE" not in printed


@pytest.mark.parametrize(
    ("settings", "more", "says"),
    [
        (SMALLEST, (), "has no @sha256: digest"),
        (SMALLEST, ("--allow-tag", "--name", "Mine"), "'Mine' is no name of a TrainJob"),
        (SMALLEST, ("--allow-tag", "--name", "a" * 47), "is no name of a TrainJob: up to 46"),
        ({}, ("--allow-tag",), "has no work.claim"),
        (SMALLEST, ("--allow-tag", "--param", "train.stepz=1"), "train.stepz"),
    ],
)
def test_the_command_refuses_in_one_line(
    tmp_path: Path, capsys: Any, settings: dict[str, Any], more: tuple[str, ...], says: str
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(settings))
    assert run(file, *more) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1


def test_many_nodes_need_a_claim(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("trainjob: {nodes: 2}\n")
    with pytest.raises(SettingsError, match=r"trainjob\.nodes 2 needs work\.claim"):
        load(file)


# the pipeline ---------------------------------------------------------------------------------------------------------------------


def task_words(spec: dict[str, Any]) -> list[str]:
    return spec["deploymentSpec"]["executors"]["exec-train"]["container"]["command"]


def test_several_gpus_on_one_node_are_several_processes_of_the_same_command() -> None:
    one, _ = compile_with()
    spec, platform = compile_with(gpu={"count": 4, "steps": ["train", "embed"]})
    strict(yaml.safe_dump_all([spec, platform]))
    assert task_words(spec)[-3:] == ["--processes", "4", "--"]
    assert "--processes" not in task_words(one)
    assert "--processes" not in spec["deploymentSpec"]["executors"]["exec-embed"]["container"]["command"]
    args = [document["deploymentSpec"]["executors"]["exec-train"]["container"]["args"] for document in (one, spec)]
    assert args[0] == args[1]
    only_embed, _ = compile_with(gpu={"count": 4, "steps": ["embed"]})
    assert "--processes" not in task_words(only_embed)


@pytest.mark.slow
def test_several_nodes_are_a_trainjob_that_a_small_task_waits_for() -> None:
    spec, platform = compile_with(**{**EVERYTHING, "retry": {"count": 0}})
    strict(yaml.safe_dump_all([spec, platform]))
    words = task_words(spec)
    job = json.loads(words[words.index("--trainjob") + 1])
    assert job == manifest(Cluster.model_validate(EVERYTHING))
    assert "name" not in job["metadata"], "a name is the run's, and no placeholder is resolved inside of a command"
    assert "{{" not in json.dumps(job)
    assert "DIER_PERMANENT_FAILURE" not in json.dumps(job)
    check(named(job, name_of("9b2f0f2e-8f4e-4f0c-9e55-0d7a8b1c2d3e")))
    assert words[words.index("--permanent-failures") + 1] == "/state/permanent-failure"
    assert words[words.index("--keep") + 1] == "failed"
    assert "--processes" not in words
    executor, task = spec["deploymentSpec"]["executors"]["exec-train"]["container"], kubernetes(platform, "train")
    assert "accelerator" not in executor["resources"]
    assert executor["resources"]["resourceMemoryRequest"] == "512Mi"
    assert not {"nodeSelector", "tolerations", "activeDeadlineSeconds", "emptyDirMounts"} & set(task)
    assert ("dier-work", "/state") in [(mount["constant"], mount["mountPath"]) for mount in task["pvcMount"]]
    one, _ = compile_with(**{**EVERYTHING, "trainjob": {"nodes": 1}})
    assert "--trainjob" not in task_words(one)
    assert executor["args"] == one["deploymentSpec"]["executors"]["exec-train"]["container"]["args"]


def test_what_other_steps_pods_carry_is_not_trains() -> None:
    job = made(**SMALLEST, pods={"labels": {"a": "b"}, "node_affinity": [{"key": "zone", "values": ["a"]}], "steps": ["probe"]})
    assert "a" not in job["metadata"]["labels"] | pod_of(job)["metadata"]["labels"]
    assert "affinity" not in pod_of(job)["spec"]
