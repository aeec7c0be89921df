"""The cache: which task counts as done before. By what it is given and runs, not by its environment."""

import hashlib
import threading
from typing import Any

from tests.standin.values import go_json


class Cache:
    """Executions that ended well, by fingerprint and pipeline."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()

    def find(self, fingerprint: str, pipeline: str) -> int | None:
        """The newest. KFP 2.17.0 backend/src/v2/cacheutils/cache.go:105: only of the pipeline of that name."""
        with self._lock:
            return self._known.get((fingerprint, pipeline))

    def add(self, fingerprint: str, pipeline: str, execution: int) -> None:
        """KFP 2.17.0 backend/src/v2/component/launcher_v2.go:301: after the step ended with 0 and all was published."""
        with self._lock:
            self._known[fingerprint, pipeline] = execution


def fingerprint(executor_input: dict[str, Any], container: dict[str, Any], component: dict[str, Any], claims: list[str]) -> str:
    """KFP 2.17.0 backend/src/v2/cacheutils/cache.go:173 and driver/cache.go:83.

    In it: the command before anything in it is resolved, the image's text, names (numbers) of input artifacts, input values,
    kinds of outputs, claims. Not in it: environment, resources, what lies behind a URI, a volume or a moved tag.
    """
    inputs, outputs = executor_input.get("inputs", {}), executor_input.get("outputs", {})
    types = component.get("outputDefinitions", {}).get("parameters", {})
    key = {
        "inputArtifactNames": {
            name: {"artifactNames": [one["name"] for one in found["artifacts"]]}
            for name, found in inputs.get("artifacts", {}).items()
        },
        "inputParameterValues": inputs.get("parameterValues", {}),
        "outputArtifactsSpec": {
            name: {part: found["artifacts"][0][part] for part in ("name", "type", "metadata") if found["artifacts"][0].get(part)}
            for name, found in outputs.get("artifacts", {}).items()
        },
        "outputParametersSpec": {name: types[name]["parameterType"] for name in outputs.get("parameters", {})},
        "containerSpec": {
            "image": container["image"],
            "cmdArgs": [*container.get("command", []), *container.get("args", [])],
            "pvcNames": sorted(set(claims)),
        },
    }
    return hashlib.sha256(go_json(key).encode()).hexdigest()
