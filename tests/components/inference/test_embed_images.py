"""`dier embed-images` and `dier predict` over real registered models: what the file holds, that it is whole, bounded memory."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import pyarrow.parquet as pq
import pytest

from components import register
from components.common import artifact
from components.embedding import store as embeddings
from components.inference.embed_images import LeftOut
from data.errors import DataError
from pipeline.cli import main
from tests.components.registry_artifacts import CLASSES, make, settings
from tests.data.files import digits, save

IMAGES = digits()[0][:600]


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    return save(tmp_path / "x.npz", {"images": IMAGES})


def run(command: str, *words: str | Path) -> int:
    return main([command, *map(str, words)])


def column(file: Path, name: str) -> np.ndarray:
    return np.array(pq.read_table(file)[name].to_pylist())


def record(file: Path) -> dict:
    return json.loads(pq.read_schema(file).metadata[b"dier"])


@pytest.mark.slow
def test_the_file_holds_what_the_model_says_of_each_image(glyphs: str, npz: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out.parquet"
    assert run("embed-images", "--model", glyphs, npz, "--out", out) == 0
    expected = mlflow.pyfunc.load_model(glyphs).predict(IMAGES[..., None])
    np.testing.assert_allclose(column(out, "embedding"), expected["embedding"], atol=1e-5)
    assert pq.read_table(out).column_names == ["index", "file", "array", "row", "embedding"]
    for name in ("index", "row"):
        np.testing.assert_array_equal(column(out, name), np.arange(600))
    assert set(column(out, "file")) == {str(npz)}
    told = record(out)
    assert (told["t"], told["image_shape"], told["class_names"], told["fit"]) == ([300], [8, 8, 1], CLASSES, False)
    assert told["weights"] == artifact.sha256(Path(glyphs, "artifacts/files/model.safetensors"))
    # the embeddings artifact's reader reads it too
    (index, vectors), *_ = embeddings.pieces([out])
    np.testing.assert_array_equal(vectors, column(out, "embedding")[: len(index)])

    again = tmp_path / "again.parquet"
    assert run("embed-images", "--model", glyphs, npz, "--out", again) == 0
    assert again.read_bytes() == out.read_bytes()


@pytest.mark.slow
def test_predictions_are_classes_by_name_with_their_probabilities(
    glyphs: str, folders: Path, npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.parquet"
    assert run("predict", "--model", glyphs, npz, "--out", out) == 0
    expected = mlflow.pyfunc.load_model(glyphs).predict(IMAGES[..., None])["probabilities"]
    np.testing.assert_allclose(column(out, "probabilities"), expected, atol=1e-5)
    assert column(out, "class").tolist() == [CLASSES[k] for k in column(out, "probabilities").argmax(1)]
    np.testing.assert_array_equal(column(out, "probability"), column(out, "probabilities").max(1))

    assert run("predict", "--model", folders / "tags", npz, "--out", out) == 0
    several = pq.read_table(out)
    assert "probability" not in several.column_names
    chosen = np.array([[name in row for name in CLASSES] for row in several["class"].to_pylist()])
    np.testing.assert_array_equal(chosen, column(out, "probabilities") >= 0.5)

    capsys.readouterr()
    before = out.read_bytes()
    assert run("predict", "--model", folders / "unlabelled", npz, "--out", out) == 2
    assert "predicts no class, as its training images had no labels: use dier embed-images" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert run("embed-images", "--model", folders / "unlabelled", npz, "--out", out) == 0


@pytest.mark.slow
def test_a_version_is_named_by_alias_number_or_nothing_and_the_file_says_which(
    store: str, npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    register.run(settings(policy="auto"), **make(tmp_path / "1").paths(), out=tmp_path / "out")
    out = tmp_path / "out.parquet"
    for name in ("glyphs", "glyphs@champion", "glyphs/1", "models:/glyphs@champion", "models:/glyphs/1"):
        assert run("embed-images", "--model", name, npz, "--out", out) == 0
        told = record(out)
        assert (told["model"], told["version"]) == ("glyphs", 1)
        assert told["digest"] == artifact.read(tmp_path / "out", "registration").json("registration.json")["digest"]
    for name, says in (
        ("glyphs@candidate", "glyphs has no alias candidate (there are: champion (version 1))"),
        ("nobody", "no registered model 'nobody'"),
        ("models:/glyphs/7", "glyphs has no version 7 (there are: 1)"),
        (str(tmp_path), "is a folder without MLmodel"),
    ):
        capsys.readouterr()
        assert run("embed-images", "--model", name, npz, "--out", tmp_path / "none.parquet") in (1, 2)
        assert says in capsys.readouterr().err
    assert not (tmp_path / "none.parquet").exists()


@pytest.mark.slow
def test_bad_pictures_end_it_without_a_file_or_are_left_out(
    glyphs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(IMAGES[number]).save(folder / f"{number}.png")
    (folder / "1.png").write_bytes(b"no picture")
    out = tmp_path / "out.parquet"
    assert run("embed-images", "--model", glyphs, folder, "--out", out) == 3
    assert "cannot read the image" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["pictures"]
    assert run("embed-images", "--model", glyphs, folder, "--skip-bad", "--out", out) == 0
    assert "left out: cannot read the image" in capsys.readouterr().err
    assert [Path(file).name for file in column(out, "file")] == ["0.png", "2.png"]
    assert column(out, "index").tolist() == [0, 1]
    assert run("embed-images", "--model", glyphs, folder / "1.png", "--skip-bad", "--out", tmp_path / "none.parquet") == 3
    assert "none of the 1 images can be used" in capsys.readouterr().err
    assert not (tmp_path / "none.parquet").exists()
    assert run("embed-images", "--model", glyphs, folder / "0.png", "--out", tmp_path) == 2


def test_of_many_left_out_the_first_few_are_kept_and_their_number(capsys: pytest.CaptureFixture[str]) -> None:
    left_out = LeftOut()
    for number in range(1000):
        left_out.add(f"cannot read the image {number}.png")
    assert len(left_out.first) == 5
    left_out.tell(2000)
    said = capsys.readouterr().err.splitlines()
    assert (len(said), said[4], said[5]) == (6, "left out: cannot read the image 4.png", "left out: 1000 of 2000 in all")
    with pytest.raises(DataError, match=r"none of the 1000 images can be used; the first: cannot read the image 0\.png"):
        left_out.tell(1000)


@pytest.mark.slow
def test_a_kill_leaves_what_stood_there_before(glyphs: str, tmp_path: Path) -> None:
    many = save(tmp_path / "many.npz", {"images": np.tile(IMAGES, (200, 1, 1))})
    out = tmp_path / "out.parquet"
    out.write_text("before")
    command = [sys.executable, "-m", "pipeline.cli", "embed-images", "--model", glyphs, str(many), "--out", str(out)]
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not (begun := list(tmp_path.glob(".out.parquet.partial-*"))) and time.monotonic() < until:
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert begun
    assert out.read_text() == "before"


PEAK = """
import sys
from pathlib import Path
from components.inference.embed_images import embed_images

model, images, out = sys.argv[1:]
embed_images(model, [Path(images)], Path(out), fit=False, arrays=[], skip_bad=False)
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own account of peak memory")
def test_memory_does_not_grow_with_the_images(glyphs: str, tmp_path: Path) -> None:
    """390,000 images as against 130,000, which fill a block of the reader and a row group: of the others nothing may be held."""
    peaks = []
    for times in (1, 3):
        np.savez(tmp_path / "x.npz", images=np.random.default_rng(0).integers(0, 256, (times * 130_000, 8, 8), np.uint8))
        words = [glyphs, str(tmp_path / "x.npz"), str(tmp_path / "out.parquet")]
        ran = subprocess.run([sys.executable, "-c", PEAK, *words], capture_output=True, text=True, check=True, env=os.environ)
        peaks.append(int(ran.stdout) / 1024)
    assert pq.read_metadata(tmp_path / "out.parquet").num_rows == 390_000
    assert peaks[1] - peaks[0] < 15, peaks  # MiB; pixels and embeddings of the rest alone are 28, with their origins over 80


@pytest.mark.slow
def test_a_model_of_others_is_refused(glyphs: str, npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(glyphs, tmp_path / "other")
    shutil.rmtree(tmp_path / "other" / "artifacts")
    assert run("embed-images", "--model", tmp_path / "other", npz, "--out", tmp_path / "out.parquet") == 2
    assert "was not registered by dier" in capsys.readouterr().err
