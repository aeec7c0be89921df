"""What the cluster is asked for, as one typed file: the schema of `pipeline/cluster.yaml`."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from components.common.errors import SettingsError
from components.common.settings import Float, Int, OneOf, Section, first_problem, read_yaml
from pipeline.steps import STEPS

DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
STEP_NAMES = tuple(step.name for step in STEPS)

StepName = Annotated[str, OneOf(STEP_NAMES)]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|[kKMGTP]i?)?$")]
Duration = Annotated[str, Field(pattern=r"^[0-9]+(s|m|h)$")]
Name = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]
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
    steps: list[StepName] = Field(["train", "embed", "probe"], description="steps that get them")


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

    claim: Name | None = Field(
        None, description="PersistentVolumeClaim for train, so that a retried pod goes on from its checkpoint; null = scratch"
    )
    sub_path: str = Field("", description="folder inside the claim")
    scratch: Quantity | None = Field(None, description="size limit of the scratch volume of the other steps; null = the node's")


class Volume(ForSteps):
    """An existing claim mounted into steps, for images too large to copy."""

    claim: Name = Field(description="PersistentVolumeClaim; with access mode ReadOnlyMany it cannot be written by anyone")
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
    claim: Name | None = Field(
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

    config_map: Name = Field(description="ConfigMap that holds it")
    key: str = Field("ca.crt", min_length=1, description="its key, a PEM bundle")


class Security(Section):
    """Who the containers run as. Capabilities are dropped by Kubeflow itself."""

    run_as_user: Int = Field(10001, ge=1, description="numeric user, not root")
    run_as_group: Int = Field(10001, ge=1, description="numeric group")


class Retry(Section):
    """Of train alone: a lost node or a preempted pod. A permanent failure (exit 2, 3, 4) is not tried again."""

    count: Int = Field(3, ge=0, le=20, description="tries after the first; 0 = none")
    wait: Duration = Field("60s", description="before the first retry")
    factor: Float = Field(2.0, ge=1, description="each further wait is this many times longer")
    longest: Duration = Field("1h", description="longest wait")


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
    """embed as one task a timestep, for sets that keep one task busy for too long."""

    fan_out: bool = Field(False, description="one task a timestep of embed.timesteps, and one that joins what they made")
    parallelism: Int = Field(4, ge=1, le=1000, description="of these tasks at a time")


class Cluster(Section):
    """The whole of `pipeline/cluster.yaml`."""

    image: str = Field(
        "dier:0.1.0", min_length=1, pattern=r"^\S+$", description="image of every step, by digest: registry/dier@sha256:..."
    )
    image_pull_secrets: list[Name] = Field([], description="Secrets of a private registry")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field("IfNotPresent", description="when the node pulls")
    resources: dict[StepName, Resources] = Field({}, description="requests and limits by step")
    gpu: Gpu = Gpu()
    node_selector: NodeSelector = NodeSelector()
    tolerations: list[Toleration] = Field([], description="taints that steps put up with")
    shared_memory: Quantity | None = Field("2Gi", description="size of /dev/shm in train and embed; null = the engine's 64 MiB")
    work: Work = Work()
    volumes: list[Volume] = Field([], description="claims mounted into steps")
    dataset: Dataset = Dataset()
    secrets: list[Secret] = Field([], description="Secrets as environment: MLFLOW_TRACKING_URI, tokens, S3 keys")
    env: dict[str, str] = Field({}, description="plain environment of every step; nothing secret")
    certificate_authority: CertificateAuthority | None = Field(None, description="a private one; null = the public ones")
    security: Security = Security()
    service_account: Name | None = Field(None, description="of the run: dier submit hands it over; null = the cluster's default")
    time_limits: dict[StepName, Annotated[Int, Field(ge=1)]] = Field({}, description="seconds after which a step is ended")
    retry: Retry = Retry()
    trainjob: TrainJob = TrainJob()
    embed: Embed = Embed()

    @model_validator(mode="after")
    def _consistent(self) -> "Cluster":
        mounts = [volume.mount_path for volume in self.volumes]
        if self.dataset.source == "volume" and not any(self.holds_dataset(mount) for mount in mounts):
            there = ", ".join(mounts) or "none"
            raise ValueError(f"dataset.path {self.dataset.path} is below no mount_path of volumes ({there})")
        if self.dataset.claim and self.dataset.claim in (self.work.claim, *(volume.claim for volume in self.volumes)):
            raise ValueError(f"dataset.claim {self.dataset.claim} is mounted already: Kubernetes takes a claim once a pod")
        if self.trainjob.nodes > 1 and self.work.claim is None:
            raise ValueError(
                f"trainjob.nodes {self.trainjob.nodes} needs work.claim: the nodes meet in it (access mode ReadWriteMany)"
            )
        return self

    @property
    def train_processes(self) -> int:
        """Processes of train on one node: one for each of its GPUs."""
        return max(1, self.gpu.count) if self.gpu.covers("train") else 1

    @property
    def many_nodes(self) -> bool:
        """Whether train runs as a TrainJob beside the pipeline's own tasks."""
        return self.trainjob.nodes > 1

    def holds_dataset(self, mount_path: str) -> bool:
        """Whether the dataset that every step reads lies on the volume mounted at `mount_path`."""
        return self.dataset.source == "volume" and str(self.dataset.path).startswith(mount_path.rstrip("/") + "/")

    def check_image(self, allow_tag: bool) -> None:
        """Refuse an image without digest: Kubeflow's cache key holds the image's name, not its content. Raises SettingsError."""
        if not allow_tag and not DIGEST.search(self.image):
            raise SettingsError(
                f"image {self.image} has no @sha256: digest: a cache would not see a change; push it and give the digest that "
                "docker inspect --format '{{index .RepoDigests 0}}' prints, or pass --allow-tag"
            )

    def check_tracking(self) -> None:
        """Refuse a pipeline whose register step would not know of any MLflow server. Raises SettingsError."""
        secrets = [secret.env.values() for secret in self.secrets if secret.covers("register")]
        if "MLFLOW_TRACKING_URI" not in {*self.env, *(name for names in secrets for name in names)}:
            raise SettingsError(
                "no MLFLOW_TRACKING_URI for register: the model would be registered in a file that is gone with its pod; "
                "name the server in the cluster file, under env or secrets"
            )


def load(path: Path) -> Cluster:
    """Read cluster settings. Raises SettingsError with one line."""
    raw = read_yaml(path, "cluster")
    if not isinstance(raw, dict):
        raise SettingsError(f"{path} must map names to settings; see docs/kubeflow.md")
    try:
        return Cluster.model_validate(raw)
    except ValidationError as error:
        raise SettingsError(f"{path}: {first_problem(error, 'docs/kubeflow.md lists every setting')}") from error
