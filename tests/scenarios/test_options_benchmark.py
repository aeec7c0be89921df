"""The benchmark of options on a few digits: a line a training, none done twice, a table with a row each."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from benchmarks import options
from tests.scenarios.conftest import ROOT, environment


@pytest.mark.slow
def test_options_are_measured_once_each_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    digits = load_digits()
    images, labels = (digits.images * 255 / 16).round().astype(np.uint8), digits.target.astype(np.uint8)[:, None]
    parts = {"train": slice(0, 60), "val": slice(60, 100), "test": slice(100, 120)}
    arrays = {
        f"{name}_{what}": all_[part] for name, part in parts.items() for what, all_ in (("images", images), ("labels", labels))
    }
    np.savez(tmp_path / "digits.npz", **arrays)
    words = ["digits.npz", "--seeds", "0", "1", "--steps", "4", "--batch-size", "16"]
    words += ["--options", "mask_ratio 0.5", "keep best_probe"]
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "")  # main sets it: put back afterwards
        patch.chdir(tmp_path)
        patch.setattr(sys, "argv", ["options.py", *words])
        options.main()
    assert capsys.readouterr().out.count("| digits |") == 3
    out = tmp_path / "options.jsonl"
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    order = ["default", "mask_ratio 0.5", "keep best_probe"]
    assert [(row["seed"], row["option"]) for row in rows] == [(seed, option) for seed in (0, 1) for option in order]
    assert all(0 < row["accuracy"] <= 1 for row in rows)

    out.write_text(out.read_text()[:-20])  # the last line was cut off
    command = [sys.executable, ROOT / "benchmarks" / "options.py", *words]  # now as one runs it
    where = environment(tmp_path) | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=where, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    again = [line for line in out.read_text().splitlines() if line.endswith("}")]
    assert len(again) == 6
    assert done.stdout.count("| digits |") == 3
