"""validate on the real digits: as they are, and with one thing after another done to them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from components import validate
from components.common import artifact
from components.common.errors import SettingsError
from components.common.settings import ValidateSettings, parse
from components.validation.expectations import INDEXED_NOTE
from data.errors import DataError
from data.format import MULTI_LABEL, SPLITS, DatasetInfo, write_info
from data.quality import candidates
from pipeline.run_step import one_line
from tests.data.files import digits

SIZES = {"train": slice(0, 1000), "val": slice(1000, 1300), "test": slice(1300, 1797)}


def arrays():
    images, labels = digits()
    return (
        {split: images[rows][..., None].copy() for split, rows in SIZES.items()},
        {split: labels[rows].astype(np.int64) for split, rows in SIZES.items()},
    )


def write(path, images, labels, task="multi-class", names=tuple("0123456789")):
    with artifact.create(path, "dataset", {}) as folder:
        for split in SPLITS:
            (folder / split).mkdir()
            np.save(folder / split / "images.npy", images[split])
            np.save(folder / split / "labels.npy", labels[split])
        counts = {split: len(images[split]) for split in SPLITS}
        shape = list(images["train"].shape[1:])
        write_info(folder, DatasetInfo("<digits>", "npz", "CC BY 4.0", task, list(names), shape, counts, []))
    return path


def spoil(images, labels):
    """Do everything at once that should be noticed."""
    images["val"][:30] = 0
    images["val"][30:33] = 200
    images["train"][500:520] = images["train"][520:540]
    images["test"] = np.clip(images["test"] * 1.6, 0, 255).astype(np.uint8)
    images["test"][:40] = images["train"][:40]
    images["test"][40:60] = images["train"][40:60, :, ::-1]
    images["test"][60:80] = (images["train"][60:80] * 0.8).astype(np.uint8)
    images["test"][80:90] = np.roll(images["val"][80:90], 1, 2)
    images["test"][90:110] = 255
    images["test"][90:110, 0, 0] = 0
    labels["train"][labels["train"] == 3] = 4
    labels["val"][labels["val"] == 7] = 1
    labels["val"][5] = 12


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory):
    """A spoilt dataset, its verdict and the error: one run for many questions."""
    folder = tmp_path_factory.mktemp("spoilt")
    images, labels = arrays()
    spoil(images, labels)
    dataset = write(folder / "dataset", images, labels)
    with pytest.raises(DataError) as caught:
        validate.run(validate_settings=ValidateSettings(), dataset=dataset, out=folder / "verdict")
    return folder, str(caught.value)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    dataset = write(folder / "dataset", *arrays())
    validate.run(validate_settings=ValidateSettings(), dataset=dataset, out=folder / "verdict")
    return folder


def verdict_of(folder):
    return artifact.read(folder / "verdict", "verdict").json("verdict.json")


def by_name(verdict):
    return {entry["name"]: entry for entry in verdict["expectations"]}


def test_the_digits_pass(plain):
    verdict = verdict_of(plain)
    assert verdict["passed"] is True
    assert [e["name"] for e in verdict["expectations"] if not e["passed"] and e["severity"] == "error"] == []
    assert verdict["warnings"] == sum(not entry["passed"] for entry in verdict["expectations"])
    assert len(by_name(verdict)) == len(verdict["expectations"]) >= 20
    made_from = artifact.read(plain / "verdict", "verdict").made_from
    assert made_from == {"dataset": artifact.read(plain / "dataset", "dataset").fingerprint}


@pytest.mark.parametrize(
    ("name", "severity", "observed", "message"),
    [
        ("blank_images", "error", 0.1, "val breaks this in 30 of 300 images (0, 1, 2, 3, 4, ...)"),
        ("constant_images", "error", 0.01, "val breaks this in 3 of 300 images (30, 31, 32)"),
        ("leaks", "error", 0.080483, "test breaks this in 40 of 497 images"),
        ("labels_in_range", "error", 0.003333, "val breaks this in 1 of 300 images (5)"),
        ("classes_in_train", "error", 1, "train lacks 3"),
        ("classes_in_val_and_test", "warning", 1, "val lacks 7"),
        ("saturated_images", "warning", 0.040241, "test breaks this in 20 of 497 images (90, 91"),
        ("duplicates", "warning", 0.038229, "test breaks this in 19 of 497 images (91, 92"),
    ],
)
def test_what_was_spoilt_is_named(spoilt, name, severity, observed, message):
    entry = by_name(verdict_of(spoilt[0]))[name]
    assert (entry["passed"], entry["severity"]) == (False, severity)
    assert entry["observed"] == pytest.approx(observed, abs=1e-6)
    assert message in entry["message"]


@pytest.mark.parametrize("name", ["near_duplicates", "near_duplicates_rare", "class_balance", "brightness", "contrast"])
def test_drift_and_near_duplicates_break_their_limit(spoilt, name):
    entry = by_name(verdict_of(spoilt[0]))[name]
    assert not entry["passed"]
    assert entry["observed"] > entry["limit"]


def test_planted_near_duplicates_are_found(spoilt):
    verdict = verdict_of(spoilt[0])
    pairs = {pair["index"]: pair for pair in verdict["pairs"] if pair["split"] == "test"}
    for kind, planted, other, least in (
        ("copied", range(40), "train", 40),
        ("flipped", range(40, 60), "train", 20),
        ("darker", range(60, 80), "train", 20),
        ("shifted", range(80, 90), "val", 7),  # one column of eight is lost
    ):
        right = [i for i in planted if i in pairs and (pairs[i]["other_split"], pairs[i]["other_index"]) == (other, i)]
        assert len(right) >= least, kind
    distances = [pair["distance"] for pair in verdict["pairs"]]
    assert distances == sorted(distances)
    found = verdict["near_duplicates"]
    assert sum(found[split]["count"] for split in ("val", "test")) == len(verdict["pairs"])
    assert found["test"]["share"] == pytest.approx(found["test"]["count"] / 497, abs=1e-6)


def test_the_verdict_stands_although_it_failed(spoilt):
    folder, message = spoilt
    verdict = verdict_of(folder)
    assert verdict["passed"] is False
    assert "\n" not in message
    for entry in verdict["expectations"]:
        named = f"{entry['name']} is {entry['observed']}, allowed {entry['limit']}" in message
        assert named == (not entry["passed"] and entry["severity"] == "error")
    assert f"{folder}/verdict/docs/index.html" in message


def test_the_docs_open_without_a_network(spoilt):
    page = (spoilt[0] / "verdict" / "docs" / "index.html").read_text("utf-8")
    assert "http" not in page
    assert "<script" not in page
    assert "<link" not in page
    assert "&lt;digits&gt;" in page
    assert "<digits>" not in page
    assert page.count("data:image/png;base64,") == 24
    for entry in verdict_of(spoilt[0])["expectations"]:
        assert f">{entry['name']}<" in page
    assert (spoilt[0] / "verdict" / "pairs.png").read_bytes().startswith(b"\x89PNG")


def test_statistics_have_a_row_an_image(spoilt):
    table = pq.read_table(spoilt[0] / "verdict" / "statistics.parquet").to_pandas()
    assert table["split"].value_counts().to_dict() == {"train": 1000, "val": 300, "test": 497}
    val = table[table["split"] == "val"]
    assert (val["std"] == 0).sum() == 33
    assert val["label"].iloc[5] == 12


@pytest.mark.slow
def test_the_command_in_another_process_gives_the_same_bytes_and_exit_code_3(spoilt, tmp_path):
    folder, message = spoilt
    params = tmp_path / "params.yaml"
    params.write_text("validate: {}\n")
    command = ["validate", "--params", str(params), "--dataset", str(folder / "dataset"), "--out", str(tmp_path / "verdict")]
    done = subprocess.run([sys.executable, "-m", "pipeline.cli", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    errors = [line for line in done.stderr.splitlines() if not line.startswith("validate: ")]
    assert errors == ["dier: error: " + one_line(message.replace(str(folder), str(tmp_path)))]
    assert done.stdout == ""
    assert files_of(tmp_path / "verdict") == files_of(folder / "verdict")


def files_of(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(Path(folder).rglob("*")) if file.is_file()}


def test_settings_decide_what_fails(spoilt, tmp_path):
    lenient = {f"max_{name}_share": 1.0 for name in ("blank", "constant", "leak", "near_duplicate")}
    settings = ValidateSettings(**lenient, warn_near_duplicate_share=1.0)
    with pytest.raises(DataError, match=r"validation failed: labels_in_range .*; classes_in_train ") as caught:
        validate.run(validate_settings=settings, dataset=spoilt[0] / "dataset", out=tmp_path / "verdict")
    assert "blank_images" not in str(caught.value)
    entries = by_name(verdict_of(tmp_path))
    assert entries["leaks"]["passed"]
    assert entries["leaks"]["limit"] == 1.0


def test_several_labels_an_image(tmp_path):
    images, labels = arrays()
    several = {split: (found[:, None] == np.arange(10)).astype(np.uint8) for split, found in labels.items()}
    for found in several.values():
        found[:, 0] |= found[:, 8]
    names = [f"sign {i}" for i in range(10)]
    dataset = write(tmp_path / "dataset", images, several, MULTI_LABEL, names)
    validate.run(validate_settings=ValidateSettings(), dataset=dataset, out=tmp_path / "verdict")
    assert verdict_of(tmp_path)["passed"]

    several["train"][:, 4] = 0
    several["test"] = several["test"].astype(np.int64)
    several["test"][3, 2] = 2
    dataset = write(tmp_path / "dataset", images, several, MULTI_LABEL, names)
    with pytest.raises(DataError, match="train lacks sign 4"):
        validate.run(validate_settings=ValidateSettings(), dataset=dataset, out=tmp_path / "verdict")
    entries = by_name(verdict_of(tmp_path))
    assert {name for name, entry in entries.items() if not entry["passed"] and entry["severity"] == "error"} == {
        "label_format",
        "labels_in_range",
        "classes_in_train",
    }
    assert entries["label_format"]["observed"] == "uint8 (N, 10), int64 (N, 10)"


def test_labels_that_are_no_numbers_are_refused(tmp_path):
    images, labels = arrays()
    broken = {split: found.astype(np.float64) for split, found in labels.items()}
    broken["val"][2] = np.nan
    dataset = write(tmp_path / "dataset", images, broken)
    with pytest.raises(DataError, match="label_format is float64"):
        validate.run(validate_settings=ValidateSettings(), dataset=dataset, out=tmp_path / "verdict")
    assert by_name(verdict_of(tmp_path))["labels_in_range"]["message"].endswith("val breaks this in 1 of 300 images (2)")


def test_a_damaged_dataset_leaves_nothing_behind(plain, tmp_path):
    dataset = write(tmp_path / "dataset", *arrays())
    labels = dataset / "val" / "labels.npy"
    labels.write_bytes(labels.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"val/labels\.npy does not match"):
        validate.run(validate_settings=ValidateSettings(), dataset=dataset, out=tmp_path / "verdict")
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


def test_a_warning_that_could_never_come_is_refused():
    with pytest.raises(SettingsError, match=r"warn_near_duplicate_share 0.5 is above"):
        parse({"validate": {"warn_near_duplicate_share": 0.5}}, "params.yaml")


def test_numbers_in_the_verdict_are_plain_json(plain):
    text = (plain / "verdict" / "verdict.json").read_text()
    assert json.loads(text)["expectations"][1] == {
        "name": "one_row_an_image",
        "severity": "error",
        "passed": True,
        "observed": 1797,
        "limit": 1797,
        "message": "Every image that dataset.json counts has statistics",
    }


def test_an_approximate_search_is_said_so(plain, tmp_path, monkeypatch):
    monkeypatch.setattr(candidates, "INDEXED", 500)
    validate.run(validate_settings=ValidateSettings(), dataset=plain / "dataset", out=tmp_path / "verdict")
    indexed, asked = verdict_of(tmp_path), verdict_of(plain)
    assert indexed.pop("notes") == [INDEXED_NOTE]
    assert indexed == asked
    page = (tmp_path / "verdict" / "docs" / "index.html").read_text("utf-8")
    assert INDEXED_NOTE in page
    assert INDEXED_NOTE not in (plain / "verdict" / "docs" / "index.html").read_text("utf-8")
