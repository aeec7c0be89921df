"""The compiled pipeline: committed as compiled, strict to Kubeflow's own schema, and nothing but command lines."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.common.errors import SettingsError
from components.common.settings import load
from pipeline import cli
from pipeline.kubeflow.cluster import Cluster
from pipeline.kubeflow.pipeline import compiled

ROOT = Path(__file__).parents[3]
COMPILED = ROOT / "pipeline" / "compiled" / "dier.yaml"
DIGEST = "registry.example/dier@sha256:" + "a" * 64


def documents(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    spec, platform = yaml.safe_load_all(text)
    return spec, platform


def compile_with(**settings: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return documents(compiled(load(ROOT / "params.yaml"), Cluster.model_validate(settings)))


def kubernetes(platform: dict[str, Any], step: str) -> dict[str, Any]:
    return platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"exec-{step}"]


def tasks(spec: dict[str, Any]) -> dict[str, Any]:
    inside = spec["components"].get("comp-exit-handler-1", spec["root"])
    return inside["dag"]["tasks"]


@pytest.mark.slow
def test_the_committed_pipeline_is_what_compiling_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    fresh = tmp_path / "dier.yaml"
    assert cli.main(["compile", "--allow-tag", "--out", str(fresh)]) == 0
    version = re.compile(r"sdkVersion: kfp-[\d.]+")
    assert version.sub("sdkVersion", fresh.read_text()) == version.sub("sdkVersion", COMPILED.read_text()), (
        "run: dier compile --allow-tag --out pipeline/compiled/dier.yaml"
    )


def test_the_same_settings_give_the_same_bytes() -> None:
    once, again = (compiled(load(ROOT / "params.yaml"), Cluster()) for _ in range(2))
    assert once == again


def strict(text: str) -> None:
    """Parse every document into Kubeflow's own messages, which refuse unknown fields."""
    from google.protobuf import json_format
    from kfp import components
    from kfp.kubernetes import kubernetes_executor_config_pb2
    from kfp.pipeline_spec import pipeline_spec_pb2

    spec, platform = documents(text)
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    for executor in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        json_format.ParseDict(executor, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
    components.load_component_from_text(text)


def test_kubeflows_own_schema_accepts_it() -> None:
    strict(COMPILED.read_text())


def test_the_strict_parse_refuses_what_it_does_not_know() -> None:
    from google.protobuf.json_format import ParseError

    with pytest.raises(ParseError):
        strict(COMPILED.read_text().replace("imagePullPolicy:", "imagePullPolicies:", 1))


def test_it_holds_command_lines_and_no_code() -> None:
    text = COMPILED.read_text()
    for word in ("pip install", "python -c", "python3 -c", "import ", "def ", "sh -c", "bash"):
        assert word not in text
    spec, _ = documents(text)
    for executor in spec["deploymentSpec"]["executors"].values():
        assert executor["container"]["command"][0] == "dier"


ALWAYS = {"outcome": {"task": "always"}}
LOST = {"register", "model-gate"}
"""What asks a registry each time."""


def test_what_asks_a_registry_and_the_outcome_are_never_cached_and_the_others_are() -> None:
    spec, _ = compile_with(**ALWAYS)
    cached = {name: task["cachingOptions"].get("enableCache", False) for name, task in tasks(spec).items()}
    assert cached == {name: name not in LOST for name in cached}
    assert not spec["root"]["dag"]["tasks"]["outcome"]["cachingOptions"].get("enableCache", False)


def test_only_train_is_tried_again() -> None:
    spec, _ = compile_with(retry={"count": 2, "wait": "10s", "factor": 3}, time_limits={"train": 600})
    retried = {name: task["retryPolicy"] for name, task in tasks(spec).items() if "retryPolicy" in task}
    assert set(retried) == {"train"}
    assert (retried["train"]["maxRetryCount"], retried["train"]["backoffDuration"]) == (2, "10s")
    assert retried["train"]["backoffFactor"] == 3.0


def test_the_window_of_retries_holds_every_try_whole() -> None:
    """Argo counts it from the first start on: an hour of it would end the retries of a training of days."""
    spec, _ = compile_with(retry={"count": 2, "wait": "10s", "factor": 3}, time_limits={"train": 600})
    assert int(tasks(spec)["train"]["retryPolicy"]["backoffMaxDuration"].rstrip("s")) >= 3 * 600 + 10 + 30
    spec, _ = compile_with(retry={"count": 2})  # without a limit of time; none at all would be Kubeflow's 0, an end at once
    assert int(tasks(spec)["train"]["retryPolicy"]["backoffMaxDuration"].rstrip("s")) >= 365 * 24 * 3600


@pytest.mark.parametrize(
    ("settings", "there"),
    [
        ({}, False),
        ({"trainjob": {"nodes": 2}, "work": {"claim": "shared"}}, True),
        ({"outcome": {"webhook": {"secret": "chat"}}}, True),
        (ALWAYS, True),
        ({"outcome": {"task": "never", "webhook": {"secret": "chat"}}}, False),
    ],
)
def test_a_task_follows_every_run_only_where_something_has_to_be_done_at_its_end(settings: dict[str, Any], there: bool) -> None:
    """Without it the steps are the first picture that a person sees of a run, not two boxes around them."""
    spec, platform = compile_with(**settings)
    strict(yaml.safe_dump_all([spec, platform]))
    root = set(spec["root"]["dag"]["tasks"])
    assert root == ({"outcome", "exit-handler-1"} if there else set(tasks(spec)))
    if "webhook" in settings.get("outcome", {}) and there:
        [secret] = kubernetes(platform, "outcome")["secretAsEnv"]
        assert secret["keyToEnv"] == [{"secretKey": "url", "envVar": "DIER_OUTCOME_WEBHOOK"}]


def test_the_outcome_is_recorded_whether_or_not_the_steps_succeed() -> None:
    spec, _ = compile_with(**ALWAYS)
    task = spec["root"]["dag"]["tasks"]["outcome"]
    assert task["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert task["inputs"]["parameters"]["status"]["taskFinalStatus"]["producerTask"] == "exit-handler-1"


def test_only_the_steps_that_compute_on_one_ask_for_a_gpu() -> None:
    spec, _ = compile_with(gpu={"count": 1})
    executors = spec["deploymentSpec"]["executors"].items()
    asking = {name for name, executor in executors if "accelerator" in executor.get("container", {}).get("resources", {})}
    assert asking == {"exec-train", "exec-embed"}


@pytest.mark.slow
def test_every_setting_of_the_cluster_file_reaches_the_pipeline() -> None:
    settings = {
        "image": DIGEST,
        "image_pull_secrets": ["registry-login"],
        "image_pull_policy": "Always",
        "gpu": {"type": "nvidia.com/gpu", "count": 2, "steps": ["train"]},
        "node_selector": {"labels": {"gpu": "a100"}, "steps": ["train"]},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule", "steps": ["train"]}],
        "resources": {"train": {"cpu_request": "500m", "cpu_limit": "8", "memory_request": "4Gi", "memory_limit": "32Gi"}},
        "shared_memory": "8Gi",
        "work": {"claim": "dier-work", "sub_path": "mine", "scratch": "10Gi"},
        "volumes": [{"claim": "images", "mount_path": "/images", "steps": ["prepare"]}],
        "secrets": [{"name": "mlflow", "env": {"uri": "MLFLOW_TRACKING_URI"}, "steps": ["register"]}],
        "env": {"HTTPS_PROXY": "http://proxy.example:3128"},
        "certificate_authority": {"config_map": "our-ca", "key": "ca.pem"},
        "security": {"run_as_user": 4321, "run_as_group": 99},
        "time_limits": {"train": 600},
        "pods": {
            "labels": {"team": "eyes"},
            "annotations": {"cost": "42"},
            "node_affinity": [{"key": "zone", "values": ["a", "b"]}, {"key": "spot", "operator": "DoesNotExist"}],
        },
        "run": {"deadline": 7200, "keep": 3600},
        "outcome": {"task": "always"},
    }
    spec, platform = compile_with(**settings)
    strict(yaml.safe_dump_all([spec, platform]))
    train, prepare, register = (kubernetes(platform, name) for name in ("train", "prepare", "register"))
    executor = spec["deploymentSpec"]["executors"]["exec-train"]["container"]
    resources = executor["resources"]
    assert executor["image"] == DIGEST
    assert (resources["resourceCpuRequest"], resources["resourceCpuLimit"]) == ("500m", "8")
    assert (resources["resourceMemoryRequest"], resources["resourceMemoryLimit"]) == ("4Gi", "32Gi")
    assert resources["accelerator"]["resourceCount"] == "2"
    assert resources["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert train["nodeSelector"]["labels"] == {"gpu": "a100"}
    assert train["tolerations"] == [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert train["activeDeadlineSeconds"] == "600"
    assert [(mount["constant"], mount["mountPath"], mount["subPath"]) for mount in train["pvcMount"]] == [
        ("dier-work", "/state", "mine")
    ]
    assert {mount["mountPath"]: mount.get("sizeLimit") for mount in train["emptyDirMounts"]} == {"/dev/shm": "8Gi"}
    assert {mount["mountPath"]: mount.get("sizeLimit") for mount in prepare["emptyDirMounts"]} == {"/state": "10Gi"}
    assert [(mount["constant"], mount["mountPath"]) for mount in prepare["pvcMount"]] == [("images", "/images")]
    assert register["secretAsEnv"][0]["keyToEnv"] == [{"envVar": "MLFLOW_TRACKING_URI", "secretKey": "uri"}]
    assert "secretAsEnv" not in train
    assert "tolerations" not in prepare
    assert "nodeSelector" not in prepare
    assert train["configMapAsVolume"][0]["mountPath"] == "/etc/dier/ca"
    environment = {entry["name"]: entry["value"] for entry in executor["env"]}
    assert environment["HTTPS_PROXY"] == "http://proxy.example:3128"
    assert environment["SSL_CERT_FILE"] == "/etc/dier/ca/ca.pem"
    assert environment["NO_PROXY"] == environment["no_proxy"]
    assert {".svc", ".cluster.local", "$(KUBERNETES_SERVICE_HOST)"} <= set(environment["NO_PROXY"].split(","))
    config = platform["platforms"]["kubernetes"]["pipelineConfig"]
    assert config == {"resourceTtlOnCompletion": 3600, "activeDeadlineSeconds": 7200}
    for name in ("prepare", "validate", "data-gate", "train", "embed", "probe", "report", "register", "model-gate", "outcome"):
        pod = kubernetes(platform, name)
        assert pod["podMetadata"] == {"labels": {"team": "eyes"}, "annotations": {"cost": "42"}}
        [affinity] = pod["nodeAffinity"]
        assert affinity["matchExpressions"][0] == {"key": "zone", "operator": "In", "values": ["a", "b"]}
        assert affinity["matchExpressions"][1] == {"key": "spot", "operator": "DoesNotExist"}
        assert {"name": "DIER_RUN_ID", "fieldPath": "metadata.labels['pipeline/runid']"} in pod["fieldPathAsEnv"]
        assert pod["securityContext"] == {"runAsUser": "4321", "runAsGroup": "99", "runAsNonRoot": True}
        assert pod["imagePullPolicy"] == "Always"
        assert [secret["secretName"] for secret in pod["imagePullSecret"]] == ["registry-login"]


def test_a_dataset_by_uri_is_imported_and_prepare_is_left_out() -> None:
    spec, platform = compile_with(dataset={"source": "importer", "uri": "s3://sets/blood/dataset", "fingerprint": "b" * 64})
    strict(yaml.safe_dump_all([spec, platform]))
    assert "prepare" not in tasks(spec)
    assert "importer" in tasks(spec)
    importer = spec["deploymentSpec"]["executors"]["exec-importer"]["importer"]
    assert importer["artifactUri"]["constant"] == "s3://sets/blood/dataset"
    assert tasks(spec)["train"]["inputs"]["artifacts"]["dataset_in"]["taskOutputArtifact"]["producerTask"] == "importer"
    assert f"dataset={'b' * 64}" in spec["deploymentSpec"]["executors"]["exec-train"]["container"]["command"]


def test_no_task_is_named_otherwise_than_it_is() -> None:
    """An importer publishes itself under the name that is displayed, and its consumers look for the other one."""
    for settings in (
        {},
        {"dataset": {"source": "importer", "uri": "s3://sets/blood/dataset"}},
        {"embed": {"fan_out": True}},
        ALWAYS,
    ):
        spec, _ = compile_with(**settings)
        for holder in [spec["root"], *spec["components"].values()]:
            for name, task in holder.get("dag", {}).get("tasks", {}).items():
                if "parameterIterator" not in task and not name.startswith("exit-handler"):
                    assert task["taskInfo"]["name"] == name


@pytest.mark.parametrize(
    ("security", "context"),
    [
        ({"run_as_group": 0}, {"runAsUser": "10001", "runAsGroup": "0"}),
        ({"run_as_user": None}, {"runAsGroup": "10001"}),
        ({"run_as_user": None, "run_as_group": None}, {}),
    ],
)
def test_who_runs_may_be_left_to_the_cluster(security: dict[str, Any], context: dict[str, Any]) -> None:
    _, platform = compile_with(security=security)
    assert kubernetes(platform, "train")["securityContext"] == {**context, "runAsNonRoot": True}


def test_scratch_may_be_a_volume_that_comes_and_goes_with_the_pod() -> None:
    spec, platform = compile_with(work={"storage_class": "fast", "scratch": "50Gi"})
    strict(yaml.safe_dump_all([spec, platform]))
    [volume] = kubernetes(platform, "embed")["genericEphemeralVolume"]
    assert (volume["mountPath"], volume["size"], volume["storageClassName"]) == ("/state", "50Gi", "fast")


def test_a_proxys_exceptions_keep_those_that_are_given() -> None:
    given = {"https_proxy": "http://proxy.example:3128", "no_proxy": "intra.example, .svc"}
    found = Cluster(env=given).environment()
    assert found["NO_PROXY"] == found["no_proxy"]
    assert found["no_proxy"].split(",")[:2] == ["intra.example", ".svc"]
    assert Cluster(env={"A": "b"}, image="dier:1").environment() == {"A": "b", "DIER_IMAGE": "dier:1"}


def test_a_dataset_on_a_volume_is_mounted_into_every_step_that_reads_it_and_copied_by_none() -> None:
    spec, platform = compile_with(
        volumes=[{"claim": "sets", "mount_path": "/sets", "steps": []}],
        dataset={"source": "volume", "path": "/sets/blood", "fingerprint": "c" * 64},
    )
    strict(yaml.safe_dump_all([spec, platform]))
    assert "prepare" not in tasks(spec)
    for step in ("validate", "train", "embed", "probe", "report"):
        assert "dataset_in" not in tasks(spec)[step]["inputs"].get("artifacts", {})
        words = spec["deploymentSpec"]["executors"][f"exec-{step}"]["container"]
        assert words["args"][words["args"].index("--dataset") + 1] == "/sets/blood"
        assert f"dataset={'c' * 64}" in words["command"]
        assert [mount["mountPath"] for mount in kubernetes(platform, step)["pvcMount"]] == ["/sets"]


@pytest.mark.slow
def test_a_pipeline_that_would_register_nowhere_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    file, out = tmp_path / "cluster.yaml", tmp_path / "out.yaml"
    secret = {"name": "m", "env": {"uri": "MLFLOW_TRACKING_URI"}}
    for settings, code in (
        ({}, 2),
        ({"secrets": [secret | {"steps": ["train"]}]}, 2),
        ({"secrets": [secret]}, 0),
        ({"env": {"MLFLOW_TRACKING_URI": "https://mlflow.example"}}, 0),
    ):
        file.write_text(yaml.safe_dump({"image": DIGEST, **settings}))
        assert cli.main(["compile", "--cluster", str(file), "--out", str(out)]) == code, settings
        assert ("no MLFLOW_TRACKING_URI for register" in capsys.readouterr().err) == (code == 2)


def test_an_image_without_digest_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert cli.main(["compile", "--out", str(tmp_path / "x.yaml")]) == 2
    said = capsys.readouterr().err
    assert "has no @sha256: digest" in said
    assert "--allow-tag" in said
    assert not list(tmp_path.iterdir())
    Cluster(image=DIGEST).check_image(allow_tag=False)
    with pytest.raises(SettingsError):
        Cluster(image="dier@sha256:123").check_image(allow_tag=False)
