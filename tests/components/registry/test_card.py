"""The model card: what it says of labelled, multi-label and unlabelled models, of licences, and that it invents nothing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from medmnist.info import INFO

from components import register
from components.common import artifact
from components.common.formatting import measure, with_interval
from components.registry import package, provenance
from components.registry.card import DESCRIPTION, Facts, card, description
from components.registry.class_figures import class_figures
from components.registry.documents import allowed
from components.registry.inputs import Inputs as Read
from components.tracking.client import connect, training_run
from components.tracking.cost import training_cost
from components.tracking.environment import ENVIRONMENT_TAG, environment
from components.tracking.metrics import Point, Points
from tests.components.registry_artifacts import CLASSES, CONFIG, Inputs, correct, make, settings

HEADINGS = [
    "Intended use",
    "Data and licence",
    "Figures",
    "Timestep",
    "Baselines",
    "Limits",
    "Cost of the training",
    "Load it",
]


def facts(inputs: Inputs, licence: str = "unknown", **changes: object) -> Facts:
    read = Read(**inputs.paths())
    known = Facts(
        name="glyphs",
        info=read.info,
        dataset=read.dataset,
        licence=licence,
        metrics=read.metrics,
        summary=read.summary,
        verdict=read.findings,
        settings=read.settings,
        curve=inputs.probe / "curve.csv",
        right=inputs.probe / package.PREDICTIONS,
    )
    return replace(known, **changes)  # type: ignore[arg-type]


def headings(text: str) -> list[str]:
    return [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]


@pytest.mark.slow
def test_the_card_of_a_real_run_says_what_its_artifacts_say(to_register: Inputs) -> None:
    known = facts(to_register, "CC BY 4.0")
    text = card(known)
    assert headings(text) == HEADINGS
    metrics = known.metrics
    for name in ("accuracy", "auc", "balanced_accuracy"):
        assert measure(metrics["test"][name], name) in text
    table = pq.read_table(known.right).to_pandas()
    for digit in range(10):
        of = table[table["label"] == digit]
        recall = 100 * (of["label"] == of["dier"]).mean()
        assert f"| {digit} | {len(of)} | {recall:.2f} % [" in text
    assert f"| {metrics['t']} |" in text
    for baseline in metrics["baselines"].values():
        assert with_interval(baseline["test"][metrics["chosen_by"]]) in text
    assert "exact copies in train" in text  # the validation's warning
    assert "train 240, val 60, test 60" in text
    assert "- val cut from train, seed 0" in text
    assert known.dataset in text
    assert "energy | unknown (not measured)" in text
    assert "time | unknown (no rates in MLflow for all of this training)" in text
    assert "on-commercial" not in text
    assert card(known) == text


def test_of_several_labels_sensitivity_and_specificity(tmp_path: Path) -> None:
    said = np.array([[1, 0], [1, 1], [0, 0], [0, 0]], np.uint8)
    true = np.array([[1, 0], [0, 1], [0, 1], [0, 0]], np.uint8)
    import pyarrow as pa

    pq.write_table(pa.table({"label": true.tolist(), "dier": said.tolist()}), tmp_path / "p.parquet")
    header, rows = class_figures(tmp_path / "p.parquet", ["x", "y"], 1)
    assert header == ["label", "images with it", "sensitivity", "specificity"]
    assert [row[:2] for row in rows] == [["x", "1"], ["y", "2"]]
    assert rows[0][2].startswith("100.00 % [")
    assert rows[0][3].startswith("66.67 % [")
    assert rows[1][2].startswith("50.00 % [0.00, 100.00]")
    pq.write_table(pa.table({"label": (true * 0).tolist(), "dier": said.tolist()}), tmp_path / "none.parquet")
    assert class_figures(tmp_path / "none.parquet", ["x", "y"], 1)[1][0][2] == "no test image"


def test_without_labels_it_speaks_of_no_accuracy(tmp_path: Path) -> None:
    text = card(facts(make(tmp_path, labelled=False, right=np.full(200, 0.4))))
    assert headings(text) == HEADINGS
    assert "neighbours kept | 40.00 % [38.00, 42.00]" in text
    assert "Whether it tells your classes apart is unknown" in text
    assert "probabilities" not in text
    assert "test accuracy" not in text


def test_what_nobody_said_is_unknown(tmp_path: Path) -> None:
    text = card(facts(make(tmp_path)))
    assert "licence | unknown" in text
    assert "so whether the model may be used or given away is unknown too" in text
    assert "source | unknown" in text
    assert "hardware | unknown" in text
    assert "None was probed" in text


@pytest.mark.parametrize(
    ("licence", "restricted"),
    [
        (INFO["dermamnist"]["license"], True),
        (INFO["chestmnist"]["license"], False),
        ("cc-by-nc-sa-4.0", True),
        ("cc_by_nc_4.0", True),
        ("CC-BY-NC4.0", True),
        ("CC BYNC", True),
        ("CC BY\u2011NC 4.0", True),
        ("non-commercial use only", True),
        ("non \u2013 commercial", True),
        ("NonCommercial", True),
        ("Not for commercial use", True),
        ("not for any commercial use", True),
        ("without commercial use", True),
        ("Commercial use is prohibited", True),
        ("commercial use not permitted", True),
        ("Commercial use isn\u2019t allowed", True),
        ("may not be used commercially", True),
        ("for research use only", True),
        ("CC BY 4.0", False),
        ("CC BY-ND 4.0", False),
        ("MIT", False),
        ("Apache-2.0", False),
        ("commercial use permitted", False),
        ("research and commercial use", False),
        ("no restrictions; commercial use permitted", False),
        ("provided by NCBI, public domain", False),
        ("unknown", False),
        ("Commercial, ask INC.", False),
    ],
)
def test_which_licences_rule_out_commercial_use(tmp_path: Path, licence: str, restricted: bool) -> None:
    assert provenance.non_commercial(licence) is restricted
    assert ("use" in [tag.removeprefix("dier.") for tag in provenance.licence_tags(licence)]) is restricted
    assert ("**Non-commercial use only**" in card(facts(make(tmp_path), licence))) is restricted


def test_it_fits_the_description_however_many_classes(tmp_path: Path) -> None:
    inputs = make(tmp_path)
    known = facts(inputs)
    assert description(known) == card(known)
    long = [f"class number {c} with a long name" for c in range(300)]
    many = facts(inputs, metrics={**known.metrics, "class_names": long})
    assert len(card(many)) > DESCRIPTION >= len(description(many))
    assert headings(description(many)) == HEADINGS
    assert "rows more in card.md among the version's files" in description(many)
    endless = replace(known, licence="all of it " * 1000)
    assert len(description(endless)) <= DESCRIPTION
    assert description(endless).endswith("(cut short: the whole card is card.md among the version's files)\n")


def test_names_from_the_data_are_no_markup(tmp_path: Path) -> None:
    inputs = make(tmp_path)
    known = facts(inputs)
    names = ["a|b", "<script>alert(1)</script>", "[x](javascript:1)"]
    text = card(facts(inputs, metrics={**known.metrics, "class_names": names, "dataset": "two\nlines"}))
    assert "| a\\|b | " in text
    assert "\\<script>" in text
    assert "[x]\\(javascript" in text
    assert "DiER embeddings of two lines" in text


def test_images_go_along_where_their_licence_is_known(to_register: Inputs) -> None:
    file = to_register.report / "sample.safetensors"

    def carried(choice: str, licence: str) -> bool:
        found = allowed(settings(sample=choice), file, licence)
        assert found is not None
        assert len(found.embedding) == 32
        return found.images is not None

    assert carried("auto", "CC BY 4.0")
    assert not carried("auto", "unknown")
    assert carried("images", "unknown")
    assert not carried("embeddings", "CC BY 4.0")
    assert allowed(settings(), file.with_name("none"), "CC BY 4.0") is None


@pytest.mark.slow
def test_mlflow_shows_the_card_and_the_version_carries_it(store: str, to_register: Inputs, tmp_path: Path) -> None:
    import mlflow

    info = json.loads((to_register.report / "dataset.json").read_text())
    report = tmp_path / "report"
    made = artifact.read(to_register.report, "report")
    with artifact.create(report, "report", made.made_from) as folder:
        for name in ("report.html", "settings.json", "sample.safetensors"):
            (folder / name).write_bytes((to_register.report / name).read_bytes())
        artifact.write_json(folder / "dataset.json", info | {"licence": INFO["dermamnist"]["license"]})
    inputs = replace(to_register, report=report)
    register.run(settings(min_accuracy=0), **inputs.paths(), out=tmp_path / "out")
    version = connect().get_model_version("glyphs", "1")
    assert (version.tags["dier.licence"], version.tags["dier.use"]) == ("CC BY-NC 4.0", "non-commercial")
    text = Path(mlflow.artifacts.download_artifacts(f"models:/glyphs/1/{package.FILES_FOLDER}/card.md")).read_text()
    assert "**Non-commercial use only**: the licence of the training data is CC BY-NC 4.0." in text
    assert "32 of 60: images and embeddings" in text
    assert headings(version.description) == HEADINGS
    assert version.description == text or len(text) > DESCRIPTION
    connect().update_model_version("glyphs", "1", description="ours")
    register.run(settings(min_accuracy=0.01), **inputs.paths(), out=tmp_path / "out")  # judged again
    assert connect().get_model_version("glyphs", "1").description == "ours"


def test_time_and_hardware_are_those_that_were_logged(store: str) -> None:
    client = connect()
    run = training_run(client, "t1", "tests")
    trained = {"batch_size": 64, "log_every": 50}
    assert training_cost(client, run, trained, 200) == {}
    points = Points(client, run.id)
    points.add([Point(50, {"train/images_per_second": 3200.0})])
    assert training_cost(client, run, trained, 200) == {}  # of a quarter of the steps nothing follows for the rest
    points.add([Point(200, {"train/images_per_second": 100.0})])
    assert training_cost(client, run, trained, 200) == {}  # nor of the last ones for those between
    points.add([Point(step, {"train/images_per_second": 100.0}) for step in (100, 150)])
    client.set_tag(run.id, ENVIRONMENT_TAG, json.dumps(environment() | {"gpu": "1 x G100, CUDA 13", "machine": "x86_64"}))
    found = training_cost(client, run, trained, 200)
    assert found["time"].startswith("1.6 min by")  # 50 * 64 / 3200 + 150 * 64 / 100 = 97 s
    assert found["hardware"] == "1 x G100, CUDA 13 (x86_64)"
    points.add([Point(step, {"train/joules": 1200.0}) for step in (50, 100, 150)])
    assert "energy" not in training_cost(client, run, trained, 200)
    points.add([Point(200, {"train/joules": 900.0})])
    assert training_cost(client, run, trained, 200)["energy"].startswith("4.5 kJ by the processors' counters")
    assert training_cost(client, run, {}, 200).keys() == {"hardware"}
    assert training_cost(client, run, trained, 201).keys() == {"hardware"}  # the last step has none


def test_classes_and_shape_are_said(tmp_path: Path) -> None:
    text = card(facts(make(tmp_path, right=correct(0.9))))
    assert f"one of {len(CLASSES)} classes" in text
    assert f"uint8 (N, {CONFIG.image_height}, {CONFIG.image_width}, {CONFIG.channels})" in text
