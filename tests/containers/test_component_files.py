"""Somebody else's pipeline around three component files (examples/novelty), really run in containers by Kubeflow's local runner.

a model that exists ─────────────────────┐
prepare ──▶ validate ──▶ data-gate ┄┄┄┄┄┄├──▶ embed ──▶ novelty ──▶ unusual.csv
   └─────────────────────────────────────┘
"""

import csv
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import compiler, components, local

from components.common import artifact
from pipeline.local import engine as containers
from tests.containers.conftest import ROOT
from tests.containers.test_run_local import DIER

pytestmark = pytest.mark.engine

SMALL = ["data.limit=200", "model.depth=1", "train.steps=20", "train.warmup_steps=5", "train.log_every=10", "train.min_gap=0"]
SMALL += ["data.canvas=null", "data.copies=1", "model.patch_size=2"]  # the plain digits, which the others' pipeline prepares


def trained(folder: Path) -> Path:
    """A model artifact, made outside of any pipeline."""
    params = ["--params", "params.yaml", *(word for setting in SMALL for word in ("--set", setting))]
    dataset, verdict = ["--dataset", str(folder / "dataset")], ["--verdict", str(folder / "verdict")]
    for words in (
        ["prepare", *params, "--out", str(folder / "dataset")],
        ["validate", *params, *dataset, "--out", str(folder / "verdict")],
        ["train", *params, *dataset, *verdict, "--work", str(folder / "work"), "--out", str(folder / "model")],
    ):
        subprocess.run(
            [str(DIER), *words], cwd=ROOT, check=True, env={**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/m.db"}
        )
    for path in (folder, *folder.rglob("*")):  # as a bucket would be: readable for whoever the containers run as
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder / "model"


def with_image(file: Path, image: str) -> str:
    spec: dict[str, Any] = next(yaml.safe_load_all(file.read_text()))
    for executor in spec["deploymentSpec"]["executors"].values():
        if "container" in executor:
            executor["container"]["image"] = image
    return yaml.safe_dump(spec)


def test_a_pipeline_of_others_runs_three_component_files_and_its_own(image: str, tmp_path: Path) -> None:
    from examples.novelty import pipeline as novelty

    for name in ("runs", "work"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)
    model = trained(tmp_path / "runs" / "made-before")  # below the folder that the runner mounts into every container
    compiler.Compiler().compile(novelty.pipeline, str(tmp_path / "novelty.yaml"))
    before = os.umask(0)
    try:
        local.init(
            runner=containers.runner(tmp_path, "a-run", [], "none"),
            pipeline_root=str(tmp_path / "runs"),
            workspace_root=str(tmp_path / "work"),
            raise_on_error=True,
        )
        loaded = components.load_component_from_text(with_image(tmp_path / "novelty.yaml", image))
        loaded(model_uri=str(model), data={"source": "digits", "name": "digits", "limit": 200}, show=5)
    finally:
        os.umask(before)
    (unusual,) = (tmp_path / "runs").glob("unusual-images-*/novelty/unusual")
    with unusual.open(newline="") as opened:
        assert len(list(csv.DictReader(opened))) == 5
    (embeddings,) = (tmp_path / "runs").glob("unusual-images-*/embed/embeddings")
    assert artifact.read(embeddings, "embeddings").made_from["model"] == artifact.read(model, "model").fingerprint
