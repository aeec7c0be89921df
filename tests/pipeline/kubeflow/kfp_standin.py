"""A stand-in for the API server of Kubeflow Pipelines, for tests: a real HTTP(S) server on loopback, no Kubeflow behind it.

It speaks the paths that dier uses of 2.17.0, records every request, and can be told to answer one wrongly, late or not at all.
What it takes and refuses is in kfp_rules.py. `ui=True` puts Kubeflow's pages before it, which know other paths for logs. With a
`backend` runs really run: see tests/standin/.
"""

import base64
import contextlib
import email
import json
import re
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.pipeline.kubeflow import argo_manifest, kfp_rules
from tests.pipeline.kubeflow.argo_manifest import Tried
from tests.pipeline.kubeflow.kfp_rules import ABORTED, ENDED, EXISTS, INTERNAL, INVALID, NOT_FOUND, Refusal

API = "/apis/v2beta1"
RUN_1, RUN_2 = (f"00000000-0000-4000-8000-{number:012d}" for number in (1, 2))
"""Ids of the first two runs."""


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def call(self) -> str:
        return f"{self.method} {self.path.removeprefix(API)}"


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: str = "{}"
    headers: dict[str, str] = field(default_factory=dict)


DROP = Reply(status=0)
"""Read the request, then close the connection without a word."""
HANG = Reply(status=-1)
"""Read the request, then say nothing until the server is closed."""
HTML = Reply(200, "<!doctype html><title>Sign in</title>", {"Content-Type": "text/html"})


class StandIn:
    """The server's memory, and what it was told to do."""

    def __init__(
        self,
        url: str,
        multi_user: bool = False,
        token: str | None = None,
        cookie: str | None = None,
        version: str = "2.17.0",
        ui: bool = False,
        backend: Any = None,
    ) -> None:
        self.url, self.multi_user, self.token, self.cookie, self.version, self.ui = url, multi_user, token, cookie, version, ui
        self.backend = backend
        self.archives, self.publishes, self.pods_stay = True, True, False
        """Whether Argo archives logs, Kubeflow's launcher does, and pods are still there."""
        self.requests: list[Request] = []
        self.polls: list[Any] = [{"state": "SUCCEEDED"}]
        """What each look at a run finds: fields of a run, or a Reply; the last one stays."""
        self.experiments: list[dict[str, Any]] = []
        self.pipelines: list[dict[str, Any]] = []
        self.versions: list[dict[str, Any]] = []
        self.runs: list[dict[str, Any]] = []
        self.recurring: list[dict[str, Any]] = []
        self.tried: dict[str, list[Tried]] = {}
        """Pods of each run."""
        self.closed = threading.Event()
        self._faults: list[tuple[str, Reply]] = []
        self._lock = threading.Lock()

    def on(self, call: str, reply: Reply) -> None:
        """Answer every request that matches the pattern `call`, such as `POST /runs`, with `reply`."""
        self._faults.append((call, reply))

    def calls(self) -> list[str]:
        return [request.call for request in self.requests]

    def only(self, call: str) -> Request:
        [found] = [request for request in self.requests if request.call == call]
        return found

    def add_run(self, state: str = "FAILED", *tried: Tried, **more: Any) -> str:
        """A run that somebody made before; gives its id."""
        run_id = f"00000000-0000-4000-8000-{len(self.runs) + 1:012d}"
        moment = f"2026-11-28T{len(self.runs) // 60:02d}:{len(self.runs) % 60:02d}:00Z"
        ended = moment if state in ENDED else "1970-01-01T00:00:00Z"  # apiserver/server/api_converter.go:1603
        run = {"run_id": run_id, "display_name": f"run {len(self.runs) + 1}", "created_at": moment, "finished_at": ended}
        self.runs.append({**run, "state": state, "storage_state": "AVAILABLE", "experiment_id": "e", **more})
        self.tried[run_id] = list(tried)
        return run_id

    def answer(self, request: Request) -> Reply:
        with self._lock:
            self.requests.append(request)
            for call, reply in self._faults:
                if re.fullmatch(call, request.call):
                    return reply
            if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
                return refusal(401, 16, "Request header error: there is no user identity header.")
            if self.cookie and request.headers.get("cookie") != self.cookie:
                return Reply(302, "", {"Location": f"https://dex/auth?state={request.headers.get('cookie')}"})
            try:
                return self._route(request)
            except Refusal as error:
                return refusal(error.status, error.code, str(error))
            except Exception as error:
                if not hasattr(error, "status"):
                    raise
                return refusal(error.status, INVALID[1], str(error))  # the backend's

    def _route(self, request: Request) -> Reply:
        method, _, rest = request.call.partition(" /")
        parts = [unquote(part) for part in rest.split("/")]
        match method, *parts:
            case "GET", "healthz":
                return self._health()
            case "GET", ("experiments" | "pipelines" | "runs" | "recurringruns") as what:
                return self._list(what, request)
            case "POST", "experiments":
                return ok(_add(self.experiments, "experiment_id", request.json))
            case "POST", "pipelines":
                return self._create_pipeline(request.json)
            case "POST", "pipelines", "upload_version":
                return self._upload(request)
            case "GET", "pipelines", pipeline_id, "versions":
                own = [version for version in self.versions if version["pipeline_id"] == pipeline_id]
                found, token = kfp_rules.listed("versions", own, request.query)
                return ok({"pipeline_versions": found, "next_page_token": token} if found else {})
            case "GET", "pipelines", pipeline_id, "versions", version_id:
                return ok(self._version({"pipeline_id": pipeline_id, "pipeline_version_id": version_id}))
            case "POST", "runs":
                return self._create_run(request.json)
            case "POST", "recurringruns":
                return self._create_recurring(request.json)
            case "DELETE", "recurringruns", recurring_id:
                found = _by_id(self.recurring, "recurring_run_id", recurring_id, "recurring run")
                self.recurring.remove(found)
                return ok({})
        return self._route_run(method, parts)

    def _route_run(self, method: str, parts: list[str]) -> Reply:
        match method, *parts:
            case "GET", "runs", run_id:
                return self._get_run(run_id)
            case "POST", "runs", action if ":" in action:
                return self._act(*action.split(":"))
            case "GET", "apis", "v1beta1", "runs", run_id:  # apiserver/server/api_converter.go:1695
                self._run(run_id)
                return ok({"run": {"id": run_id}, "pipeline_runtime": {"workflow_manifest": json.dumps(self._manifest(run_id))}})
            case "GET", "runs", run_id, "nodes", pod, "artifacts", name if name.endswith(":read"):
                return self._artifact(run_id, pod, name.removesuffix(":read"))
            case "GET", "apis", "v1alpha1", "runs", run_id, "nodes", pod, "log":
                return HTML if self.ui else self._log(run_id, pod)
            case "GET", "k8s", "pod", "logs" if self.ui:
                return self._page_log(self.requests[-1].query)
            case "GET", "artifacts", "get" if self.ui:
                return self._published(self.requests[-1].query)
        return HTML if self.ui and method == "GET" and parts[0] != "apis" else refusal(404, 5, "Not Found")

    def _health(self) -> Reply:
        """apiserver/main.go:464, frontend/server/handlers/healthz.ts:70."""
        if self.ui:
            return ok({"apiServerReady": True, "apiServerTagName": self.version, "multi_user": self.multi_user})
        return ok({"commit_sha": "x", "tag_name": self.version, "multi_user": self.multi_user})

    def _list(self, what: str, request: Request) -> Reply:
        known: list[dict[str, Any]] = self.recurring if what == "recurringruns" else getattr(self, what)
        if what == "runs":
            known = [self._run(one["run_id"]) for one in known]
        wanted = request.query.get("namespace", "")
        known = [one for one in known if one.get("namespace", "") == wanted]
        if what in ("runs", "recurringruns") and request.query.get("experiment_id"):
            known = [one for one in known if one["experiment_id"] == request.query["experiment_id"]]
        found, token = kfp_rules.listed(what, known, request.query)
        name = "recurringRuns" if what == "recurringruns" else what
        return ok({name: found, "total_size": len(known), **({"next_page_token": token} if token else {})} if found else {})

    def _create_pipeline(self, new: dict[str, Any]) -> Reply:
        """apiserver/storage/pipeline_store.go:753: one of a name in a namespace."""
        names = [(one["display_name"], one.get("namespace")) for one in self.pipelines]
        if (new["display_name"], new.get("namespace")) in names:
            raise Refusal(EXISTS, f"Failed to create a pipeline: {new['display_name']} already exists")
        return ok(_add(self.pipelines, "pipeline_id", new))

    def _upload(self, request: Request) -> Reply:
        """apiserver/server/pipeline_upload_server.go:251."""
        query, (file, text) = request.query, _file(request)
        if not file.endswith((".yaml", ".yml", ".json")):  # apiserver/server/util.go:154
            raise Refusal(INVALID, "Failed to create a pipeline version")
        if query.get("pipelineid") not in [one["pipeline_id"] for one in self.pipelines] or len(query["name"]) > 127:
            raise Refusal(INVALID, "Failed to create a pipeline version")
        own = [one["display_name"] for one in self.versions if one["pipeline_id"] == query["pipelineid"]]
        if query["name"] in own:
            raise Refusal(EXISTS, "Failed to create a pipeline version")
        spec, platform = kfp_rules.spec_of(text)
        version = {"pipeline_id": query["pipelineid"], "display_name": query["name"], "description": query.get("description", "")}
        made = _add(self.versions, "pipeline_version_id", version)
        made["pipeline_spec"] = {"pipeline_spec": spec, "platform_spec": platform} if platform else spec
        if self.backend is not None:
            self.backend.versions[made["pipeline_version_id"]] = (spec, platform)
        return ok(made)

    def _version(self, reference: dict[str, str]) -> dict[str, Any]:
        """apiserver/resource/resource_manager.go:1239."""
        found = [one for one in self.versions if one["pipeline_version_id"] == reference["pipeline_version_id"]]
        if not found:
            raise Refusal(NOT_FOUND, f"PipelineVersion {reference['pipeline_version_id']} not found")
        if reference.get("pipeline_id") not in (None, "", found[0]["pipeline_id"]):
            raise Refusal(
                INVALID, f"Pipeline version belongs to pipeline {found[0]['pipeline_id']} (not {reference['pipeline_id']})"
            )
        return found[0]

    def _source(self, body: dict[str, Any]) -> None:
        """The pipeline of what is to run: a reference to a version that is there, or a document."""
        if "pipeline_version_reference" in body:
            try:
                document = self._version(body["pipeline_version_reference"])["pipeline_spec"]
            except Refusal as error:  # resource_manager.go:636 and :1317 word every such error in the same way
                raise Refusal(INTERNAL, "Internal Server Error") from error
        else:
            document = body.get("pipeline_spec") or {}
        spec = document.get("pipeline_spec", document)
        kfp_rules.parsed(spec, document.get("platform_spec", {}))
        kfp_rules.check_inputs(spec, (body.get("runtime_config") or {}).get("parameters") or {})
        _by_id(self.experiments, "experiment_id", body.get("experiment_id", ""), "Experiment")

    def _create_run(self, body: dict[str, Any]) -> Reply:
        if not body.get("display_name"):  # apiserver/server/api_converter.go:1320
            raise Refusal(INTERNAL, "Internal Server Error")
        self._source(body)
        if self.backend is None:
            self.add_run("PENDING", **body)
        else:
            self.runs.append({"storage_state": "AVAILABLE", **self.backend.create_run(body)})
        return ok(self.runs[-1])

    def _create_recurring(self, body: dict[str, Any]) -> Reply:
        kfp_rules.check_recurring(body)
        self._source(body)
        status = "ENABLED" if body.get("mode") == "ENABLE" else "DISABLED"
        return ok(_add(self.recurring, "recurring_run_id", {**body, "status": status, "created_at": "2026-11-28T00:00:00Z"}))

    def fire(self, schedule: str) -> str:
        """A run of a recurring one, as the scheduler's hour would bring it; gives its id."""
        with self._lock:
            body = _by_id(self.recurring, "display_name", schedule, "recurring run")
            kept = (
                "experiment_id",
                "pipeline_version_reference",
                "runtime_config",
                "service_account",
                "recurring_run_id",
                "namespace",
            )
            self._create_run({"display_name": f"{schedule} 1", **{key: body[key] for key in kept if key in body}})
            return str(self.runs[-1]["run_id"])

    def _run(self, run_id: str) -> dict[str, Any]:
        found = _by_id(self.runs, "run_id", run_id, "Run")
        if self.backend is not None:
            found |= self.backend.get_run(run_id)
        return found

    def _get_run(self, run_id: str) -> Reply:
        run = self._run(run_id)
        if self.backend is not None or run["state"] in ENDED:
            return ok(run)
        state = self.polls.pop(0) if len(self.polls) > 1 else self.polls[0]
        if isinstance(state, dict) and state.get("state") in ENDED:
            run.update(state)
        return state if isinstance(state, Reply) else ok({**run, **state})

    def _act(self, run_id: str, action: str) -> Reply:
        """apiserver/storage/run_store.go:823, common/util/workflow.go:201."""
        run = self._run(run_id)
        if action == "terminate" and run["state"] in (*ENDED, "CANCELING"):
            raise Refusal(INVALID, f"Failed to terminate a run {run_id}. Row not found")
        if action == "retry" and run["state"] != "FAILED":
            raise Refusal(ABORTED, "Workflow must be Failed/Error to retry")
        if self.backend is not None:
            getattr(self.backend, f"{action}_run")(run_id)
        else:
            run["state"] = {"terminate": "CANCELING", "retry": "RUNNING"}[action]
        return ok({})

    def _manifest(self, run_id: str) -> dict[str, Any]:
        if self.backend is not None:
            return argo_manifest.of_nodes(self.backend.workflow(run_id).nodes)
        return argo_manifest.of_tries(self.tried[run_id])

    def _text(self, run_id: str, pod: str) -> str | None:
        """The log of a pod by its name or by its node's id; None where there is none."""
        if self.backend is not None:
            return str(self.backend.log(run_id, pod))
        found = [one for one in self.tried[run_id] if pod in (one.pod, one.node)]
        return found[0].log if found else None

    def _artifact(self, run_id: str, pod: str, name: str) -> Reply:
        """apiserver/server/run_artifact_server.go:39: Argo's artifacts alone, and the name of the launcher's is none of them."""
        self._run(run_id)
        text = self._text(run_id, pod) if name == "main-logs" and self.archives else None
        if text is None:
            return Reply(404, json.dumps({"error_message": "artifact not found: <nil>", "error_details": ""}))
        return ok({"data": base64.b64encode(text.encode()).decode()})

    def _log(self, run_id: str, pod: str) -> Reply:
        """apiserver/server/run_log_server.go:56: 200 is said before anything is looked for."""
        text = self._text(run_id, pod) if self.archives or self.pods_stay else None
        if text is None:
            return Reply(200, json.dumps({"error_message": f"Failed to read logs for run {run_id}", "error_details": ""}))
        return Reply(200, text, {"Content-Type": "text/plain"})

    def _page_log(self, query: dict[str, str]) -> Reply:
        """frontend/server/handlers/pod-logs.ts:80."""
        if self.multi_user and not query.get("podnamespace"):
            return Reply(422, "podnamespace argument is required")
        text = self._text(query["runid"], query["podname"]) if self.archives or self.pods_stay else None
        return Reply(500, "Could not get main container logs: Error") if text is None else Reply(200, text)

    def _published(self, query: dict[str, str]) -> Reply:
        """frontend/src/lib/Apis.ts:334; v2/component/launcher_v2.go:531 numbers the tries."""
        every = [one for tried in self.tried.values() for one in tried]
        found = [
            one for one in every if f"{query['source']}://{query['bucket']}/{query['key']}" == f"{one.log_uri}-{one.attempt or 0}"
        ]
        return Reply(200, found[0].log) if found and self.publishes else Reply(500, "Failed to get object in bucket")


def ok(body: dict[str, Any]) -> Reply:
    return Reply(200, json.dumps(body), {"Content-Type": "application/json"})


def refusal(status: int, code: int, message: str) -> Reply:
    """An error as the real server words it."""
    return Reply(status, json.dumps({"code": code, "message": message, "details": []}), {"Content-Type": "application/json"})


def _add(known: list[dict[str, Any]], key: str, new: dict[str, Any]) -> dict[str, Any]:
    known.append({**new, key: f"{key.removesuffix('_id')}-{len(known) + 1}"})
    return known[-1]


def _by_id(known: list[dict[str, Any]], key: str, wanted: str, what: str) -> dict[str, Any]:
    found = [one for one in known if one[key] == wanted]
    if not found:
        raise Refusal(NOT_FOUND, f"{what} {wanted} not found")
    return found[0]


def _file(request: Request) -> tuple[str, str]:
    """The file of a multipart form: its name and text."""
    head = f"Content-Type: {request.headers['content-type']}\n\n".encode()
    form = email.message_from_bytes(head + request.body)
    [part] = [part for part in form.walk() if part.get_filename()]
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return str(part.get_filename()), payload.decode()


class _Handler(BaseHTTPRequestHandler):
    standin: StandIn
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else the content of an answer waits 40 ms for its headers to be acknowledged

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {key.lower(): value for key, value in self.headers.items()}
        reply = self.standin.answer(Request(self.command, parts.path, query, headers, body))
        if reply == HANG:
            self.standin.closed.wait(30)
        if reply in (DROP, HANG):
            self.close_connection = True
            return
        data = reply.body.encode()
        self.send_response(reply.status)
        for key, value in {**reply.headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextlib.contextmanager
def serve(certificate: tuple[Path, Path] | None = None, **settings: Any) -> Iterator[StandIn]:
    """A stand-in on a free port of 127.0.0.1, with TLS where a certificate and its key are given."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    standin = StandIn(f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}", **settings)
    server.RequestHandlerClass = type("Handler", (_Handler,), {"standin": standin})
    server.handle_error = lambda *_: None  # a client that hangs up, or refuses the certificate, is what some tests are about
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield standin
    finally:
        standin.closed.set()
        server.shutdown()
        server.server_close()
        thread.join()
