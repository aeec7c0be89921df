"""The next step's batch, made in a thread while the device works on this one's."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """`make(step)` one step ahead. What it makes must be a function of the step alone, so that when it runs does not matter."""

    def __init__(self, make: Callable[[int], T]) -> None:
        self._make = make
        self._thread = ThreadPoolExecutor(1, "batches")
        self._next: tuple[int, Future[T]] | None = None

    def take(self, step: int) -> T:
        """What `make` gives for `step`; the step after it is begun. Raises whatever `make` raised."""
        waiting, self._next = self._next, None
        made = waiting[1].result() if waiting and waiting[0] == step else self._make(step)
        self._next = (step + 1, self._thread.submit(self._make, step + 1))
        return made
