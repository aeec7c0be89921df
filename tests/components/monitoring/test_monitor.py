"""`dier monitor` with a real registered model and real digits: what it writes, and how it ends."""

import json
import re
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file
from sklearn.datasets import load_digits

from components.common import artifact
from components.inference.registered_model import MLMODEL, load
from components.probing.reference import FILE, MEASURES
from components.registry import package
from data.quality.statistics import block_statistics
from model.dier import DiER
from model.weights import save_model
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
    assert found["decided_by"]["blank_images"] == {"p": 1, "alpha": 0.003333}
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    monitor(model, SAME, tmp_path)
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before


def test_images_that_differ_end_with_4_after_everything_is_written(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = SAME.copy()
    images[7] = 255 - 3 * (np.arange(64).reshape(8, 8, 1) % 2).astype(np.uint8)  # one that is like none
    images[8:] = 255 - images[8:]
    code, found = monitor(model, images, tmp_path)
    assert (code, found["drifted"], found["test"]["p"]) == (4, True, 1 / 1500)
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("dier: error: 797 new images drift: their embeddings are of another distribution than those trained on")
    assert "index.html" in line
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert page.count("<figure>") == 24
    assert "They drift" in page
    assert "http" not in page.replace("http://www.w3.org", "")  # it opens without a network
    assert cli.main(["gate", "--monitoring", str(tmp_path / "out")]) == 4


def test_blank_images_are_named_once_they_are_more_than_chance(model: str, tmp_path: Path) -> None:
    images = SAME[:100].copy()
    images[3] = 0  # of those trained on none is
    code, found = monitor(model, images, tmp_path)
    assert (code, found["decided_by"]["blank_images"]["p"]) == (0, pytest.approx(100 / 1100, abs=1e-6))
    images[[40, 70]] = 0
    code, found = monitor(model, images, tmp_path)
    assert code == 4
    [reason] = found["reasons"]
    assert reason.startswith("Images are not blank more often than those trained on, but 3 of 100 do not keep to it (")
    assert "new.npz, images[3]" in reason
    assert reason.endswith("of those trained on 0 of 1000, p = 0.00073")
    for each in found["expectations"]:
        decided = found["decided_by"].get(each["name"])
        assert (decided is not None) == (each["severity"] == "error")
        assert decided is None or each["passed"] == (decided["p"] > decided["alpha"])


def test_a_folder_is_read_a_block_at_a_time_and_says_what_it_left_out(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    for n, image in enumerate(SAME[:300]):  # a block holds 256
        Image.fromarray(image[..., 0]).resize((12, 10)).save(folder / f"{n:03}.png")
    whole = (folder / "007.png").read_bytes()
    (folder / "007.png").write_bytes(whole[: len(whole) // 2])  # still on its way
    words = ["monitor", model, str(folder), "--out", str(tmp_path / "out"), "--report-only"]
    assert cli.main(words) == 3
    assert "--fit cuts and resamples" in capsys.readouterr().err
    assert cli.main([*words, "--fit"]) == 3
    assert "007.png" in capsys.readouterr().err
    assert cli.main([*words, "--fit", "--skip-bad"]) == 0
    assert "left out: " in capsys.readouterr().err
    found = json.loads((tmp_path / "out" / "monitor.json").read_text())
    assert (found["images"], found["left_out"], found["test"]["sample"]) == (299, 1, 299)
    assert pq.read_table(tmp_path / "out" / "images.parquet")["file"].to_pylist() == [
        str(folder / f"{n:03}.png") for n in range(300) if n != 7
    ]
    assert "299 images, and 1 left out" in (tmp_path / "out" / "index.html").read_text("utf-8")
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    assert cli.main([*words, "--switch", "fit", "true", "--switch", "skip-bad", "true"]) == 0  # as a pipeline says it
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before


def test_a_single_image_is_enough(model: str, tmp_path: Path) -> None:
    Image.fromarray(SAME[0, ..., 0]).save(tmp_path / "one.png")
    assert cli.main(["monitor", model, str(tmp_path / "one.png"), "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "monitor.json").read_text())
    assert (found["images"], found["test"]["sample"]) == (1, 1)
    assert all(each["passed"] for each in found["expectations"])  # its contrast is 1.1 standard deviations off, as single ones are


def test_report_only_ends_with_0_and_the_page_goes_where_it_is_wanted(model: str, tmp_path: Path) -> None:
    page = tmp_path / "pages" / "page"
    code, found = monitor(model, 255 - SAME, tmp_path, "--report-only", "--page", str(page))
    assert (code, found["drifted"]) == (0, True)
    assert page.read_text() == (tmp_path / "out" / "index.html").read_text()
    assert cli.main(["gate", "--monitoring", str(tmp_path / "out")]) == 4


def test_a_page_that_cannot_be_written_costs_no_numbers(model: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, found = monitor(model, SAME, tmp_path, "--page", str(tmp_path / "file" / "page"))
    assert (code, found["drifted"]) == (1, False)
    assert artifact.read(tmp_path / "out", "monitoring")


def test_no_more_than_the_sample_is_tested(model: str, tmp_path: Path) -> None:
    assert monitor(model, SAME, tmp_path, "--sample", "50")[1]["test"]["sample"] == 50


def test_a_version_without_a_reference_is_refused(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(model, tmp_path / "bare")
    (tmp_path / "bare" / package.FILES_FOLDER / FILE).unlink()
    np.savez(tmp_path / "new.npz", images=SAME)
    assert cli.main(["monitor", str(tmp_path / "bare"), str(tmp_path / "new.npz"), "--out", str(tmp_path / "out")]) == 2
    assert "carries no embeddings of its training images, too few to compare with: set probe.reference" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_that_tells_nothing_apart_ends_with_one_line(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(model, tmp_path / "broken")
    files = tmp_path / "broken" / package.FILES_FOLDER
    kept = load_file(files / FILE)
    np.savez(tmp_path / "new.npz", images=SAME)
    words = ["monitor", str(tmp_path / "broken"), str(tmp_path / "new.npz"), "--out", str(tmp_path / "out")]
    save_file(kept | {"embedding": np.ones_like(kept["embedding"])}, files / FILE)
    assert cli.main(words) == 2
    assert "the encoder has collapsed; train anew, or name another" in capsys.readouterr().err.splitlines()[-1]
    save_file(kept, files / FILE)
    weights = load_file(files / "model.safetensors")
    save_file({name: np.full_like(values, np.nan) for name, values in weights.items()}, files / "model.safetensors")
    assert cli.main(words) == 2
    assert "new.npz, images[0] an embedding that is not finite" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_memory_holds_no_more_than_a_block_of_the_images(model: str, tmp_path: Path) -> None:
    """6,144 images of 96 MiB, each block with some of the most unlike: what is shown of a block must not keep it whole."""
    shutil.copytree(model, tmp_path / "large")
    files = tmp_path / "large" / package.FILES_FOLDER
    config = replace(CONFIG, image_height=128, image_width=128, patch_size=64)
    network = DiER(config)
    save_model(files, network, network.state_dict())
    description = tmp_path / "large" / MLMODEL
    description.write_text(re.sub(r"-1, 8,\s+8, 1\]", "-1, 128, 128, 1]", description.read_text()))
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (6144, 128, 128, 1), np.uint8)
    embedding = load(str(tmp_path / "large")).predict(images[:20])["embedding"]
    measured = {name: block_statistics(images[:20])[name].astype(np.float32) for name in MEASURES}
    save_file({"embedding": embedding, **measured}, files / FILE)
    np.savez(tmp_path / "new.npz", images=images)
    del images
    tracemalloc.start()
    try:
        words = ["--sample", "100", "--report-only", "--out", str(tmp_path / "out")]
        assert cli.main(["monitor", str(tmp_path / "large"), str(tmp_path / "new.npz"), *words]) == 0
        peak = tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()
    assert peak < 60, peak  # MiB


def test_a_version_carries_what_the_probe_kept(glyphs: str) -> None:
    assert package.REFERENCE == FILE
    assert load_file(Path(glyphs) / package.FILES_FOLDER / FILE)["embedding"].shape == (20, CONFIG.embed_dim)
