"""The sections of the cluster file: what may stand in each, and what it means."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from components.common.settings import Int, OneOf, Section
from pipeline.steps import STEPS

STEP_NAMES = tuple(step.name for step in STEPS)

StepName = Annotated[str, OneOf(STEP_NAMES)]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|[kKMGTP]i?)?$")]
Duration = Annotated[str, Field(pattern=r"^[0-9]+(s|m|h)$")]
Name = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]
ClaimName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
"""Kubeflow names a pod's volume after its claim, and a volume's name holds no dot and at most 63 characters."""
LabelKey = Annotated[str, Field(pattern=r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$")]
LabelValue = Annotated[str, Field(pattern=r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$")]
SERVERS_KEYS = ("pipeline/", "pipelines.kubeflow.org/", "workflows.argoproj.io/")
"""A task's own labels count before the servers' (Argo 4.0.8, workflow/controller/workflowpod.go:906)."""
MountPath = Annotated[str, Field(pattern=r"^/[^:]+$")]


class Resources(Section):
    """Of one step. What is null is left to the cluster."""

    cpu_request: Quantity | None = Field(None, description="cores, such as 500m or 4")
    cpu_limit: Quantity | None = Field(None, description="cores at most")
    memory_request: Quantity | None = Field(None, description="bytes, such as 8Gi")
    memory_limit: Quantity | None = Field(None, description="bytes at most; the kernel ends a step that needs more")


class ForSteps(Section):
    """What some steps get, or all of them."""

    steps: list[StepName] | None = Field(None, description="steps that get it; null = all")

    def covers(self, step: str) -> bool:
        """Whether `step` gets it."""
        return self.steps is None or step in self.steps


class Gpu(ForSteps):
    """Accelerators."""

    type: str = Field("nvidia.com/gpu", min_length=1, description="resource name, such as nvidia.com/gpu or amd.com/gpu")
    count: Int = Field(0, ge=0, le=16, description="accelerators a step; 0 = none")
    steps: list[StepName] = Field(["train", "embed"], description="steps that get them; probe computes on the CPU")


class NodeSelector(ForSteps):
    """Nodes that steps are kept to."""

    labels: dict[str, str] = Field({}, description="labels that a node must have")

    def of(self, step: str) -> dict[str, str]:
        """The labels that the nodes of `step` must have."""
        return self.labels if self.covers(step) else {}


class Toleration(ForSteps):
    """A taint that steps put up with."""

    key: str | None = Field(None, description="taint's key; null = every key, with operator Exists")
    operator: Literal["Equal", "Exists"] = Field("Equal", description="Equal compares the value, Exists does not")
    value: str | None = Field(None, description="taint's value, for Equal")
    effect: Literal["NoExecute", "NoSchedule", "PreferNoSchedule"] | None = Field(None, description="null = every effect")


class Work(Section):
    """The folder /state: running checkpoints, and scratch."""

    claim: ClaimName | None = Field(
        None, description="PersistentVolumeClaim for train, so that a retried pod goes on from its checkpoint; null = scratch"
    )
    sub_path: str = Field("", description="folder inside the claim")
    scratch: Quantity | None = Field(None, description="size limit of the scratch volume of the other steps; null = the node's")
    storage_class: Name | None = Field(
        None,
        description="class of a volume that comes and goes with the pod, for scratch; null = the node's disk",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Work":
        if self.storage_class is not None and self.scratch is None:
            raise ValueError(f"work.storage_class {self.storage_class} needs work.scratch: how large each volume is to be")
        return self


class Volume(ForSteps):
    """An existing claim mounted into steps, for images too large to copy."""

    claim: ClaimName = Field(description="PersistentVolumeClaim; with access mode ReadOnlyMany it cannot be written by anyone")
    mount_path: MountPath = Field(description="where steps see it")
    sub_path: str = Field("", description="folder inside the claim")
    steps: list[StepName] = Field(["prepare"], description="steps that get it")


class Dataset(Section):
    """Where the dataset artifact comes from."""

    source: Literal["prepare", "importer", "volume"] = Field(
        "prepare", description="prepare makes it; importer takes it by URI; volume finds it on a mounted claim, uncopied"
    )
    uri: str | None = Field(
        None, pattern=r"^[a-z0-9+]+://.+", description="importer: URI of a dataset artifact, s3://... or gs://..."
    )
    path: MountPath | None = Field(None, description="volume: the artifact's folder as steps see it, below a volume's mount_path")
    fingerprint: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="importer and volume: sha256 of its manifest.json; another one is refused"
    )
    claim: ClaimName | None = Field(
        None, description="prepare: PersistentVolumeClaim where it leaves the dataset, which the steps then read in place, uncopied"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Dataset":
        if self.source == "importer" and self.uri is None:
            raise ValueError("dataset.source importer needs dataset.uri")
        if self.claim is not None and self.source != "prepare":
            raise ValueError(
                f"dataset.claim is where prepare leaves the dataset; with dataset.source {self.source} there is no prepare"
            )
        if self.source == "volume" and (self.path is None or self.fingerprint is None):
            raise ValueError(
                "dataset.source volume needs dataset.path and dataset.fingerprint: without it the cache could not see a change"
            )
        return self


class Secret(ForSteps):
    """Keys of a Kubernetes Secret as environment variables."""

    name: Name = Field(description="the Secret")
    env: dict[str, str] = Field(min_length=1, description="key in the Secret: environment variable")
    optional: bool = Field(False, description="start without it where it is missing")


class CertificateAuthority(Section):
    """A private certificate authority for MLflow and storage."""

    config_map: ClaimName = Field(description="ConfigMap that holds it; its volume has its name")
    key: str = Field("ca.crt", min_length=1, description="its key, a PEM bundle")


class Security(Section):
    """Who the containers run as. Capabilities are dropped by Kubeflow itself."""

    run_as_user: Annotated[Int, Field(ge=1)] | None = Field(
        10001, description="numeric user, not root; null = the image's 10001, or the one that the cluster assigns (OpenShift)"
    )
    run_as_group: Annotated[Int, Field(ge=0)] | None = Field(
        10001, description="numeric group; 0 is what OpenShift gives; null = the cluster's"
    )


class Retry(Section):
    """Of train alone, by Argo. A failure that the same inputs must repeat (exit 2 to 5) is not worked through again."""

    count: Int = Field(3, ge=0, le=20, description="tries after the first; 0 = none")
    wait: Duration = Field("60s", description="before the first retry")
    factor: Int = Field(2, ge=1, le=10, description="each further wait is this many times longer; a whole number for Argo")

    @property
    def wait_s(self) -> int:
        """`wait` in seconds."""
        return int(self.wait[:-1]) * {"s": 1, "m": 60, "h": 3600}[self.wait[-1]]


class Expression(Section):
    """One condition on a node's labels."""

    key: str = Field(min_length=1, description="label")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = Field("In", description="how its value is compared")
    values: list[str] = Field([], description="values; none for Exists and DoesNotExist, one whole number for Gt and Lt")

    @model_validator(mode="after")
    def _consistent(self) -> "Expression":
        wanted = {"In": "some values", "NotIn": "some values", "Gt": "one whole number", "Lt": "one whole number"}
        number = len(self.values) == 1 and self.values[0].lstrip("-").isdecimal()
        right = {"some values": bool(self.values), "one whole number": number, "no values": not self.values}
        if not right[needed := wanted.get(self.operator, "no values")]:
            raise ValueError(f"{self.key}: {self.operator} takes {needed}, here are {self.values}")
        return self

    def condition(self) -> dict[str, Any]:
        """As Kubernetes takes it."""
        return {"key": self.key, "operator": self.operator} | ({"values": self.values} if self.values else {})


class Pods(ForSteps):
    """What every pod of a run carries, for whoever schedules, counts or charges it. A TrainJob's pods carry it too."""

    labels: dict[LabelKey, LabelValue] = Field({}, description="labels, such as a team's or Kueue's kueue.x-k8s.io/queue-name")
    annotations: dict[LabelKey, str] = Field({}, description="annotations")
    node_affinity: list[Expression] = Field([], description="conditions that a node must meet, all of them")

    @model_validator(mode="after")
    def _consistent(self) -> "Pods":
        if taken := next((key for key in (*self.labels, *self.annotations) if key.startswith(SERVERS_KEYS)), None):
            raise ValueError(f"{taken} is how Kubeflow and Argo know their pods: no label or annotation of that name can be given")
        return self


class RunSettings(Section):
    """The run as a whole."""

    deadline: Annotated[Int, Field(ge=1)] | None = Field(None, description="seconds after which the run is ended; null = never")
    keep: Annotated[Int, Field(ge=1)] | None = Field(
        None, description="seconds for which Argo keeps the pods and records of a run that has ended; null = the cluster's"
    )


class Webhook(Section):
    """Where a message goes, kept in a Secret since such addresses are passwords."""

    secret: Name = Field(description="the Secret")
    key: str = Field("url", min_length=1, description="its key, which holds the URL")


class Outcome(Section):
    """The task at the end of every run, whatever happened: it ends a TrainJob, closes MLflow's run, tells people."""

    task: Literal["auto", "always", "never"] = Field(
        "auto",
        description="auto = where train is a TrainJob or a webhook is given; the page then shows the steps one click deeper",
    )
    webhook: Webhook | None = Field(
        None, description='gets {"text": ...} by POST at the end (Slack, Teams, Mattermost, or your own); null = none'
    )


class TrainJob(Section):
    """Training on several nodes, by Kubeflow Trainer 2.2 or newer. Each node runs as many processes as it has GPUs."""

    nodes: Int = Field(1, ge=1, le=1000, description="nodes of train; above 1 the step makes a TrainJob and waits for it")
    runtime: Name = Field("torch-distributed", description="the Trainer's runtime: it must set up PyTorch (PET_ variables)")
    runtime_kind: Literal["ClusterTrainingRuntime", "TrainingRuntime"] = Field(
        "ClusterTrainingRuntime", description="of the whole cluster, or TrainingRuntime: of the namespace"
    )
    service_account: Name | None = Field(None, description="of its pods, which need no rights; null = the namespace's default")
    labels: dict[str, str] = Field(
        {"sidecar.istio.io/inject": "false"},
        description="labels of the TrainJob and its pods: no mesh between the ranks; for Kueue its queue's name",
    )
    keep: Literal["never", "failed", "always"] = Field(
        "failed", description="which TrainJobs stay after their end, to be looked at"
    )


class Embed(Section):
    """embed as one task a timestep and part of the shards, for sets that keep one task busy for too long."""

    fan_out: bool = Field(False, description="one task a timestep of embed.timesteps, and one that joins what they made")
    parts: Int = Field(
        1, ge=1, le=1000, description="tasks a timestep, each of which embeds every parts-th file of images (data.shard_mb)"
    )
    parallelism: Int = Field(4, ge=1, le=1000, description="of these tasks at a time")
