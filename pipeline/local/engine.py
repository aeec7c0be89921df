"""The container engine of this machine: is it there, has it the image, and how strictly does it run one."""

import copy
import os
from pathlib import Path
from typing import Any

from components.common.errors import SettingsError
from components.tracking.environment import IMAGE
from pipeline import run_step
from pipeline.errors import EngineError
from pipeline.kubeflow.compiled_file import Package, dags
from pipeline.steps import STATE
from pipeline.task import permanent_failure, run_id, threads

USER = 10001
TIMINGS = "timings.jsonl"
"""Seconds a step of the latest run, in the work folder."""
FAILURE = "exit-code.json"
"""The exit code of the step that failed in the latest run, in the work folder, where it is one of permanent_failure.CODES."""
LABEL = "dier.run-local"
"""Names the command that a container belongs to, by its process id."""
PASSED_ON = ("MLFLOW_", "AWS_", threads.OPENMP, *threads.ALSO, threads.WAIT_POLICY)
"""Environment that the containers share with the command: where MLflow and an object store are, and how many threads compute."""


def connect() -> Any:
    """The engine's client. Raises EngineError where none answers."""
    import docker

    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        where = os.environ.get("DOCKER_HOST", "its usual socket")
        raise EngineError(
            f"no container engine answers at {where} ({' '.join(str(error).split())[:200]}); start one or set DOCKER_HOST"
        ) from error
    return client


def with_image(compiled: Package, image: str | None, client: Any) -> dict[str, Any]:
    """The pipeline's document with the image to run, which must be there: nothing is pulled behind a person's back.

    Retries are left out: they are for lost nodes, and here would only repeat a failure after minutes of waiting.
    """
    import docker

    spec: dict[str, Any] = copy.deepcopy(compiled.spec)
    for executor in spec["deploymentSpec"]["executors"].values():
        if "container" in executor and image:
            executor["container"]["image"] = image
            for entry in executor["container"].get("env", []):
                if entry["name"] == IMAGE:
                    entry["value"] = image
    for tasks in dags(spec):
        for task in tasks.values():
            task.pop("retryPolicy", None)
    for name in [image] if image else compiled.images:
        try:
            client.images.get(name)
        except docker.errors.ImageNotFound as error:
            raise EngineError(f"the engine has no image {name}: build it with make image, pull it, or give --image") from error
    return spec


def runner(root: Path, run: str, mounts: list[str], network: str) -> Any:
    """kfp's runner with what every container gets. `mounts` are HOST:CONTAINER; raises SettingsError for one that is not."""
    from docker.types import Mount
    from kfp.local import DockerRunner

    bound = [Mount(STATE, str(root / "work"), "bind")]
    for pair in mounts:
        host, colon, inside = pair.partition(":")
        if not (colon and inside.startswith("/") and Path(host).exists()):
            raise SettingsError(f"--mount {pair!r} is not HOST:CONTAINER, something that exists and an absolute path for it inside")
        bound.append(Mount(inside, str(Path(host).absolute()), "bind", read_only=True))
    environment = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
    if threads.set_threads(environment) is None:  # containers see neither this command's quota nor the cluster it was compiled for,
        environment.setdefault(threads.OPENMP, str(threads.cores()))  # and equal bytes need as many threads as dvc repro has
    environment[run_step.TIMINGS] = f"{STATE}/{TIMINGS}"
    environment[permanent_failure.VARIABLE] = f"{STATE}/{FAILURE}"
    environment[run_id.VARIABLE] = run
    return DockerRunner(
        user=f"{os.getuid() or USER}:{os.getgid() or USER}",
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        network_mode=network,
        tmpfs={"/tmp": "mode=1777"},  # noqa: S108
        mounts=bound,
        working_dir=STATE,
        labels={LABEL: str(os.getpid())},
        entrypoint=["/usr/bin/env"],  # on a cluster a task's command replaces the image's entry point; here it would follow it
        environment=environment,
    )


def stop_containers(client: Any) -> None:
    """End what this command started and left behind: kfp lets a container run on when it is interrupted."""
    for container in client.containers.list(filters={"label": f"{LABEL}={os.getpid()}"}):
        container.kill()
