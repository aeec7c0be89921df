"""The registry over HTTP: a real tracking server to register with, and a real scoring server for what was registered."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from components import register
from components.common import artifact
from components.common.errors import SettingsError
from components.registry.compare import compare
from components.registry.listing import models
from components.registry.promote import promote
from components.registry.serving import serve_manifest
from components.tracking.client import connect
from components.tracking.live import LiveLog
from tests.components.registry_artifacts import CLASSES, CONFIG, make, settings

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
    return port


@contextmanager
def serving(command: list[str], health: str, log: Path) -> Iterator[None]:
    """Run an MLflow command until the block ends, in a process group of its own; wait until `health` answers."""
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command], env=environment, stdout=out, stderr=out, start_new_session=True
        )
        try:
            deadline = time.monotonic() + 150
            while not answers(health):
                assert process.poll() is None, log.read_text()[-2000:]
                assert time.monotonic() < deadline, log.read_text()[-2000:]
                time.sleep(0.1)
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def test_register_and_promote_through_a_tracking_server(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    command = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--backend-store-uri", store]
    command += ["--artifacts-destination", str(tmp_path / "server")]
    inputs = make(tmp_path)
    with serving(command, f"{uri}/health", tmp_path / "server.log"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        key = artifact.read(inputs.model, "model").json("summary.json")["training_key"]
        with LiveLog(key, tmp_path / "work", "tests") as log:
            log.log(100, {"loss": 1.5})
        for policy in ("manual", "manual"):  # twice the same digest
            register.run(settings(policy=policy), **inputs.paths(), out=tmp_path / "out")
        assert "champion moved to version 1" in promote("glyphs", version=None, alias="champion", force=False, reason="first")
        assert "first" in models("glyphs")
        better = make(tmp_path / "2", training="t2")
        register.run(settings(), **better.paths(), out=tmp_path / "out2")  # the champion's predictions come over HTTP
        second = artifact.read(tmp_path / "out2", "registration").json("registration.json")
        assert second["version"] == 2
        assert "no worse than champion version 1" in second["gate"]["reasons"][-1]
        check_what_is_fetched(tmp_path / "fetched", monkeypatch)
        client = connect()
        run_id = artifact.read(tmp_path / "out", "registration").json("registration.json")["run_id"]
        assert [m.step for m in client.get_metric_history(run_id, "train/loss")] == [100, 200]
        import mlflow

        out = mlflow.pyfunc.load_model("models:/glyphs@champion").predict(np.zeros((3, 8, 8, 1), np.uint8))
        assert out["embedding"].shape == (3, CONFIG.embed_dim)
        promoted = mlflow.pyfunc.load_model("models:/glyphs.promotions/1").predict(np.zeros((3, 8, 8, 1), np.uint8))
        assert np.array_equal(promoted["embedding"], out["embedding"])


def check_what_is_fetched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To compare two versions takes two small files of each, a manifest one; none is left behind."""
    from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository

    names: list[str] = []
    whole = HttpArtifactRepository._download_file

    def counted(self: HttpArtifactRepository, remote_file_path: str, local_path: str) -> None:
        names.append(remote_file_path)
        whole(self, remote_file_path, local_path)

    folder.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "tempdir", str(folder))
        patched.setattr(HttpArtifactRepository, "_download_file", counted)
        compare("glyphs/1", "glyphs/2", as_json=True)
        with pytest.raises(SettingsError, match="--artifacts-destination"):
            serve_manifest("glyphs", namespace=None, image=None, service_account=None, artifacts_destination=None)
    assert sorted(Path(name).name for name in names) == ["predictions.parquet"] * 2 + ["requirements.txt"] + ["serving.json"] * 2
    assert list(folder.iterdir()) == []


def test_a_registered_model_is_served_as_json(store: str, tmp_path: Path) -> None:
    register.run(settings(), **make(tmp_path).paths(), out=tmp_path / "out")
    port = free_port()
    command = ["models", "serve", "-m", "models:/glyphs@candidate", "--env-manager", "local", "--host", "127.0.0.1"]
    with serving([*command, "--port", str(port)], f"http://127.0.0.1:{port}/ping", tmp_path / "serve.log"):
        for n in (1, 3):
            images = np.random.default_rng(n).integers(0, 256, (n, 8, 8, 1), dtype=np.uint8)
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/invocations",
                json.dumps({"inputs": images.tolist()}).encode(),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=60) as response:
                out = json.load(response)["predictions"]
            assert np.shape(out["embedding"]) == (n, CONFIG.embed_dim)
            assert np.shape(out["probabilities"]) == (n, len(CLASSES))
            assert np.sum(out["probabilities"], axis=1) == pytest.approx(np.ones(n), abs=1e-5)
