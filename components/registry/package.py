"""Put a model artifact and its probe together as an MLflow pyfunc model."""

import hashlib
import importlib.util
import shutil
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from components.common.artifact import MANIFEST, Artifact, sha256, write_json
from components.tracking.client import Run, TrackingError
from data.format import MULTI_LABEL, labelled
from model.atomic import seal

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

FILES = "files"
FILES_FOLDER = f"artifacts/{FILES}"
"""Where a logged model keeps its files, and beside them what it got right on test, for the gate of later versions."""
CLASSIFIER = "classifier.safetensors"
SERVING = "serving.json"
PREDICTIONS, NEIGHBOURS = "predictions.parquet", "neighbours.parquet"
"""That file: the probe's predictions or, where the labels tell nothing apart, the neighbours that each image keeps."""
REFERENCE = "reference.safetensors"
"""Embeddings of some training images, for `dier monitor`; not there where probe.reference was 0."""
REQUIREMENTS = ("mlflow", "torch", "numpy", "safetensors")
KIND = "version"
"""Of the manifest in a logged model's folder: it lists every file, so that whoever downloads a version can check it."""
WRITTEN_ON_DOWNLOAD = "registered_model_meta"
"""A file that MLflow adds to what it downloads by a version's name."""


def log_model(
    client: "MlflowClient",
    run: Run,
    name: str,
    model: Artifact,
    probe: Artifact,
    params: dict[str, str],
    add: Callable[[Path], None] = lambda files: None,
) -> str:
    """Log the pyfunc model into `run`, with `params` beside it; give its id. It needs none of this repository to be loaded.

    `add` writes what else goes among its files.
    """
    import mlflow
    from mlflow.models import Model

    config, serving = model.json("config.json"), _serving(probe.json("metrics.json"))
    logged = client.create_logged_model(run.experiment_id, name=name, source_run_id=run.id, model_type="embedding", params=params)
    with TemporaryDirectory(prefix="dier-register-") as temporary:
        package = copy_package(_package_source(), Path(temporary))
        files = _stage(model, probe, serving | {"package": package.name}, Path(temporary) / FILES)
        add(files)
        Model.log(
            artifact_path=None,
            name=name,
            flavor=mlflow.pyfunc,
            run_id=run.id,
            model_id=logged.model_id,
            step=int(model.json("summary.json")["steps"]),
            python_model=str(Path(__file__).with_name("served_model.py")),
            artifacts={FILES: str(files)},
            code_paths=[str(package)],
            signature=signature(config, serving),
            input_example=example(config),
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS],  # +cpu is no index's version
        )
    return str(logged.model_id)


def seal_model(client: "MlflowClient", model_id: str, model: Artifact, probe: Artifact, report: Artifact) -> str:
    """Read back what MLflow stored of a logged model, and put a manifest of every file beside it; give the manifest's sha256.

    The manifest names all that the version was made from, back to the dataset, as the report does. Raises TrackingError where
    MLflow gave back another file than it was sent.
    """
    import mlflow

    with TemporaryDirectory(prefix="dier-register-") as temporary:
        folder = Path(mlflow.artifacts.download_artifacts(f"models:/{model_id}", dst_path=temporary))
        (folder / WRITTEN_ON_DOWNLOAD).unlink(missing_ok=True)
        for made, name in _copied(model, probe, (folder / FILES_FOLDER / CLASSIFIER).is_file()):
            if sha256(folder / FILES_FOLDER / name) != sha256(made.path / name):
                raise TrackingError(f"MLflow stored another {name} than it was sent: see to its artifact store, and register again")
        seal(folder, kind=KIND, made_from=report.made_from | {report.kind: report.fingerprint})
        client.log_model_artifact(model_id, str(folder / MANIFEST))
        return sha256(folder / MANIFEST)


def fetch(version: "ModelVersion", names: Iterable[str], into: Path) -> Path:
    """Download those of a version's files, the weights not among them unless named; give their folder. What it lacks is not there.

    Raises whatever MLflow and the network do.
    """
    import mlflow

    folder = f"models:/{version.name}/{version.version}/{FILES_FOLDER}"
    there = {PurePosixPath(file.path).name for file in mlflow.artifacts.list_artifacts(folder)}
    for name in there.intersection(names):
        mlflow.artifacts.download_artifacts(f"{folder}/{name}", dst_path=str(into))
    return into / FILES_FOLDER


def _package_source() -> Path:
    spec = importlib.util.find_spec("model")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


def copy_package(source: Path, into: Path) -> Path:
    """Copy the Python files of `source` into a folder named after their content: two models with one name have one code.

    Packages inside it, such as the trainer, stay behind: a served model needs none of them.
    """
    files = sorted(source.glob("*.py"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{sha256(file)}\n".encode())
    package = into / f"dier_{digest.hexdigest()[:12]}"
    package.mkdir()
    for file in files:
        shutil.copyfile(file, package / file.name)
    return package


def got_right(metrics: dict[str, Any]) -> str:
    """The file of a probe that says what was got right on test."""
    return PREDICTIONS if labelled(metrics["task"], metrics["class_names"]) else NEIGHBOURS


def _serving(metrics: dict[str, Any]) -> dict[str, Any]:
    """What serving.json says, but for the name of the package: no class where labels tell nothing apart, as none is predicted."""
    timesteps = metrics.get("timesteps", [metrics["t"]])  # side by side, where there are several
    names = metrics["class_names"] if got_right(metrics) == PREDICTIONS else []
    return {"timesteps": timesteps, "multi_label": metrics["task"] == MULTI_LABEL, "class_names": names}


def _stage(model: Artifact, probe: Artifact, serving: dict[str, Any], folder: Path) -> Path:
    """Gather the files that a served model reads, and what it got right on test, in `folder`."""
    folder.mkdir()
    for artifact, name in _copied(model, probe, bool(serving["class_names"])):
        shutil.copyfile(artifact.path / name, folder / name)
    write_json(folder / SERVING, serving)
    return folder


def _copied(model: Artifact, probe: Artifact, classes: bool) -> list[tuple[Artifact, str]]:
    """The files of a version that are those of an artifact."""
    probed: tuple[str, ...] = (CLASSIFIER, PREDICTIONS) if classes else (NEIGHBOURS,)
    if (probe.path / REFERENCE).is_file():
        probed += (REFERENCE,)
    return [(model, "config.json"), (model, "model.safetensors"), *((probe, name) for name in probed)]


def signature(config: dict[str, Any], serving: dict[str, Any]) -> Any:
    """Tensor specs: images (-1, H, W, C) uint8 -> the outputs that the served model names, each (-1, size) float32."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    from components.registry.served_model import output_sizes

    image = (-1, config["image_height"], config["image_width"], config["channels"])
    outputs: list[ColSpec | TensorSpec] = [
        TensorSpec(np.dtype(np.float32), (-1, size), name) for name, size in output_sizes(config, serving).items()
    ]
    return ModelSignature(inputs=Schema([TensorSpec(np.dtype(np.uint8), image)]), outputs=Schema(outputs))


def example(config: dict[str, Any]) -> Any:
    """One image of the right shape, a grey ramp: (1, H, W, C) uint8."""
    shape = (1, config["image_height"], config["image_width"], config["channels"])
    return np.linspace(0, 255, int(np.prod(shape))).astype(np.uint8).reshape(shape)
