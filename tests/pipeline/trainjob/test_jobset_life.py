"""A TrainJob that really runs in the stand-in, its nodes processes of this machine, watched by our own client."""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.kubeflow.cluster import Cluster
from pipeline.trainjob.client import Jobs
from pipeline.trainjob.end import end_trainjob
from pipeline.trainjob.manifest import manifest, name_of, named
from pipeline.trainjob.watch import watch
from tests.pipeline.trainjob.jobset_life import Node
from tests.pipeline.trainjob.kubernetes_standin import NAMESPACE, StandIn

NAME = name_of("run-1")
POD = re.compile(rf"{NAME}-node-0-[01]-[a-z0-9]{{5}}")


class Process:
    """A node's container, as a process that gets its environment and nothing else of it."""

    def __init__(self, script: str, node: Node) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", script], env=node.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.said = ""

    def wait(self) -> int:
        self.said = self.process.communicate()[0]
        return self.process.returncode

    def kill(self) -> None:
        self.process.kill()

    def log(self) -> str:
        return self.said


def create(api: StandIn, script: str | Callable[[Node], str], **env: str) -> Jobs:
    wanted = {"work": {"claim": "c"}, "trainjob": {"nodes": 2}, "env": env}
    api.runner = lambda node: Process(script if isinstance(script, str) else script(node), node)
    jobs = Jobs()
    assert jobs.create(named(manifest(Cluster.model_validate(wanted)), NAME))
    return jobs


def waited(true: Callable[[], Any]) -> Any:
    limit = time.monotonic() + 20
    while not (found := true()):
        assert time.monotonic() < limit
        time.sleep(0.02)
    return found


def test_nodes_are_told_of_each_other_and_succeed_together(api: StandIn) -> None:
    script = "import os; print(*(f'{key}={value}' for key, value in sorted(os.environ.items()) if key.startswith(('PET', 'A'))))"
    jobs = create(api, script, A="b")
    assert watch(jobs, NAME, lambda: False) is None
    pods = jobs.pods(NAME)
    assert all(POD.fullmatch(pod.metadata.name) for pod in pods)
    assert [pod.status.phase for pod in pods] == ["Succeeded"] * 2
    assert jobs.log(pods[1].metadata.name, "node", 5, previous=False) == (
        f"A=b PET_MASTER_ADDR={NAME}-node-0-0.{NAME} PET_MASTER_PORT=29500 PET_NNODES=2 PET_NODE_RANK=1 PET_NPROC_PER_NODE=1"
    )


def test_a_node_that_fails_starts_again_in_its_pod(api: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mark = tmp_path / "mark"
    script = f"import pathlib, sys, time; mark = pathlib.Path({str(mark)!r}); first = not mark.exists(); mark.touch()\n"
    script += "first or time.sleep(0.5); sys.exit(first)"  # the second time long enough to be looked at
    jobs = create(api, lambda node: script if node.rank else "")
    assert watch(jobs, NAME, lambda: False) is None
    assert [pod.status.container_statuses[0].restart_count for pod in jobs.pods(NAME)] == [0, 1]
    assert "ended with exit code 1 (Error); its last lines:" in capsys.readouterr().err


def test_one_that_fails_again_and_again_fails_the_trainjob_and_ends_its_peer(api: StandIn) -> None:
    jobs = create(api, lambda node: "import sys; sys.exit(3)" if node.rank else "import time; time.sleep(60)")
    said = watch(jobs, NAME, lambda: False)
    assert said == f"FailedJobs: jobset failed due to one or more job failures (first failed job: {NAME}-node-0)"
    waited(lambda: not any(pod.running for pod in api.lives[NAME].pods.values()))


def test_a_pod_that_is_deleted_comes_back_under_another_name(api: StandIn, tmp_path: Path) -> None:
    goes_on = tmp_path / "goes-on"
    jobs = create(api, f"import pathlib, time\nwhile not pathlib.Path({str(goes_on)!r}).exists(): time.sleep(0.02)")
    first = waited(lambda: [pod.metadata.name for pod in jobs.pods(NAME) if pod.status.phase == "Running"][1:])[0]
    api.lives[NAME].delete_pod(first)
    waited(lambda: api.lives[NAME].gone and all(pod.status.phase == "Running" for pod in jobs.pods(NAME)))
    names = [pod.metadata.name for pod in jobs.pods(NAME)]
    assert first not in names
    assert all(POD.fullmatch(name) for name in names)
    goes_on.touch()
    assert watch(jobs, NAME, lambda: False) is None


def test_the_trainjob_of_a_terminated_run_ends_with_all_its_nodes(api: StandIn) -> None:
    jobs = create(api, "import time; time.sleep(60)")
    waited(lambda: len([pod for pod in jobs.pods(NAME) if pod.status.phase == "Running"]) == 2)
    life = api.lives[NAME]
    assert end_trainjob("run-1")
    assert not any(pod.running for pod in life.pods.values())
    assert jobs.get(NAME) is None
    assert jobs.namespace == NAMESPACE
