"""The benchmark of options on a few digits: a line a training, none done twice, a table with a row each."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tests.scenarios.conftest import ROOT, environment


@pytest.mark.slow
def test_options_are_measured_once_each_and_compared(tmp_path: Path) -> None:
    digits = load_digits()
    images, labels = (digits.images * 255 / 16).round().astype(np.uint8), digits.target.astype(np.uint8)[:, None]
    parts = {"train": slice(0, 300), "val": slice(300, 500), "test": slice(500, 600)}
    arrays = {
        f"{name}_{what}": all_[part] for name, part in parts.items() for what, all_ in (("images", images), ("labels", labels))
    }
    np.savez(tmp_path / "digits.npz", **arrays)
    words = [sys.executable, ROOT / "benchmarks" / "options.py", "digits.npz", "--seeds", "0", "1", "--steps", "10"]
    words += ["--batch-size", "16", "--options", "mask_ratio 0.5", "keep best_probe"]

    def run() -> str:
        where = environment(tmp_path) | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(words, cwd=tmp_path, env=where, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    first = run()
    out = tmp_path / "options.jsonl"
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    order = ["default", "mask_ratio 0.5", "keep best_probe"]
    assert [(row["seed"], row["option"]) for row in rows] == [(seed, option) for seed in (0, 1) for option in order]
    assert all(0 < row["accuracy"] <= 1 for row in rows)
    assert first.count("| digits |") == 3
    out.write_text(out.read_text()[:-20])  # the last line was cut off
    run()
    again = [line for line in out.read_text().splitlines() if line.endswith("}")]
    assert len(again) == 6
