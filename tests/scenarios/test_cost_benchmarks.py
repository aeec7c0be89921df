"""What the benchmarks of cost against size make, measure and conclude; their figures stand in docs/performance.md."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from benchmarks import cost, cost_table, images, process_cost
from components.common.settings import DataSettings
from pipeline.steps import STEPS
from tests.scenarios.conftest import ROOT, environment

SIZES = [300, 600]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real images in MedMNIST's layout, without val."""
    found = load_digits()
    pixels, labels = (found.images * 255 / 16).round().astype(np.uint8), found.target.astype(np.uint8)[:, None]
    file = tmp_path_factory.mktemp("digits") / "digits.npz"
    parts = {"train": slice(0, 1200), "test": slice(1200, None)}
    arrays = {f"{split}_images": pixels[part] for split, part in parts.items()}
    np.savez(file, **arrays, **{f"{split}_labels": labels[part] for split, part in parts.items()})
    return file


def test_images_repeat_and_all_differ(digits: Path, tmp_path: Path) -> None:
    for name, seed in {"one": 0, "again": 0, "other": 1}.items():
        images.write(tmp_path / name, images.Recipe([digits], pairs=True, seed=seed), 1000)
    one, again, other = ((tmp_path / name).read_bytes() for name in ("one", "again", "other"))
    assert one == again
    assert one != other
    with np.load(tmp_path / "one") as arrays:
        counts = {split: arrays[f"{split}_images"].shape for split in images.SPLITS}
        every = np.concatenate([arrays[f"{split}_images"] for split in images.SPLITS])
        labels = np.concatenate([arrays[f"{split}_labels"] for split in images.SPLITS])
    assert counts == {"train": (800, 28, 28, 3), "val": (100, 28, 28, 3), "test": (100, 28, 28, 3)}
    assert len(np.unique(every.reshape(1000, -1), axis=0)) == 1000
    assert (np.ptp(every.reshape(1000, -1), 1) > 0).all()
    assert labels.shape == (1000, 1)
    assert len(np.unique(labels)) > 90  # of 100 pairs


def test_an_image_is_of_its_first_pictures_class(digits: Path) -> None:
    """Weights of at least a half: the nearest real picture, whatever the crop, is more often of the same class than by chance."""
    recipe = images.Recipe([digits], shape=(28, 28, 1))
    made, labels = next(recipe.blocks("train", 400))
    real = images.read(digits, "train", 1)
    middle = real.images[:, 2:30, 2:30, 0].reshape(len(real.images), -1).astype(float)
    unit = [(x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True) for x in (made.reshape(400, -1).astype(float), middle)]
    nearest = real.labels[(unit[0] @ unit[1].T).argmax(1)]
    assert (nearest == labels).mean() > 0.3  # chance: 0.1


def test_no_real_picture_is_behind_images_of_two_splits(digits: Path) -> None:
    val, test = (images.read(digits, split, 1).images for split in ("val", "test"))
    assert len(val) + len(test) == 597
    assert not {x.tobytes() for x in val} & {x.tobytes() for x in test}


@pytest.mark.parametrize("power", [0.5, 1.0, 1.5, 2.0])
def test_the_net_exponent_does_not_see_the_start_up(power: float) -> None:
    sizes = [10_000, 100_000, 1_000_000]
    whole, last, net = cost_table.exponents(sizes, [7 + 1e-5 * n**power for n in sizes], noise=1e-4)
    assert net == pytest.approx(power, abs=0.001)
    assert whole is not None
    assert last is not None
    assert whole < last < power  # the start-up flatters both


def test_what_does_not_grow_has_no_exponent() -> None:
    assert cost_table.exponents([10, 100, 1000], [5.0, 4.8, 5.4], noise=1) == (None, None, None)
    assert cost_table.exponents([10], [5.0], noise=1) == (None, None, None)


def synthetic(step: str, seconds: dict[int, float]) -> list[dict[str, Any]]:
    fixed = {"form": "plain", "code": 0, "memory": 2**30, "anonymous": 2**29, "read": 10**6, "written": 0}
    each = {"disk_read": 0, "disk_written": 0}
    return [fixed | each | {"step": step, "images": n, "seconds": s, "cpu_seconds": s} for n, s in seconds.items()]


def test_tables_show_each_step_and_mark_what_grows_too_fast() -> None:
    steep, flat = {100: 5.0, 1000: 10.0, 10_000: 200.0}, {100: 5.0, 1000: 5.9, 10_000: 15.0}
    rows = synthetic("validate", steep) + synthetic("embed", flat) + synthetic("embed", {100: 5.0})  # measured again
    text = cost_table.table(rows)
    assert text.count("| validate |") == 4
    assert text.count("| embed |") == 4
    assert "| validate | 10000 | 200.0 | 200.0 | 1024 | 512 | 1 | 0 | 0 | 0 |  |  |" in text
    assert [line.split(":")[0] for line in cost_table.too_steep(rows)] == ["plain validate seconds", "plain validate cpu_seconds"]


def test_a_process_is_measured_with_its_children(tmp_path: Path) -> None:
    write = f"open({str(tmp_path / 'file')!r}, 'wb').write(bytes(5_000_000))"
    child = f"{write}; kept = bytearray(b'1') * 60_000_000; sum(range(2_000_000))"
    program = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {child!r}]); time.sleep(0.1); sys.exit(3)"
    found = process_cost.measure([sys.executable, "-c", program], tmp_path / "log")
    assert found.code == 3
    assert found.seconds > 0.1
    assert found.cpu_seconds > 0.02
    assert found.memory > 60_000_000
    assert 5_000_000 <= found.written < 6_000_000


@pytest.mark.slow
@pytest.mark.parametrize("form", ["plain", "shards", "s3"])
def test_every_step_is_measured_once(digits: Path, tmp_path: Path, form: str) -> None:
    """All steps at one size in the plain form; the first two at another size too, by a command that goes on from there."""
    needed = {"shards": "shard_mb", "s3": "store"}.get(form, "path")
    if needed not in DataSettings.model_fields:
        pytest.skip(f"this version has no data.{needed}")
    first = [step.name for step in STEPS] if form == "plain" else ["prepare", "validate"]
    run(tmp_path, digits, form, SIZES[:1], first)
    told = run(tmp_path, digits, form, SIZES, ["prepare", "validate"])
    rows = [json.loads(line) for line in (tmp_path / "cost.jsonl").read_text().splitlines()]
    expected = [(SIZES[0], step) for step in first] + [(SIZES[1], step) for step in ("prepare", "validate")]
    assert [(row["images"], row["step"]) for row in rows] == expected, told
    assert {row["step"] for row in rows if row["code"]} <= {"register"}, told  # its gate may refuse
    assert all(row["cpu_seconds"] > 0.1 and row["memory"] > 20 * 2**20 for row in rows)
    for row in (row for row in rows if row["step"] == "prepare"):
        pixels, moved = 28 * 28 * 3 * row["images"], row["written"] + row.get("store_written", 0)
        assert pixels / 2 < moved < 2 * pixels + 500_000
    assert told.count("| prepare |") == len(SIZES) + 1
    assert not list((tmp_path / ".work" / "cost").iterdir())


def run(folder: Path, real: Path, form: str, sizes: list[int], steps: list[str]) -> str:
    """The benchmark's output."""
    words = ["--images", *map(str, sizes), "--form", form, "--steps", *steps, "--real", str(real), "--out", "cost.jsonl"]
    words += ["--set", "train.steps=20", "--set", "train.warmup_steps=5", "--set", "probe.max_iter=20"]
    command = [sys.executable, "-m", "benchmarks.cost", *words]
    where = environment(folder) | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=where, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout[-2000:] + done.stderr[-2000:]  # 1: so small sizes are all noise
    return done.stdout


def test_the_settings_are_settings(tmp_path: Path) -> None:
    """Those that this version has: a misspelt one would stop the benchmark at its first step."""
    from components.common import settings

    file = tmp_path / "params.yaml"
    made = cost.settings("plain", 1000, tmp_path / "images.npz", ["probe.c_grid=[1.0]"])
    file.write_text(json.dumps(made))
    loaded = settings.load(str(file))
    assert loaded.probe.c_grid == [1.0]
    assert loaded.data.path == str(tmp_path / "images.npz")
