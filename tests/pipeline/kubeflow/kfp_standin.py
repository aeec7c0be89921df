"""A stand-in for the API server of Kubeflow Pipelines, for tests: a real HTTP(S) server on loopback, no Kubeflow behind it.

It speaks the v2beta1 paths that kfp 2.17.0's client uses, records every request, and can be told to answer a request wrongly, late
or not at all. Like the real server it parses a run's pipeline strictly.
"""

import contextlib
import json
import re
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

API = "/apis/v2beta1"


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

    def __init__(self, url: str, multi_user: bool = False, token: str | None = None) -> None:
        self.url, self.multi_user, self.token = url, multi_user, token
        self.requests: list[Request] = []
        self.polls: list[Any] = [{"state": "SUCCEEDED"}]
        """What each look at the run finds: fields of a run, or a Reply; the last one stays."""
        self.experiments: list[dict[str, Any]] = []
        self.pipelines: list[dict[str, Any]] = []
        self.versions: list[dict[str, Any]] = []
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

    def answer(self, request: Request) -> Reply:
        with self._lock:
            self.requests.append(request)
            for call, reply in self._faults:
                if re.fullmatch(call, request.call):
                    return reply
            if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
                return refusal(401, 16, "Request header error: there is no user identity header.")
            return self._route(request)

    def _route(self, request: Request) -> Reply:
        method, _, rest = request.call.partition(" /")
        match method, *rest.split("/"):
            case "GET", "healthz":
                return ok({"multi_user": self.multi_user})
            case "GET", "experiments":
                return ok({"experiments": found} if (found := _matching(self.experiments, request)) else {})
            case "POST", "experiments":
                return ok(_add(self.experiments, "experiment_id", request.json))
            case "POST", "runs":
                return self._create_run(request.json)
            case "GET", "runs", run_id:
                state = self.polls.pop(0) if len(self.polls) > 1 else self.polls[0]
                return state if isinstance(state, Reply) else ok({"run_id": run_id, **state})
            case "GET", "pipelines":
                return ok({"pipelines": found} if (found := _matching(self.pipelines, request)) else {})
            case "POST", "pipelines":
                return ok(_add(self.pipelines, "pipeline_id", request.json))
            case "POST", "pipelines", "upload_version":
                version = {"pipeline_id": request.query["pipelineid"], "display_name": request.query["name"]}
                return ok(_add(self.versions, "pipeline_version_id", version))
            case "GET", "pipelines", pipeline_id, "versions":
                own = [version for version in self.versions if version["pipeline_id"] == pipeline_id]
                return ok({"pipeline_versions": found} if (found := _matching(own, request)) else {})
        return refusal(404, 5, "Not Found")

    def _create_run(self, run: dict[str, Any]) -> Reply:
        if run["experiment_id"] not in [known["experiment_id"] for known in self.experiments]:
            return refusal(400, 3, f"Experiment {run['experiment_id']} not found")
        spec = run["pipeline_spec"]
        try:
            json_format.ParseDict(spec.get("pipeline_spec", spec), pipeline_spec_pb2.PipelineSpec())
            json_format.ParseDict(spec.get("platform_spec", {}), pipeline_spec_pb2.PlatformSpec())
        except json_format.ParseError as error:
            return refusal(400, 3, f"Failed to parse the pipeline: {error}")
        return ok({**run, "run_id": f"run-{self.calls().count('POST /runs')}", "state": "PENDING"})


def ok(body: dict[str, Any]) -> Reply:
    return Reply(200, json.dumps(body), {"Content-Type": "application/json"})


def refusal(status: int, code: int, message: str) -> Reply:
    """An error as the real server words it."""
    return Reply(status, json.dumps({"code": code, "message": message, "details": []}), {"Content-Type": "application/json"})


def _add(known: list[dict[str, Any]], key: str, new: dict[str, Any]) -> dict[str, Any]:
    known.append({**new, key: f"{key.removesuffix('_id')}-{len(known) + 1}"})
    return known[-1]


def _matching(known: list[dict[str, Any]], request: Request) -> list[dict[str, Any]]:
    found = [one for one in known if one.get("namespace", "") == request.query.get("namespace", "")]
    for predicate in json.loads(request.query.get("filter", "{}")).get("predicates", []):
        assert predicate["operation"] == 1, "the stand-in knows EQUALS only"
        found = [one for one in found if one.get(predicate["key"]) == predicate["stringValue"]]
    return found


class _Handler(BaseHTTPRequestHandler):
    standin: StandIn
    protocol_version = "HTTP/1.1"

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

    do_GET = do_POST = _serve  # noqa: N815

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
