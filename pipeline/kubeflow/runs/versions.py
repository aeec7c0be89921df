"""`dier upload`, and the version of a pipeline that a run runs: found by the content of its file, stored where there is none.

A run that names a version is grouped by it, and shown with its name, in Kubeflow's pages; one that carries its own pipeline shows
"[View pipeline]" there. So a run whose cache is off runs a version of its own too: the API has no switch for it
(2.17.0: api/v2beta1/runtime_config.proto holds parameters and a pipeline root, no more).
"""

import copy
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import kfp_server_api as api
import yaml

from components.common import artifact
from components.common.errors import SettingsError
from pipeline.errors import ClusterError
from pipeline.kubeflow import compiled_file
from pipeline.kubeflow.api.client import Client
from pipeline.kubeflow.api.errors import CallFailed
from pipeline.kubeflow.cluster import DIGEST
from pipeline.kubeflow.runs.connection import CONTAINS, Connection, connect, pipeline_id, where

DATA = ("prepare",)
"""The steps that read what no cache key covers: what lies behind data.path."""
LONGEST_NAME = 127
"""2.17.0, backend/src/apiserver/validation/length.go:47."""


@dataclass(frozen=True)
class Version:
    """A stored one."""

    pipeline_id: str
    version_id: str
    name: str

    @property
    def reference(self) -> api.V2beta1PipelineVersionReference:
        """As a run names it."""
        return api.V2beta1PipelineVersionReference(pipeline_id=self.pipeline_id, pipeline_version_id=self.version_id)


def upload(
    pipeline: Path,
    *,
    pipeline_name: str,
    version_name: str | None,
    description: str | None,
    allow_tag: bool,
    **connection: Unpack[Connection],
) -> None:
    """Store the compiled pipeline as a version of the pipeline `pipeline_name`; what is missing is made.

    Raises SettingsError before anything is sent where that can be seen offline, ClusterError for all that goes wrong later.
    """
    compiled = read(pipeline, allow_tag)
    _check_name(version_name)
    client, content = connect(connection), _Content(pipeline)
    of_pipeline = pipeline_id(client, pipeline_name, connection["namespace"])
    version, done = _find(client, of_pipeline, content, version_name), "already there:"
    if version is None:
        version, done = content.store(client, of_pipeline, version_name, description or _description(compiled)), "uploaded"
    print(f"{done} version {version.name} of {pipeline_name}, {version.version_id}")
    print(f"{client.ui}/#/pipelines/details/{version.pipeline_id}/version/{version.version_id}")


def read(pipeline: Path, allow_tag: bool) -> compiled_file.Package:
    """The compiled pipeline, whose images a cluster's cache can tell apart. Raises SettingsError."""
    compiled = compiled_file.read(pipeline)
    loose = [image for image in compiled.images if not DIGEST.search(image)]
    if loose and not allow_tag:
        raise SettingsError(
            f"image {loose[0]} in {compiled.path} has no @sha256: digest: the cluster's cache knows an image by its name alone, "
            "and would give old results for a new one; compile with a digest in the cluster file, or pass --allow-tag"
        )
    return compiled


def stored(
    client: Client,
    compiled: compiled_file.Package,
    pipeline_name: str,
    namespace: str | None,
    *,
    no_cache: bool = False,
    fresh_data: bool = False,
) -> Version:
    """The version of the pipeline `pipeline_name` that holds `compiled`, stored where it is not there.

    `no_cache`: the one in which no task takes a cached result, `fresh_data`: in which those that read data do not.
    """
    of_pipeline = pipeline_id(client, pipeline_name, namespace)
    with tempfile.TemporaryDirectory(prefix="dier-version-") as folder:
        content = _variant(compiled, Path(folder), no_cache, fresh_data)
        return _find(client, of_pipeline, content, None) or content.store(client, of_pipeline, None, _description(compiled))


class _Content:
    """A file to store, and what tells it from others."""

    def __init__(self, file: Path, name: str | None = None) -> None:
        self.file, self.digest = file, artifact.sha256(file)
        self.name = name or f"sha256-{self.digest[:12]}"
        self.mark = f"sha256:{self.digest}"
        """In the description of the version: so it is found whatever its name."""

    def store(self, client: Client, of_pipeline: str, name: str | None, description: str) -> Version:
        """Upload it; a version that somebody else stored meanwhile does as well."""
        name = name or self.name
        try:
            made = client.uploads.upload_pipeline_version(
                str(self.file), name=name, pipelineid=of_pipeline, description=f"{description} [{self.mark}]".strip()
            )
            return Version(of_pipeline, str(made.pipeline_version_id), name)
        except CallFailed as error:
            if error.status == 409 and (there := _find(client, of_pipeline, self, name)):
                return there
            again = "; run the same command again: it looks first, and stores no version twice" if error.unknown else ""
            raise ClusterError(f"{error}{again}") from error


def _variant(compiled: compiled_file.Package, folder: Path, no_cache: bool, fresh_data: bool) -> _Content:
    """What is to be stored: the file itself, or, where caching differs from it, the same pipeline written anew."""
    spec, plain = copy.deepcopy(compiled.spec), _Content(compiled.path)
    tasks = [task for dag in compiled_file.dags(spec) for task in dag.items()]
    changed = [task for name, task in tasks if (no_cache or (fresh_data and name in DATA)) and task.get("cachingOptions")]
    if not changed:
        return plain
    for task in changed:
        task["cachingOptions"] = {}  # kfp's own switch does not reach the tasks inside an exit handler
    file = folder / compiled.path.with_suffix(".yaml").name
    documents = [spec, compiled.platform] if compiled.platform else [spec]
    file.write_text(yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True), "utf-8")
    return _Content(file, f"{plain.name}-{'no-cache' if no_cache else 'fresh-data'}")


def _find(client: Client, of_pipeline: str, content: _Content, name: str | None) -> Version | None:
    """The version that holds `content` (and has this name, where one is wanted). Raises ClusterError where the name is taken."""
    ask = client.pipelines.pipeline_service_list_pipeline_versions
    wanted = name or content.name
    named = ask(of_pipeline, filter=where("display_name", wanted)).pipeline_versions or []
    if name is not None and named and content.mark not in (named[0].description or ""):
        raise ClusterError(
            f"version {name} is there already, of another file: give another --version-name, or none to name it by its content"
        )
    found = named or ([] if name else ask(of_pipeline, filter=where("description", content.mark, CONTAINS)).pipeline_versions or [])
    return next((Version(of_pipeline, str(one.pipeline_version_id), str(one.display_name)) for one in found), None)


def _description(compiled: compiled_file.Package) -> str:
    return str(compiled.spec["pipelineInfo"].get("description", ""))


def _check_name(name: str | None) -> None:
    if name is not None and not re.fullmatch(rf"\S.{{0,{LONGEST_NAME - 2}}}", name):
        raise SettingsError(f"--version-name {name!r} is empty or longer than {LONGEST_NAME - 1} characters: give another")


def names_of(client: Client, references: Iterable[Any]) -> dict[str, str]:
    """Names of versions by id, of those that can still be read."""
    found: dict[str, str] = {}
    for reference in references:
        if reference is None or not reference.pipeline_version_id or reference.pipeline_version_id in found:
            continue
        version = reference.pipeline_version_id
        try:
            answer = client.pipelines.pipeline_service_get_pipeline_version(reference.pipeline_id, version)
            found[version] = str(answer.display_name)
        except CallFailed as error:
            if error.status != 404:
                raise
            found[version] = f"{version[:8]} (deleted)"
    return found
