"""Kubeflow's Model Registry as a second place beside MLflow: a version there for each of MLflow's, found by digest.

Through the client that the package `model-registry` (0.3.18) generates from the server's OpenAPI. Its own wrapper is left out:
importing it configures the root logger, and it sends the pod's token to whatever address it is given.

The digest stands in the version's external id, which the server keeps unique: a second registration finds the
first, whoever made it.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.tracking.client import TrackingError

if TYPE_CHECKING:
    from mr_openapi import ApiClient, ModelRegistryServiceApi, ModelVersion, RegisteredModel

TOKEN = "MODEL_REGISTRY_TOKEN"  # noqa: S105
"""Environment variable with a bearer token, where the registry stands behind a login."""
TIMEOUT_S = 60.0
API, OLDER_API = "/api/model_registry/v1/", "/api/model_registry/v1alpha3/"
"""Where the generated client asks, and where servers up to 0.3.9 answer: the requests made here are the same in both."""
Property = str | int | float | bool


@dataclass(frozen=True)
class Entry:
    """A version as MLflow has it."""

    name: str
    """Of the registered model."""
    version: int
    """MLflow's number."""
    digest: str
    """Of model and probe: what makes a version the same one."""
    uri: str
    """Where the model's files lie, for who serves it."""
    passed: bool
    """What the gate refused is not made there; where it stands already it is archived."""
    format_version: str
    """MLflow's own version, which wrote the model."""
    properties: Mapping[str, Property]

    @property
    def external_id(self) -> str:
        """Unique on the whole server, so the model's name is part of it."""
        return f"{self.name}@{self.digest}"


def register(url: str, entry: Entry) -> str | None:
    """Make the version at `url`, or bring it up to date; give its id there, None where there is none to be.

    Safe to repeat: whatever an earlier try left undone is done. Raises TrackingError with one line.
    """
    import aiohttp
    from mr_openapi.exceptions import OpenApiException

    try:
        return asyncio.run(_register(url, entry))
    except (OpenApiException, aiohttp.ClientError, TimeoutError, ValueError) as error:  # ValueError: an answer of another shape
        raise TrackingError(_explain(url, entry, error)) from error


async def _register(url: str, entry: Entry) -> str | None:
    from mr_openapi import ModelRegistryServiceApi
    from mr_openapi.exceptions import NotFoundException

    try:
        async with _client(url, API) as client:
            return await _register_with(ModelRegistryServiceApi(client), entry)
    except NotFoundException:  # no such path: whatever else may be missing is asked for in ways that tell
        async with _client(url, OLDER_API) as client:
            return await _register_with(ModelRegistryServiceApi(client), entry)


def _client(url: str, path: str) -> "ApiClient":
    from mr_openapi import ApiClient, Configuration

    class Client(ApiClient):  # type: ignore[misc, unused-ignore]
        async def call_api(self, method: str, url: str, *rest: Any, **more: Any) -> Any:
            return await super().call_api(method, url.replace(API, path, 1), *rest, **more)

    return Client(Configuration(host=url.rstrip("/"), access_token=os.environ.get(TOKEN)))


async def _register_with(api: "ModelRegistryServiceApi", entry: Entry) -> str | None:
    model = await _model(api, entry.name)
    version = await _version(api, entry) if model else None
    if version is None:
        if not entry.passed:
            return None
        if model is None:
            model = await _made(lambda: _new_model(api, entry.name), lambda: _model(api, entry.name))
        parent = str(model.id)
        version = await _made(lambda: _new_version(api, entry, parent), lambda: _version(api, entry))
    await _update(api, version, entry)
    await _artifact(api, str(version.id), entry)
    return str(version.id)


async def _made(make: Callable[[], Awaitable[Any]], find: Callable[[], Awaitable[Any]]) -> Any:
    """What `make` makes; where another process was first, what it made."""
    from mr_openapi.exceptions import ConflictException

    try:
        return await make()
    except ConflictException:
        found = await find()
        if found is None:  # the name is taken by something else
            raise
        return found


async def _version(api: "ModelRegistryServiceApi", entry: Entry) -> "ModelVersion | None":
    from mr_openapi.exceptions import NotFoundException

    try:
        return await api.find_model_version(external_id=entry.external_id, _request_timeout=TIMEOUT_S)
    except NotFoundException:
        return None


async def _new_version(api: "ModelRegistryServiceApi", entry: Entry, parent: str) -> "ModelVersion":
    from mr_openapi import ModelVersionCreate

    new = ModelVersionCreate(
        name=f"{entry.version}-{entry.digest[:8]}",  # MLflow's number alone begins again with every new store
        externalId=entry.external_id,
        registeredModelId=parent,
        author="dier",
        customProperties=_properties(entry.properties),
    )
    return await api.create_model_version(new, _request_timeout=TIMEOUT_S)


async def _model(api: "ModelRegistryServiceApi", name: str) -> "RegisteredModel | None":
    """By a filter and not by `find_registered_model`, which compares names with LIKE: my_model would find my-model."""
    found = await api.get_registered_models(filter_query=f"name = '{name}'", _request_timeout=TIMEOUT_S)
    return next((model for model in found.items or [] if model.name == name), None)


async def _new_model(api: "ModelRegistryServiceApi", name: str) -> "RegisteredModel":
    from mr_openapi import RegisteredModelCreate

    return await api.create_registered_model(RegisteredModelCreate(name=name, owner="dier"), _request_timeout=TIMEOUT_S)


async def _update(api: "ModelRegistryServiceApi", version: "ModelVersion", entry: Entry) -> None:
    """State and properties, where they differ: the gate may judge a version again."""
    from mr_openapi import ModelVersionState, ModelVersionUpdate

    state = ModelVersionState.LIVE if entry.passed else ModelVersionState.ARCHIVED
    wanted = ModelVersionUpdate(state=state, customProperties=_properties(entry.properties))
    there = ModelVersionUpdate(state=version.state, customProperties=version.custom_properties)
    if wanted.to_dict() != there.to_dict():
        await api.update_model_version(str(version.id), wanted, _request_timeout=TIMEOUT_S)


async def _artifact(api: "ModelRegistryServiceApi", version_id: str, entry: Entry) -> None:
    """Where the version's model lies: its only artifact."""
    from mr_openapi import Artifact, ModelArtifact

    listed = await api.get_model_version_artifacts(version_id, _request_timeout=TIMEOUT_S)
    models = [artifact.actual_instance for artifact in listed.items or []]
    there = next((model for model in models if isinstance(model, ModelArtifact) and model.name == entry.name), None)
    if there is not None and there.uri == entry.uri:
        return
    model = ModelArtifact(
        id=there.id if there else None,
        name=entry.name,
        uri=entry.uri,
        modelFormatName="mlflow",
        modelFormatVersion=entry.format_version,
        artifactType="model-artifact",
        state="LIVE",
    )
    await api.upsert_model_version_artifact(version_id, Artifact(model), _request_timeout=TIMEOUT_S)


def _properties(values: Mapping[str, Property]) -> dict[str, Any]:
    """As the registry takes them: each with its type. Whole numbers are text there, of at most nine digits."""
    from mr_openapi import MetadataValue

    kinds = {bool: "Bool", int: "Int", float: "Double", str: "String"}
    made = {}
    for key, value in values.items():
        kind = kinds[type(value)]
        shown = str(value) if kind == "Int" else value
        made[key] = MetadataValue.from_dict({f"{kind.lower()}_value": shown, "metadataType": f"Metadata{kind}Value"})
    return made


def _explain(url: str, entry: Entry, error: Exception) -> str:
    status, body = getattr(error, "status", None), getattr(error, "body", None)
    where = f"the Model Registry at {url}"
    done = (
        f"{entry.name} version {entry.version} is in MLflow; mend it and run register again, or set register.model_registry to null"
    )
    if status in (401, 403):
        return f"{where} refused access ({status}): check {TOKEN}; {done}"
    if status == 404:
        return f"{where} is none: neither {API} nor {OLDER_API} is there (404): check register.model_registry; {done}"
    if status:
        said = " ".join(str(body or getattr(error, "reason", "")).split())[:200]
        return f"{where} answered {status}: {said}; {done}"
    if isinstance(error, ValueError):
        return f"{where} answered with something else than its API, such as a login page: check register.model_registry; {done}"
    return f"{where} does not answer ({' '.join(str(error).split())[:150] or type(error).__name__}); {done}"
