"""`dier serve-manifest`: a registered version as an InferenceService of KServe, from the alias that names it.

KServe's pods fetch the model from its storage themselves, so it has to lie in an object store; MLflow is not asked. Fields and
limits: serving.kserve.io/v1beta1 as of KServe 0.20 (tests/components/registry/inference_service_schema.py).
"""

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from components.common.errors import SettingsError
from components.registry import versions
from components.tracking.client import connect, one_line_errors, redact

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

PROXIED = "mlflow-artifacts"
"""What lies behind this scheme is handed out by MLflow's server alone, which keeps to itself where it lies."""
RUNTIME = "kserve-mlserver"
"""The runtime of KServe's own manifests that takes the format mlflow by the protocol v2."""
LONGEST_NAME = 50
"""Characters; KServe appends words to it for host names, which end at 63."""
RESOURCES = {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "4Gi"}}
"""PyTorch alone takes most of a GiB; the runtime's own limit is 2Gi."""


def serve_manifest(
    model: str, *, namespace: str | None, image: str | None, service_account: str | None, artifacts_destination: str | None
) -> str:
    """The manifest of `model`, NAME or NAME@ALIAS (champion), as YAML with what its image must hold in the lines before it.

    Raises SettingsError for what is not registered, has a name that Kubernetes cannot have, or lies where KServe cannot read.
    """
    name, _, alias = model.partition("@")
    alias = alias or versions.CHAMPION
    client = connect(must_exist=True)
    with one_line_errors():
        version = client.get_model_version(name, str(versions.at_alias(client, name, alias)))
        uri = versions.location(client, name, int(version.version))
        needs = _requirements(name, version.version)
    storage = _storage(f"{name} version {version.version}", uri, artifacts_destination)
    metadata = {"name": service_name(name), "annotations": _annotations(version, alias)}
    if namespace:
        metadata["namespace"] = namespace
    served: dict[str, Any] = {"modelFormat": {"name": "mlflow"}, "runtime": RUNTIME, "protocolVersion": "v2", "storageUri": storage}
    if image:
        served["image"] = image
    predictor: dict[str, Any] = {"serviceAccountName": service_account} if service_account else {}
    predictor["model"] = served | {"resources": RESOURCES}
    document = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": metadata,
        "spec": {"predictor": predictor},
    }
    head = f"# {model}: version {version.version}. Its image needs beside MLServer: {needs} (docs/parts.md, Serving)\n"
    return head + yaml.safe_dump(document, sort_keys=False)


def service_name(name: str) -> str:
    """A registered model's name as Kubernetes takes it. Raises SettingsError where nothing is left of it."""
    found = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:LONGEST_NAME].rstrip("-")
    if not re.match(r"[a-z]", found):
        raise SettingsError(f"the registered model {name!r} has no name for Kubernetes: it must begin with a letter")
    return found


def _storage(what: str, uri: str, destination: str | None) -> str:
    """`uri` as KServe reads it. `destination` is what MLflow's server was started with as --artifacts-destination."""
    scheme = urlsplit(uri).scheme
    if scheme == PROXIED and destination and urlsplit(destination).scheme in versions.STORES:
        return destination.rstrip("/") + urlsplit(uri).path
    if scheme in versions.STORES:
        return uri
    if scheme == PROXIED:
        raise SettingsError(
            f"{what} lies behind MLflow's server ({PROXIED}:), which KServe cannot ask: give --artifacts-destination URI, the "
            f"object store that the server was started with ({', '.join(f'{store}://' for store in versions.STORES)})"
        )
    raise SettingsError(
        f"{what} lies at {redact(uri)}, which KServe's pods cannot read: keep MLflow's artifacts in an object store "
        f"({', '.join(f'{store}://' for store in versions.STORES)}) and register there"
    )


def _requirements(name: str, version: str) -> str:
    """What the model was logged with, as pip reads it."""
    import mlflow

    with TemporaryDirectory(prefix="dier-serving-") as temporary:
        file = mlflow.artifacts.download_artifacts(f"models:/{name}/{version}/requirements.txt", dst_path=temporary)
        return " ".join(Path(file).read_text("utf-8").split())


def _annotations(version: "ModelVersion", alias: str) -> dict[str, str]:
    tags = version.tags
    known = {"digest": tags.get(versions.DIGEST_TAG), "gate": tags.get(versions.GATE_TAG), "t": tags.get("dier.t")}
    values = {"model": version.name, "version": str(version.version), "alias": alias} | known
    return {f"dier.dev/{key}": value for key, value in values.items() if value}
