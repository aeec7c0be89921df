import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components import report
from components.common import artifact
from components.common.errors import ArtifactError
from components.common.formatting import percent, with_interval
from components.common.settings import Settings
from components.embedding import sample, store
from components.probing.conclusions import UNUSED
from components.reporting import tables
from components.reporting.page import PLOTS
from data.format import MULTI_LABEL, open_dataset
from tests.components.report_inputs import Paths, make, without

pytestmark = pytest.mark.slow  # they share trainings that take longer than a second

STEP_SECTIONS = ("data", "validate", "model", "train", "embed", "probe")
SECTIONS = ("answer", "accuracy", "map", "neighbours", "mistakes", "denoising", "training", "data", "settings", "provenance")

CHANGED = {"data": {"source": "npz", "path": "/home/someone/private/set.npz"}, "train": {"steps": 777}}
"""Settings of the page that most tests look at."""


def render(paths: Paths, out: Path, settings: Settings | None = None) -> str:
    chosen = settings or Settings()
    report.run(**{f"{name}_settings": chosen.section(name) for name in STEP_SECTIONS}, **paths, out=out)  # type: ignore[arg-type]
    return (out / "report.html").read_text("utf-8")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    return make(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def html(digits: Paths) -> str:
    return render(digits, digits["dataset"].with_name("report"), Settings.model_validate(CHANGED))


class Page(HTMLParser):
    """Collects what a browser would look at: ids, attributes, images and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.images: list[dict[str, Any]] = []
        self.tags: set[str] = set()
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.add(tag)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "poster", "data")]
        if tag == "img":
            self.images.append(found)
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_artifact_names_all_five_that_it_was_made_from(digits: Paths, html: str) -> None:
    made = artifact.read(digits["dataset"].with_name("report"), "report")
    assert made.made_from == {kind: artifact.read(path, kind).fingerprint for kind, path in digits.items()}
    assert {file.name for file in made.path.iterdir()} == {
        "manifest.json",
        "report.html",
        "settings.json",
        "dataset.json",
        "sample.safetensors",
    }
    assert set(made.json("settings.json")) == {"data", "validate", "model", "train", "embed", "probe"}


def test_the_registry_gets_what_it_is_not_handed(digits: Paths, html: str, tmp_path: Path) -> None:
    folder = digits["dataset"].with_name("report")
    assert (folder / "dataset.json").read_bytes() == (digits["dataset"] / "dataset.json").read_bytes()
    taken, t = sample.read(folder / sample.SAMPLE), artifact.read(digits["probe"], "probe").json("metrics.json")["t"]
    dataset, embedded = open_dataset(digits["dataset"]), artifact.read(digits["embeddings"], "embeddings")
    assert (len(taken.index), taken.index[0], taken.index[-1], taken.facts["of"]) == (32, 0, 59, 60)
    np.testing.assert_array_equal(taken.images, dataset.split("test").images[taken.index])
    np.testing.assert_array_equal(taken.embedding, store.read(embedded, "test", t)[taken.index])
    lacking = without(digits, "test", tmp_path)
    assert sample.take(dataset, artifact.read(lacking["embeddings"], "embeddings"), [t]) is None
    (tmp_path / "cut").write_bytes((folder / sample.SAMPLE).read_bytes()[:-9])
    with pytest.raises(ArtifactError, match="cut is no sample of test images"):
        sample.read(tmp_path / "cut")


def test_the_page_fetches_nothing(html: str) -> None:
    page = Page(html)
    assert page.links
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert not re.search(r"url\(|@import", html)
    assert page.tags.isdisjoint({"script", "link", "iframe", "object", "embed", "form"})


def test_every_section_is_there_and_every_link_leads_to_one(html: str) -> None:
    page = Page(html)
    assert set(SECTIONS) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert page.open == []


def test_charts_say_in_words_what_they_show(html: str) -> None:
    charts = [image["alt"] for image in Page(html).images if image["class"] == "chart"]
    assert len(charts) == sum(map(len, PLOTS.values()))
    assert all(len(alt) > 60 for alt in charts)
    assert html.count("<figcaption>") == len(charts)


def test_the_answer_comes_first(digits: Paths, html: str) -> None:
    metrics = artifact.read(digits["probe"], "probe").json("metrics.json")
    header = Page(html[html.index("<header") : html.index("</header>") + 9]).text
    assert percent(metrics["test"]["accuracy"]["value"]) in header
    assert f"at t = {metrics['t']}" in header
    assert metrics["peak"]["sentence"] in header
    assert re.search(r"raw pixels: (beaten|ahead of DiER|no clear difference)", header)
    assert re.search(r"PCA of the pixels \(\d+ components, (not )?whitened\): ", header)
    assert header.count("the denoiser's block") == 1  # the better one
    assert "The encoder is not used" not in header


def test_a_baseline_is_judged_by_its_interval_in_the_metric_that_chose() -> None:
    def result(value: float) -> dict[str, Any]:
        figures = {"value": value, "low": value - 0.02, "high": value + 0.02}
        rows = {"accuracy": dict.fromkeys(figures, 0.0), "auc": figures}
        return {"t": None, "variant": "", "c": 0.1, "val": rows, "test": rows, "difference": rows}

    found = {"pixels": result(0.05), "pca": result(-0.03), "untrained": result(0.0)}
    rows = tables.baselines({"chosen_by": "auc", "baselines": found})
    assert [(row.name, row.sign, row.verdict) for row in rows] == [
        ("raw pixels", "better", "beaten"),
        ("the untrained encoder", "even", "no clear difference"),
        ("PCA of the pixels", "worse", "ahead of DiER"),
    ]
    assert rows[0].difference == "+0.0500 [+0.0300, +0.0700]"


def test_text_from_data_is_text_and_not_markup(digits: Paths, tmp_path: Path) -> None:
    names = ["<script>alert(1)</script>", "$\\frac{", *(f"a class with a long name {i}" for i in range(43))]
    paths = make(tmp_path, class_names=names, collapsed=True, train_steps=1)  # many classes, a collapsed encoder: no reason to fail
    odd = render(paths, tmp_path / "report")
    assert "<script>" not in odd
    assert "&lt;script&gt;" in odd
    assert "the first 24 of 45 classes" in odd
    assert "The encoder is not used." in odd[: odd.index("</header>")]
    assert artifact.read(paths["probe"], "probe").json("metrics.json")["conclusions"][0] == UNUSED


def test_two_processes_write_the_same_bytes(digits: Paths, html: str, tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(json.dumps(CHANGED))
    command = [sys.executable, "-m", "pipeline.cli", "report", "--params", str(params), "--out", str(tmp_path / "report")]
    for kind, path in digits.items():
        command += [f"--{kind}", str(path)]
    # Another number of threads, another home of matplotlib's settings: neither may show.
    rc = tmp_path / "matplotlibrc"
    rc.write_text("font.size: 20\naxes.facecolor: red\n")
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "MATPLOTLIBRC": str(rc), "PYTHONHASHSEED": "7"}
    subprocess.run(command, check=True, env=environment, cwd=Path(__file__).parents[2], capture_output=True)
    assert (tmp_path / "report" / "report.html").read_text("utf-8") == html


@pytest.mark.parametrize(
    ("task", "channels", "there", "absent"),
    [
        ("binary-class", 3, "Which classes are confused", "Label by label"),
        (MULTI_LABEL, 1, "Label by label", "Which classes are confused"),
    ],
)
def test_every_kind_of_task_and_image_renders(task: str, channels: int, there: str, absent: str, tmp_path: Path) -> None:
    page = Page(render(make(tmp_path, task, channels, train_steps=1, timesteps=(300,)), tmp_path / "report"))
    assert there in page.text
    assert absent not in page.text
    assert set(SECTIONS) <= set(page.ids)
    assert ("colour" if channels == 3 else "grey") in page.text
    (alt,) = [image["alt"] for image in page.images if image["alt"].startswith("Maps of")]
    assert "at t = 300:" in alt  # one timestep, one map
    if task == MULTI_LABEL:
        assert "chosen on validation images, by AUC" in page.text
        assert re.search(r"never 0 100\.00 % \u2013", page.text)  # a label that no test image carries has no AUC
        assert re.search(r"even \d+ \d+\.\d\d % 0\.\d{3}", page.text)


def test_images_without_labels_render(tmp_path: Path) -> None:
    paths = make(tmp_path, labelled=False, train_steps=1, timesteps=(300,))
    page = Page(render(paths, tmp_path / "report"))
    metrics = artifact.read(paths["probe"], "probe").json("metrics.json")
    header = page.text[: page.text.index("How to read this page")]
    assert "Unlabelled images: embeddings at t = 300" in header
    assert with_interval(metrics["test"]["kept"]) in header
    assert set(SECTIONS) - set(page.ids) == {"mistakes"}  # no classes to confuse
    assert "#mistakes" not in page.links
    charts = [image for image in page.images if image["class"] == "chart"]
    assert len(charts) == sum(map(len, PLOTS.values())) - 1
    assert all(len(image["src"]) > 5000 for image in charts)
    assert not re.search(r"\bnan\b|None|linear-probe|same label|true class", page.text)


def test_splits_that_were_not_embedded_are_named_in_a_sentence(digits: Paths, tmp_path: Path) -> None:
    text = Page(render(without(digits, "val", tmp_path), tmp_path / "report")).text
    assert "There is no map" in text
    assert "There are no neighbours to show" in text


def test_artifacts_of_another_run_are_refused(digits: Paths, tmp_path: Path) -> None:
    with artifact.create(tmp_path / "embeddings", "embeddings", dict.fromkeys(("dataset", "model"), "0" * 64)):
        pass
    with pytest.raises(ArtifactError, match=r"the embeddings .* was not made from the dataset .*: give artifacts of one run"):
        render({**digits, "embeddings": tmp_path / "embeddings"}, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_a_damaged_artifact_is_refused(digits: Paths, tmp_path: Path) -> None:
    broken = tmp_path / "probe"
    shutil.copytree(digits["probe"], broken)
    (broken / "curve.csv").write_text("t\n")
    with pytest.raises(ArtifactError, match="damaged"):
        render({**digits, "probe": broken}, tmp_path / "report")


def test_settings_that_differ_from_their_default_stand_out_and_paths_are_not_told(html: str) -> None:
    assert "someone" not in html
    assert "set.npz" in html
    changed = re.findall(r'<tr class="changed"><th scope="row"><code>([^<]+)', html)
    assert changed == ["data.source", "data.path", "train.steps"]


def test_it_stays_small(html: str) -> None:
    assert len(html) < 3_000_000
