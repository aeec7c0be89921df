"""Bad input through the command: the exit code, one line on stderr, and nothing half-written."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from components.common import artifact
from pipeline.cli import main

ROOT = Path(__file__).parents[2]
DIGITS = load_digits()
IMAGES = (DIGITS.images * 255 / 16).round().astype(np.uint8)
LABELS = DIGITS.target.astype(np.uint8).reshape(-1, 1)
CUTS = {"train": slice(0, 1200), "val": slice(1200, 1400), "test": slice(1400, None)}


def arrays(**changes: np.ndarray | None) -> dict[str, np.ndarray]:
    """Digits in MedMNIST's layout, with some arrays replaced or (None) left out."""
    good = {f"{split}_images": IMAGES[cut] for split, cut in CUTS.items()}
    good |= {f"{split}_labels": LABELS[cut] for split, cut in CUTS.items()}
    return {name: value for name, value in (good | changes).items() if value is not None}


def prepare(tmp_path: Path, npz: Path, *more: str) -> int:
    source = ["--set", "data.source=npz", "--set", f"data.path={npz}", "--set", "data.name=bad"]
    return main(["prepare", "--params", str(ROOT / "params.yaml"), *source, *more, "--out", str(tmp_path / "dataset")])


def validate(tmp_path: Path) -> int:
    paths = ["--dataset", str(tmp_path / "dataset"), "--out", str(tmp_path / "verdict")]
    return main(["validate", "--params", str(ROOT / "params.yaml"), *paths])


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dier: error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"val_images": None}, ["val_images"]),
        ({"train_images": IMAGES[:1200].astype(np.float32)}, ["train_images", "float32", "uint8"]),
        ({"train_images": IMAGES[:1200].reshape(-1, 4, 4, 4)}, ["train_images"]),
        ({"test_labels": LABELS[1400:] + 20}, ["test", "29", "out of range"]),
        ({"train_labels": LABELS[:1200].astype(np.int64) - 5}, ["train_labels", "-5"]),
        ({"train_images": IMAGES[:1200].astype(object)}, ["train_images", "object"]),
        ({"test_images": IMAGES[1400:1410]}, ["test"]),
        ({"train_images": IMAGES[:0], "train_labels": LABELS[:0]}, ["train"]),
    ],
    ids=["missing key", "floats", "3-D", "labels out of range", "negative labels", "pickled", "counts differ", "empty split"],
)
def test_a_bad_npz_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict, named: list[str]) -> None:
    np.savez_compressed(tmp_path / "bad.npz", **arrays(**changes))
    assert prepare(tmp_path, tmp_path / "bad.npz") == 3
    line = error_line(capsys)
    assert all(part in line for part in named), line
    assert [file.name for file in tmp_path.iterdir()] == ["bad.npz"]


@pytest.mark.parametrize("keep", [0, 10, 1000, -100])
def test_a_truncated_npz_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], keep: int) -> None:
    np.savez_compressed(tmp_path / "bad.npz", **arrays())
    whole = (tmp_path / "bad.npz").read_bytes()
    (tmp_path / "bad.npz").write_bytes(whole[:keep])
    assert prepare(tmp_path, tmp_path / "bad.npz") == 3
    assert "bad.npz" in error_line(capsys)
    assert [file.name for file in tmp_path.iterdir()] == ["bad.npz"]


def test_a_missing_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(tmp_path, tmp_path / "none.npz") == 3
    assert "none.npz" in error_line(capsys)


def test_wrong_settings_are_refused_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez_compressed(tmp_path / "good.npz", **arrays())
    assert prepare(tmp_path, tmp_path / "good.npz", "--set", "train.stepz=1") == 2
    assert "train.stepz" in error_line(capsys)
    assert [file.name for file in tmp_path.iterdir()] == ["good.npz"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"test_images": np.concatenate([IMAGES[:60], IMAGES[1460:]])}, "leak"),
        ({"val_images": np.zeros_like(IMAGES[1200:1400])}, "blank"),
    ],
    ids=["leaked test images", "a blank split"],
)
def test_bad_images_fail_validation_with_the_verdict_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict, named: str
) -> None:
    np.savez_compressed(tmp_path / "bad.npz", **arrays(**changes))
    assert prepare(tmp_path, tmp_path / "bad.npz") == 0
    assert validate(tmp_path) == 3
    assert named in error_line(capsys)
    verdict = artifact.read(tmp_path / "verdict", "verdict")
    assert verdict.json("verdict.json")["passed"] is False
    assert (tmp_path / "verdict" / "docs" / "index.html").is_file()
    # and nobody trains on them
    paths = [f"--{name}={tmp_path / name}" for name in ("dataset", "verdict", "work", "out")]
    assert main(["train", "--params", str(ROOT / "params.yaml"), *paths]) == 3
    assert "failed" in error_line(capsys)
    assert not (tmp_path / "out").exists()


def test_a_damaged_dataset_is_refused_by_the_next_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez_compressed(tmp_path / "good.npz", **arrays())
    assert prepare(tmp_path, tmp_path / "good.npz") == 0
    images = tmp_path / "dataset" / "test" / "images.npy"
    images.write_bytes(images.read_bytes()[:-1])
    assert validate(tmp_path) == 3
    assert "images.npy does not match" in error_line(capsys)
    assert not (tmp_path / "verdict").exists()
