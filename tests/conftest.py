"""What every test may use, and the order in which they run."""

import fcntl
import os
import shutil
import socket
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# A time limit for each example says how busy the machine is, not what the code does.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

Once = Callable[[str, Callable[[Path], object]], Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole pipelines first, then other files with slow tests: what is left for the end is small, and both workers are busy."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, item.path.parent.name != "scenarios"))


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Make a folder once for all workers: who asks first makes it, others wait for it. Nobody may change it."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # a worker's own folder lies in the run's

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder = base / name
        with open(base / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                partial = base / f"{name}.partial"
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                make(partial)
                partial.rename(folder)
        return folder

    return made


@pytest.fixture(scope="session")
def migrated_store(once: Once) -> Path:
    """An empty SQLite file with MLflow's tables, which take seconds to make: tests copy this one."""

    def make(folder: Path) -> None:
        from components.tracking.client import set_environment

        set_environment()
        from mlflow import MlflowClient

        MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()

    return once("mlflow", make) / "mlflow.db"


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
def point_to(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Make an address the S3 store of this test, and forget it afterwards."""
    from data import store

    def point(url: str) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        store._s3.cache_clear()

    for name, value in {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/", "AWS_SHARED_CREDENTIALS_FILE": "/"}.items():
        monkeypatch.setenv(name, value)
    yield point
    store._s3.cache_clear()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server on this machine (moto's, in memory), with the bucket `dier`."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    urllib.request.urlopen(urllib.request.Request(f"{url}/dier", method="PUT")).close()
    yield url
    server.stop()


@pytest.fixture
def s3_store(s3_server: str, point_to: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> str:
    """A prefix of the test's own in that server's bucket; the environment says how to reach it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    point_to(s3_server)
    return f"s3://dier/{uuid.uuid4().hex}"


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
    return port
