"""What others may do while a training runs: a base class of hooks."""

from typing import TYPE_CHECKING

from .curve import Point

if TYPE_CHECKING:
    from .trainer import Trainer


class Callback:
    """Hooks that do nothing unless they are overridden.

    The trainer calls each of its callbacks in their order. What a hook raises ends the training. Of several processes the first one
    alone calls the `on_...` hooks, and the others wait for it and, where the average is in shards, give theirs when a hook asks the
    trainer for it; `stop_requested` is asked in all, and may not.
    """

    def on_step(self, trainer: "Trainer") -> None:
        """After every step, before it is logged and saved. The time that this takes is not counted into images per second."""

    def on_point(self, trainer: "Trainer", point: Point, images_per_second: float) -> None:
        """Every `log_every` steps and after the last one, with the curve's new row."""

    def on_message(self, message: str) -> None:
        """A line for whoever follows the training."""

    def stop_requested(self) -> int:
        """Asked after every step: the number of the signal that wants training to stop, 0 = go on."""
        return 0
