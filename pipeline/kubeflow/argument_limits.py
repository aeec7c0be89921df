"""How many tasks a fanned-out embed may have: what the join is told of what they made must fit into one argument of a command.

Kubeflow's driver hands a task its inputs as one word of the launcher's command line, `--executor_input JSON`, and `{{$}}` puts the
same once more into our own (kubeflow/pipelines 2.17.0, backend/src/v2/driver/driver.go:326). Linux takes 128 KiB for one word
(MAX_ARG_STRLEN, 32 pages, the end's zero with it), whatever the whole command line may have: a longer one ends the pod with
"argument list too long". Of each part the join's inputs hold name, type, URI and metadata.
"""

import json
from collections.abc import Sequence
from typing import Any

from components.common.errors import SettingsError
from pipeline.kubeflow import parameters
from pipeline.kubeflow.compiled_file import Package
from pipeline.steps import JOIN, LOOP, SPLIT

LONGEST_ARGUMENT = 32 * 4096 - 1
KEPT = LONGEST_ARGUMENT // 10
"""Room for what differs from cluster to cluster: a store's longer addresses, a longer name of the pipeline."""
STOCK_ROOT = "minio://mlpipeline/v2/artifacts"
"""2.17.0, backend/src/v2/config/env.go:38."""
STORE = {
    "Provider": "minio",
    "Params": {
        "accessKeyKey": "accesskey",
        "disableSSL": "true",
        "endpoint": "seaweedfs.kubeflow:9000",
        "fromEnv": "false",
        "maxRetries": "5",
        "region": "minio",
        "secretKeyKey": "secretkey",
        "secretName": "mlpipeline-minio-artifact",
    },
}
"""What the launcher adds to every artifact's metadata (config/env.go:177, metadata/client.go:1245)."""


def check_arguments(timesteps: int, parts: int = 1, *, pipeline_root: str = STOCK_ROOT, pipeline: str = "dier") -> None:
    """Raise SettingsError where a fanned-out embed has more tasks, timesteps times parts, than the join's arguments can name.

    The default root is that of Kubeflow's manifests; a longer one leaves room for fewer.
    """
    tasks, fit = timesteps * parts, fitting_tasks(pipeline_root, pipeline)
    if tasks > fit:
        asked = f"{timesteps} timesteps" + (f" of {parts} parts" if parts > 1 else "")
        fewer = "timesteps in embed.timesteps" + (", a smaller embed.parts" if parts > 1 else "")
        raise SettingsError(
            f"embed.fan_out with {asked}: what Kubeflow tells embed-join of its parts is about "
            f"{_size(tasks, pipeline_root, pipeline) // 1024} KiB, and an argument may have 128: at most {fit} fit; "
            f"take fewer {fewer}, or embed.fan_out: false"
        )


def check_run(compiled: Package, arguments: dict[str, Any]) -> None:
    """The same for a run with these arguments."""
    if f"comp-{LOOP}" in compiled.spec["components"]:
        embed = parameters.merged({**compiled.defaults, **arguments})["embed"]
        check_arguments(embedded_apart(embed["timesteps"]), _parts(compiled), pipeline=compiled.name)


def embedded_apart(timesteps: Sequence[int] | str) -> int:
    """How many timesteps have tasks of their own: all that are named; `auto` (or none) is chosen inside a task that embeds all."""
    return 1 if timesteps == "auto" else max(1, len(timesteps))


def fitting_tasks(pipeline_root: str = STOCK_ROOT, pipeline: str = "dier") -> int:
    """How many tasks fit."""
    fixed, each = _size(0, pipeline_root, pipeline), _size(1, pipeline_root, pipeline) - _size(0, pipeline_root, pipeline)
    return (LONGEST_ARGUMENT - KEPT - fixed) // each


def _parts(compiled: Package) -> int:
    """The parts of a timestep that the compiled pipeline tells embed-split of."""
    words = compiled.spec["deploymentSpec"]["executors"][f"exec-{SPLIT}"]["container"]["args"]
    return int(words[words.index("--parts") + 1]) if "--parts" in words else 1  # compiled before there were parts


def _size(tasks: int, pipeline_root: str, pipeline: str) -> int:
    """Bytes of the join's executor input: of each task an artifact, and at most a number in the settings."""
    uuid = "0" * 36
    root = f"{pipeline_root}/{pipeline}/{uuid}"
    part = {
        "name": "0" * 7,
        "uri": f"{root}/embed/{uuid}/embeddings",
        "type": {"instanceSchema": "properties:\ntitle: kfp.Dataset\ntype: object\n"},
        "metadata": {
            "fingerprint": "0" * 64,
            "timesteps": {"list": [999]},
            "part": "100 of 100",
            "splits": {"list": ["train", "val", "test"]},
            "dtype": "float32",
            "embed_dim": 4096,
            "counts": {"struct": {"train": 10**6, "val": 10**6, "test": 10**6}},
            "display_name": "embeddings",
            "store_session_info": json.dumps(STORE, separators=(",", ":")),
        },
    }
    made = {
        name: {"artifacts": [{"name": name, "uri": f"{root}/{JOIN}/{uuid}/{name}"}]} for name in ("embeddings", "executor-logs")
    }
    settings = {
        "batch_size": 500,
        "device": "auto",
        "dtype": "float32",
        "splits": ["train", "val", "test"],
        "timesteps": [999] * tasks,
    }
    given = {
        "inputs": {
            "parameterValues": {"embed" + parameters.SUFFIX: settings},
            "artifacts": {"parts": {"artifacts": [part] * tasks}},
        },
        "outputs": {"artifacts": made, "outputFile": f"/{root}/{JOIN}/{uuid}/output_metadata.json"},
    }
    return len(json.dumps(given).encode())  # with a space after each comma and colon, which Go's protobuf may write as well
