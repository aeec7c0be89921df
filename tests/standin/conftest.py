"""An installation with pods that a test plays, whose clock moves only when somebody waits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.standin.backend import Backend
from tests.standin.clock import StoppedClock
from tests.standin.scripted import Script, ScriptedPods

Install = Callable[..., tuple[Backend, ScriptedPods]]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    def made(scripts: dict[str, Script] | None = None, **settings: Any) -> tuple[Backend, ScriptedPods]:
        pods = ScriptedPods(scripts)
        return Backend(tmp_path, pods, clock=StoppedClock(), **settings), pods

    return made
