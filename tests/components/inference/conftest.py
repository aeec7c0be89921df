"""Registered models as folders, as `mlflow artifacts download` writes them, made once: real networks, never trained."""

import shutil
from pathlib import Path

import pytest

from components.common import artifact
from components.registry import package
from components.tracking.client import connect, training_run
from model.config import ModelConfig
from tests.components.registry_artifacts import CONFIG, make
from tests.conftest import Once

RESNET = ModelConfig(
    depth=4, dim=16, heads=2, image_height=16, image_width=12, channels=3, patch_size=4, embed_dim=12, encoder="resnet"
)
MADE = {
    "glyphs": {"config": CONFIG},
    "tags": {"config": CONFIG, "multi_label": True},
    "unlabelled": {"config": CONFIG, "labelled": False},
    "resnet": {"config": RESNET},
}


@pytest.fixture(scope="session")
def folders(once: Once, migrated_store: Path) -> Path:
    """A folder with one folder of MLflow's for each of MADE: `glyphs` is a ViT of grey 8x8, `resnet` of 16x12 in colour."""

    def log_all(out: Path) -> None:
        work = out / "work"
        work.mkdir()
        shutil.copyfile(migrated_store, work / "mlflow.db")
        with pytest.MonkeyPatch.context() as patched:
            patched.chdir(work)
            patched.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{work / 'mlflow.db'}")
            client = connect()
            run = training_run(client, "t1", "tests")
            for name, kind in MADE.items():
                inputs = make(work / name, **kind)
                both = artifact.read(inputs.model, "model"), artifact.read(inputs.probe, "probe")
                model_id = package.log_model(client, run, name, *both, {})
                shutil.copytree(next(work.glob(f"mlruns/*/models/{model_id}/artifacts")), out / name)
        shutil.rmtree(work)

    return once("folders", log_all)


@pytest.fixture
def glyphs(folders: Path) -> str:
    """A model with classes a, b and c."""
    return str(folders / "glyphs")
