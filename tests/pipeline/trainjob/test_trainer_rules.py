"""What the stand-in refuses as a cluster does: the manifest of old, each rule of the Trainer; and how our client passes a no on."""

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.kubeflow.cluster import Cluster
from pipeline.trainjob.client import _forbidden
from pipeline.trainjob.manifest import manifest, name_of, named
from tests.pipeline.trainjob import trainer_rules as rules

UUID = "9b2f0f2e-8f4e-4f0c-9e55-0d7a8b1c2d3e"
SETTINGS = {"work": {"claim": "c"}, "trainjob": {"nodes": 2}, "image_pull_secrets": ["a"]}


def job() -> dict[str, Any]:
    return named(manifest(Cluster.model_validate(SETTINGS), ["train"]), name_of(UUID), "/state/permanent-failure/1")


def pod(made: dict[str, Any]) -> Any:
    [node] = made["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    return node["template"]["spec"]["template"]["spec"]


def refused(made: dict[str, Any], runtimes: rules.Runtimes = rules.SHIPPED) -> tuple[int, str]:
    answer = rules.refused(made, runtimes)
    assert answer is not None
    return answer[0], answer[1]["message"]


def test_what_we_send_is_taken() -> None:
    assert rules.refused(job(), rules.SHIPPED) is None


def test_what_we_once_sent_is_refused_twice() -> None:
    """Kubeflow resolves no placeholder inside of a command; and with the name put right by hand, the webhook said no."""
    old = job()
    old["metadata"]["name"] = "dier-{{$.pipeline_job_uuid}}"
    old["spec"]["runtimePatches"][0]["manager"] = "dier"
    status, said = refused(old)
    assert status == 422
    assert said.startswith(
        'TrainJob.trainer.kubeflow.org "dier-{{$.pipeline_job_uuid}}" is invalid: [metadata.name: Invalid value: '
    )
    assert "metadata.name must match RFC 1035 DNS label format" in said
    old["metadata"]["name"] = name_of(UUID)
    assert refused(old) == (
        403,
        'admission webhook "validator.trainjob.trainer.kubeflow.org" denied the request: spec.runtimePatches.manager: Invalid '
        'value: "dier": must be a domain-prefixed path (such as "acme.io/foo")',
    )
    old["spec"]["runtimePatches"][0]["manager"] = "dier.dev/dier"
    assert rules.refused(old, rules.SHIPPED) is None


def reserved(made: dict[str, Any]) -> None:
    made["spec"]["trainer"]["env"].append({"name": "PET_NNODES", "value": "3"})


def twice(made: dict[str, Any]) -> None:
    made["spec"]["trainer"]["env"] *= 2


def volume_twice(made: dict[str, Any]) -> None:
    pod(made)["volumes"].append(copy.deepcopy(pod(made)["volumes"][0]))


def mounted_twice(made: dict[str, Any]) -> None:
    mounts = pod(made)["containers"][0]["volumeMounts"]
    mounts.append(mounts[0] | {"mountPath": "/elsewhere"})


def environment_of_the_patch(made: dict[str, Any]) -> None:
    pod(made)["containers"][0]["env"] = [{"name": "A", "value": "b"}]


def other_job(made: dict[str, Any]) -> None:
    patch = made["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    patch[0]["name"] = "worker"


def other_container(made: dict[str, Any]) -> None:
    pod(made)["containers"][0]["name"] = "trainer"


def other_runtime(made: dict[str, Any]) -> None:
    made["spec"]["runtimeRef"]["name"] = "torch-ours"


def other_kind(made: dict[str, Any]) -> None:
    made["spec"]["runtimeRef"]["kind"] = "Deployment"


def uppercase_domain(made: dict[str, Any]) -> None:
    made["spec"]["runtimePatches"][0]["manager"] = "Dier.dev/dier"


def priority(made: dict[str, Any]) -> None:
    pod(made)["priorityClassName"] = "high"


def no_processes(made: dict[str, Any]) -> None:
    made["spec"]["trainer"]["numProcPerNode"] = 0


def nodes_as_text(made: dict[str, Any]) -> None:
    made["spec"]["trainer"]["numNodes"] = "two"


def long_name(made: dict[str, Any]) -> None:
    made["metadata"]["name"] = "a" * 64


def dotted_name(made: dict[str, Any]) -> None:
    made["metadata"]["name"] = "dier.1"


@pytest.mark.parametrize(
    ("spoil", "status", "says"),
    [
        (reserved, 403, "spec.trainer.env: Invalid value: .*: must not have reserved envs, invalid envs configured: .PET_NNODES."),
        (environment_of_the_patch, 403, "must not have envs for the dataset-initializer, model-initializer, node containers"),
        (other_job, 403, "must not have replicated job that doesn't exist in the runtime job template"),
        (other_container, 403, "must not have container that doesn't exist in the runtime job node"),
        (
            other_runtime,
            403,
            'ClusterTrainingRuntime.trainer.kubeflow.org "torch-ours" not found: specified clusterTrainingRuntime',
        ),
        (other_kind, 403, "unsupported runtime: Deployment.trainer.kubeflow.org"),
        (uppercase_domain, 403, 'spec.runtimePatches.manager: Invalid value: "Dier.dev": a lowercase RFC 1123 subdomain'),
        (twice, 422, r'spec.trainer.env\[\d\]: Duplicate value: {"name":"TORCH_ELASTIC_SHUTDOWN_TIMEOUT"}'),
        (volume_twice, 422, r'volumes\[2\]: Duplicate value: {"name":"dier-work"}'),
        (mounted_twice, 422, r'volumeMounts\[2\]: Duplicate value: {"name":"dier-work"}'),
        (no_processes, 422, "numProcPerNode must be greater than or equal to 1"),
        (nodes_as_text, 422, "spec.trainer.numNodes: Invalid value: "),
        (long_name, 422, "metadata.name must be no more than 63 characters"),
        (dotted_name, 422, "metadata.name must match RFC 1035 DNS label format"),
        (priority, 400, r'strict decoding error: unknown field "spec.runtimePatches\[0\].*spec.priorityClassName"'),
    ],
)
def test_each_rule_of_the_trainer(spoil: Callable[[dict[str, Any]], None], status: int, says: str) -> None:
    made = job()
    spoil(made)
    found, said = refused(made)
    assert found == status, said
    assert re.search(says, said), said


def test_a_runtime_of_ones_own_is_known_once_it_is_installed() -> None:
    made = job()
    other_runtime(made)
    assert rules.refused(made, {("ClusterTrainingRuntime", "torch-ours"): rules.Runtime()}) is None
    reserved(made)
    assert rules.refused(made, {("ClusterTrainingRuntime", "torch-ours"): rules.Runtime(torch=False)}) is None


@pytest.mark.parametrize(
    ("said", "is_told"),
    [
        ('admission webhook "v.example" denied the request: no', "refused by the webhook v.example"),
        ('trainjobs.t "x" is forbidden: User "system:serviceaccount:a:b" cannot create resource', "not allowed: give the run's"),
        ('trainjobs.t "x" is forbidden: exceeded quota: q, requested: count/trainjobs.t=1', "not for missing rights"),
        ("", "not allowed: give the run's service account the rights"),
    ],
)
def test_a_no_of_a_webhook_or_a_quota_is_not_taken_for_missing_rights(said: str, is_told: str) -> None:
    assert is_told in _forbidden(said)
