import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from components import report
from components.common import artifact
from components.common.errors import ArtifactError
from components.common.settings import Settings
from components.reporting import formatting
from data.format import MULTI_LABEL
from tests.components.report_inputs import Paths, make

STEP_SECTIONS = ("data", "validate", "model", "train", "embed", "probe")
SECTIONS = ("answer", "accuracy", "map", "neighbours", "mistakes", "denoising", "training", "data", "settings", "provenance")


def render(paths: Paths, out: Path, settings: Settings | None = None) -> str:
    chosen = settings or Settings()
    report.run(**{f"{name}_settings": chosen.section(name) for name in STEP_SECTIONS}, **paths, out=out)  # type: ignore[arg-type]
    return (out / "report.html").read_text("utf-8")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    return make(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def html(digits: Paths) -> str:
    return render(digits, digits["dataset"].with_name("report"))


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
    assert {file.name for file in made.path.iterdir()} == {"manifest.json", "report.html", "settings.json"}
    assert set(made.json("settings.json")) == {"data", "validate", "model", "train", "embed", "probe"}


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
    assert len(charts) == 5
    assert all(len(alt) > 60 for alt in charts)
    assert html.count("<figcaption>") == 5


def test_the_answer_comes_first(digits: Paths, html: str) -> None:
    metrics = artifact.read(digits["probe"], "probe").json("metrics.json")
    header = Page(html[html.index("<header") : html.index("</header>") + 9]).text
    assert " ".join(formatting.percent(metrics["test"]["accuracy"]["value"]).split()) in header
    assert f"at t = {metrics['t']}" in header
    assert metrics["peak"]["sentence"] in header
    assert "PCA of the pixels: ahead of DiER" in header
    assert "raw pixels: no clear difference" in header
    assert "untrained encoder: beaten" in header


def test_text_from_data_is_text_and_not_markup(html: str, tmp_path: Path) -> None:
    assert "&lt;on test&gt;" in html
    names = ["<script>alert(1)</script>", "$\\frac{", *(f"a class with a long name {i}" for i in range(8))]
    odd = render(make(tmp_path, class_names=names), tmp_path / "report")
    assert "<script>" not in odd
    assert "&lt;script&gt;" in odd


def test_two_processes_write_the_same_bytes(digits: Paths, html: str, tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("data: {source: digits}\n")
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
        ("ordinal-regression", 1, "Which classes are confused", "Label by label"),
        (MULTI_LABEL, 1, "Label by label", "Which classes are confused"),
        (MULTI_LABEL, 3, "Label by label", "Which classes are confused"),
    ],
)
def test_every_kind_of_task_and_image_renders(task: str, channels: int, there: str, absent: str, tmp_path: Path) -> None:
    page = Page(render(make(tmp_path, task, channels), tmp_path / "report"))
    assert there in page.text
    assert absent not in page.text
    assert set(SECTIONS) <= set(page.ids)
    assert ("colour" if channels == 3 else "grey") in page.text


def test_a_label_that_no_test_image_carries_has_no_auc(tmp_path: Path) -> None:
    paths = make(tmp_path, MULTI_LABEL)
    text = Page(render(paths, tmp_path / "report")).text
    assert re.search(r"never 0 100\.0 % \u2013", text)
    assert re.search(r"even \d+ \d+\.\d % 0\.\d{3}", text)


def test_splits_that_were_not_embedded_are_named_in_a_sentence(tmp_path: Path) -> None:
    text = Page(render(make(tmp_path, embedded=("train", "test")), tmp_path / "report")).text
    assert "There is no map" in text
    assert "There are no neighbours to show" in text


def test_one_timestep_gives_one_map(tmp_path: Path) -> None:
    page = Page(render(make(tmp_path, timesteps=(300,)), tmp_path / "report"))
    (alt,) = [image["alt"] for image in page.images if image["alt"].startswith("Maps of")]
    assert "at t = 300:" in alt


def test_artifacts_of_another_run_are_refused(digits: Paths, tmp_path: Path) -> None:
    other = make(tmp_path / "other", train_steps=2)
    with pytest.raises(ArtifactError, match=r"embeddings artifact .* was not made from .*; give artifacts of one run"):
        render({**digits, "model": other["model"]}, tmp_path / "report")
    with pytest.raises(ArtifactError, match="probe artifact"):
        render({**other, "probe": digits["probe"]}, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_a_damaged_artifact_is_refused(digits: Paths, tmp_path: Path) -> None:
    broken = tmp_path / "probe"
    shutil.copytree(digits["probe"], broken)
    (broken / "curve.csv").write_text("t\n")
    with pytest.raises(ArtifactError, match="damaged"):
        render({**digits, "probe": broken}, tmp_path / "report")


def test_settings_that_differ_from_their_default_stand_out_and_paths_are_not_told(digits: Paths, tmp_path: Path) -> None:
    data = {"source": "npz", "path": "/home/someone/private/set.npz"}
    settings = Settings.model_validate({"data": data, "train": {"steps": 777}})
    html = render(digits, tmp_path / "report", settings)
    assert "someone" not in html
    assert "set.npz" in html
    changed = re.findall(r'<tr class="changed"><th scope="row"><code>([^<]+)', html)
    assert changed == ["data.source", "data.path", "train.steps"]


def test_many_classes_and_a_collapsed_encoder_are_no_reason_to_fail(tmp_path: Path) -> None:
    paths = make(tmp_path, class_names=[f"class {i}" for i in range(45)], timesteps=(0, 300, 999), collapsed=True)
    text = Page(render(paths, tmp_path / "report")).text
    assert "the first 24 of 45 classes" in text


def test_it_stays_small(html: str) -> None:
    assert len(html) < 3_000_000
