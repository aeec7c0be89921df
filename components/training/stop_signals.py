"""SIGINT and SIGTERM as a wish: the training under way ends its step and saves. The second one ends the process at once."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from model.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_signals() -> Iterator[Callable[[], int]]:
    """Gives a function that tells the number of the signal that came, 0 = none; the former handlers are back in place afterwards.

    A signal that came too late to be asked for raises Stopped at the end. Outside the main thread Python takes no handlers, and
    signals do what they did.
    """
    came = 0

    def wish(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if came:
            os._exit(128 + number)  # not by the signal's default action, which does nothing to the first process of a container
        came = number

    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    before = {number: signal.signal(number, wish) for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN}
    try:
        yield lambda: came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise Stopped("stopped after the last step, which is saved: the same command goes on from there", came)
