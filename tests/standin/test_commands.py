"""`dier`'s own commands against the API stand-in, whose runs the stand-in of the pipelines really runs.

dier upload ─▶ submit --wait ─▶ runs, logs ─▶ retry ─▶ terminate ─▶ schedule
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import cli
from tests.pipeline.kubeflow.kfp_standin import StandIn, serve
from tests.standin.backend import Backend
from tests.standin.dier import ready, text
from tests.standin.pod import Ended
from tests.standin.scripted import ScriptedPods, make_outputs, wait_for_stop

NO = "dier: error: the images of val stand in train\n"


@pytest.fixture
def pods() -> ScriptedPods:
    return ScriptedPods()


@pytest.fixture
def backend(tmp_path: Path, pods: ScriptedPods) -> Backend:
    return ready(Backend(tmp_path / "kubeflow", pods))


@pytest.fixture
def server(backend: Backend) -> Iterator[StandIn]:
    with serve(backend=backend) as made:
        yield made


@pytest.fixture
def dier(server: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    from pipeline.kubeflow import retry

    monkeypatch.setattr(retry, "POLL_S", 0.05)
    file = tmp_path / "dier.yaml"
    file.write_text(text())

    def run(command: str, *words: str) -> tuple[int, str]:
        more = ["--pipeline", str(file), "--allow-tag"] if command in ("upload", "submit", "schedule") else []
        code = cli.main([command, *words, *more, "--host", server.url])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def run_id(backend: Backend) -> str:
    return list(backend._runs)[-1]


def test_uploaded_submitted_and_again_from_the_cache(dier: Any, backend: Backend, pods: ScriptedPods) -> None:
    assert dier("upload")[0] == 0
    code, said = dier("submit", "--wait")
    assert code == 0, said
    assert "the run succeeded" in said
    first = len(pods.pods)
    assert dier("submit", "--wait")[0] == 0
    assert {pod.task for pod in pods.pods[first:]} <= {"register", "model-gate"}
    assert dier("submit", "--wait", "--no-cache")[0] == 0
    assert len(pods.of("train")) == 2


def test_a_failed_step_is_named_with_its_own_last_line_logged_and_tried_again(
    dier: Any, backend: Backend, pods: ScriptedPods
) -> None:
    ends = iter([Ended(3, f"looking\n{NO}")])
    pods.scripts["embed"] = lambda pod: next(ends, None) or make_outputs(pod)
    code, said = dier("submit", "--wait")
    assert code != 0
    assert "embed" in said
    assert "the images of val stand in train" in said
    assert NO.strip() in dier("logs", run_id(backend))[1]
    assert re.search(r"FAILED.*embed", dier("runs")[1])
    assert dier("retry", run_id(backend))[0] == 0
    assert backend.wait(run_id(backend))["state"] == "SUCCEEDED"
    assert [len(pods.of(task)) for task in ("train", "embed")] == [1, 2]


def test_a_run_is_ended(dier: Any, backend: Backend, pods: ScriptedPods) -> None:
    pods.scripts["train"] = wait_for_stop
    assert dier("submit")[0] == 0
    while not pods.of("train"):
        backend._threads[run_id(backend)].join(0.02)
    code, said = dier("terminate", run_id(backend))
    assert code == 0, said
    assert [one["state"] for one in backend.wait(run_id(backend))["state_history"]][-2:] == ["CANCELING", "FAILED"]


def test_settings_reach_the_steps(dier: Any, pods: ScriptedPods) -> None:
    code, said = dier("submit", "--wait", "--param", "train.steps=700", "--param", "embed.timesteps=[0,500]")
    assert code == 0, said
    assert '"train_steps":700' in " ".join(pods.one("train").command)
    assert "[0,500]" in " ".join(pods.one("embed").command)


def test_a_schedule_runs_and_prepare_looks_at_the_data_each_time(
    dier: Any, backend: Backend, server: StandIn, pods: ScriptedPods
) -> None:
    code, said = dier("schedule", "nightly", "--cron", "0 2 * * *")
    assert code == 0, said
    for _ in range(2):
        assert backend.wait(server.fire("nightly"))["state"] == "SUCCEEDED"
    assert [len(pods.of(task)) for task in ("prepare", "register")] == [2, 2]
