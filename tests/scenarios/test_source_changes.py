"""dvc repro sees that the images behind data.path changed: a file, a folder, and the folder of downloads that is the default."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.files import digits, layout, save
from tests.scenarios.conftest import Checkout

pytestmark = pytest.mark.slow


def prepared(made: Checkout) -> bool:
    """Whether `dvc repro prepare` ran the step."""
    said = made.run("dvc", "repro", "prepare")
    ran = bool(re.search(r"Running stage 'prepare'", said))
    assert ran != ("Data and pipelines are up to date" in said)
    return ran


def write_folder(path: Path, start: int) -> None:
    shutil.rmtree(path, ignore_errors=True)
    for image, label in zip(*(array[start : start + 60] for array in digits()), strict=True):
        (path / "train" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path / "train" / str(label) / f"{len(list(path.rglob('*.png'))):03d}.png")


def test_prepare_runs_again_when_what_lies_behind_data_path_changes(checkout: Callable[[str], Checkout], tmp_path: Path) -> None:
    made = checkout("source")
    assert prepared(made)
    save(made.folder / "real-data" / "new.npz", layout())  # the default, ./real-data, is the folder of downloads
    assert prepared(made)
    assert not prepared(made)

    file = made.folder / "real-data" / "new.npz"
    made.set("data.source=npz", "data.path=real-data/new.npz")
    assert prepared(made)
    save(file, layout(), train_images=layout()["train_images"][::-1])
    assert prepared(made)
    images = np.load(made.folder / "artifacts" / "dataset" / "train" / "images.npy")
    np.testing.assert_array_equal(images[..., 0], layout()["train_images"][::-1])

    write_folder(tmp_path / "set", 0)  # outside of the repository, by an absolute path
    made.set("data.source=folder", f"data.path={tmp_path / 'set'}")
    assert prepared(made)
    assert not prepared(made)
    write_folder(tmp_path / "set", 60)
    assert prepared(made)
