"""The importer: an artifact that is there already, made known to the run."""

from pathlib import Path
from typing import Any

from tests.standin.errors import LauncherError
from tests.standin.metadata import Execution, Metadata, converted
from tests.standin.store import Store, local_path
from tests.standin.values import as_value


def import_artifact(
    execution: Execution,
    component: dict[str, Any],
    importer: dict[str, Any],
    metadata: Metadata,
    store: Store,
    pipeline: str,
    workspace: Path | None,
) -> None:
    """Note the artifact; copy it only into a workspace. KFP 2.17.0 backend/src/v2/component/importer_launcher.go:117."""
    uri = importer["artifactUri"].get("constant", "")
    if not uri:
        parent = metadata.executions[execution.parent or 0]
        uri = parent.inputs.get(importer["artifactUri"].get("runtimeParameter", ""), "")
    if not uri:
        raise LauncherError("failed to execute importer component: artifact uri not provided")
    store.path(uri)  # a scheme that no store has is refused
    names = list(component["outputDefinitions"]["artifacts"])
    if len(names) != 1:
        raise LauncherError("failed to extract output artifact name from componentOutputSpec")
    given = {key: converted(as_value(value)) for key, value in importer.get("metadata", {}).items()}
    # KFP 2.17.0 backend/src/v2/component/importer_launcher.go:283: so what a task of the same pipeline made is never taken for it
    given["store_session_info"] = f'{{"Provider":"{uri.partition(":")[0]}","Params":{{"fromEnv":"true"}}}}'
    kind = importer["typeSchema"].get("schemaTitle", "system.Artifact")
    known = None if importer.get("reimport") else metadata.matching(kind, uri, given, pipeline)
    if importer.get("downloadToWorkspace"):
        if workspace is None:
            raise LauncherError("failed to execute importer component: the run has no workspace")
        store.download(uri, workspace / ".artifacts" / local_path(uri).lstrip("/"), f"{execution.run_id}/{execution.task_name}")
    metadata.publish(execution, "COMPLETE", {}, {names[0]: known or metadata.add(kind, uri, given)}, pipeline)
