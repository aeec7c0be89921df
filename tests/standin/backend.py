"""The backend of the API stand-in: runs, their states, logs and artifacts, as Kubeflow's API server gives them."""

import random
import string
import threading
import uuid
from pathlib import Path
from typing import Any

from tests.standin.cache import Cache
from tests.standin.clock import Clock
from tests.standin.cluster import Cluster
from tests.standin.driver import Driver
from tests.standin.errors import ApiError, CompileError
from tests.standin.graphs import Graphs
from tests.standin.metadata import Artifact, Execution, Metadata
from tests.standin.nodes import DONE, Nodes, stamp
from tests.standin.package import Package, load, parameters
from tests.standin.pod import Run
from tests.standin.store import Store, Traffic, output_uri
from tests.standin.workflow import Servers, Workflow

ROOT = "minio://mlpipeline/v2/artifacts"  # KFP 2.17.0 backend/src/v2/config/env.go:38
FINAL = ("SUCCEEDED", "FAILED")


class Backend:
    """One installation. `folder` holds the store, claims and pods; `run_pod` runs a pod: scripted, a process, a container."""

    def __init__(
        self,
        folder: Path,
        run_pod: Run,
        *,
        stock: bool = True,
        publish_logs: bool = True,
        cache: bool = True,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or Clock()
        self.servers = Servers(
            Metadata(), Cache() if cache else None, Store(folder / "store"), Cluster(folder), clock, run_pod, stock, publish_logs
        )
        self.cluster, self.store, self.metadata = self.servers.cluster, self.servers.store, self.servers.metadata
        self.versions: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        """Stored pipeline versions by id: both documents."""
        self._runs: dict[str, dict[str, Any]] = {}
        self._flows: dict[str, Workflow] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._lock = threading.RLock()

    def create_run(self, body: dict[str, Any]) -> dict[str, Any]:
        """Start a run; gives it as the API does. Raises ApiError."""
        package = self._package(body)
        given = body.get("runtime_config", {}) or {}
        values = parameters(package, given.get("parameters", {}) or {})
        run_id = str(uuid.uuid4())
        name = f"{package.name.rsplit('/', 1)[-1]}-{''.join(random.choices(string.ascii_lowercase + string.digits, k=5))}"
        # KFP 2.17.0 backend/src/v2/metadata/client.go:420
        place = output_uri(given.get("pipeline_root") or ROOT, package.name, run_id)
        driver = Driver(package, self.metadata, self.servers.cache, place, self.servers.publish_logs)
        if package.workspace is not None:
            self._workspace(package.workspace, name)
        created = stamp(self.servers.clock.now())
        shown = str(body.get("display_name", name))
        flow = Workflow(self.servers, package, run_id, name, shown, driver, values, Nodes(name), created)
        with self._lock:
            self._runs[run_id] = {**body, "run_id": run_id, "created_at": created, "state": "PENDING", "state_history": []}
            self._flows[run_id] = flow
            self._state(run_id, "PENDING")
            self._start(run_id)
        return self.get_run(run_id)

    def get_run(self, run_id: str) -> dict[str, Any]:
        """The run as it stands. Raises ApiError."""
        with self._lock:
            if run_id not in self._runs:
                raise ApiError(404, f"Run {run_id} not found")
            run = dict(self._runs[run_id])
            run["state_history"] = list(run["state_history"])
        return {**run, "run_details": {"task_details": self._flows[run_id].nodes.details(run_id)}}

    def retry_run(self, run_id: str) -> None:
        """Try a failed run again: what succeeded stays. KFP 2.17.0 backend/src/common/util/workflow.go:201. Raises ApiError."""
        run = self.get_run(run_id)
        with self._lock:
            if run["state"] != "FAILED":
                raise ApiError(400, f"Failed to retry run {run_id}: Workflow must be Failed/Error to retry")
            self._threads[run_id].join()
            flow = self._flows[run_id]
            # a graph that failed goes on where it was; nodes of tries, and pods that failed, are forgotten
            flow.nodes = Nodes(flow.name, [node for node in flow.nodes.all() if node.phase in DONE])
            flow.terminated = threading.Event()
            self._start(run_id)

    def terminate_run(self, run_id: str) -> None:
        """End a run. KFP 2.17.0 backend/src/apiserver/resource/resource_manager.go:1042. Raises ApiError."""
        run = self.get_run(run_id)
        with self._lock:
            if run["state"] not in ("PENDING", "RUNNING"):
                raise ApiError(400, f"Failed to terminate a run {run_id}. Row not found")
            self._state(run_id, "CANCELING")
        self._flows[run_id].terminate()

    def delete_pod(self, run_id: str, pod: str) -> None:
        """As `kubectl delete pod`, or a node that is lost."""
        found = self._flows[run_id].pods[pod]
        found.deleted = True
        found.stop.set()

    def log(self, run_id: str, node_id: str) -> str:
        """Of a pod by its name. KFP 2.17.0 backend/src/apiserver/resource/resource_manager.go:1152. Raises ApiError."""
        self.get_run(run_id)
        node = self._flows[run_id].nodes.find(node_id)
        if node is None or node.type != "Pod":
            raise ApiError(400, f"Failed to read logs for run {run_id}")
        return node.log

    def read_artifact(self, run_id: str, node_id: str, name: str) -> bytes:
        """What Argo kept of a node: its log, `main-logs`. KFP 2.17.0 backend/src/common/util/workflow.go:782. Raises ApiError."""
        self.get_run(run_id)
        nodes = self._flows[run_id].nodes
        node = nodes.find(node_id)
        if node is not None and name == "main-logs":
            for one in nodes.below(node):
                if one.type == "Pod":
                    return one.log.encode()
        raise ApiError(404, f"artifact {name} of {node_id} not found")

    def wait(self, run_id: str, timeout: float = 60) -> dict[str, Any]:
        """The run once it has ended."""
        self._threads[run_id].join(timeout)
        run = self.get_run(run_id)
        assert run["state"] in FINAL, f"the run is still {run['state']} after {timeout} s"
        return run

    def run(self, text: str, parameters: dict[str, Any] | None = None, timeout: float = 60, **body: Any) -> dict[str, Any]:
        """A run of a compiled file's text, until its end."""
        return self.wait(self.create_run(body_of(text, parameters, **body))["run_id"], timeout)

    def workflow(self, run_id: str) -> Workflow:
        return self._flows[run_id]

    def execution(self, run_id: str, task: str) -> Execution:
        """The newest execution of a task in ML Metadata."""
        return [one for one in self.metadata.of_run(run_id) if one.task_name == task][-1]

    def artifact(self, run_id: str, task: str, name: str) -> Artifact:
        return self.metadata.artifacts[self.execution(run_id, task).output_artifacts[name]]

    def path(self, run_id: str, task: str, name: str) -> Path:
        """Where an artifact lies in the store."""
        return self.store.path(self.artifact(run_id, task, name).uri)

    def traffic(self, run_id: str, task: str) -> Traffic:
        return self.store.traffic[f"{run_id}/{task}"]

    def _package(self, body: dict[str, Any]) -> Package:
        if reference := body.get("pipeline_version_reference"):
            wanted = reference.get("pipeline_version_id", "")
            if wanted not in self.versions:
                raise ApiError(404, f"PipelineVersion {wanted} not found")
            spec, platform = self.versions[wanted]
        else:
            given = body.get("pipeline_spec") or {}
            spec, platform = given.get("pipeline_spec", given), given.get("platform_spec", {})
        try:
            return load(spec, platform)
        except CompileError as error:
            raise ApiError(400, f"Failed to create a new run: Failed to generate the ExecutionSpec: {error}") from error

    def _workspace(self, asked: dict[str, Any], run_name: str) -> None:
        """A claim of the run's own. KFP 2.17.0 backend/src/v2/compiler/argocompiler/argo.go:630."""
        if not asked.get("size"):
            raise ApiError(400, "workspace size is required but not specified")
        if not asked.get("kubernetes", {}).get("pvcSpecPatch", {}).get("accessModes"):
            raise ApiError(400, "workspace PVC spec must specify accessModes")
        self.cluster.claim(f"{run_name}-kfp-workspace")

    def _start(self, run_id: str) -> None:
        thread = threading.Thread(target=self._run, args=(run_id,), daemon=True, name=f"standin-{run_id[:8]}")
        self._threads[run_id] = thread
        thread.start()

    def _run(self, run_id: str) -> None:
        with self._lock:
            if self._runs[run_id]["state"] != "CANCELING":
                self._state(run_id, "RUNNING")
        try:
            ended = Graphs(self._flows[run_id]).run()
        except BaseException as error:
            self._runs[run_id]["error"] = {"message": f"{type(error).__name__}: {error}"}
            self._state(run_id, "FAILED")
            raise
        # KFP 2.17.0 backend/src/apiserver/resource/resource_manager.go:1537: once Argo has ended a terminated run it is FAILED;
        # nothing in 2.17.0 ever sets CANCELED, and CANCELING is what an exit task sees meanwhile
        with self._lock:
            self._runs[run_id]["finished_at"] = stamp(self.servers.clock.now())
            self._state(run_id, "SUCCEEDED" if ended.phase in DONE else "FAILED")

    def _state(self, run_id: str, state: str) -> None:
        self._runs[run_id]["state"] = state
        self._runs[run_id]["state_history"].append({"update_time": stamp(self.servers.clock.now()), "state": state})


def body_of(text: str, parameters: dict[str, Any] | None = None, **body: Any) -> dict[str, Any]:
    """A request for a run of a compiled file's text."""
    import yaml

    documents = list(yaml.safe_load_all(text))
    spec = {"pipeline_spec": documents[0], **({"platform_spec": documents[1]} if len(documents) > 1 else {})}
    return {"display_name": "a run", "pipeline_spec": spec, "runtime_config": {"parameters": parameters or {}}, **body}
