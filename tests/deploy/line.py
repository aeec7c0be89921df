"""The line between a client and MLflow's server, which a test cuts at a request of its choice: from there on nobody answers."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BEFORE, AFTER = "before", "after"
"""The request does not reach the server, or the server does what it asks and the answer is lost."""


class Line(ThreadingHTTPServer):
    """A proxy to 127.0.0.1:`port`. `writes` are the requests so far that change something, as "METHOD path"."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port = port
        self.uri = f"http://127.0.0.1:{self.server_port}"
        self.mend()

    def mend(self) -> None:
        """Pass everything on, and count from nought."""
        self.writes: list[str] = []
        self.down, self.when = False, BEFORE
        self.chosen: Callable[[str], bool] = lambda request: False
        self.meanwhile: Callable[[], None] | None = None

    def cut(self, chosen: Callable[[str], bool], when: str, meanwhile: Callable[[], None] | None = None) -> None:
        """Cut it at the first request "METHOD path" that is `chosen`; `meanwhile` is done while the server is at work on it."""
        self.mend()
        self.chosen, self.when, self.meanwhile = chosen, when, meanwhile

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever is cut off mid-request is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else the content of each answer waits 40 ms for the client to acknowledge its headers
    server: Line

    def _any(self) -> None:
        line, request, body = self.server, f"{self.command} {self.path.partition('?')[0]}", self._body()
        if self.command != "GET" and not request.endswith("search"):
            line.writes.append(request)
        struck = not line.down and line.chosen(request)
        line.down = line.down or (struck and line.when == BEFORE)
        if line.down:
            self.close_connection = True
            return
        upstream = http.client.HTTPConnection("127.0.0.1", line.port, timeout=60)
        kept = {name: value for name, value in self.headers.items() if name.lower() not in ("transfer-encoding", "content-length")}
        upstream.request(self.command, self.path, body, kept | {"Content-Length": str(len(body))})
        if struck and line.meanwhile is not None:
            line.meanwhile()
        try:
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            line.down = line.down or struck
            upstream.close()
        if line.down:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found = b""
        while length := int(self.rfile.readline(), 16):
            found += self.rfile.read(length)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def line_to(port: int) -> Iterator[Line]:
    """A line, until the block ends."""
    with Line(port) as line:
        threading.Thread(target=line.serve_forever, daemon=True).start()
        yield line
        line.shutdown()
