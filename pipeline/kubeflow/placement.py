"""What a task asks of the cluster: resources, GPUs, volumes, secrets, limits, retries. Settings: pipeline/kubeflow/cluster.py."""

from kfp import dsl, kubernetes

from pipeline.kubeflow.argo_retries import window_s
from pipeline.kubeflow.cluster import Cluster
from pipeline.steps import BY_NAME, DATASETS, MONITOR, OUTCOME, STATE, STEPS
from pipeline.task import outcome, run_id, threads

READ_DATASET = [step.name for step in STEPS if "dataset" in step.inputs]
SHARED_MEMORY_STEPS = ("train", "embed")
CA_FOLDER = "/etc/dier/ca"
CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")


def place(task: dsl.PipelineTask, name: str, cluster: Cluster) -> None:
    """Ask for what the task `name` needs: a step, or one of those around the steps, which need little."""
    _pod(task, name, cluster)
    if name not in BY_NAME:
        _ask_for_little(task)
        kubernetes.empty_dir_mount(task, "work", STATE)
        if name == OUTCOME:
            _told(task, "train", cluster)  # it closes the run that train opened in MLflow
            if cluster.outcome.webhook:
                webhook = cluster.outcome.webhook
                kubernetes.use_secret_as_env(task, webhook.secret, {webhook.key: outcome.WEBHOOK})
        return
    _resources(task, name, cluster)
    _volumes(task, name, cluster)
    _told(task, name, cluster)
    if name in cluster.time_limits and not _only_waits(name, cluster):
        kubernetes.set_timeout(task, cluster.time_limits[name])
    if name == "train" and cluster.retry.count:
        _retry(task, cluster)


def place_monitor(task: dsl.PipelineTask, cluster: Cluster) -> None:
    """Ask for what `dier monitor` needs: it reads images as prepare, embeds them as embed, and asks MLflow as register does."""
    _pod(task, MONITOR, cluster)
    _resources(task, "embed", cluster)
    kubernetes.empty_dir_mount(task, "work", STATE, size_limit=cluster.work.scratch)
    _told(task, "register", cluster)
    for volume in cluster.volumes:
        if volume.covers("prepare"):
            kubernetes.mount_pvc(task, volume.claim, volume.mount_path, sub_path=volume.sub_path)


def _ask_for_little(task: dsl.PipelineTask) -> None:
    """A task that computes nothing."""
    task.set_cpu_request("100m").set_memory_request("512Mi")


def _told(task: dsl.PipelineTask, step: str, cluster: Cluster) -> None:
    """The secrets of `step` and a private certificate authority: what a task needs to speak to servers."""
    for secret in cluster.secrets:
        if secret.covers(step):
            kubernetes.use_secret_as_env(task, secret.name, secret.env, optional=secret.optional)
    if cluster.certificate_authority:
        kubernetes.use_config_map_as_volume(task, cluster.certificate_authority.config_map, CA_FOLDER)
        for variable in CA_VARIABLES:
            task.set_env_variable(variable, f"{CA_FOLDER}/{cluster.certificate_authority.key}")


def _retry(task: dsl.PipelineTask, cluster: Cluster) -> None:
    """Argo's longest backoff is the time from the first start on: every try has to fit in it, or a long one is never repeated."""
    retry = cluster.retry
    window = window_s(cluster.time_limits.get("train"), retry.count, retry.wait_s, retry.factor)
    task.set_retry(retry.count, backoff_duration=retry.wait, backoff_factor=float(retry.factor), backoff_max_duration=f"{window}s")


def _only_waits(step: str, cluster: Cluster) -> bool:
    """Whether the task makes a TrainJob and waits: what the step asks for goes to the TrainJob's pods."""
    return step == "train" and cluster.many_nodes


def _pod(task: dsl.PipelineTask, name: str, cluster: Cluster) -> None:
    """What every pod of the run has."""
    kubernetes.set_image_pull_policy(task, cluster.image_pull_policy)
    if cluster.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, cluster.image_pull_secrets)
    who = {"run_as_user": cluster.security.run_as_user, "run_as_group": cluster.security.run_as_group}
    kubernetes.set_security_context(task, run_as_non_root=True, **{key: value for key, value in who.items() if value is not None})
    kubernetes.use_field_path_as_env(task, run_id.VARIABLE, f"metadata.labels['{run_id.LABEL}']")
    for variable, value in cluster.environment().items():
        task.set_env_variable(variable, value)
    if not cluster.pods.covers(name):  # of tasks around the steps only where it is for all: a gate needs no GPU node
        return
    for label, value in cluster.pods.labels.items():
        kubernetes.add_pod_label(task, label, value)
    for annotation, value in cluster.pods.annotations.items():
        kubernetes.add_pod_annotation(task, annotation, value)
    if cluster.pods.node_affinity:
        kubernetes.add_node_affinity(task, match_expressions=[one.condition() for one in cluster.pods.node_affinity])


def _resources(task: dsl.PipelineTask, step: str, cluster: Cluster) -> None:
    if _only_waits(step, cluster):
        _ask_for_little(task)
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
        if wanted.cpu_request:
            task.set_env_variable(threads.REQUEST, wanted.cpu_request)  # where no limit says how many threads are in place
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
    elif cluster.work.storage_class:
        size, storage = str(cluster.work.scratch), cluster.work.storage_class
        kubernetes.add_ephemeral_volume(task, "work", STATE, ["ReadWriteOnce"], size, storage_class_name=storage)
    else:
        kubernetes.empty_dir_mount(task, "work", STATE, size_limit=cluster.work.scratch)
    if cluster.shared_memory and step in SHARED_MEMORY_STEPS and not _only_waits(step, cluster):
        kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", medium="Memory", size_limit=cluster.shared_memory)  # noqa: S108
    if cluster.dataset.claim and step in ("prepare", *READ_DATASET):
        kubernetes.mount_pvc(task, cluster.dataset.claim, DATASETS)
    for volume in cluster.volumes:
        if volume.covers(step) or (step in READ_DATASET and cluster.holds_dataset(volume.mount_path)):
            kubernetes.mount_pvc(task, volume.claim, volume.mount_path, sub_path=volume.sub_path)
