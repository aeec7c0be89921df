"""The example that trains a registered encoder further runs from elsewhere, by itself, and says who won."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.data.files import digits

EXAMPLE = Path(__file__).parents[3] / "examples" / "finetune" / "finetune.py"


@pytest.mark.slow
def test_it_compares_three_ways_and_says_which_is_better(glyphs: str, tmp_path: Path) -> None:
    images, labels = digits()
    for split, rows in (("train", slice(0, 1000)), ("test", slice(1000, 1200))):
        (tmp_path / split).mkdir()
        np.save(tmp_path / split / "images.npy", np.repeat(images[rows, :, :, None], 2, axis=0))
        np.save(tmp_path / split / "labels.npy", np.repeat(labels[rows], 2).astype(np.int64))
    (tmp_path / "dataset.json").write_text(json.dumps({"class_names": [str(n) for n in range(10)], "copies": 2}))
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


@pytest.fixture(scope="module")
def example() -> ModuleType:
    found = importlib.util.spec_from_file_location("finetune", EXAMPLE)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_as_many_of_each_class_are_drawn_and_no_two_of_one_original(example: ModuleType, tmp_path: Path) -> None:
    labels = np.repeat(np.arange(40) % 2, 3)
    (tmp_path / "train").mkdir()
    np.save(tmp_path / "train" / "labels.npy", labels)
    (tmp_path / "dataset.json").write_text(json.dumps({"class_names": ["a", "b"], "copies": 3}))
    rows = example.labelled(tmp_path, 0, 10)
    assert np.bincount(labels[rows]).tolist() == [5, 5]
    assert len(set(rows // 3)) == 10


@pytest.mark.parametrize("classes", [2, 3])
def test_the_probe_is_a_layer_with_a_row_a_class(example: ModuleType, classes: int) -> None:
    y = torch.arange(60) % classes
    v = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)) + 3 * F.one_hot(y, 4)
    head = example.probe(v, y, 0)
    assert head(v).shape == (60, classes)
    assert (head(v).argmax(1) == y).float().mean() > 0.9
