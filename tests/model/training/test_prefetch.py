import threading
from pathlib import Path

import numpy as np
import pytest

from model.training.prefetch import Ahead
from tests.model.conftest import make_trainer
from tests.model.training.test_trainer import same


def test_steps_come_in_order_and_each_is_made_once() -> None:
    made: list[int] = []

    def make(step: int) -> int:
        made.append(step)
        return 10 * step

    ahead = Ahead(make)
    assert [ahead.take(step) for step in range(5)] == [0, 10, 20, 30, 40]
    assert sorted(made) in (list(range(5)), list(range(6)))  # the sixth may have begun


def test_after_a_jump_the_asked_step_comes_and_not_the_one_that_was_begun() -> None:
    ahead = Ahead(lambda step: step)
    assert [ahead.take(step) for step in (0, 7, 8, 3)] == [0, 7, 8, 3]


def test_the_next_step_is_made_in_another_thread_while_this_one_is_used() -> None:
    begun = threading.Event()

    def make(step: int) -> int:
        if step == 1:
            begun.set()
        return threading.get_ident()

    ahead = Ahead(make)
    assert ahead.take(0) == threading.get_ident()
    assert begun.wait(10)
    assert ahead.take(1) != threading.get_ident()


def test_an_error_comes_out_where_the_step_is_taken() -> None:
    def make(step: int) -> int:
        if step == 1:
            raise OSError("the images went away")
        return step

    ahead = Ahead(make)
    assert ahead.take(0) == 0
    with pytest.raises(OSError, match="went away"):
        ahead.take(1)


def test_a_training_whose_batches_are_made_ahead_is_the_same(images: np.ndarray, tmp_path: Path) -> None:
    """As on CUDA, where they are."""
    plain, ahead = (make_trainer(images, tmp_path / name) for name in ("plain", "ahead"))
    ahead.take = Ahead(ahead.batch).take
    plain.run()
    ahead.run()
    assert same(plain, ahead)
