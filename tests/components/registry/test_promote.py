"""`dier promote` and `dier models` against a real store; the versions are bare (no weights): only their tags matter here."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from components.common.errors import GateRefused, SettingsError
from components.registry import versions
from components.registry.promote import models, promote
from components.tracking.client import TrackingError, connect
from pipeline.cli import main

NAME = "glyphs"


@pytest.fixture
def client(store: str) -> MlflowClient:
    """A registry with version 1 (passed, candidate), 2 (refused) and 3 (not registered by dier)."""
    client = connect()
    client.create_registered_model(NAME)
    passed = {
        "dier.gate": "passed",
        "dier.gate_reasons": "[]",
        "dier.accuracy": "0.9100",
        "dier.t": "300",
        "dier.dataset_name": "x",
    }
    refused = {"dier.gate": "refused", "dier.gate_reasons": json.dumps(["test accuracy 0.4 is below"]), "dier.accuracy": "0.4000"}
    for tags in (passed, refused, {}):
        client.create_model_version(NAME, str(Path.cwd()), tags=tags)
    client.set_registered_model_alias(NAME, "candidate", "1")
    return client


def move(version: int | None = None, alias: str = "champion", *, force: bool = False, reason: str | None = None) -> str:
    return promote(NAME, version=version, alias=alias, force=force, reason=reason)


def record(client: MlflowClient) -> list[dict[str, object]]:
    return versions.record(client.get_registered_model(NAME))


def test_the_candidate_becomes_champion_with_a_record(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    assert "champion moved to version 1 (gate passed)" in move(reason="looks\nright")
    assert versions.aliases(client, NAME) == {"candidate": 1, "champion": 1}
    (entry,) = record(client)
    assert entry.pop("when")
    expected = {"who": "ada", "alias": "champion", "from": None, "to": 1, "why": "looks right", "gate": "passed", "forced": False}
    assert entry == expected


def test_what_holds_the_alias_already_is_said_and_not_recorded_again(client: MlflowClient) -> None:
    move()
    assert "is champion already" in move()
    assert len(record(client)) == 1


@pytest.mark.parametrize(
    ("version", "why"), [(2, r"the gate refused glyphs version 2: test accuracy 0\.4"), (3, "never went through")]
)
def test_what_did_not_pass_needs_force(client: MlflowClient, version: int, why: str) -> None:
    move()
    with pytest.raises(GateRefused, match=why + ".*--force --reason TEXT"):
        move(version, reason="please")
    assert versions.aliases(client, NAME)["champion"] == 1
    assert "from version 1 to version" in move(version, force=True, reason="the test set was wrong")
    assert versions.aliases(client, NAME)["champion"] == version
    assert [(e["from"], e["to"], e["forced"]) for e in record(client)] == [(None, 1, False), (1, version, True)]


@pytest.mark.parametrize("reason", [None, "", "  \n "])
def test_force_needs_a_reason(client: MlflowClient, reason: str | None) -> None:
    with pytest.raises(SettingsError, match="--force needs --reason"):
        move(2, force=True, reason=reason)
    assert record(client) == []


def test_a_reason_too_long_for_the_record_is_refused_not_cut(client: MlflowClient) -> None:
    with pytest.raises(SettingsError, match="2001 characters long"):
        move(reason="x" * 2001)
    move(reason="x" * 2000)
    assert record(client)[0]["why"] == "x" * 2000


@pytest.mark.parametrize("alias", ["latest", "v3", "a b", "", "a" * 101, "é"])
def test_impossible_aliases_are_usage_errors(client: MlflowClient, alias: str) -> None:
    with pytest.raises(SettingsError, match="cannot be an alias"):
        move(alias=alias)
    assert record(client) == []


def test_unknown_versions_and_names_say_what_there_is(client: MlflowClient) -> None:
    with pytest.raises(SettingsError, match=r"no version 9 \(there are: 1, 2, 3\)"):
        move(9)
    with pytest.raises(SettingsError, match=r"no registered model 'nobody' at .* \(there are: glyphs\)"):
        promote("nobody", version=None, alias="champion", force=False, reason=None)
    client.delete_registered_model_alias(NAME, "candidate")
    with pytest.raises(SettingsError, match=r"no alias candidate: give --version \(there are versions 1, 2, 3\)"):
        move()


def test_the_record_survives_many_promotions_in_order(client: MlflowClient) -> None:
    for number in range(20):
        move(1 + number % 2, force=True, reason=f"reason {number}")
    assert [entry["why"] for entry in record(client)] == [f"reason {number}" for number in range(20)]
    assert [entry["from"] for entry in record(client)] == [None, *([1, 2] * 10)[:19]]


def test_a_move_that_fails_takes_its_record_back(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        """Test double of a server that fails between two calls."""
        raise TrackingError("gone")

    monkeypatch.setattr(client, "set_registered_model_alias", broken)
    with pytest.raises(TrackingError, match="gone"):
        versions.move(client, NAME, "champion", 1, why="w", gate="passed")
    assert record(client) == []


def test_models_shows_versions_and_with_a_name_the_record(client: MlflowClient) -> None:
    assert models(NAME).endswith("no promotions yet")
    move(reason="best so far")
    table = [line.split() for line in models(NAME).splitlines()]
    assert table[0] == ["model", "version", "aliases", "accuracy", "t", "dataset", "gate", "registered"]
    assert table[2][:8] == ["glyphs", "1", "candidate,", "champion", "0.9100", "300", "x", "passed"]
    assert table[3][:6] == ["glyphs", "2", "0.4000", "-", "-", "refused"]
    assert "best so far" in models(NAME)
    assert "best so far" not in models(None)
    with pytest.raises(SettingsError, match="no registered model"):
        models("nobody")


def test_more_versions_than_one_page(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = client.search_model_versions
    monkeypatch.setattr(client, "search_model_versions", lambda filter, page_token: whole(filter, 2, None, page_token))
    assert [int(v.version) for v in versions.versions(client, NAME)] == [1, 2, 3]


def test_an_empty_registry_says_what_to_do(store: str) -> None:
    assert "dier register makes one" in models(None)


def test_exit_codes(client: MlflowClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["promote", NAME, "--version", "2"]) == 4
    assert main(["promote", NAME, "--version", "2", "--force"]) == 2
    assert main(["promote", "nobody"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 3
    assert main(["promote", NAME]) == 0
    assert main(["models"]) == 0
    assert "glyphs" in capsys.readouterr().out
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert main(["models"]) == 1
    err = capsys.readouterr().err
    assert "does not answer" in err
    assert "hunter2" not in err
