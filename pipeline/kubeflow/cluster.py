"""What the cluster is asked for, as one typed file: the schema of `pipeline/cluster.yaml`."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from components.common.errors import SettingsError
from components.common.settings import Int, Section, first_problem, read_yaml
from components.tracking.environment import IMAGE
from pipeline.kubeflow import cluster_sections as sections
from pipeline.kubeflow.cluster_sections import Name, Quantity, StepName
from pipeline.steps import DATASETS, STEPS

DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
NO_PROXY = ("localhost", "127.0.0.1", ".svc", ".cluster.local", ".kubeflow", "metadata-grpc-service", "$(KUBERNETES_SERVICE_HOST)")
"""What no proxy serves: Kubeflow's launcher shares a task's environment, and asks metadata server, store, pipelines' API and
Kubernetes (whose address Kubernetes itself fills in)."""

OTHER_VOLUMES = (
    *("shared-memory", "kfp-launcher", "kfp-workspace", "ca-bundle", "var-run-argo", "tmp-dir-argo"),
    *(f"{one}-scratch" for one in ("gcs", "s3", "minio", "dot-local", "dot-cache", "dot-config")),
)
"""Volumes that pods of a run have already: a claim's volume has the claim's name, and one volume has one source."""


class Cluster(Section):
    """The whole of `pipeline/cluster.yaml`."""

    image: str = Field(
        "dier:0.1.0", min_length=1, pattern=r"^\S+$", description="image of every step, by digest: registry/dier@sha256:..."
    )
    image_pull_secrets: list[Name] = Field([], description="Secrets of a private registry")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field("IfNotPresent", description="when the node pulls")
    resources: dict[StepName, sections.Resources] = Field({}, description="requests and limits by step")
    gpu: sections.Gpu = sections.Gpu()
    node_selector: sections.NodeSelector = sections.NodeSelector()
    tolerations: list[sections.Toleration] = Field([], description="taints that steps put up with")
    shared_memory: Quantity | None = Field("2Gi", description="size of /dev/shm in train and embed; null = the engine's 64 MiB")
    work: sections.Work = sections.Work()
    volumes: list[sections.Volume] = Field([], description="claims mounted into steps")
    dataset: sections.Dataset = sections.Dataset()
    secrets: list[sections.Secret] = Field([], description="Secrets as environment: MLFLOW_TRACKING_URI, tokens, S3 keys")
    env: dict[str, str] = Field({}, description="plain environment of every step; nothing secret")
    certificate_authority: sections.CertificateAuthority | None = Field(None, description="a private one; null = the public ones")
    security: sections.Security = sections.Security()
    pods: sections.Pods = sections.Pods()
    run: sections.RunSettings = sections.RunSettings()
    service_account: Name | None = Field(None, description="of the run: dier submit hands it over; null = the cluster's default")
    time_limits: dict[StepName, Annotated[Int, Field(ge=1)]] = Field({}, description="seconds after which a step is ended")
    retry: sections.Retry = sections.Retry()
    trainjob: sections.TrainJob = sections.TrainJob()
    embed: sections.Embed = sections.Embed()
    outcome: sections.Outcome = sections.Outcome()

    @model_validator(mode="after")
    def _consistent(self) -> "Cluster":
        mounts = [volume.mount_path for volume in self.volumes]
        if self.dataset.source == "volume" and not any(self.holds_dataset(mount) for mount in mounts):
            there = ", ".join(mounts) or "none"
            raise ValueError(f"dataset.path {self.dataset.path} is below no mount_path of volumes ({there})")
        claims = [claim for claim in (self.work.claim, self.dataset.claim, *(one.claim for one in self.volumes)) if claim]
        if twice := next((claim for claim in claims if claims.count(claim) > 1), None):
            raise ValueError(
                f"the claim {twice} is mounted twice (work.claim, dataset.claim, volumes), which no pod takes: give each its own"
            )
        authority = [self.certificate_authority.config_map] if self.certificate_authority else []
        free = self.work.claim  # only train has that one, in the place of the volume `work`
        if taken := next(
            (name for name in (*claims, *authority) if name in OTHER_VOLUMES or (name == "work" and name != free)), None
        ):
            raise ValueError(f"{taken} is the name of a volume that each pod has already, so no claim or config_map can have it")
        if both := next((name for name in authority if name in claims), None):
            raise ValueError(
                f"{both} names a claim and certificate_authority.config_map, and so two volumes of one pod: rename one"
            )
        if self.trainjob.nodes > 1 and self.work.claim is None:
            raise ValueError(
                f"trainjob.nodes {self.trainjob.nodes} needs work.claim: the nodes meet in it (access mode ReadWriteMany)"
            )
        if self.embed.parts > 1 and not self.embed.fan_out:
            raise ValueError(f"embed.parts {self.embed.parts} needs embed.fan_out: true: without it embed is one task")
        return self

    @property
    def train_processes(self) -> int:
        """Processes of train on one node: one for each of its GPUs."""
        return max(1, self.gpu.count) if self.gpu.covers("train") else 1

    @property
    def many_nodes(self) -> bool:
        """Whether train runs as a TrainJob beside the pipeline's own tasks."""
        return self.trainjob.nodes > 1

    @property
    def has_outcome(self) -> bool:
        """Whether a task follows every run, whatever happened."""
        wanted = self.outcome.task
        return wanted == "always" or (wanted == "auto" and (self.many_nodes or self.outcome.webhook is not None))

    def environment(self) -> dict[str, str]:
        """The image, which no container knows by itself, `env`, and with a proxy in it the cluster's own names as not to be asked
        through it."""
        proxied = [name for name in self.env if name.lower() in PROXIES]
        known = {IMAGE: self.image} | self.env
        if not proxied:
            return known
        given = next((value for name, value in self.env.items() if name.lower() == "no_proxy"), "")
        hosts = [host.strip() for host in given.split(",") if host.strip()]
        whole = ",".join(dict.fromkeys([*hosts, *NO_PROXY]))
        return {**known, "NO_PROXY": whole, "no_proxy": whole}  # some libraries read the one, some the other

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

    def check_store(self, store: str | None) -> None:
        """Refuse a folder of shards, `data.store`, that a step which reads images would not see. Raises SettingsError."""
        if store is None or "://" in store or self.dataset.source != "prepare":
            return
        readers = [step.name for step in STEPS if step.output == "dataset" or "dataset" in step.inputs]
        for step in readers:
            mounts = [volume.mount_path for volume in self.volumes if volume.covers(step)]
            if self.dataset.claim and not (step == "train" and self.many_nodes):
                mounts.append(DATASETS)
            if not any(Path(store).is_relative_to(mount) for mount in mounts):
                there = ", ".join(mounts) or "none"
                raise SettingsError(
                    f"data.store {store} is on no claim that {step} mounts ({there}): the shards would be gone with a pod; "
                    f"add a claim to volumes, for the steps {', '.join(readers)}, or use s3://bucket/prefix"
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
