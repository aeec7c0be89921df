"""What a local run makes of the compiled pipeline, without an engine: the client here is a stand-in that has every image."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.kubeflow import compiled_file
from pipeline.local.engine import runner, with_image
from pipeline.task import threads

COMPILED = Path(__file__).parents[3] / "pipeline" / "compiled" / "dier.yaml"


class EveryImage:
    """A stand-in for the engine's client: whatever image is asked for is there."""

    class images:  # noqa: N801
        @staticmethod
        def get(name: str) -> str:
            return name


def without(value: Any, *keys: str) -> Any:
    if isinstance(value, dict):
        return {key: without(inner, *keys) for key, inner in value.items() if key not in keys}
    return [without(inner, *keys) for inner in value] if isinstance(value, list) else value


def test_only_the_image_changes_and_retries_are_left_out() -> None:
    compiled = compiled_file.read(COMPILED)
    spec = with_image(compiled, "localhost/mine:1", EveryImage())
    assert {executor["container"]["image"] for executor in spec["deploymentSpec"]["executors"].values()} == {"localhost/mine:1"}
    assert "retryPolicy" in str(compiled.spec)
    assert "retryPolicy" not in str(spec)
    (before,) = compiled.images
    as_before = json.loads(json.dumps(without(spec, "image")).replace("localhost/mine:1", before))  # a task is told its image, too
    assert as_before == without(compiled.spec, "image", "retryPolicy")


@pytest.mark.parametrize(("set_", "quota", "expected"), [(None, None, "6"), ("3", 2.0, "3"), (None, 2.0, "2")])
def test_containers_compute_on_as_many_threads_as_a_step_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_: str | None, quota: float | None, expected: str
) -> None:
    """The compiled pipeline names what its pods ask for on a cluster: by that the bytes would be others than those of dvc repro."""
    monkeypatch.setattr(threads, "quota", lambda: quota)
    monkeypatch.setattr(threads, "cores", lambda: 6)
    monkeypatch.delenv(threads.OPENMP, raising=False)
    if set_:
        monkeypatch.setenv(threads.OPENMP, set_)
    assert runner(tmp_path, "run-1", [], "none").container_run_args["environment"][threads.OPENMP] == expected
