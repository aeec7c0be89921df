"""A stand-in for a tracking server, in memory, that fails in ways a real one does only by chance.

It knows the requests that live logging makes, and keeps every value that it is sent: where a real server's SQL store would drop a
value sent twice, this one shows it.
"""

import http.server
import json
import threading
import urllib.parse
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

RUN = {"run_id": "r1", "run_uuid": "r1", "experiment_id": "0", "status": "RUNNING", "lifecycle_stage": "active", "start_time": 1}


class StandIn(http.server.ThreadingHTTPServer):
    """`mode` is how it behaves: answer, 503, hang (takes a request, says nothing) or lose (does as asked, then says nothing)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.mode = "answer"
        self.requests: list[str] = []
        self.runs: list[dict[str, Any]] = []
        self.metrics: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.over = threading.Event()
        self.lock = threading.Lock()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def steps(self, key: str) -> list[int]:
        """The steps of every value that was taken, in the order in which they came."""
        with self.lock:
            return [int(metric["step"]) for metric in self.metrics[key]]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that were given up on are no news."""

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        match path.removeprefix("/api/2.0/mlflow/"):
            case "experiments/search":
                return {"experiments": [{"experiment_id": "0", "name": "Default", "lifecycle_stage": "active"}]}
            case "experiments/get-by-name":
                return {"experiment": {"experiment_id": "0", "name": "Default", "lifecycle_stage": "active"}}
            case "runs/search":
                return {"runs": self.runs}
            case "runs/create":
                self.runs.append({"info": dict(RUN), "data": {"tags": body["tags"]}})
                return {"run": self.runs[-1]}
            case "runs/update":
                self.runs[0]["info"]["status"] = body["status"]
                return {"run_info": self.runs[0]["info"]}
            case "runs/set-tag":
                return {}
            case "metrics/get-history":
                return {"metrics": self.metrics[body["metric_key"]]}
            case "runs/get":
                return {"run": self.runs[0]}
            case "runs/log-batch":
                for metric in body["metrics"]:
                    self.metrics[metric["key"]].append(metric)
                return {}
        raise AssertionError(path)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: StandIn

    def _any(self) -> None:
        server = self.server
        path, _, query = self.path.partition("?")
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(raw) if raw else dict(urllib.parse.parse_qsl(query))
        server.requests.append(path)
        mode = server.mode
        if mode == "hang":
            server.over.wait()
            return
        if mode == "503":
            self._send(503, {"error_code": "TEMPORARILY_UNAVAILABLE", "message": "out for lunch"})
            return
        with server.lock:
            answer = server.answer(path, body)
        if mode == "lose":
            self.close_connection = True
            return
        self._send(200, answer)

    do_GET = do_POST = do_PATCH = _any  # noqa: N815

    def _send(self, code: int, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def stand_in() -> Iterator[StandIn]:
    """Run one until the block ends."""
    with StandIn() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
