"""moto's S3 server in a process of its own, which counts the bytes of objects and answers that go through it."""

import multiprocessing
import os
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

BUCKET = "dier"


@dataclass(frozen=True)
class Server:
    """A server with the bucket BUCKET, empty at first."""

    url: str
    _pipe: Connection

    def environment(self) -> dict[str, str]:
        """What a client of it needs, whichever library it is."""
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        return keys | {"AWS_ENDPOINT_URL": self.url, "AWS_EC2_METADATA_DISABLED": "true"}

    def counts(self) -> tuple[int, int]:
        """Bytes received and sent so far, without headers."""
        self._pipe.send(True)
        received, sent = self._pipe.recv()
        return received, sent


@contextmanager
def s3_server() -> Iterator[Server]:
    """Start one on a free port of this machine; objects lie in its memory and temporary files, and go with it."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(there,), daemon=True)
    process.start()
    try:
        server = Server(here.recv(), here)
        urllib.request.urlopen(urllib.request.Request(f"{server.url}/{BUCKET}", method="PUT")).close()  # noqa: S310
        yield server
    finally:
        process.terminate()
        process.join()


class Counting:
    """A WSGI application around another."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application
        self.received = self.sent = 0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        """Pass a request on, and its answer back."""
        # a body that is sent in chunks tells its length in a header of S3's own
        self.received += int(environ.get("HTTP_X_AMZ_DECODED_CONTENT_LENGTH") or environ.get("CONTENT_LENGTH") or 0)
        for part in self._application(environ, start_response):
            self.sent += len(part)
            yield part


def _serve(pipe: Connection) -> None:
    import logging
    import threading

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    os.environ.update({"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"})
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request
    application = Counting(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=MotoRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pipe.send(f"http://127.0.0.1:{server.server_port}")
    while pipe.recv():
        pipe.send((application.received, application.sent))
