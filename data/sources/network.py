"""Downloads that give up."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

TIMEOUT_S = 20.0


@contextmanager
def impatient() -> Iterator[None]:
    """Sockets opened inside give up after `TIMEOUT_S` of silence; the downloaders of the field set no limit of their own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
