"""An HTTP server for people on this machine: an address taken before slow work begins, and a stop that leaves nothing behind."""

import ipaddress
import signal
import socket
import sys
from typing import TYPE_CHECKING

from components.common.errors import SettingsError

if TYPE_CHECKING:
    from fastapi import FastAPI


def bind(host: str, port: int) -> socket.socket:
    """A socket at that address; `port` 0 takes a free one. Raises SettingsError where it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind, protocol)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
    except OSError as error:
        why = error.strerror or error
        raise SettingsError(f"cannot serve at {host}:{port}: {why}; choose another with --host and --port") from error
    return opened


def is_loopback(host: str) -> bool:
    """Whether it is an address that only this machine reaches."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def url(host: str, taken: socket.socket) -> str:
    """What to ask for to reach `taken`, without a slash at its end."""
    return f"http://{_in_url(host)}:{taken.getsockname()[1]}"


def guard(app: "FastAPI", host: str) -> None:
    """At a loopback `host` answer only who asks by it or a usual name of this machine's: another site's page asks by its own.

    (DNS rebinding.) At another host anyone may ask.
    """
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    if is_loopback(host):
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "[::1]", _in_url(host)])


def run(app: "FastAPI", taken: socket.socket, connections: int) -> None:
    """Answer at `taken` until a signal ends it; of more than `connections` at a time the rest is answered 503."""
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", access_log=False, limit_concurrency=connections)
    # uvicorn sends itself the signal again when it is done: by default that would leave temporary files behind
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    uvicorn.Server(config).run(sockets=[taken])


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
