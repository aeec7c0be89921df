"""What the tests of submitting share: a compiled pipeline, a stand-in server, and the command."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.common.settings import Settings
from pipeline.cli import main
from pipeline.kubeflow import retry
from pipeline.kubeflow.cluster import Cluster
from pipeline.kubeflow.pipeline import compiled
from tests.pipeline.kubeflow import kfp_standin as standin
from tests.pipeline.kubeflow.kfp_standin import StandIn

ROOT = Path(__file__).parents[2]
IMAGE = "registry.example/dier@sha256:" + "a" * 64
TOKEN = "secret-token-0123456789"


@pytest.fixture(scope="session")
def compiled_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline, compiled for a cluster."""
    path = tmp_path_factory.mktemp("compiled") / "dier.yaml"
    path.write_text(compiled(Settings(), Cluster(image=IMAGE)))
    return path


@pytest.fixture
def server() -> Iterator[StandIn]:
    with standin.serve() as running:
        yield running


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Self-signed, for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    kind = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=stand-in -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(["openssl", "req", "-x509", *kind.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def quick_and_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause between requests, and no cluster from whoever runs the tests."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(retry, "POLL_S", 0.01)
    monkeypatch.setattr(retry, "TIMEOUT_S", (5.0, 20.0))  # a busy machine's stand-in may take a while
    for name in ("KF_PIPELINES_ENDPOINT", "KF_PIPELINES_UI_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def impatient(quick_and_alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a server that says nothing."""
    monkeypatch.setattr(retry, "TIMEOUT_S", (5.0, 1.5))


class Command:
    """Runs the command in this process; keeps its exit code and what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str], file: Path) -> None:
        self.capsys, self.file = capsys, file

    def __call__(self, name: str, *options: object) -> "Command":
        compiled = name in ("upload", "submit") or (name == "schedule" and "--cron" in options)
        pipeline = ("--pipeline", self.file) if compiled and "--pipeline" not in options else ()
        self.code = main([name, *map(str, (*pipeline, *options))])
        self.out, self.err = self.capsys.readouterr()
        assert TOKEN not in self.out + self.err
        assert "Traceback" not in self.err
        return self

    @property
    def error(self) -> str:
        """The error: the last line, and the only one of its kind."""
        last = self.err.splitlines()[-1]
        assert last.startswith("dier: error: ")
        assert self.err.count("dier: error:") == 1
        return last.removeprefix("dier: error: ")


@pytest.fixture
def dier(capsys: pytest.CaptureFixture[str], compiled_file: Path, quick_and_alone: None) -> Command:
    return Command(capsys, compiled_file)
