"""The example that trains a registered encoder further runs from elsewhere, by itself, and says who won."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.data.files import digits

EXAMPLE = Path(__file__).parents[3] / "examples" / "finetune" / "finetune.py"


@pytest.mark.slow
def test_it_compares_three_ways_and_says_which_is_better(glyphs: str, tmp_path: Path) -> None:
    images, labels = digits()
    for split, rows in (("train", slice(0, 1000)), ("test", slice(1000, 1200))):
        (tmp_path / split).mkdir()
        np.save(tmp_path / split / "images.npy", images[rows, :, :, None])
        np.save(tmp_path / split / "labels.npy", labels[rows].astype(np.int64))
    (tmp_path / "dataset.json").write_text(json.dumps({"class_names": [str(n) for n in range(10)]}))
    command = [
        sys.executable,
        "-P",
        "-W",
        "ignore",
        str(EXAMPLE),
        glyphs,
        str(tmp_path),
        "--seeds",
        "0",
        "1",
        "--labels",
        "50",
        "--steps",
        "3",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [[float(value) for value in line.split()[1:]] for line in done.stdout.splitlines() if re.match(r"\s+[01] ", line)]
    assert np.shape(rows) == (2, 3)
    assert np.min(np.array(rows)[:, :2]) > 0.15  # of ten classes: the probe has learned something, and is where tuning starts
    assert re.search(r"fine-tuning (beats|loses to|is no better than) the probe: [+-]\d", done.stdout)
