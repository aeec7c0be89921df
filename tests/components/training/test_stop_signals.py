"""SIGINT and SIGTERM, sent for real to this very process."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from components.training.stop_signals import stop_signals
from model.errors import Stopped

ROOT = Path(__file__).parents[3]


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def train_until(sent: signal.Signals) -> None:
    """A stand-in for a training that is sent a signal."""
    with stop_signals() as stop:
        assert stop() == 0
        os.kill(os.getpid(), sent)
        assert stop() == sent
        raise Stopped("as the trainer does", stop())


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_wish_and_the_handlers_come_back(sent: signal.Signals) -> None:
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)  # a runner in the background may have it ignored
    try:
        before = handlers()
        with pytest.raises(Stopped) as caught:
            train_until(sent)
        assert str(caught.value) == "as the trainer does"
        assert caught.value.exit_code == 128 + sent
        assert not isinstance(caught.value, Exception)
        assert handlers() == before
    finally:
        signal.signal(signal.SIGINT, previous)


def test_a_signal_that_nobody_asked_for_is_not_lost() -> None:
    with pytest.raises(Stopped, match="after the last step") as caught, stop_signals():
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.exit_code == 143


def test_another_error_is_not_hidden_by_a_signal() -> None:
    def fail() -> None:
        with stop_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


def test_an_ignored_signal_stays_ignored() -> None:
    """As nohup and a shell's background jobs want it."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_signals() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop() == 0
    finally:
        signal.signal(signal.SIGINT, previous)


def test_outside_the_main_thread_nothing_is_touched() -> None:
    before, inside = handlers(), []

    def work() -> None:
        with stop_signals() as stop:
            inside.append((handlers(), stop()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [(before, 0)]


def test_the_second_signal_ends_the_process_at_once() -> None:
    code = (
        "import os, signal\nfrom components.training.stop_signals import stop_signals\n"
        "with stop_signals() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n    print(int(stop()), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n    print('still here')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (143, "15\n"), done.stderr
