"""The compiled pipeline really run in containers, and held to what `dvc repro` made of the same settings.

make run           artifacts/          ─┐
                                        ├─ equal fingerprints up to and including probe
dier run-local     .../artifacts/      ─┘
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from components.common import artifact
from components.common.errors import ArtifactError
from pipeline.local.artifacts import MADE_BY
from tests.containers.conftest import ROOT

pytestmark = pytest.mark.engine

COMPARED = ("dataset", "verdict", "model", "embeddings", "probe")
DIER = Path(sys.executable).parent / "dier"


def run_local(root: Path, image: str, *more: str, code: int = 0) -> str:
    """The command as a person runs it, on as many threads as `dvc repro` had."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DIER_"))}
    words = [str(DIER), "run-local", "--image", image, "--root", str(root), *more]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


def fingerprints(folder: Path) -> dict[str, str]:
    return {name: artifact.read(folder / name, name).fingerprint for name in COMPARED}


def ran(root: Path) -> set[str]:
    """The steps that the latest run really ran."""
    return {place.name for place in max((root / "runs").glob("dier-*")).iterdir()}


@pytest.fixture(scope="module")
def reference() -> dict[str, str]:
    """What `dvc repro` made of the committed settings in this checkout."""
    try:
        return fingerprints(ROOT / "artifacts")
    except ArtifactError as error:
        pytest.skip(f"nothing to compare with, make run first: {error}")


@pytest.fixture(scope="module")
def whole(image: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The whole pipeline with its committed defaults; where it ran, and its seconds."""
    root = tmp_path_factory.mktemp("kubeflow") / "root"
    start = time.monotonic()
    run_local(root, image)
    return root, time.monotonic() - start


def test_containers_make_the_artifacts_of_dvc_repro(whole: tuple[Path, float], reference: dict[str, str]) -> None:
    root, seconds = whole
    assert fingerprints(root / "artifacts") == reference
    timings = [json.loads(line) for line in (root / "work" / "timings.jsonl").read_text().splitlines()]
    file = ROOT / ".work" / "timings.jsonl"
    there = {row["step"]: row["seconds"] for row in map(json.loads, file.read_text().splitlines())} if file.is_file() else {}
    print(f"\ncontainers: {seconds:.0f} s in all; step by step, seconds in a container and under dvc repro:")
    for row in timings:
        print(f"  {row['step']:10}{row['seconds']:8.1f}{there.get(row['step'], float('nan')):8.1f}")


def test_every_step_left_a_whole_artifact_and_both_gates_were_passed(whole: tuple[Path, float]) -> None:
    root, _ = whole
    for name in MADE_BY:
        assert artifact.read(root / "artifacts" / name, name).kind == name
    said = re.sub(r"\x1b\[\d+m", "", "".join(file.read_text() for file in (root / "logs").glob("*.log")))
    for gate in ("data-gate", "model-gate"):
        assert f"Task '{gate}' finished with status SUCCESS" in said
    assert list((root / "logs").glob("*.log"))
    assert artifact.read(root / "artifacts" / "registration", "registration").json("registration.json")["gate"]["passed"]


def test_a_changed_probe_setting_leaves_train_cached(whole: tuple[Path, float], image: str) -> None:
    root, _ = whole
    before = fingerprints(root / "artifacts")
    run_local(root, image, "--param", "probe.c_grid=[0.1]", "--param", "register.min_accuracy=0.5")
    assert ran(root) == {"probe", "report", "register"}  # and the gate of the model, which leaves nothing
    after = fingerprints(root / "artifacts")
    assert {name for name in COMPARED if before[name] != after[name]} == {"probe"}


def test_a_failing_step_fails_the_run_and_nothing_follows(image: str, tmp_path: Path) -> None:
    said = run_local(tmp_path / "root", image, "--param", "data.limit=1", code=3)
    assert "dier: error: the run failed" in said
    assert "train" not in ran(tmp_path / "root")


def test_a_refused_dataset_ends_the_run_at_its_gate_and_its_verdict_is_kept(image: str, tmp_path: Path) -> None:
    strict = ("near_duplicate_distance=0.9", "warn_near_duplicate_share=0", "max_near_duplicate_share=0")
    said = run_local(tmp_path / "root", image, *[word for one in strict for word in ("--param", f"validate.{one}")], code=3)
    assert "dier: error: validation failed: near_duplicates" in said
    assert "train" not in ran(tmp_path / "root")
    verdict = artifact.read(tmp_path / "root" / "artifacts" / "verdict", "verdict")
    assert not verdict.json("verdict.json")["passed"]
    assert (verdict.path / "docs" / "index.html").is_file()


def test_success_without_an_artifact_is_a_failure(engine: Any, image: str, tmp_path: Path) -> None:
    """Some engines tell Kubeflow's runner that a failed container succeeded. Here one does nothing and says so: no step is done."""
    (tmp_path / "Containerfile").write_text(
        f'FROM {image}\nUSER 0\nRUN ["ln", "-sf", "/bin/true", "/opt/dier/bin/dier"]\nUSER 10001\n'
    )
    liar = "localhost/dier-liar:test"
    engine.images.build(path=str(tmp_path), dockerfile="Containerfile", tag=liar, network_mode="none")
    try:
        said = run_local(tmp_path / "root", liar, code=1)
        assert "no whole artifact of: dataset" in said
    finally:
        engine.images.remove(liar, force=True)


def test_a_stopped_run_takes_its_containers_along(engine: Any, image: str, tmp_path: Path) -> None:
    words = [str(DIER), "run-local", "--image", image, "--root", str(tmp_path / "root")]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as command:
        ours = {"label": f"dier.run-local={command.pid}"}
        for _ in range(600):
            if engine.containers.list(filters=ours):
                break
            time.sleep(0.1)
        assert engine.containers.list(filters=ours)
        command.terminate()
        assert command.wait(60) == 143
    assert not engine.containers.list(filters=ours)


def test_what_is_missing_is_said_before_anything_runs(engine: Any, tmp_path: Path) -> None:
    said = run_local(tmp_path / "root", "localhost/nothing:here", code=1)
    assert "the engine has no image localhost/nothing:here" in said
    assert not (tmp_path / "root").exists()
