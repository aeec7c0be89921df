"""The team's server as deploy/compose.yaml starts it, on PostgreSQL and an S3 store: who gets in, and what a kill of it leaves."""

import os
import urllib.request
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from components import register
from components.common import artifact
from components.registry import package, versions
from components.tracking.client import TrackingError, connect, every
from tests.components.registry.postgres import MISSING, binaries, postgres
from tests.components.registry.test_registry_servers import free_port
from tests.components.registry_artifacts import CONFIG, Inputs, make, settings
from tests.deploy.compose_file import SECRETS, Mlflow, make_bucket

pytestmark = [pytest.mark.slow, pytest.mark.skipif(binaries() is None, reason=MISSING)]
NAME = "glyphs"
PASSWORD = "secret of somebody"


@pytest.fixture(scope="module")
def objects(s3_server: str) -> str:
    """The object store, with the bucket that the service `bucket` makes; made twice, as at every start."""
    for _ in range(2):
        make_bucket(s3_server)
    return s3_server


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """URI of an empty database."""
    with postgres(free_port()) as uri:
        yield uri


@pytest.fixture(scope="module")
def server(database: str, objects: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mlflow]:
    pytest.importorskip("flask_wtf", reason="MLflow's authentication needs Flask-WTF: pip install -e '.[dev]'")
    at = urlsplit(database)
    reached = {"PGHOST": str(at.hostname), "PGPORT": str(at.port), "PGUSER": str(at.username), "PGDATABASE": at.path[1:]}
    server = Mlflow(free_port(), reached, objects, tmp_path_factory.mktemp("server") / "log")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return make(tmp_path)


@pytest.fixture
def as_admin(server: Mlflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a client has: three variables. Nothing of the store or the database; and no waiting for a server that is gone."""
    for name in os.environ:
        if name.startswith(("AWS_", "PG", "MLFLOW_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRETS["MLFLOW_ADMIN_PASSWORD"])
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def stored(database: str) -> Callable[[], list[Any]]:
    """What the database itself says of the versions, whoever is logged in and whether a server is there."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=database, registry_uri=database)
    return lambda: versions.versions(client, NAME)


def do(inputs: Inputs, out: Path) -> dict[str, Any]:
    register.run(settings(), **inputs.paths(), out=out)
    found: dict[str, Any] = artifact.read(out, "registration").json("registration.json")
    return found


@pytest.mark.parametrize("user", [None, ("admin", "a wrong password"), ("nobody", PASSWORD)])
def test_without_the_right_password_nothing_is_registered(
    user: tuple[str, str] | None, as_admin: None, inputs: Inputs, tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    for name, value in zip(("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"), user or ("", ""), strict=True):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    with pytest.raises(TrackingError, match=r"^MLflow at http://127\.0\.0\.1:\d+ refused access \(401\): check [^\n]+$") as refused:
        do(inputs, tmp_path / "out")
    assert not user or user[1] not in str(refused.value)
    assert not (tmp_path / "out").exists()
    there = MlflowClient(tracking_uri=database, registry_uri=database)
    assert every(there.search_registered_models) == []
    assert [experiment.name for experiment in every(there.search_experiments)] == ["Default"]
    assert every(there.search_runs, ["0"]) == []


def kill_after(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, calls: int, server: Mlflow) -> None:
    """Kill the server after so many of these calls of the client's."""
    whole, counted = getattr(owner, name), count(1)

    def struck(*arguments: Any, **named: Any) -> Any:
        done = whole(*arguments, **named)
        if next(counted) == calls:
            monkeypatch.setattr(owner, name, whole)
            server.kill()
        return done

    monkeypatch.setattr(owner, name, struck)


def check_whole(version: Any, inputs: Inputs) -> None:
    """A version that is there says what it is, and its files are those of the artifacts."""
    import mlflow

    assert version.status == "READY"
    assert {versions.DIGEST_TAG, versions.GATE_TAG, versions.DATASET_TAG, versions.ACCURACY_TAG} <= version.tags.keys()
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/{version.version}"))
    for name in ("config.json", "model.safetensors"):
        assert (folder / package.FILES_FOLDER / name).read_bytes() == (inputs.model / name).read_bytes()
    out = mlflow.pyfunc.load_model(str(folder)).predict(np.zeros((2, 8, 8, 1), np.uint8))
    assert out["embedding"].shape == (2, CONFIG.embed_dim)


def test_a_server_killed_in_the_middle_leaves_no_version_or_a_whole_one(
    as_admin: None,
    server: Mlflow,
    stored: Callable[[], list[Any]],
    inputs: Inputs,
    tmp_path: Path,
    objects: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mlflow import MlflowClient
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    answer = r"^MLflow at \S+ does not answer: start the server, or set MLFLOW_TRACKING_URI [^\n]+$"
    left_at = [
        (MlflowArtifactsRepository, "log_artifact", 5, 0),  # the report's three files are there, and two of the model's
        (MlflowClient, "create_model_version", 1, 1),  # all is there but the alias
    ]
    for owner, call, calls, made in left_at:
        kill_after(monkeypatch, owner, call, calls, server)
        with pytest.raises(TrackingError, match=answer):
            do(inputs, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        assert len(stored()) == made
        server.start()
    (left,) = stored()
    assert left.aliases == []
    check_whole(left, inputs)
    done = do(inputs, tmp_path / "out")
    assert (done["version"], done["aliases"]) == (1, ["candidate"])
    (version,) = stored()
    assert versions.SETTINGS_TAG in version.tags
    assert do(inputs, tmp_path / "out") == done
    check_in_the_bucket(objects)


def check_in_the_bucket(objects: str) -> None:
    """The files went through the server into the store, which the client knows nothing of."""
    with urllib.request.urlopen(f"{objects}/mlflow?list-type=2") as response:
        listed = response.read().decode()
    assert "model.safetensors</Key>" in listed
    assert connect().get_experiment_by_name("tests").artifact_location.startswith("mlflow-artifacts:/")
