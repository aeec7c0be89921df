"""What a cluster with Kubeflow Trainer refuses of a TrainJob, in its order and words: decoding, schema, webhook.

Each rule with where it is written: `trainer@8c0f505` is github.com/kubeflow/trainer at that commit (August 2026), whose schema of
types the models of kubeflow-trainer-api carry. Kubernetes' own: apimachinery's validation of names and of domain-prefixed paths.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jsonschema

from tests.pipeline.trainjob.trainjob_schema import strict_schema

Answer = tuple[int, Any]
SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
HTTP_PATH = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"
NOT_A_SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an "
    f"alphanumeric character (e.g. 'example.com', regex used for validation is '{SUBDOMAIN}')"
)
RFC_1035 = r"[a-z]([-a-z0-9]*[a-z0-9])?"
RESERVED = ("PET_MASTER_ADDR", "PET_MASTER_PORT", "PET_NNODES", "PET_NODE_RANK", "PET_NPROC_PER_NODE")
"""trainer@8c0f505 pkg/constants/constants.go: TorchRunReservedEnvNames."""
WEBHOOK = "validator.trainjob.trainer.kubeflow.org"
"""trainer@8c0f505 pkg/webhooks/trainjob_webhook.go:88, and pkg/webhooks answers with 403 since it returns a plain error."""


@dataclass(frozen=True)
class Runtime:
    """A training runtime as installed. The default is torch_distributed.yaml of trainer@8c0f505 manifests/base/runtimes."""

    jobs: dict[str, tuple[str, ...]] = field(default_factory=lambda: {"node": ("node",)})
    """Containers by replicated job."""
    torch: bool = True


Runtimes = dict[tuple[str, str], Runtime]
SHIPPED: Runtimes = {("ClusterTrainingRuntime", "torch-distributed"): Runtime()}


def refusal(status: int, message: str) -> Answer:
    """An answer of Kubernetes that says no."""
    return status, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": status}


def refused(job: dict[str, Any], runtimes: Runtimes) -> Answer | None:
    """The refusal of a new TrainJob; None where it is taken. A cluster decodes, then checks the schema, then asks the webhooks."""
    unknown, wrong = _schema(job)
    if unknown:
        return refusal(400, "strict decoding error: " + ", ".join(f'unknown field "{path}"' for path in unknown))
    if wrong := [*_name(job), *(wrong or [*_lists(job), *_rules(job)])]:
        name = job.get("metadata", {}).get("name", "")
        return refusal(422, f'TrainJob.trainer.kubeflow.org "{name}" is invalid: {_joined(wrong)}')
    if denied := list(_webhook(job, runtimes)):
        return refusal(403, f'admission webhook "{WEBHOOK}" denied the request: {_joined(denied)}')
    return None


def _joined(problems: list[str]) -> str:
    return problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"


def _schema(job: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Unknown fields, which a client that asks for strict decoding is told of, and values of another type."""
    unknown, wrong = [], []
    for error in jsonschema.Draft202012Validator(strict_schema()).iter_errors(job):
        for leaf in _leaves(error):
            path = _path(leaf.absolute_path)
            if leaf.validator == "additionalProperties":
                known = leaf.schema.get("properties", {})
                unknown += [f"{path}.{key}".lstrip(".") for key in leaf.instance if key not in known]
            elif path != "metadata.name":  # has words of its own
                wrong.append(f"{path or '<nil>'}: Invalid value: {leaf.message}")
    return unknown, wrong


def _leaves(error: Any) -> Iterator[Any]:
    """What is wrong at the bottom: a field that may be absent is `anyOf` it and null."""
    if error.validator != "anyOf":
        yield error
        return
    for inner in error.context:
        if inner.validator_value != "null":
            yield from _leaves(inner)


def _path(steps: Any) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")


def _name(job: dict[str, Any]) -> Iterator[str]:
    """Every custom resource's name, then the rules of trainer@8c0f505 pkg/apis/trainer/v1alpha1/trainjob_types.go:36-37."""
    name = str(job.get("metadata", {}).get("name", ""))
    if not name:
        yield "metadata.name: Required value: name or generateName is required"
        return
    if not re.fullmatch(SUBDOMAIN, name):
        yield f"metadata.name: Invalid value: {json.dumps(name)}: {NOT_A_SUBDOMAIN}"
    if not re.fullmatch(RFC_1035, name):
        yield "<nil>: Invalid value: metadata.name must match RFC 1035 DNS label format"
    if len(name) > 63:
        yield "<nil>: Invalid value: metadata.name must be no more than 63 characters"


def _patches(job: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Of each patched replicated job its path, itself and its pod spec."""
    for number, patch in enumerate(job["spec"].get("runtimePatches", [])):
        jobs = patch.get("trainingRuntimeSpec", {}).get("template", {}).get("spec", {}).get("replicatedJobs", [])
        for index, one in enumerate(jobs):
            path = f"spec.runtimePatches[{number}].trainingRuntimeSpec.template.spec.replicatedJobs[{index}]"
            yield path, one, one.get("template", {}).get("spec", {}).get("template", {}).get("spec", {})


def _lists(job: dict[str, Any]) -> Iterator[str]:
    """Lists that are maps, and their longest: trainer@8c0f505 pkg/apis/trainer/v1alpha1/trainjob_types.go, listMapKey, MaxItems."""
    spec = job["spec"]
    trainer = spec.get("trainer", {})
    yield from _list("spec.trainer.env", trainer.get("env", []), "name", 128)  # :274
    yield from _list("spec.trainer.command", trainer.get("command", []), None, 128)  # :258
    yield from _list("spec.trainer.args", trainer.get("args", []), None, 128)  # :265
    yield from _list("spec.runtimePatches", spec.get("runtimePatches", []), "manager", 16)  # :124
    for path, _, pod in _patches(job):
        pod_path = f"{path}.template.spec.template.spec"
        yield from _list(f"{pod_path}.volumes", pod.get("volumes", []), "name", 128)  # :405
        yield from _list(f"{pod_path}.containers", pod.get("containers", []), "name", 64)  # :421
        yield from _list(f"{pod_path}.imagePullSecrets", pod.get("imagePullSecrets", []), "name", 64)  # :429
        yield from _list(f"{pod_path}.tolerations", pod.get("tolerations", []), None, 128)  # :449
        for index, container in enumerate(pod.get("containers", [])):
            inside = f"{pod_path}.containers[{index}]"
            yield from _list(f"{inside}.volumeMounts", container.get("volumeMounts", []), "name", 128)  # :490
            yield from _list(f"{inside}.env", container.get("env", []), "name", 128)  # :483


def _list(path: str, found: list[Any], key: str | None, most: int) -> Iterator[str]:
    if len(found) > most:
        yield f"{path}: Too many: {len(found)}: must have at most {most} items"
    values = [entry[key] for entry in found] if key else []
    for index, value in enumerate(values):
        if value in values[:index]:
            yield f'{path}[{index}]: Duplicate value: {{"{key}":{json.dumps(value)}}}'


def _rules(job: dict[str, Any]) -> Iterator[str]:
    """Limits and CEL rules: trainer@8c0f505 pkg/apis/trainer/v1alpha1/trainjob_types.go."""
    spec = job["spec"]
    trainer = spec.get("trainer", {})
    if len(trainer.get("image", "")) > 500:  # :248
        yield f"spec.trainer.image: Too long: may not be more than 500 bytes: {len(trainer['image'])}"
    if trainer.get("numProcPerNode", 1) < 1:  # :288
        yield "spec.trainer.numProcPerNode: Invalid value: numProcPerNode must be greater than or equal to 1"
    if trainer.get("numNodes", 0) < 0:  # :277
        yield f"spec.trainer.numNodes: Invalid value: {trainer['numNodes']}: should be greater than or equal to 0"
    if spec.get("activeDeadlineSeconds", 1) < 1:  # :137
        yield "spec.activeDeadlineSeconds: Invalid value: should be greater than or equal to 1"
    if not 1 <= len(spec["runtimeRef"].get("name", "")) <= 253:  # :159
        yield "spec.runtimeRef.name: Invalid value: should be 1 to 253 chars long"
    for number, patch in enumerate(spec.get("runtimePatches", [])):
        if not 1 <= len(patch["manager"]) <= 253:  # :299
            yield f"spec.runtimePatches[{number}].manager: Invalid value: should be 1 to 253 chars long"


def _webhook(job: dict[str, Any], runtimes: Runtimes) -> Iterator[str]:
    reference = job["spec"]["runtimeRef"]
    kind, name = reference.get("kind", "ClusterTrainingRuntime"), reference["name"]
    if reference.get("apiGroup", "trainer.kubeflow.org") != "trainer.kubeflow.org" or kind not in (
        "ClusterTrainingRuntime",
        "TrainingRuntime",
    ):
        yield f"unsupported runtime: {kind}.{reference.get('apiGroup')}"  # trainer@8c0f505 pkg/webhooks/trainjob_webhook.go:109
        return
    runtime = runtimes.get((kind, name))
    if runtime is None:  # trainer@8c0f505 pkg/runtime/core/clustertrainingruntime.go:104, trainingruntime.go:318
        place, said = (
            ("RuntimeRef", "clusterTrainingRuntime") if kind == "ClusterTrainingRuntime" else ("runtimeRef", "trainingRuntime")
        )
        yield (
            f'spec.{place}: Invalid value: {json.dumps(reference)}: {kind}.trainer.kubeflow.org "{name}" not found: '
            f"specified {said} must be created before the TrainJob is created"
        )
        return
    if runtime.torch:
        yield from _torch(job)
    yield from _jobset(job, runtime)


def _torch(job: dict[str, Any]) -> Iterator[str]:
    """trainer@8c0f505 pkg/runtime/framework/plugins/torch/torch.go:65-79."""
    found = job["spec"].get("trainer", {}).get("env", [])
    taken = sorted({entry["name"] for entry in found} & {*RESERVED})
    if taken:
        said = f"must not have reserved envs, invalid envs configured: [{' '.join(taken)}]"
        yield f"spec.trainer.env: Invalid value: {json.dumps(found)}: {said}"


def _jobset(job: dict[str, Any], runtime: Runtime) -> Iterator[str]:
    """trainer@8c0f505 pkg/runtime/framework/plugins/jobset/jobset.go:172-213."""
    patches = job["spec"].get("runtimePatches", [])
    for patch in patches:
        yield from _domain_prefixed_path("spec.runtimePatches.manager", patch["manager"])  # :176
    quoted = f"spec.runtimePatches: Invalid value: {json.dumps(patches)}"
    for _, one, pod in _patches(job):
        if one["name"] not in runtime.jobs:  # :184
            yield f"{quoted}: must not have replicated job that doesn't exist in the runtime job template"
            continue
        for container in pod.get("containers", []):
            if container["name"] not in runtime.jobs[one["name"]]:  # :203
                yield f"{quoted}: must not have container that doesn't exist in the runtime job {one['name']}"
            elif container.get("env") and container["name"] in ("dataset-initializer", "model-initializer", "node"):  # :206
                yield f"{quoted}: must not have envs for the dataset-initializer, model-initializer, node containers"


def _domain_prefixed_path(path: str, value: str) -> Iterator[str]:
    """apimachinery's IsDomainPrefixedPath."""
    host, _, rest = value.partition("/")
    if not host or not rest:
        yield f'{path}: Invalid value: {json.dumps(value)}: must be a domain-prefixed path (such as "acme.io/foo")'
        return
    if not re.fullmatch(SUBDOMAIN, host):
        yield f"{path}: Invalid value: {json.dumps(host)}: {NOT_A_SUBDOMAIN}"
    if not re.fullmatch(HTTP_PATH, rest):
        yield f"{path}: Invalid value: {json.dumps(rest)}: Invalid path (regex used for validation is '{HTTP_PATH}')"
