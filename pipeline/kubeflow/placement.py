"""What a task asks of the cluster: resources, GPUs, volumes, secrets, limits, retries. Settings: pipeline/kubeflow/cluster.py."""

from kfp import dsl, kubernetes

from pipeline.kubeflow.cluster import Cluster
from pipeline.steps import DATASETS, STATE, STEPS

READ_DATASET = [step.name for step in STEPS if "dataset" in step.inputs]
SHARED_MEMORY_STEPS = ("train", "embed")
CA_FOLDER = "/etc/dier/ca"
CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")


def place(task: dsl.PipelineTask, step: str | None, cluster: Cluster) -> None:
    """Ask for what `step` needs; None is a task around the steps, which needs nothing beside its image."""
    _pod(task, cluster)
    if step is None:
        return
    _resources(task, step, cluster)
    _volumes(task, step, cluster)
    for secret in cluster.secrets:
        if secret.covers(step):
            kubernetes.use_secret_as_env(task, secret.name, secret.env, optional=secret.optional)
    if cluster.certificate_authority:
        kubernetes.use_config_map_as_volume(task, cluster.certificate_authority.config_map, CA_FOLDER)
        for variable in CA_VARIABLES:
            task.set_env_variable(variable, f"{CA_FOLDER}/{cluster.certificate_authority.key}")
    if step in cluster.time_limits and not _only_waits(step, cluster):
        kubernetes.set_timeout(task, cluster.time_limits[step])
    if step == "train" and cluster.retry.count:
        retry = cluster.retry
        task.set_retry(retry.count, backoff_duration=retry.wait, backoff_factor=retry.factor, backoff_max_duration=retry.longest)


def _only_waits(step: str, cluster: Cluster) -> bool:
    """Whether the task makes a TrainJob and waits: what the step asks for goes to the TrainJob's pods."""
    return step == "train" and cluster.many_nodes


def _pod(task: dsl.PipelineTask, cluster: Cluster) -> None:
    """What every pod of the run has."""
    kubernetes.set_image_pull_policy(task, cluster.image_pull_policy)
    if cluster.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, cluster.image_pull_secrets)
    security = cluster.security
    kubernetes.set_security_context(task, security.run_as_user, security.run_as_group, run_as_non_root=True)
    for name, value in cluster.env.items():
        task.set_env_variable(name, value)


def _resources(task: dsl.PipelineTask, step: str, cluster: Cluster) -> None:
    if _only_waits(step, cluster):
        task.set_cpu_request("100m").set_memory_request("512Mi")
        return
    wanted = cluster.resources.get(step)
    if wanted:
        for value, ask in (
            (wanted.cpu_request, task.set_cpu_request),
            (wanted.cpu_limit, task.set_cpu_limit),
            (wanted.memory_request, task.set_memory_request),
            (wanted.memory_limit, task.set_memory_limit),
        ):
            if value is not None:
                ask(value)
    for toleration in cluster.tolerations:
        if toleration.covers(step):
            kubernetes.add_toleration(task, toleration.key, toleration.operator, toleration.value, toleration.effect)
    for label, value in cluster.node_selector.of(step).items():
        kubernetes.add_node_selector(task, label, value)
    if cluster.gpu.count and cluster.gpu.covers(step):
        task.set_accelerator_type(cluster.gpu.type).set_accelerator_limit(cluster.gpu.count)


def _volumes(task: dsl.PipelineTask, step: str, cluster: Cluster) -> None:
    """/state, /dev/shm and the claims that hold images."""
    if step == "train" and cluster.work.claim:
        kubernetes.mount_pvc(task, cluster.work.claim, STATE, sub_path=cluster.work.sub_path)
    else:
        kubernetes.empty_dir_mount(task, "work", STATE, size_limit=cluster.work.scratch)
    if cluster.shared_memory and step in SHARED_MEMORY_STEPS and not _only_waits(step, cluster):
        kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", medium="Memory", size_limit=cluster.shared_memory)  # noqa: S108
    if cluster.dataset.claim and step in ("prepare", *READ_DATASET):
        kubernetes.mount_pvc(task, cluster.dataset.claim, DATASETS)
    for volume in cluster.volumes:
        if volume.covers(step) or (step in READ_DATASET and cluster.holds_dataset(volume.mount_path)):
            kubernetes.mount_pvc(task, volume.claim, volume.mount_path, sub_path=volume.sub_path)
