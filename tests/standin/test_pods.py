"""What Kubernetes is asked for, and what it refuses: environment, volumes, security, labels, proxies."""

from pathlib import Path
from typing import Any

import pytest
from kfp import dsl, kubernetes

from tests.standin.conftest import Install
from tests.standin.errors import Unsupported
from tests.standin.metadata import Metadata
from tests.standin.pipelines import compiled, make, of_one
from tests.standin.platform import Platform
from tests.standin.proxy import proxied
from tests.standin.scripted import make_outputs


def message(backend: Any, run: dict[str, Any], display: str = "executor(0)") -> str:
    return next(
        str(node.message)
        for node in backend.workflow(run["run_id"]).nodes.all()
        if node.display.startswith(display) and node.message
    )


def test_environment_from_fields_secrets_and_config_maps(install: Install) -> None:
    def env(task: Any) -> None:
        task.set_env_variable("PLAIN", "1")
        kubernetes.use_field_path_as_env(task, "RUN", "metadata.labels['pipeline/runid']")
        kubernetes.use_field_path_as_env(task, "NONE", "metadata.labels['nothing']")
        kubernetes.use_secret_as_env(task, "secret", {"key": "SECRET"})
        kubernetes.use_secret_as_env(task, "none", {"key": "MISSING"}, optional=True)
        kubernetes.use_config_map_as_env(task, "map", {"key": "MAP"})

    backend, pods = install()
    backend.cluster.secrets["secret"] = {"key": "s"}
    backend.cluster.config_maps["map"] = {"key": "m"}
    run = backend.run(of_one(env))
    found = pods.one("make").env
    assert found["RUN"] == run["run_id"]
    assert {name: found[name] for name in ("PLAIN", "NONE", "SECRET", "MAP")} == {
        "PLAIN": "1",
        "NONE": "",
        "SECRET": "s",
        "MAP": "m",
    }
    assert "MISSING" not in found
    assert "KFP_RETRY_INDEX" not in found


def test_a_field_that_no_container_may_read_is_refused(install: Install) -> None:
    backend, pods = install()
    run = backend.run(of_one(lambda task: kubernetes.use_field_path_as_env(task, "X", "spec.containers")))
    assert 'fieldRef.fieldPath: Unsupported value: "spec.containers"' in message(backend, run)
    assert not pods.pods


def test_a_pod_waits_for_its_secret_until_somebody_ends_the_run(install: Install) -> None:
    backend, pods = install()
    text = of_one(lambda task: kubernetes.use_secret_as_env(task, "secret", {"key": "SECRET"}))
    from tests.standin.backend import body_of

    run_id = backend.create_run(body_of(text))["run_id"]
    for _ in range(200):
        nodes = [node for node in backend.workflow(run_id).nodes.all() if node.phase == "Pending" and node.message]
        if nodes:
            break
        backend._threads[run_id].join(0.02)
    assert nodes[0].message == 'CreateContainerConfigError: secret "secret" not found'
    backend.terminate_run(run_id)
    assert backend.wait(run_id)["state"] == "FAILED"
    assert not pods.pods


def test_a_claim_is_a_folder_with_an_owner(install: Install) -> None:
    seen: list[tuple[Path, str]] = []

    def step(pod: Any) -> int:
        volume = next(volume for volume in pod.volumes if volume.path == "/data")
        seen.append((volume.host, volume.name))
        pod.local("/data/inside").write_text("kept")
        return 0

    backend, _ = install({"make": step})
    folder = backend.cluster.claim("images")
    backend.run(of_one(lambda task: kubernetes.mount_pvc(task, "images", "/data", sub_path="below")))
    assert seen == [(folder / "below", "images")]
    assert (folder / "below" / "inside").read_text() == "kept"
    assert folder.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("name", ["dier.work", "x" * 64])
def test_a_volumes_name_is_its_claims_and_must_be_a_label(install: Install, name: str) -> None:
    backend, pods = install()
    backend.cluster.claim(name)
    run = backend.run(of_one(lambda task: kubernetes.mount_pvc(task, name, "/data")))
    assert run["state"] == "FAILED"
    said = message(backend, run)
    assert "spec.volumes[7].name: Invalid value" in said
    assert ("must not contain dots" in said) == ("." in name)
    assert not pods.pods


@pytest.mark.parametrize("kind", ["config map", "secret"])
def test_so_is_that_of_a_config_map_and_a_secret(install: Install, kind: str) -> None:
    use = kubernetes.use_config_map_as_volume if kind == "config map" else kubernetes.use_secret_as_volume
    backend, _ = install()
    run = backend.run(of_one(lambda task: use(task, "a.b", "/etc/x")))
    assert "must not contain dots" in message(backend, run)


def test_two_volumes_at_one_path_are_refused(install: Install) -> None:
    backend, _ = install()
    run = backend.run(of_one(lambda task: kubernetes.empty_dir_mount(task, "mine", "/minio")))
    assert '"/minio": must be unique' in message(backend, run)


@pytest.mark.parametrize(
    ("user", "group", "not_root", "why"),
    [
        (10001, 10001, True, None),
        (10001, 0, True, None),
        (None, None, True, None),
        (0, 0, True, "must not set runAsUser=0"),
        (10001, 10001, None, "runAsNonRoot != true"),
    ],
)
def test_pod_security_restricted(
    install: Install, user: int | None, group: int | None, not_root: bool | None, why: str | None
) -> None:
    def one() -> None:
        task = make(word="a")
        if (user, group, not_root) != (None, None, None):
            kubernetes.set_security_context(task, user, group, run_as_non_root=not_root)

    backend, pods = install()
    run = backend.run(compiled(one))
    assert (run["state"] == "SUCCEEDED") == (why is None)
    if why:
        assert why in message(backend, run)
        assert not pods.pods
    else:
        assert (pods.one("make").user, pods.one("make").group) == (user, group)


def test_an_ephemeral_volume_is_a_fresh_claim_and_an_empty_dir_is_everybodys(install: Install) -> None:
    def volumes(task: Any) -> None:
        kubernetes.add_ephemeral_volume(task, "own", "/own", ["ReadWriteOnce"], "1Gi", storage_class_name="fast")
        kubernetes.empty_dir_mount(task, "scratch", "/scratch")

    seen: dict[str, int] = {}

    def look(pod: Any) -> int:
        seen.update({place: pod.local(place).stat().st_mode & 0o777 for place in ("/own", "/scratch")})
        return make_outputs(pod)

    backend, _ = install({"make": look})
    assert backend.run(of_one(volumes))["state"] == "SUCCEEDED"
    assert seen == {"/own": 0o755, "/scratch": 0o777}


def test_labels_and_annotations_count_before_the_servers_own(install: Install) -> None:
    def marked(task: Any) -> None:
        kubernetes.add_pod_label(task, "team", "images")
        kubernetes.add_pod_label(task, "pipeline/runid", "mine")
        kubernetes.add_pod_annotation(task, "cost", "42")

    backend, pods = install()
    backend.run(of_one(marked))
    pod = pods.one("make")
    assert pod.labels["team"] == "images"
    assert pod.labels["pipeline/runid"] == "mine"
    assert pod.annotations["cost"] == "42"
    assert "-metadata-1-2-system-container-impl-" in pod.name


@pytest.mark.parametrize("word", ["podAffinity", "enabledSharedMemory"])
def test_what_no_driver_reads_is_refused(word: str) -> None:
    with pytest.raises(Unsupported, match=word):
        Platform({word: {}}, None, Metadata())  # type: ignore[arg-type]


def test_a_workspace_is_a_claim_of_the_run(install: Install) -> None:
    def workspace() -> None:
        task = make(word=dsl.WORKSPACE_PATH_PLACEHOLDER)
        kubernetes.set_security_context(task, 10001, 10001, run_as_non_root=True)

    asked = dsl.WorkspaceConfig(
        size="1Gi", kubernetes=dsl.KubernetesWorkspaceConfig(pvcSpecPatch={"accessModes": ["ReadWriteOnce"]})
    )
    backend, pods = install()
    run = backend.run(compiled(workspace, pipeline_config=dsl.PipelineConfig(workspace=asked)))
    pod = pods.one("make")
    assert pod.command[2] == "/kfp-workspace"
    [volume] = [volume for volume in pod.volumes if volume.path == "/kfp-workspace"]
    assert volume.source == f"{backend.workflow(run['run_id']).name}-kfp-workspace"


STORES = "metadata-grpc-service.kubeflow.svc.cluster.local"


@pytest.mark.parametrize(
    ("exempt", "through"),
    [
        ("", True),
        ("localhost,127.0.0.1", True),
        (".svc", True),
        (".svc.cluster.local", False),
        ("svc.cluster.local", False),
        (".cluster.local:8080", False),
        (".cluster.local:9090", True),
        ("*", False),
    ],
)
def test_which_names_need_no_proxy(exempt: str, through: bool) -> None:
    env = {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": exempt}
    assert (proxied(STORES, 8080, env, scheme="https") is not None) == through


def test_networks_and_small_letters_count_too() -> None:
    assert proxied("10.96.0.1", 443, {"https_proxy": "http://p", "no_proxy": "10.0.0.0/8"}, scheme="https") is None
    assert proxied("10.96.0.1", 443, {"https_proxy": "http://p", "no_proxy": ".svc"}, scheme="https") == "http://p"
    assert proxied(STORES, 8080, {"HTTP_PROXY": "http://p"}, scheme="https") is None


def test_with_a_proxy_the_launcher_reaches_no_server_and_the_step_never_starts(install: Install) -> None:
    backend, pods = install()
    run = backend.run(of_one(lambda task: task.set_env_variable("HTTPS_PROXY", "http://proxy:3128")))
    assert run["state"] == "FAILED"
    pod = next(node for node in backend.workflow(run["run_id"]).nodes.all() if node.display == "executor(0)")
    assert "failed to pre-publish Pod info to ML Metadata" in pod.log
    assert not pods.pods
