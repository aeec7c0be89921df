"""A fresh MLflow store takes seconds to make: the tests copy one that was made once, for all workers of a run."""

import os
import shutil
import socket
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def migrated_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite file with MLflow's tables."""
    from components.tracking.client import connect

    here = tmp_path_factory.getbasetemp()
    file = (here.parent if "PYTEST_XDIST_WORKER" in os.environ else here) / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{file}")
        connect()
    return file


@pytest.fixture
def store(migrated_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store of the test's own, in a working folder of its own; gives its URI."""
    folder = tmp_path / "workplace"
    folder.mkdir()
    shutil.copyfile(migrated_store, folder / "mlflow.db")
    monkeypatch.chdir(folder)
    uri = f"sqlite:///{folder / 'mlflow.db'}"  # absolute: MLflow keeps open stores by their URI
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    return uri


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
    return port
