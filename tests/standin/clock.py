"""Time as the stand-in's servers see it: the machine's, made faster, or one that only moves when somebody waits."""

import threading
import time


class Clock:
    """The machine's clock; a second of it is `scale` seconds of waiting."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale, self._start = scale, time.monotonic()

    def now(self) -> float:
        return (time.monotonic() - self._start) / self.scale

    def sleep(self, seconds: float) -> None:
        time.sleep(max(0.0, seconds) * self.scale)


class StoppedClock(Clock):
    """Moves only when somebody waits, and then at once: hours of retries in a moment."""

    def __init__(self) -> None:
        super().__init__()
        self._now, self._lock = 0.0, threading.Lock()

    def now(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self._now += max(0.0, seconds)
