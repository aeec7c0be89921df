"""Promotions by several real processes at once, and processes that die or stand still in the middle of one.

On SQLite, on PostgreSQL, and over HTTP from a real tracking server.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from components import register
from components.registry import promotions, versions
from components.registry.listing import history
from components.registry.promote import promote, rollback
from components.tracking.client import connect
from tests.components.registry import postgres
from tests.components.registry.test_registry_servers import free_port, serving
from tests.components.registry_artifacts import Inputs, make, settings

pytestmark = pytest.mark.slow
NAME = "glyphs"
KINDS = ("verdict", "model", "probe", "report")
ROOT = Path(__file__).parents[3]
AT_ONCE = 8
HOW = ("move", "move", "promote", "promote", "rollback")


def harness(*turns: list[dict[str, Any]]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.components.registry.promote_in_processes", json.dumps(turns)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def lines(running: subprocess.Popen[str]) -> list[dict[str, Any]]:
    with running:
        return [json.loads(line) for line in running.communicate(timeout=600)[0].splitlines()]


def at_once(*turns: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """What the processes said, turn by turn; each must have ended well."""
    told = lines(harness(*turns))
    assert [line["ended"] for line in told if "ended" in line] == [0] * sum(map(len, turns))
    said = iter([line for line in told if "said" in line])
    return [[next(said) for _ in turn] for turn in turns]


def stopped(running: subprocess.Popen[str]) -> int:
    """Wait until the only process of a harness stands still; give its id."""
    assert running.stdout is not None
    pid: int = json.loads(running.stdout.readline())["pid"]
    deadline = time.monotonic() + 120
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return pid


def tracking_server(store: str, port: int, folder: Path) -> AbstractContextManager[None]:
    command = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--backend-store-uri", store]
    return serving([*command, "--artifacts-destination", str(folder)], f"http://127.0.0.1:{port}/health", folder / "log")


def filled(client: MlflowClient, count: int) -> MlflowClient:
    """A registry with so many versions that passed the gate."""
    client.create_registered_model(NAME)
    for _ in range(count):
        client.create_model_version(NAME, "s3://bucket/model", tags={"dier.gate": "passed", "dier.gate_reasons": "[]"})
    return client


@pytest.fixture
def database() -> Iterator[str]:
    if postgres.binaries() is None:
        pytest.skip(postgres.MISSING)
    pytest.importorskip("psycopg2", reason="psycopg2-binary is not installed: pip install -e '.[dev]'")
    with postgres.postgres(free_port()) as uri:
        yield uri


@pytest.fixture(params=["sqlite", "postgresql", "http"])
def registry(request: pytest.FixtureRequest, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    if request.param == "sqlite":
        yield connect()
    elif request.param == "postgresql":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", request.getfixturevalue("database"))
        yield connect()
    else:
        port = free_port()
        with tracking_server(store, port, tmp_path):
            monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
            yield connect()


def told() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(history(NAME, alias=None, as_json=True))
    return found


def test_of_eight_at_once_exactly_one_wins_and_the_others_say_so(registry: MlflowClient) -> None:
    """Twice all look, then all move: nothing but the store's order decides. Then by dier's promote, to one version, and back."""
    same = 3 * AT_ONCE + 1
    filled(registry, same)
    turns = [[{"do": do, "version": AT_ONCE * turn + 1 + i} for i in range(AT_ONCE)] for turn, do in enumerate(HOW[:3])]
    said = at_once(*turns, [{"do": HOW[3], "version": same}] * AT_ONCE, [{"do": HOW[4]}] * AT_ONCE)
    rows = told()
    assert len(versions.versions(registry, NAME + promotions.SUFFIX)) >= 2 * AT_ONCE + 3  # they did meet: in two turns each wrote
    assert [row["outcome"] for row in rows] == ["moved"] * len(HOW)
    assert [row["from"] for row in rows] == [None, *(row["to"] for row in rows[:-1])]  # one line, and nothing lost
    assert [row["to"] for row in rows[3:]] == [same, rows[2]["to"]]
    assert versions.aliases(registry, NAME)["champion"] == rows[2]["to"]
    moved = ("moved: ", f"{NAME}: champion moved from version", f"{NAME}: champion moved back from version {same}")
    for turn, row in zip(said, rows, strict=True):
        won = [one for one in turn if one["said"].startswith(moved)]
        assert [one.get("version", row["to"]) for one in won] == [row["to"]]
        agreed = row in rows[3:]
        second = f"{row['to']} is champion already (moved by" if agreed else f"champion was moved to version {row['to']} by"
        assert [one["said"] for one in turn if one not in won and second not in one["said"]] == []


@pytest.fixture
def client(store: str) -> MlflowClient:
    """A registry with six versions, whose first is champion."""
    client = filled(connect(), 6)
    promote(NAME, version=1, alias="champion", force=False, reason="first")
    return client


CALLS = ["create_model_version", "set_registered_model_alias", "set_model_version_tag"]
"""What a promotion writes, in this order: the entry, the alias, the mark that it was moved."""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", CALLS)
def test_a_promotion_killed_anywhere_happened_or_did_not(client: MlflowClient, call: str, when: str) -> None:
    assert lines(harness([{"do": "promote", "version": 3, "kill": [call, when]}]))[-1]["ended"] == -signal.SIGKILL
    written = (call, when) != ("create_model_version", "before")
    moved = call == "set_model_version_tag" or (call, when) == ("set_registered_model_alias", "after")
    assert versions.aliases(client, NAME)["champion"] == (3 if moved else 1)
    rows = told()
    assert [(row["from"], row["to"]) for row in rows] == [(None, 1), (1, 3)][: 1 + written]
    whole = not written or (call, when) == ("set_model_version_tag", "after")
    assert rows[-1]["outcome"] == ("moved" if whole else "not moved yet")

    assert "to version 5" in promote(
        NAME, version=5, alias="champion", force=False, reason="next"
    )  # whoever comes next finishes it
    assert [(row["from"], row["to"]) for row in told()] == ([(None, 1), (1, 3), (3, 5)] if written else [(None, 1), (1, 5)])
    assert {row["outcome"] for row in told()} == {"moved"}
    assert f"back from version 5 to version {3 if written else 1}" in rollback(NAME, version=None, alias="champion", reason=None)


@pytest.mark.parametrize("call", CALLS)
def test_a_process_that_stood_still_does_not_undo_what_came_meanwhile(client: MlflowClient, call: str) -> None:
    """It decided on version 3, and goes on after others have moved the alias twice."""
    running = harness([{"do": "promote", "version": 3, "stop": [call, "before"]}])
    pid = stopped(running)
    for version in (5, 6):
        promote(NAME, version=version, alias="champion", force=False, reason="meanwhile")
    os.kill(pid, signal.SIGCONT)
    said = [line for line in lines(running) if "said" in line]
    assert versions.aliases(client, NAME)["champion"] == 6
    written = call != "create_model_version"
    assert ("champion moved from version 1 to version 3" if written else "version 3 was not promoted") in said[0]["said"]
    assert [row["to"] for row in told()] == ([1, 3, 5, 6] if written else [1, 5, 6])


def test_a_server_that_goes_away_in_the_middle_leaves_a_promotion_to_finish(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    port = free_port()
    with tracking_server(store, port, tmp_path):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        client = filled(connect(), 2)
        promote(NAME, version=1, alias="champion", force=False, reason="first")
        running = harness([{"do": "promote", "version": 2, "stop": ["set_registered_model_alias", "before"]}])
        pid = stopped(running)
    os.kill(pid, signal.SIGCONT)
    (said,) = [line["said"] for line in lines(running) if "said" in line]
    assert f"TrackingError: MLflow at http://127.0.0.1:{port} does not answer" in said
    with tracking_server(store, port, tmp_path):
        assert told()[-1]["outcome"] == "not moved yet"
        assert versions.aliases(client, NAME)["champion"] == 1
        assert "version 2 is champion already" in promote(NAME, version=2, alias="champion", force=False, reason="again")
        assert [row["outcome"] for row in told()] == ["moved", "moved"]


def test_of_eight_registered_at_once_by_policy_auto_one_is_champion(
    registry: MlflowClient, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = registry
    folders = [tmp_path / str(number) for number in range(AT_ONCE)]
    for number, folder in enumerate(folders):
        make(folder, training=f"t{number}")
    (said,) = at_once([{"do": "register", "folder": str(folder)} for folder in folders])
    assert capfd.readouterr().err.count("It is candidate instead; register it again") == AT_ONCE - 1
    champion = versions.aliases(client, NAME)["champion"]
    assert len(versions.versions(client, NAME)) == AT_ONCE, said
    assert sum("champion" in one["said"] for one in said) == 1
    assert [(entry.kind, entry.before, entry.to) for entry in promotions.record(client, client.get_registered_model(NAME))] == [
        ("auto", None, champion)
    ]

    second = Path(next(one["folder"] for one in said if "champion" not in one["said"]))  # beside the champion it has not seen
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    register.run(settings(policy="auto"), **Inputs(*(second / kind for kind in KINDS)).paths(), out=second / "out")
    assert list(temporary.iterdir()) == []  # nothing of what the champion got right
    version = versions.aliases(client, NAME)["champion"]
    assert [entry.to for entry in promotions.record(client, client.get_registered_model(NAME))] == [champion, version]
    reasons = json.loads(client.get_model_version(NAME, str(version)).tags[versions.REASONS_TAG])
    assert any(f"no worse than champion version {champion}" in reason for reason in reasons)
