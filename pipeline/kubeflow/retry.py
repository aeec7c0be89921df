"""Retrying requests to a server that is away for a while, with one set of times."""

import time
from collections.abc import Callable
from typing import TypeVar

from components.common.progress import say
from pipeline.errors import ClusterError

POLL_S = 10.0
MAX_RETRIES = 30
"""Requests in a row that may fail, 5 minutes or more: an API server that is being replaced is away for less."""
STILL_S = 300.0
"""A line at least this often, so that a long step or training is not taken for a hung command."""
TIMEOUT_S = (10.0, 60.0)
"""Seconds for a connection, and for each wait for an answer."""
T = TypeVar("T")


def retrying(ask: Callable[[], T], what: str, times: int | None = None) -> T:
    """What `ask` gives, tried again up to `times` (MAX_RETRIES) in a row while the server is away. `ask` must be idempotent."""
    times = MAX_RETRIES if times is None else times
    for attempt in range(1, times + 1):
        try:
            return ask()
        except ClusterError as error:
            if not error.passing:
                raise
            say(f"{what} ({attempt} of {times} times): {error}")
        time.sleep(POLL_S)
    return ask()
