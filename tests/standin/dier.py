"""The project's own pipeline on the stand-in: compiled for a cluster with some settings changed, its steps played or really run."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from components.common import settings
from pipeline.kubeflow.cluster import Cluster
from pipeline.kubeflow.pipeline import compiled
from tests.standin.backend import Backend

ROOT = Path(__file__).parents[2]
SHORT: dict[str, Any] = {
    "data": {"limit": 200},
    "model": {"size": "demo", "depth": 1},
    "train": {"steps": 40, "warmup_steps": 5, "log_every": 10, "min_gap": 0},
    "embed": {"timesteps": [0, 300]},
    "probe": {"c_grid": [0.1], "bootstrap": 100, "baseline_timesteps": [100], "max_iter": 50},
    "register": {"min_accuracy": 0},
}
COLLAPSE: dict[str, Any] = {
    "model": {"depth": 1, "width": 16, "heads": 2, "embed_dim": 8, "prediction": "eps"},
    "train": {"steps": 400, "warmup_steps": 0, "batch_size": 8, "log_every": 20, "lr": 1e-12},
}
"""Settings of a training that ends as collapsed after 300 steps on any processor: so slow that the loss stays that of predicting no
noise. What a learning rate of 1 does differs from one processor to the next."""
SECRET = "dier-mlflow"


def text(**changes: Any) -> str:
    """The compiled file for pipeline/cluster.yaml with sections replaced, or changed where both are mappings."""
    return _text(json.dumps(changes, sort_keys=True))


@cache
def _text(changes: str) -> str:
    wanted = yaml.safe_load((ROOT / "pipeline" / "cluster.yaml").read_text())
    for name, value in json.loads(changes).items():
        both = isinstance(value, dict) and isinstance(wanted.get(name), dict)
        wanted[name] = {**wanted[name], **value} if both else value
    return compiled(settings.load(ROOT / "params.yaml"), Cluster.model_validate(wanted))


def short(**sections: Mapping[str, Any]) -> dict[str, Any]:
    """SHORT with keys of sections changed."""
    return {name: {**SHORT.get(name, {}), **sections.get(name, {})} for name in {*SHORT, *sections}}


def ready(backend: Backend, uri: str = "http://127.0.0.1:9") -> Backend:
    """With the Secret that every run waits for; by default nobody answers at its address."""
    backend.cluster.secrets[SECRET] = {"uri": uri}
    return backend


def log(backend: Backend, run: dict[str, Any], task: str, attempt: int = 0) -> str:
    """What a task's pod said: of a loop or a graph the first that has that name."""
    for node in backend.workflow(run["run_id"]).nodes.all():
        if f".{task}." in node.name.replace("(0)", "") and node.type == "Pod" and node.name.endswith(("executor", f"({attempt})")):
            return node.log
    raise LookupError(f"no pod of {task}")


def messages(backend: Backend, run: dict[str, Any]) -> list[str]:
    """What Argo says of nodes."""
    return [node.message for node in backend.workflow(run["run_id"]).nodes.all() if node.message]


def failed(backend: Backend, run: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Of each node that did not end well its name, what Argo says of it, and the end of its log."""
    nodes = backend.workflow(run["run_id"]).nodes.all()
    return [(node.name, node.message, node.log[-500:]) for node in nodes if node.phase in ("Failed", "Error")]
