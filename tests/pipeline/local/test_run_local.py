"""How a local run ends, through kfp's real runner but without an engine: a stand-in runs each container's command here."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import docker
import pytest
from kfp.local import docker_task_handler

from pipeline import cli
from pipeline.steps import STATE

ROOT = Path(__file__).parents[3]


class Engine:
    """A stand-in for a container engine and its client: it has every image, runs commands here, and loses every exit code but 0."""

    def __init__(self, root: Path) -> None:
        self.root, self.kills = root, False
        self.images = self.containers = self

    def get(self, name: str) -> str:
        return name

    def list(self, **_: Any) -> list[Any]:
        return []

    def info(self) -> dict[str, Any]:
        return {}

    def ping(self) -> None: ...
    def close(self) -> None: ...

    def run(self, client: Any, image: str, command: Sequence[str], volumes: Any, environment: dict[str, str], **_: Any) -> int:
        if self.kills:
            return 1
        work = str(self.root / "work")
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value.replace(STATE, work))
            assert command[0] == "dier"
            return min(1, cli.main([word.replace(STATE, work) for word in command[1:]]))


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    made = Engine(tmp_path / "root")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(docker, "from_env", lambda: made)
    monkeypatch.setattr(docker_task_handler, "run_docker_container", made.run)
    return made


def test_it_ends_as_the_step_that_failed(engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (images := tmp_path / "images").mkdir()
    line = ["run-local", "--root", str(engine.root), "--param", "data.source=folder", "--param", f"data.path={images}"]
    assert cli.main(line) == 3  # no images there
    err = capsys.readouterr().err
    assert err.splitlines()[-1].startswith("dier: error: the run failed: ")
    assert "no whole artifact of: dataset" in err
    engine.kills = True  # before the step can say anything
    assert cli.main(line) == 1  # not the earlier run's code
    assert not list(engine.root.glob(".*"))  # no workspace is left
    assert os.listdir(engine.root / "work") == []
