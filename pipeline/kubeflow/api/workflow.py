"""A run as Argo sees it: its pods, which task each belongs to, how they ended. The v2beta1 API gives no pod's name.

The workflow is in v1beta1's answer for a run, which the 2.x servers give for runs of v2 pipelines too
(kubeflow/pipelines 2.17.0, backend/src/apiserver/server/api_converter.go:1695).
"""

import base64
import gzip
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.kubeflow.api.client import Client

EXECUTOR = "executor"
"""Name of the node that runs a task's container, inside the node of the task (v2/compiler/argocompiler/container.go:414)."""
DRIVER = "-driver"
FAILED = ("Failed", "Error")
ATTEMPT = re.compile(r"\((\d+)\)$")
ITERATION = re.compile(r"\((\d+):")


@dataclass(frozen=True)
class Pod:
    """One try of one task, or of its driver."""

    task: str
    """Name of the task; a driver's is `TASK-driver`."""
    iteration: int | None
    """In a loop, which one."""
    attempt: int
    """0 is the first."""
    name: str
    phase: str
    """Argo's: Succeeded, Failed, Error, Running, Pending, ..."""
    message: str
    finished: str
    """RFC 3339, empty while it runs."""
    node: str
    place: str
    """Path of the task in the workflow, the same for every try."""

    @property
    def failed(self) -> bool:
        """Whether it ended badly."""
        return self.phase in FAILED

    @property
    def is_driver(self) -> bool:
        """Whether it only prepares the task."""
        return self.task.endswith(DRIVER)


class Workflow:
    """The pods of a run."""

    def __init__(self, manifest: dict[str, Any]) -> None:
        status = manifest.get("status") or {}
        packed = status.get("compressedNodes")
        nodes = json.loads(gzip.decompress(base64.b64decode(packed))) if packed else status.get("nodes") or {}
        self._nodes: dict[str, dict[str, Any]] = nodes
        self._name = str((manifest.get("metadata") or {}).get("name", ""))
        metadata = manifest.get("metadata") or {}
        self._short_names = (metadata.get("annotations") or {}).get("workflows.argoproj.io/pod-name-format") == "v1"
        self.pods: Sequence[Pod] = tuple(self._pods())

    def last_tries(self) -> list[Pod]:
        """Of each task, in each iteration, the last pod, in the order in which they ended; those that run stand last."""
        last: dict[str, Pod] = {}
        for pod in sorted(self.pods, key=lambda pod: pod.attempt):
            last[pod.place] = pod
        return sorted(last.values(), key=lambda pod: (pod.finished or "~", pod.place))

    def log_uri(self, pod: Pod) -> str | None:
        """Where Kubeflow's launcher keeps the log of this try; None where it keeps none.

        The driver fixes the place (v2/driver/driver.go:761), the launcher adds the number of the try (launcher_v2.go:531).
        """
        driver = next((one for one in reversed(self.pods) if one.place == pod.place + DRIVER and one.phase == "Succeeded"), None)
        parameters = ((self._nodes[driver.node].get("outputs") or {}).get("parameters") or []) if driver else []
        patch = next((str(one.get("value", "")) for one in parameters if one.get("name") == "pod-spec-patch"), "")
        try:
            words = json.loads(patch)["containers"][0]["command"]
            given = json.loads(words[words.index("--executor_input") + 1])
            return f"{given['outputs']['artifacts']['executor-logs']['artifacts'][0]['uri']}-{pod.attempt}"
        except (ValueError, KeyError, IndexError, TypeError):
            return None

    def _pods(self) -> Iterator[Pod]:
        for node_id, node in self._nodes.items():
            if node.get("type") != "Pod":
                continue
            path = str(node.get("name", "")).split(".")
            plain = [re.sub(r"\(\d+(:.*)?\)$", "", part) for part in path]
            task = plain[-2] if plain[-1] == EXECUTOR and len(plain) > 1 else plain[-1]
            # the task's own tries do not tell places apart, a loop's iterations do
            kept = [ATTEMPT.sub("", part) for part in (path[:-1] if plain[-1] == EXECUTOR else path)]
            rounds = [found[1] for part in path if (found := ITERATION.search(part))]
            tried = ATTEMPT.search(path[-1])
            yield Pod(
                task=task,
                iteration=int(rounds[-1]) if rounds else None,
                attempt=int(tried[1]) if tried else 0,
                name=self._pod_name(node_id, node),
                phase=str(node.get("phase", "")),
                message=str(node.get("message") or ""),
                finished=str(node.get("finishedAt") or ""),
                node=node_id,
                place=".".join(kept),
            )

    def _pod_name(self, node_id: str, node: dict[str, Any]) -> str:
        """Argo's rule (argo-workflows 4.0, workflow/util/pod_name.go:48): the template's name stands before the hash."""
        template = node.get("templateName") or ((node.get("templateRef") or {}).get("template")) or ""
        prefix, _, digits = node_id.rpartition("-")
        if self._short_names or not prefix or not template:
            return node_id
        return f"{f'{self._name}-{template}'[:242]}-{digits}"


def workflow(client: Client, run_id: str) -> Workflow:
    """The workflow of a run; of one that has not started yet it is empty. Raises CallFailed."""
    answer = client.json(f"/apis/v1beta1/runs/{run_id}")
    manifest = (answer.get("pipeline_runtime") or {}).get("workflow_manifest") or "{}"
    try:
        return Workflow(json.loads(manifest))
    except (ValueError, TypeError, AttributeError, OSError):  # another engine than Argo, or an answer cut short
        return Workflow({})
