"""`dier promote` and `dier models` against a real store; the versions are bare (no weights): only their tags matter here."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException

from components.common.errors import GateRefused, SettingsError
from components.registry import promotions, versions
from components.registry.entry import ENTRY, Entry
from components.registry.listing import history, models
from components.registry.promote import promote, rollback
from components.registry.promotions import Overtaken
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


def back(version: int | None = None, alias: str = "champion", reason: str | None = None) -> str:
    return rollback(NAME, version=version, alias=alias, reason=reason)


def record(client: MlflowClient) -> list[Entry]:
    return promotions.record(client, client.get_registered_model(NAME))


def test_the_candidate_becomes_champion_with_a_record(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    assert "champion moved to version 1 (gate passed)" in move(reason="looks\nright")
    assert versions.aliases(client, NAME) == {"candidate": 1, "champion": 1}
    (entry,) = record(client)
    assert (entry.who, entry.alias, entry.before, entry.to) == ("ada", "champion", None, 1)
    assert (entry.why, entry.gate, entry.forced, entry.kind, entry.moved) == ("looks right", "passed", False, "promote", True)
    assert datetime.fromisoformat(entry.when).tzinfo is not None


def test_who_is_whom_mlflow_logs_in(client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").write_text("[mlflow]\nmlflow_tracking_username = grace\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME", raising=False)
    move()
    assert record(client)[0].who == "grace"


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
    assert [(e.before, e.to, e.forced) for e in record(client)] == [(None, 1, False), (1, version, True)]


@pytest.mark.parametrize("reason", [None, "", "  \n "])
def test_force_needs_a_reason(client: MlflowClient, reason: str | None) -> None:
    with pytest.raises(SettingsError, match="--force needs --reason"):
        move(2, force=True, reason=reason)
    assert record(client) == []


def test_a_reason_too_long_for_the_record_is_refused_not_cut(client: MlflowClient) -> None:
    with pytest.raises(SettingsError, match="2001 characters long"):
        move(reason="x" * 2001)
    move(reason="x" * 2000)
    assert record(client)[0].why == "x" * 2000


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
    for number in range(8):
        move(1 + number % 2, force=True, reason=f"reason {number}")
    assert [entry.why for entry in record(client)] == [f"reason {number}" for number in range(8)]
    assert [entry.before for entry in record(client)] == [None, *([1, 2] * 4)[:7]]


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
    assert main(["promote", NAME, "--alias", "shadow"]) == 0
    assert main(["promote", NAME, "--to", "champion"]) == 0
    assert main(["models"]) == 0
    assert "glyphs" in capsys.readouterr().out
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert main(["models"]) == 1
    err = capsys.readouterr().err
    assert "does not answer" in err
    assert "hunter2" not in err


def page(client: MlflowClient, version: int) -> None:
    """Somebody moves champion on MLflow's page."""
    client.set_registered_model_alias(NAME, "champion", str(version))


def kinds(client: MlflowClient) -> list[tuple[str, int | None, int]]:
    return [(entry.kind, entry.before, entry.to) for entry in record(client)]


def test_rollback_goes_back_one_at_a_time_and_not_to_what_was_rolled_back(client: MlflowClient) -> None:
    for version in (1, 2, 3):
        move(version, force=True, reason="try")
    assert "champion moved back from version 3 to version 2" in back(reason="slow")
    assert "champion moved back from version 2 to version 1" in back()
    with pytest.raises(SettingsError, match=r"has no earlier champion to go back to.*--version N"):
        back()
    assert kinds(client)[-2:] == [("rollback", 3, 2), ("rollback", 2, 1)]
    assert versions.aliases(client, NAME)["champion"] == 1


def test_after_a_rollback_a_promotion_is_one_more_to_go_back_from(client: MlflowClient) -> None:
    for version in (1, 2):
        move(version, force=True, reason="try")
    back()
    move(3, force=True, reason="try")
    assert "from version 3 to version 1" in back()


def test_rollback_to_a_version_takes_only_one_that_was_there(client: MlflowClient) -> None:
    move(1)
    move(3, force=True, reason="try")
    with pytest.raises(SettingsError, match=r"version 2 was never champion \(there were: 1, 3\)"):
        back(2)
    assert "to version 1" in back(1)
    assert "to version 3" in back(3)  # what was rolled back may be wanted after all
    assert "is champion already" in back(3)
    with pytest.raises(SettingsError, match="has no earlier shadow"):
        back(alias="shadow")


def test_rollback_passes_over_deleted_versions(client: MlflowClient) -> None:
    for version in (1, 2, 3):
        move(version, force=True, reason="try")
    client.delete_model_version(NAME, "2")
    assert "from version 3 to version 1" in back()


def test_rollback_of_an_alias_that_was_deleted_brings_it_back(client: MlflowClient) -> None:
    for version in (1, 3):
        move(version, force=True, reason="try")
    client.delete_registered_model_alias(NAME, "champion")
    assert "champion moved back to version 3" in back()
    assert "from version 3 to version 1" in back()


@pytest.mark.parametrize("version", [None, 1])
def test_of_two_rollbacks_asked_for_at_once_the_second_has_what_it_wanted(client: MlflowClient, version: int | None) -> None:
    for number in (1, 2, 3):
        move(number, force=True, reason="try")
    looked = datetime.now(UTC)
    rollback(NAME, version=version, alias="champion", reason=None, since=looked)
    said = rollback(NAME, version=version, alias="champion", reason=None, since=looked)
    assert f"version {version or 2} is champion already (moved by" in said
    with pytest.raises(Overtaken, match=r"moved to version . by .* at the same time .*version 3 was not promoted"):
        rollback(NAME, version=3, alias="champion", reason=None, since=looked)


def test_rollback_leaves_what_was_set_by_other_means(client: MlflowClient) -> None:
    move(1)
    client.set_registered_model_alias(NAME, "champion", "3")
    assert "from version 3 to version 1" in back()


def test_an_alias_that_is_not_where_expected_stays(client: MlflowClient) -> None:
    move(1)
    arguments = {"name": NAME, "version": 3, "alias": "champion", "force": True, "reason": "try"}
    with pytest.raises(Overtaken, match="champion is at version 1, not at version 2 as expected"):
        promote(**arguments, expect=2)
    assert "moved from version 1 to version 3" in promote(**arguments, expect=1)


def test_what_moved_since_whoever_asks_looked_stays(client: MlflowClient) -> None:
    looked = datetime.now(UTC)
    move(1)
    arguments = {"name": NAME, "version": 3, "alias": "champion", "force": True, "reason": "try"}
    with pytest.raises(Overtaken, match=r"moved to version 1 by .* at the same time .*version 3 was not promoted"):
        promote(**arguments, since=looked)
    assert len(record(client)) == 1
    promote(**arguments, since=datetime.now(UTC))
    assert len(record(client)) == 2


def test_a_clock_that_is_ahead_does_not_shut_others_out(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ahead(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime.now(UTC) + timedelta(hours=1)

    looked = datetime.now(UTC)
    with monkeypatch.context() as patch:
        patch.setattr(promotions, "datetime", Ahead)
        move(1)
    arguments = {"name": NAME, "version": 3, "alias": "champion", "force": True, "reason": "try"}
    assert "moved from version 1 to version 3" in promote(**arguments, since=looked)


def told(**options: object) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(history(NAME, **{"alias": None, "as_json": True, **options}))  # type: ignore[arg-type]
    return found


def test_history_tells_who_when_from_to_verdict_and_reason(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told() == []
    assert history(NAME, alias=None, as_json=False) == "no promotions yet"
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    move(1, reason="first")
    move(2, "shadow", force=True, reason="to see")
    move(2, force=True, reason="wrong test set")
    rows = told()
    assert [(r["who"], r["alias"], r["from"], r["to"], r["verdict"], r["reason"], r["outcome"]) for r in rows] == [
        ("ada", "champion", None, 1, "passed", "first", "moved"),
        ("ada", "shadow", None, 2, "refused, forced", "to see", "moved"),
        ("ada", "champion", 1, 2, "refused, forced", "wrong test set", "moved"),
    ]
    assert [r["alias"] for r in told(alias="shadow")] == ["shadow"]
    table = history(NAME, alias=None, as_json=False)
    assert "wrong test set" in table
    assert "outcome" not in table  # nothing to say


def test_history_shows_what_was_done_by_other_means(client: MlflowClient) -> None:
    move(1)
    client.set_registered_model_alias(NAME, "champion", "3")
    assert [(r["kind"], r["from"], r["to"], r["who"]) for r in told()][1:] == [("by other means", 1, 3, None)]
    move(2, force=True, reason="try")
    client.delete_registered_model_alias(NAME, "champion")
    assert [(r["from"], r["to"]) for r in told()] == [(None, 1), (1, 3), (3, 2), (2, None)]
    assert "found so" in models(NAME)


def test_an_entry_that_was_changed_or_removed_is_seen_in_the_next(client: MlflowClient) -> None:
    for version in (1, 3, 1):
        move(version, force=True, reason="try")
    log = NAME + promotions.SUFFIX
    text = client.get_model_version(log, "1").tags[ENTRY]
    client.set_model_version_tag(log, "1", ENTRY, text.replace("try", "lie"))
    client.delete_model_version(log, "2")
    assert [(r["from"], r["to"]) for r in told() if r["number"]] == [(None, 1), (3, 1)]
    assert "promotion 2, which it follows, was changed or removed" in str(told()[-1]["outcome"])
    client.set_model_version_tag(log, "1", ENTRY, text)
    move(3, force=True, reason="try")  # goes on all the same
    assert told()[-1]["outcome"] == "moved"


def test_damaged_entries_are_shown_and_stop_nothing(client: MlflowClient) -> None:
    for version in (1, 3, 2, 3):
        move(version, force=True, reason="try")
    log = NAME + promotions.SUFFIX
    said = json.loads(client.get_model_version(log, "4").tags[ENTRY])
    client.set_model_version_tag(log, "1", ENTRY, '{"alias": "champ')
    client.set_model_version_tag(log, "2", ENTRY, json.dumps({**said, "to": "three"}))
    client.set_model_version_tag(log, "3", ENTRY, json.dumps({**said, "when": "yesterday"}))
    client.set_model_version_tag(log, "4", ENTRY, json.dumps({**said, "of a later dier": 1, "moved": False}))
    client.set_registered_model_tag(NAME, "dier.promotion.20260101T000000.0-v3", "[]")
    rows = told(alias="champion")
    assert [(r["number"], r["kind"]) for r in rows[:4]] == [(number, "unreadable") for number in (None, 1, 2, 3)]
    assert (rows[4]["number"], rows[4]["to"]) == (4, 3)
    assert "promotion 3, which it follows, was changed" in str(rows[4]["outcome"])
    assert "moves nothing" in models(NAME)
    assert "from version 3 to version 1" in move(1)
    assert "from version 1 to version 3" in back()


def test_what_was_recorded_as_tags_before_is_read(client: MlflowClient) -> None:
    old = {"who": "ada", "when": "2026-01-01T00:00:00+00:00", "alias": "champion", "from": None, "to": 3}
    text = json.dumps({**old, "why": "w", "gate": "passed", "forced": False})
    client.set_registered_model_tag(NAME, "dier.promotion.20260101T000000.0-v3", text)
    client.set_registered_model_alias(NAME, "champion", "3")
    move(1)
    assert [(r["number"], r["who"] == "ada", r["from"], r["to"], r["outcome"]) for r in told()] == [
        (None, True, None, 3, "moved"),
        (1, False, 3, 1, "moved"),
    ]
    assert promotions.ever_champion(client, NAME) == {1, 3}
    assert "from version 1 to version 3" in back()


def test_the_record_is_no_model_and_none_of_a_model_deleted_before(client: MlflowClient) -> None:
    move(1)
    assert NAME + promotions.SUFFIX not in models(None)
    client.delete_registered_model(NAME)
    client.create_registered_model(NAME)
    assert record(client) == []


def test_the_record_is_not_promoted_itself(client: MlflowClient) -> None:
    move(1)
    with pytest.raises(SettingsError, match=r"glyphs\.promotions is the record of promotions of glyphs and no model"):
        promote(NAME + promotions.SUFFIX, version=1, alias="champion", force=True, reason="try")


def test_a_registered_model_of_others_is_not_taken_for_the_record(client: MlflowClient) -> None:
    client.create_registered_model(NAME + promotions.SUFFIX)
    with pytest.raises(SettingsError, match=r"glyphs\.promotions is none of dier's"):
        move(1)
    assert "champion" not in versions.aliases(client, NAME)


def test_a_version_deleted_at_the_last_moment_leaves_the_alias(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    move(1)
    page(client, 2)
    whole = promotions._append

    def deleted(client: MlflowClient, model: RegisteredModel, entry: Entry) -> None:
        """Somebody deletes the version between the entry and the move."""
        whole(client, model, entry)
        client.delete_model_version(NAME, str(entry.to))

    with monkeypatch.context() as patch:
        patch.setattr(promotions, "_append", deleted)
        with pytest.raises(Overtaken, match=r"champion was not moved to version 3: .*not found"):
            move(3, force=True, reason="try")
    assert versions.aliases(client, NAME)["champion"] == 2
    assert str(told()[-1]["outcome"]).startswith("not moved: ")
    move(1)
    assert [(r["from"], r["to"]) for r in told() if r["outcome"] == "moved"] == [(None, 1), (2, 1)]


def test_an_alias_moved_by_other_means_at_the_last_moment_stays(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    move(1)
    whole = promotions._append

    def moved(client: MlflowClient, model: RegisteredModel, entry: Entry) -> None:
        """Somebody moves the alias on MLflow's page between the entry and the move."""
        whole(client, model, entry)
        client.set_registered_model_alias(NAME, entry.alias, "2")

    with monkeypatch.context() as patch:
        patch.setattr(promotions, "_append", moved)
        with pytest.raises(Overtaken, match="not moved to version 3: it was moved to 2 by other means than dier meanwhile"):
            move(3, force=True, reason="try")
    assert versions.aliases(client, NAME)["champion"] == 2


def test_what_came_first_and_was_withdrawn_moved_nothing_and_the_second_says_so(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    move(1)
    whole = promotions._append

    def second(client: MlflowClient, model: RegisteredModel, entry: Entry) -> None:
        """Ada wants the same version and is first; the alias is moved on MLflow's page, so hers is withdrawn."""
        whole(client, model, replace(entry, who="ada", token="hers"))
        page(client, 2)
        promotions.settle(client, model, "champion")
        whole(client, model, entry)

    with monkeypatch.context() as patch:
        patch.setattr(promotions, "_append", second)
        with pytest.raises(Overtaken, match=r"was to be moved to version 3 by ada .*was not: it was moved to 2 .*was not promoted"):
            move(3, force=True, reason="try")
    assert versions.aliases(client, NAME)["champion"] == 2
    with pytest.raises(Overtaken, match="was to be moved to version 3 by ada"):
        promote(NAME, version=1, alias="champion", force=False, reason=None, since=datetime.now(UTC) - timedelta(minutes=1))


def test_who_stood_still_does_not_move_what_was_withdrawn_meanwhile(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    move(1)
    append, set_alias = promotions._append, promotions.set_alias

    def moved(client: MlflowClient, model: RegisteredModel, entry: Entry) -> None:
        append(client, model, entry)
        page(client, 3)

    def late(client: MlflowClient, name: str, alias: str, version: int) -> None:
        """Before version 2 gets the alias others finish that, promote version 1 again, and move the alias on MLflow's page."""
        monkeypatch.setattr(promotions, "set_alias", set_alias)
        with monkeypatch.context() as patch:
            patch.setattr(promotions, "_append", moved)
            with pytest.raises(Overtaken, match="was not moved to version 1: it was moved to 3 by other means"):
                move(1)
        set_alias(client, name, alias, version)

    monkeypatch.setattr(promotions, "set_alias", late)
    move(2, force=True, reason="slow")
    assert versions.aliases(client, NAME)["champion"] == 2
    assert [(r["to"], str(r["outcome"])[:9]) for r in told()] == [(1, "moved"), (2, "moved"), (1, "not moved")]


def test_an_error_of_the_store_withdraws_nothing(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object) -> None:
        raise MlflowException("the database is being moved")

    move(1)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", fails)
        with pytest.raises(TrackingError, match="the database is being moved"):
            move(3, force=True, reason="try")
        with pytest.raises(TrackingError, match="the database is being moved"):
            move(2, force=True, reason="try")  # has to finish the other's first
    assert [r["outcome"] for r in told()] == ["moved", "not moved yet"]
    assert "from version 3 to version 2" in move(2, force=True, reason="try")


def test_a_request_that_is_repeated_counts_once(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    move(1)
    whole = MlflowClient.create_model_version

    def repeated(self: MlflowClient, *arguments: object, **named: object) -> object:
        """MLflow's HTTP client asks again where an answer was lost; the server did as asked both times."""
        whole(self, *arguments, **named)
        return whole(self, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_model_version", repeated)
        assert "from version 1 to version 3" in move(3, force=True, reason="try")
    assert [(r["to"], r["outcome"]) for r in told()] == [(1, "moved"), (3, "moved")]


def test_a_model_renamed_together_with_its_record_keeps_it(client: MlflowClient) -> None:
    move(1)
    for name in (NAME, NAME + promotions.SUFFIX):
        client.rename_registered_model(name, name.replace(NAME, "icons"))
    assert [entry.to for entry in promotions.record(client, client.get_registered_model("icons"))] == [1]
    assert "from version 1 to version 3" in promote("icons", version=3, alias="champion", force=True, reason="try")
