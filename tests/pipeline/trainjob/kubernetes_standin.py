"""A stand-in for the Kubernetes API server, for tests: a real HTTP server on loopback, no cluster behind it.

It knows TrainJobs, their pods and logs in one namespace, refuses a TrainJob as a cluster with Kubeflow Trainer does
(trainer_rules.py), and allows exactly what the project's Role allows. What becomes of a TrainJob is told by the test, a list of
conditions, one for each look; or it really runs, where the test gives a `runner` (jobset_life.py).
"""

import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.pipeline.trainjob import trainer_rules
from tests.pipeline.trainjob.jobset_life import Life, Runner
from tests.pipeline.trainjob.trainer_rules import Answer, refusal

NAMESPACE = "team"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:dier-run"
ROLE = Path(__file__).parents[3] / "pipeline" / "trainjob" / "role.yaml"
GROUPS = {"trainjobs": "trainer.kubeflow.org"}


def condition(kind: str, message: str = "", status: str = "True") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": f"Jobs{kind}", "message": message}


def pod(name: str, phase: str, *, code: int | None = None, restarts: int = 0, before: int | None = None) -> dict[str, Any]:
    """A pod of a TrainJob; `code` is how its container ended, `before` how it ended before its restart."""

    def end(code: int | None) -> dict[str, Any]:
        return {} if code is None else {"terminated": {"exitCode": code, "reason": "Error"}}

    status = {"name": "node", "image": "i", "imageID": "i", "ready": False, "restartCount": restarts}
    status |= {"state": end(code), "lastState": end(before)}
    return {"metadata": {"name": name}, "status": {"phase": phase, "containerStatuses": [status]}}


class StandIn:
    """The server's memory, and what it was told to do."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.jobs: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        self.accounts: set[str | None] = set()
        """What was said in the header Authorization."""
        self.conditions: list[list[dict[str, str]]] = [[condition("Complete")]]
        """What each look at a TrainJob finds; the last one stays."""
        self.pods: list[dict[str, Any]] = []
        self.logs: dict[str, str] = {}
        self.on_create: Callable[[dict[str, Any]], None] = lambda job: None
        self.faults: dict[str, list[Answer]] = {}
        """`VERB RESOURCE`: answers to give instead, each once; status 0 drops the connection after doing what was asked."""
        [rules] = [document["rules"] for document in yaml.safe_load_all(ROLE.read_text()) if document["kind"] == "Role"]
        self.allowed = {f"{verb} {resource}" for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
        self.runtimes = dict(trainer_rules.SHIPPED)
        self.runner: Runner | None = None
        """Starts a node's container; with it TrainJobs really run, and `conditions`, `pods` and `logs` are not looked at."""
        self.backoff_s = 0.0
        """Seconds before a container that failed starts again (the kubelet waits 10 and more), and before a new pod runs."""
        self.secrets: dict[str, dict[str, str]] = {}
        self.lives: dict[str, Life] = {}
        self._lock = threading.Lock()

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> Answer:
        with self._lock:
            _, marker, rest = path.partition(f"/namespaces/{NAMESPACE}/")
            assert marker, path
            resource, *names = rest.split("/")
            resource = "/".join([resource, *names[1:]])
            verb = {"GET": "get" if names else "list", "POST": "create", "DELETE": "delete"}[method]
            call = f"{verb} {resource}"
            self.calls.append(call)
            if call not in self.allowed:
                return self._forbidden(verb, resource, names)
            told = self.faults.get(call)
            fault = told.pop(0) if told else None
            if fault is not None and fault[0] != 0:
                return fault
            done = self._do(call, names, query, body)
            return fault or done

    def _forbidden(self, verb: str, resource: str, names: list[str]) -> Answer:
        """What Kubernetes says to an account without the right."""
        kind = resource.split("/")[0]
        group = GROUPS.get(kind, "")
        what = f"{kind}.{group}".rstrip(".") + (f' "{names[0]}"' if names else "")
        said = f'User "{ACCOUNT}" cannot {verb} resource "{resource}" in API group "{group}" in the namespace "{NAMESPACE}"'
        return refusal(403, f"{what} is forbidden: {said}")

    def _do(self, call: str, names: list[str], query: dict[str, str], body: bytes) -> Answer:
        life = self._life(call, names, query)
        match call:
            case "create trainjobs":
                return self._create(json.loads(body), query)
            case "get trainjobs" if names[0] in self.jobs:
                found = life.conditions if life else self.conditions.pop(0) if len(self.conditions) > 1 else self.conditions[0]
                return 200, {**self.jobs[names[0]], "status": {"conditions": found}}
            case "delete trainjobs" if names[0] in self.jobs:
                del self.jobs[names[0]]
                if life:
                    life.end()
                return 200, {"kind": "Status", "status": "Success"}
            case "list pods":
                found = [pod.told() for pod in life.pods.values()] if life else self.pods
                return 200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": found}
            case "get pods/log":
                if life:
                    lines = life.log(names[0], query.get("previous") == "True").splitlines()
                    return 200, "\n".join(lines[-int(query["tailLines"]) :])
                return 200, self.logs[names[0] + (" before" if query.get("previous") == "True" else "")]
        group = f".{GROUPS[call.split()[1]]}" if call.split()[1] in GROUPS else ""
        return refusal(404, f'{call.split()[1]}{group} "{names[0]}" not found')

    def _life(self, call: str, names: list[str], query: dict[str, str]) -> Life | None:
        """Of the TrainJob that the call is about."""
        if call == "list pods":
            key, _, name = query["labelSelector"].partition("=")
            assert key == "jobset.sigs.k8s.io/jobset-name"
            return self.lives.get(name)
        if call == "get pods/log":
            return next((life for name, life in self.lives.items() if names[0].startswith(name)), None)
        return self.lives.get(names[0]) if names else None

    def _create(self, job: dict[str, Any], query: dict[str, str]) -> Answer:
        assert query["fieldValidation"] == "Strict"
        if no := trainer_rules.refused(job, self.runtimes):
            return no
        name = job["metadata"]["name"]
        if name in self.jobs:
            return refusal(409, f'trainjobs.trainer.kubeflow.org "{name}" already exists')
        self.jobs[name] = job
        self.on_create(job)
        if self.runner:
            self.lives[name] = Life(job, self.runner, self.secrets, self.backoff_s)
        return 201, job


class _Handler(BaseHTTPRequestHandler):
    standin: StandIn
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else the content of an answer waits 40 ms for its headers to be acknowledged

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.standin.accounts.add(self.headers.get("Authorization"))
        status, found = self.standin.answer(self.command, parts.path, query, body)
        if status == 0:
            self.close_connection = True
            return
        data = found.encode() if isinstance(found, str) else json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(found, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextlib.contextmanager
def serve(certificate: tuple[Path, Path] | None = None) -> Iterator[StandIn]:
    """A stand-in on a free port of 127.0.0.1, with TLS where a certificate and its key are given."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    standin = StandIn(f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}")
    server.RequestHandlerClass = type("Handler", (_Handler,), {"standin": standin})
    server.handle_error = lambda *_: None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield standin
    finally:
        for life in standin.lives.values():
            life.end()
        server.shutdown()
        server.server_close()
        thread.join()


def kubeconfig(url: str) -> str:
    """A kubeconfig for it, as text."""
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "stand-in",
            "clusters": [{"name": "stand-in", "cluster": {"server": url}}],
            "users": [{"name": "stand-in", "user": {"token": "t"}}],
            "contexts": [{"name": "stand-in", "context": {"cluster": "stand-in", "user": "stand-in", "namespace": NAMESPACE}}],
        }
    )
