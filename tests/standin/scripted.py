"""Pods that a test plays: a function for each task, given the resolved pod, that writes files and gives an exit code."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

from tests.standin.pod import Ended, Pod
from tests.standin.store import local_path

Script = Callable[[Pod], "int | Ended"]


class Killed(Exception):
    """The pod's time is up, or somebody ended it."""


class ScriptedPods:
    """Plays the steps; remembers every pod that ran, in order."""

    def __init__(self, scripts: Mapping[str, Script] | None = None, default: Script | None = None) -> None:
        self.scripts, self.default = dict(scripts or {}), default or make_outputs
        self.pods: list[Pod] = []
        self._lock = threading.Lock()

    def __call__(self, pod: Pod) -> Ended:
        with self._lock:
            self.pods.append(pod)
        try:
            ended = self.scripts.get(pod.task, self.default)(pod)
        except Killed:
            return Ended(143, deadline=not pod.stop.is_set())
        return ended if isinstance(ended, Ended) else Ended(ended)

    def of(self, task: str) -> list[Pod]:
        return [pod for pod in self.pods if pod.task == task]

    def one(self, task: str) -> Pod:
        [found] = self.of(task)
        return found


def work(pod: Pod, seconds: float) -> None:
    """Spend time. Raises Killed where the pod's deadline comes first, or it is told to stop."""
    if pod.deadline is not None and seconds > pod.deadline:
        pod.clock.sleep(pod.deadline)
        raise Killed
    pod.clock.sleep(seconds)
    if pod.stop.is_set():
        raise Killed


def wait_for_stop(pod: Pod) -> int:
    """A step that goes on until somebody ends it."""
    pod.stop.wait(30)
    raise Killed


def make_outputs(pod: Pod) -> int:
    """Write something at every output, as a step that does its work."""
    for name in outputs(pod):
        place = output(pod, name)
        place.mkdir(parents=True)
        (place / "content").write_text(f"{name} of {pod.task}")
    for name, found in pod.executor_input["outputs"].get("parameters", {}).items():
        place = pod.local(found["outputFile"])
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(name)
    return 0


def outputs(pod: Pod) -> list[str]:
    return [name for name in pod.executor_input["outputs"]["artifacts"] if name != "executor-logs"]


def output(pod: Pod, name: str) -> Any:
    """The place of an output artifact, on this machine."""
    return pod.local(local_path(pod.executor_input["outputs"]["artifacts"][name]["artifacts"][0]["uri"]))


def tell(pod: Pod, document: str) -> None:
    """Write the executor output."""
    pod.local(pod.executor_input["outputs"]["outputFile"]).write_text(document)
