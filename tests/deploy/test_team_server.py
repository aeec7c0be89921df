"""The server of deploy/compose.yaml, on PostgreSQL and an S3 store: the pipeline with it, who gets in, what a fault leaves."""

import json
import logging
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import pytest

from components.registry import versions
from components.tracking.client import connect, every, set_environment
from pipeline.cli import main
from pipeline.steps import STEPS
from tests.components.registry.postgres import MISSING, binaries, postgres
from tests.components.registry.test_registry_servers import free_port
from tests.components.registry_artifacts import Inputs, make
from tests.deploy.compose_file import SECRETS, Mlflow, make_bucket
from tests.deploy.line import AFTER, BEFORE, Line, line_to
from tests.scenarios.conftest import ROOT, SHORT

pytestmark = [pytest.mark.slow, pytest.mark.skipif(binaries() is None, reason=MISSING)]
PASSWORD = SECRETS["MLFLOW_ADMIN_PASSWORD"]
REFUSED = r"dier: error: MLflow at http://127\.0\.0\.1:\d+ refused access \(401\): check [^\n]+\n"
GONE = r"dier: error: MLflow at http://127\.0\.0\.1:\d+ does not answer: start the server, or set MLFLOW_TRACKING_URI [^\n]+\n"
WRITES = [
    "experiments/create",
    "registered-models/create",
    "runs/create",
    "log-batch",
    "logged-models",
    "model-versions/create",
    "alias",
]
"""Some of what `register` asks the server to write."""


@pytest.fixture(scope="module")
def objects(s3_server: str) -> str:
    """The object store, with the bucket that the service `bucket` makes; made twice, as at every start."""
    for _ in range(2):
        make_bucket(s3_server)
    return s3_server


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """URI of a database of these tests' own, which asks for the password of compose.yaml."""
    with postgres(free_port(), SECRETS["POSTGRES_PASSWORD"]) as uri:
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


@pytest.fixture(scope="module")
def as_admin(server: Mlflow, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """All that a client has: three variables, and a folder. Nothing of the store or the database."""
    folder = tmp_path_factory.mktemp("client")
    with pytest.MonkeyPatch.context() as patched:
        for name in list(os.environ):
            if name.startswith(("AWS_", "PG", "MLFLOW_")):
                patched.delenv(name)
        patched.setenv("MLFLOW_TRACKING_URI", server.uri)
        patched.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        patched.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        patched.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # no waiting for a server that is gone
        patched.chdir(folder)
        set_environment()
        logging.getLogger("mlflow").setLevel("WARNING")  # as that makes it, where MLflow was imported before
        yield folder


@pytest.fixture
def line(server: Mlflow, as_admin: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """What the client takes for the server."""
    with line_to(int(server.uri.rpartition(":")[2])) as line:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", line.uri)
        yield line


@pytest.fixture
def stored(database: str) -> Callable[[str], list[Any]]:
    """What the database itself says of a model's versions, whoever is logged in and whether a server is there."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=database, registry_uri=database)
    return lambda name: versions.versions(client, name)


def everything(database: str) -> dict[str, list[str]]:
    """Every model, experiment, run and logged model in the database."""
    from mlflow import MlflowClient

    there = MlflowClient(tracking_uri=database, registry_uri=database)
    experiments = {one.experiment_id: one.name for one in every(there.search_experiments)}
    return {
        "models": [model.name for model in every(there.search_registered_models)],
        "experiments": sorted(experiments.values()),
        "runs": [run.info.run_id for run in every(there.search_runs, list(experiments))],
        "logged": [model.model_id for model in every(there.search_logged_models, list(experiments))],
    }


def words(step: str, artifacts: Path, *overrides: str, out: Path | None = None, **places: Path) -> list[str]:
    """The command line of a step over the artifacts in a folder."""
    (row,) = [one for one in STEPS if one.name == step]
    at = [word for name in row.inputs for word in (f"--{name}", str(places.get(name, artifacts / name)))]
    sets = [word for one in (*SHORT, *overrides) for word in ("--set", one)]
    return [step, "--params", str(ROOT / "params.yaml"), *at, "--out", str(out or artifacts / row.output), *sets]


def register(inputs: Inputs, name: str, out: Path) -> list[str]:
    return words("register", out, f"register.name={name}", f"register.experiment={name}", out=out, **inputs.paths())


@pytest.fixture(scope="module")
def made(as_admin: Path) -> Path:
    """The artifacts of the pipeline up to the report: real digits, a training of 60 steps that logs to the server."""
    artifacts = as_admin / "artifacts"
    for step in STEPS:
        if step.name != "register":
            assert main(words(step.name, artifacts)) == 0
    return artifacts


def test_the_whole_path_by_environment_variables_alone(made: Path, objects: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Trained, registered by a process of its own, promoted, superseded, rolled back, compared and verified."""
    three = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_TRACKING_")}
    assert len(three) == 3
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *words("register", made)],
        env={**kept, **three, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    client = connect()
    (version,) = versions.versions(client, "dier")
    run = client.get_run(version.run_id)
    assert [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")] == [20, 40, 60]  # it logged them live
    assert run.data.tags["dier.git_commit"] == version.tags["dier.trained_git_commit"]
    assert "time | unknown" not in version.description

    def dier(*command: str) -> str:
        capfd.readouterr()
        code, said = main(command), capfd.readouterr()
        assert (code, said.err) == (0, ""), said
        return said.out

    assert "champion moved to version 1" in dier("promote", "dier", "--reason", "the first")
    again = made.with_name("probed again")
    assert main(words("probe", made, "probe.bootstrap=100", out=again / "probe")) == 0
    assert main(words("report", made, out=again / "report", probe=again / "probe")) == 0
    assert main(words("register", made, out=again / "out", probe=again / "probe", report=again / "report")) == 0
    assert "champion moved from version 1 to version 2" in dier("promote", "dier", "--version", "2", "--reason", "probed again")
    assert "(version 2) minus dier/1: test accuracy" in dier("compare", "dier/1", "dier@champion")
    assert "champion moved back from version 2 to version 1" in dier("rollback", "dier")
    assert [row["to"] for row in json.loads(dier("history", "dier", "--json"))] == [1, 2, 1]
    assert dier("verify", "dier@champion", "--artifacts", str(made)).splitlines()[-1] == "verified"
    assert str(made / "model") in dier("lineage", "dier@champion", "--artifacts", str(made))
    check_in_the_bucket(objects)


def test_a_dump_of_the_database_restores_it(server: Mlflow, database: str, tmp_path: Path) -> None:
    """The two commands of docs/team-server.md, without the containers."""
    programs, at = binaries(), urlsplit(database)
    assert programs is not None
    login = {"PGHOST": "127.0.0.1", "PGPORT": str(at.port), "PGUSER": "dier", "PGPASSWORD": SECRETS["POSTGRES_PASSWORD"]}

    def run(*command: str, **streams: Any) -> None:
        subprocess.run([str(programs / command[0]), *command[1:]], env=login, check=True, **streams)

    dump = tmp_path / "mlflow.sql"
    with dump.open("w") as out:
        run("pg_dump", "--clean", "--if-exists", "postgres", stdout=out)
    run("createdb", "restored")
    with dump.open() as stdin:
        run("psql", "--dbname", "restored", "--set", "ON_ERROR_STOP=1", stdin=stdin, stdout=subprocess.DEVNULL)
    found = everything(database.replace("/postgres", "/restored"))
    assert found == everything(database)
    assert found["experiments"]


def check_in_the_bucket(objects: str) -> None:
    """The files went through the server into the store, which the client knows nothing of."""
    with urllib.request.urlopen(f"{objects}/mlflow?list-type=2") as response:
        listed = response.read().decode()
    assert "model.safetensors</Key>" in listed
    assert connect().get_experiment_by_name("dier").artifact_location.startswith("mlflow-artifacts:/")


@pytest.mark.parametrize("user", [None, ("admin", "a wrong password"), ("nobody", "secret of somebody")])
def test_without_the_right_password_nothing_is_registered(
    user: tuple[str, str] | None,
    as_admin: Path,
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    inputs, before = make(tmp_path), everything(database)
    for name, value in zip(("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"), user or ("", ""), strict=True):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    for command in (register(inputs, "strangers", tmp_path / "out"), ["promote", "dier"], ["verify", "dier@champion"]):
        capfd.readouterr()
        assert main(command) == 1
        said = capfd.readouterr()
        assert re.fullmatch(REFUSED, said.err)
        assert not user or user[1] not in said.out + said.err
    assert not (tmp_path / "out").exists()
    assert everything(database) == before


def edges(writes: list[str]) -> list[int]:
    """Which of the writing requests to cut at: of those of one kind in a row, as of files that go up, the last."""
    kinds = ["PUT" if write.startswith("PUT ") else write for write in writes]
    return [n for n, kind in enumerate(kinds) if kinds[n + 1 : n + 2] != [kind]]


def test_cut_off_at_any_write_there_is_no_version_or_a_whole_one(
    line: Line, stored: Callable[[str], list[Any]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Before the first request of `register` that changes something, and after each of `edges`, when it was done and nobody knows.

    Before any other the server has what it has after the one before.
    """
    assert main(register(make(tmp_path / "0", training="0"), "uncut", tmp_path / "0" / "out")) == 0
    writes = line.writes
    for call in WRITES:
        assert any(call in write for write in writes), call
    ends = set()
    for number, when in [(0, BEFORE), *((number, AFTER) for number in edges(writes))]:
        name = f"cut-{number}-{when}"
        inputs, out = make(tmp_path / name, training=name), tmp_path / name / "out"
        line.cut(lambda request, number=number: len(line.writes) == number + 1, when)
        capfd.readouterr()
        assert main(register(inputs, name, out)) == 1, name
        assert re.fullmatch(GONE, capfd.readouterr().err), name
        assert not out.exists()
        left = stored(name)
        ends.add(len(left))
        line.mend()
        for version in left:  # what it says of itself, and of its files, is all there
            assert {versions.DIGEST_TAG, versions.GATE_TAG, versions.DATASET_TAG, versions.ACCURACY_TAG} <= version.tags.keys()
            assert main(["verify", f"{name}/{version.version}", "--files-only"]) == 0
        assert main(register(inputs, name, out)) == 0, name
        (version,) = stored(name)
        assert [version.version] == [one.version for one in left] or left == []
        assert versions.aliases(connect(), name) == {"candidate": int(version.version)}
        assert versions.SETTINGS_TAG in version.tags
    assert ends == {0, 1}


def test_the_server_killed_within_a_request_leaves_no_version_or_a_whole_one(
    line: Line,
    server: Mlflow,
    stored: Callable[[str], list[Any]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    import mlflow

    inputs = make(tmp_path, training="killed")
    command = register(inputs, "killed", tmp_path / "out")
    for chosen, most in (("model.safetensors", 0), ("model-versions/create", 1)):
        line.cut(lambda request, chosen=chosen: request.endswith(chosen), AFTER, meanwhile=server.kill)
        capfd.readouterr()
        assert main(command) == 1
        assert re.fullmatch(GONE, capfd.readouterr().err)
        assert len(stored("killed")) <= most
        server.start()
        line.mend()
    assert main(command) == 0
    (version,) = stored("killed")
    assert versions.aliases(connect(), "killed") == {"candidate": int(version.version)}
    assert main(["verify", "killed@candidate", "--files-only"]) == 0
    assert mlflow.pyfunc.load_model("models:/killed@candidate").predict(np.zeros((2, 8, 8, 1), np.uint8))["embedding"].shape[0] == 2


def test_a_download_that_breaks_off_is_no_damage_and_shows_no_password(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(register(make(tmp_path, training="read"), "read", tmp_path / "out")) == 0
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", line.uri.replace("//", f"//admin:{quote(PASSWORD)}@"))
    line.cut(lambda request: request.startswith("GET ") and request.endswith("predictions.parquet"), BEFORE)
    capfd.readouterr()
    assert main(["compare", "read/1", "read/1"]) == 1
    said = capfd.readouterr().err
    assert "does not answer" in said
    assert "secret" not in said
    assert len(said.splitlines()) == 1
