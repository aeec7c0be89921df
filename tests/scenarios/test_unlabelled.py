"""A folder of scans without classes, through the commands that a user types, to a candidate.

prepare -> validate -> train -> embed -> probe -> report -> register, then dier summary, models, promote
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from components.common import artifact
from tests.scenarios.conftest import Checkout

pytestmark = pytest.mark.slow


def scans(folder: Path) -> None:
    """600 digits as files that say nothing of what they show."""
    folder.mkdir()
    for number, image in enumerate(load_digits().images[:600]):
        Image.fromarray((image * 255 / 16).round().astype(np.uint8)).save(folder / f"scan{number:03d}.png")


@pytest.fixture(scope="module")
def done(checkout: Callable[[str], Checkout]) -> Checkout:
    """A checkout in which the whole chain has run on a flat folder of images."""
    made = checkout("unlabelled")
    scans(made.folder / "real-data" / "scans")
    made.set("data.source=folder", "data.path=real-data/scans", "data.limit=null", "train.steps=150", "register.min_accuracy=0.8")
    made.run("dvc", "repro")
    return made


def probed(done: Checkout) -> artifact.Artifact:
    return artifact.read(done.folder / "artifacts" / "probe", "probe")


def test_it_ends_with_a_candidate(done: Checkout) -> None:
    made = artifact.read(done.folder / "artifacts" / "registration", "registration").json("registration.json")
    assert (made["gate"]["verdict"], made["aliases"]) == ("passed", ["candidate"])
    assert not any("accuracy" in reason for reason in made["gate"]["reasons"])


def test_t_is_chosen_without_labels_and_no_accuracy_is_told(done: Checkout) -> None:
    metrics = probed(done).json("metrics.json")
    assert metrics["chosen_by"] == "label_free"
    assert metrics["t"] in (0, 300, 999)
    assert metrics["test"]["kept"]["low"] > 5 * metrics["chance"]
    assert set(metrics["baselines"]) == {"pixels", "untrained"}
    assert "accuracy" not in json.dumps(metrics["test"])
    assert {file.name for file in probed(done).path.iterdir()} == {
        "manifest.json",
        "metrics.json",
        "curve.csv",
        "neighbours.parquet",
        "reference.safetensors",
    }


def test_the_report_has_no_empty_figure_and_speaks_of_no_class(done: Checkout) -> None:
    html = (done.folder / "artifacts" / "report" / "report.html").read_text("utf-8")
    charts = re.findall(r'<img class="chart" src="([^"]*)"', html)
    assert len(charts) == 4
    assert all(len(chart) > 5000 for chart in charts)
    text = re.sub(r"<[^>]*>", " ", html[: html.index('id="settings"')])
    assert not re.findall(r"confused|\u2717|true class|None|\bnan\b|linear-probe|linear classifier", text)
    assert "What can be known without labels" in html


def test_summary_models_and_promote_cope(done: Checkout) -> None:
    said = done.run("dier", "summary")
    assert "scans: no labels; at t =" in said
    assert "<- chosen" in said
    assert re.search(r"candidate +kept 0\.\d+", done.run("dier", "models", "dier"))
    assert "champion moved to version 1 (gate passed)" in done.run("dier", "promote", "dier")


def test_labels_are_not_read(done: Checkout, tmp_path: Path) -> None:
    """The same images in a folder of one class, whatever it is called, give the same choice and the same figures."""
    other = tmp_path / "named"
    (other / "train" / "patients").mkdir(parents=True)
    for file in sorted((done.folder / "real-data" / "scans").iterdir()):
        (other / "train" / "patients" / file.name).write_bytes(file.read_bytes())
    given = ["--params", "params.yaml", "--set", f"data.path={other}", "--out", str(tmp_path / "dataset")]
    done.run("dier", "prepare", *given)
    for split in ("train", "val", "test"):
        one, two = (
            np.load(folder / split / "images.npy") for folder in (tmp_path / "dataset", done.folder / "artifacts" / "dataset")
        )
        assert np.array_equal(one, two)
