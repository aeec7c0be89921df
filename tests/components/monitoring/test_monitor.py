"""`dier monitor` with a real registered model and real digits: what it writes, and how it ends."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file
from sklearn.datasets import load_digits

from components.common import artifact
from components.inference.registered_model import load
from components.probing.reference import FILE, MEASURES
from components.registry import package
from data.quality.statistics import block_statistics
from pipeline import cli
from tests.components.registry_artifacts import CONFIG
from tests.conftest import Once

pytestmark = pytest.mark.slow
DIGITS = np.random.default_rng(0).permutation((load_digits().images * 15.9375).astype(np.uint8)[..., None])
"""(1797, 8, 8, 1): some are the reference, others come in."""
TRAINED, SAME = DIGITS[:1000], DIGITS[1000:]


@pytest.fixture(scope="module")
def model(once: Once, folders: Path) -> str:
    """The model `glyphs` with the embeddings of TRAINED; the network is untrained, as no test here asks how much it sees."""

    def make(out: Path) -> None:
        shutil.copytree(folders / "glyphs", out / "model")
        embedding = load(str(out / "model")).predict(TRAINED)["embedding"]
        measured = {name: block_statistics(TRAINED)[name].astype(np.float32) for name in MEASURES}
        save_file({"embedding": embedding, **measured}, out / "model" / package.FILES_FOLDER / FILE)

    return str(once("monitored", make) / "model")


def monitor(model: str, images: np.ndarray, folder: Path, *options: str) -> tuple[int, dict[str, Any]]:
    np.savez(folder / "new.npz", images=images)
    code = cli.main(["monitor", model, str(folder / "new.npz"), "--out", str(folder / "out"), *options])
    return code, json.loads((folder / "out" / "monitor.json").read_text())


def test_images_like_those_trained_on_do_not_drift(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = monitor(model, SAME, tmp_path)
    assert (code, found["drifted"], found["reasons"], found["images"]) == (0, False, [], len(SAME))
    assert found["test"]["p"] > 0.01
    assert "no drift in 797 images: p = " in capsys.readouterr().err
    assert artifact.read(tmp_path / "out", "monitoring").made_from == {"model": load(model).weights}
    rows = pq.read_table(tmp_path / "out" / "images.parquet")
    assert rows.column_names == ["index", "file", "array", "row", "distance", "unlike"]
    assert rows["unlike"].to_numpy().mean() == pytest.approx(found["unlike"]["share"], abs=1e-6)
    assert (tmp_path / "out" / "manifest.json").read_bytes() == (
        monitor(model, SAME, tmp_path) and (tmp_path / "out" / "manifest.json").read_bytes()
    )


def test_images_that_differ_end_with_4_after_everything_is_written(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = SAME.copy()
    images[7] = 255 - 3 * (np.arange(64).reshape(8, 8, 1) % 2).astype(np.uint8)  # one that is like none
    images[8:] = 255 - images[8:]
    code, found = monitor(model, images, tmp_path)
    assert (code, found["drifted"], found["test"]["p"]) == (4, True, 1 / 500)
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("dier: error: 797 new images drift: their embeddings are of another distribution than those trained on")
    assert "index.html" in line
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert page.count("<figure>") == 24
    assert "They drift" in page
    assert "http" not in page.replace("http://www.w3.org", "")  # it opens without a network
    assert cli.main(["gate", "--monitoring", str(tmp_path / "out")]) == 4


def test_a_blank_image_is_named(model: str, tmp_path: Path) -> None:
    images = SAME.copy()
    images[3] = 0
    code, found = monitor(model, images, tmp_path)
    assert code == 4
    [reason] = found["reasons"]
    assert reason.startswith("Few images are blank, but 1 of 797 do not keep to it (")
    assert "new.npz, images[3]" in reason


def test_report_only_ends_with_0_and_the_page_goes_where_it_is_wanted(model: str, tmp_path: Path) -> None:
    page = tmp_path / "pages" / "page"
    code, found = monitor(model, 255 - SAME, tmp_path, "--report-only", "--page", str(page))
    assert (code, found["drifted"]) == (0, True)
    assert page.read_text() == (tmp_path / "out" / "index.html").read_text()
    assert cli.main(["gate", "--monitoring", str(tmp_path / "out")]) == 4


def test_no_more_than_the_sample_is_tested(model: str, tmp_path: Path) -> None:
    assert monitor(model, SAME, tmp_path, "--sample", "50")[1]["test"]["sample"] == 50


def test_a_version_without_a_reference_is_refused(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(model, tmp_path / "bare")
    (tmp_path / "bare" / package.FILES_FOLDER / FILE).unlink()
    np.savez(tmp_path / "new.npz", images=SAME)
    assert cli.main(["monitor", str(tmp_path / "bare"), str(tmp_path / "new.npz"), "--out", str(tmp_path / "out")]) == 2
    assert "carries no embeddings of its training images, too few to compare with: set probe.reference" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_version_carries_what_the_probe_kept(glyphs: str) -> None:
    assert package.REFERENCE == FILE
    assert load_file(Path(glyphs) / package.FILES_FOLDER / FILE)["embedding"].shape == (20, CONFIG.embed_dim)
