"""Patience with a server that is away for a while, for whoever waits on one."""

import time
from collections.abc import Callable
from typing import TypeVar

from components.common.progress import say
from pipeline.errors import ClusterError

POLL_S = 10.0
PATIENCE = 30
"""Requests in a row that may fail, 5 minutes or more: an API server that is being replaced is away for less."""
STILL_S = 300.0
"""A line at least this often, so that a long step or training is not taken for a hung command."""
TIMEOUT_S = (10.0, 60.0)
"""Seconds for a connection, and for each wait for an answer."""
T = TypeVar("T")


def patient(ask: Callable[[], T], what: str) -> T:
    """The answer, however often the API fails to give one within reason. What is asked must bear to be asked twice."""
    for time_ in range(1, PATIENCE + 1):
        try:
            return ask()
        except ClusterError as error:
            if not error.passing:
                raise
            say(f"{what} ({time_} of {PATIENCE} times): {error}")
        time.sleep(POLL_S)
    return ask()
