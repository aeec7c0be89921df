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
    return spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]


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


def test_register_and_the_outcome_are_never_cached_and_the_others_are() -> None:
    spec, _ = compile_with()
    cached = {name: task["cachingOptions"].get("enableCache", False) for name, task in tasks(spec).items()}
    assert cached == {name: name != "register" for name in cached}
    assert not spec["root"]["dag"]["tasks"]["outcome"]["cachingOptions"].get("enableCache", False)


def test_only_train_is_tried_again() -> None:
    spec, _ = compile_with(retry={"count": 2, "wait": "10s", "factor": 3, "longest": "5m"})
    retried = {name: task["retryPolicy"] for name, task in tasks(spec).items() if "retryPolicy" in task}
    assert retried == {"train": {"maxRetryCount": 2, "backoffDuration": "10s", "backoffFactor": 3.0, "backoffMaxDuration": "300s"}}


def test_the_outcome_is_recorded_whether_or_not_the_steps_succeed() -> None:
    spec, _ = compile_with()
    task = spec["root"]["dag"]["tasks"]["outcome"]
    assert task["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert task["inputs"]["parameters"]["status"]["taskFinalStatus"]["producerTask"] == "exit-handler-1"


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
    for name in ("prepare", "validate", "train", "embed", "probe", "report", "register", "outcome"):
        pod = kubernetes(platform, name)
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
