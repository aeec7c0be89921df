"""Kubeflow's Model Registry beside MLflow, against a stand-in of its API on loopback: once each, mended, archived, one line."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from components import register
from components.common.errors import GateRefused, SettingsError
from components.common.settings import RegisterSettings, parse
from components.registry import kubeflow_registry, versions
from components.registry.kubeflow_registry import Entry
from components.tracking.client import TrackingError, connect
from tests.components.model_registry_stand_in import OLDER, StandIn, model_registry
from tests.components.registry_artifacts import correct, make, settings

ENTRY = Entry(
    name="my_model",
    version=3,
    digest="d" * 64,
    uri="s3://bucket/1/models/m-1/artifacts",
    passed=True,
    format_version="3.17.2",
    properties={"gate": "passed", "test_accuracy": 0.95, "t": 200, "flag": True},
)


@pytest.fixture
def server() -> Iterator[StandIn]:
    with model_registry() as standing:
        yield standing


def test_a_version_is_made_once_with_its_model_and_where_it_lies(server: StandIn) -> None:
    first = kubeflow_registry.register(server.url, ENTRY)
    assert kubeflow_registry.register(server.url + "/", ENTRY) == first
    assert server.changes == ["POST registered_models", "POST model_versions", f"POST model_versions/{first}/artifacts"]
    [version], [artifact] = server.versions, server.artifacts
    assert (version["name"], version["externalId"], version["state"]) == ("3-dddddddd", f"my_model@{'d' * 64}", "LIVE")
    assert version["customProperties"] == {
        "gate": {"string_value": "passed", "metadataType": "MetadataStringValue"},
        "test_accuracy": {"double_value": 0.95, "metadataType": "MetadataDoubleValue"},
        "t": {"int_value": "200", "metadataType": "MetadataIntValue"},
        "flag": {"bool_value": True, "metadataType": "MetadataBoolValue"},
    }
    assert (artifact["uri"], artifact["modelFormatName"], artifact["modelFormatVersion"]) == (ENTRY.uri, "mlflow", "3.17.2")


def test_an_older_server_is_asked_by_its_older_path(server: StandIn) -> None:
    server.base = OLDER
    assert kubeflow_registry.register(server.url, ENTRY) == kubeflow_registry.register(server.url, ENTRY)
    assert [len(server.models), len(server.versions), len(server.artifacts)] == [1, 1, 1]


def test_another_version_stands_beside_it_and_a_name_that_is_only_alike_is_another_model(server: StandIn) -> None:
    kubeflow_registry.register(server.url, replace(ENTRY, name="my-model"))
    kubeflow_registry.register(server.url, ENTRY)
    kubeflow_registry.register(server.url, replace(ENTRY, version=4, digest="e" * 64))
    assert [model["name"] for model in server.models] == ["my-model", "my_model"]
    assert [version["name"] for version in server.versions] == ["3-dddddddd", "3-dddddddd", "4-eeeeeeee"]


def test_what_a_broken_try_left_is_completed(server: StandIn) -> None:
    server.mode = "lose"
    with pytest.raises(TrackingError, match="does not answer"):
        kubeflow_registry.register(server.url, ENTRY)
    kubeflow_registry.register(_answering(server).url, ENTRY)
    server.artifacts.clear()
    kubeflow_registry.register(server.url, replace(ENTRY, uri="s3://elsewhere/m"))
    kubeflow_registry.register(server.url, ENTRY)
    assert [len(server.models), len(server.versions), len(server.artifacts)] == [1, 1, 1]
    assert server.artifacts[0]["uri"] == ENTRY.uri


def test_what_the_gate_refuses_is_not_made_and_what_it_refuses_later_is_archived(server: StandIn) -> None:
    refused = replace(ENTRY, passed=False, properties={"gate": "refused"})
    assert kubeflow_registry.register(server.url, refused) is None
    assert not server.changes
    kubeflow_registry.register(server.url, ENTRY)
    kubeflow_registry.register(server.url, refused)
    assert server.versions[0]["state"] == "ARCHIVED"
    kubeflow_registry.register(server.url, ENTRY)
    assert server.versions[0]["state"] == "LIVE"


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("401", "refused access (401): check MODEL_REGISTRY_TOKEN"),
        ("503", "answered 503"),
        ("404", "is none: neither /api/model_registry/v1/ nor /api/model_registry/v1alpha3/ is there"),
        ("login", "such as a login page: check register.model_registry"),
    ],
)
def test_what_goes_wrong_is_one_line_that_says_where_the_version_is(server: StandIn, mode: str, says: str) -> None:
    server.mode = mode
    with pytest.raises(TrackingError) as raised:
        kubeflow_registry.register(server.url, ENTRY)
    line = str(raised.value)
    assert f"the Model Registry at {server.url}" in line
    assert says in line
    assert "my_model version 3 is in MLflow" in line
    assert "\n" not in line


def test_a_server_that_is_away_is_said(closed_port: int) -> None:
    with pytest.raises(TrackingError, match="does not answer"):
        kubeflow_registry.register(f"http://127.0.0.1:{closed_port}", ENTRY)


def test_a_token_goes_along_where_there_is_one(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    kubeflow_registry.register(server.url, ENTRY)
    monkeypatch.setenv(kubeflow_registry.TOKEN, "secret")
    kubeflow_registry.register(server.url, ENTRY)
    assert server.tokens == {None, "Bearer secret"}


@pytest.mark.parametrize("url", ["registry.example", "ftp://registry.example", "http://me:secret@registry.example", ""])
def test_an_address_that_is_none_or_holds_a_password_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        RegisterSettings(model_registry=url)
    with pytest.raises(SettingsError) as caught:
        parse({"register": {"model_registry": url}}, "params.yaml")
    assert "register.model_registry = '" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.slow
def test_register_brings_its_version_to_both_places_and_judges_it_once(store: str, tmp_path: Path, server: StandIn) -> None:
    inputs = make(tmp_path)
    register.run(settings(), **inputs.paths(), out=tmp_path / "one")  # in MLflow alone, as before
    judged = connect().get_model_version("glyphs", "1").tags[versions.SETTINGS_TAG]
    assert not server.changes
    for out in ("two", "three"):
        register.run(settings(model_registry=server.url), **inputs.paths(), out=tmp_path / out)
    tags = connect().get_model_version("glyphs", "1").tags
    assert tags[versions.SETTINGS_TAG] == judged
    [version], [artifact] = server.versions, server.artifacts
    assert version["externalId"] == f"glyphs@{tags[versions.DIGEST_TAG]}"
    assert version["customProperties"]["mlflow_model"]["string_value"] == "models:/glyphs/1"
    assert version["customProperties"]["gate"]["string_value"] == "passed"
    assert artifact["uri"] == "models:/glyphs/1"  # the store of a test is a folder: no path of a machine goes to others

    refused = make(tmp_path / "worse", right=correct(0.3), training="t2")
    with pytest.raises(GateRefused):
        register.run(settings(model_registry=server.url), **refused.paths(), out=tmp_path / "four")
    assert len(server.versions) == 1


@pytest.mark.slow
def test_a_registry_that_is_away_fails_register_and_the_next_try_completes_it(store: str, tmp_path: Path, server: StandIn) -> None:
    inputs, changed = make(tmp_path), settings(model_registry=server.url)
    server.mode = "503"
    with pytest.raises(TrackingError, match="glyphs version 1 is in MLflow"):
        register.run(changed, **inputs.paths(), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    register.run(changed, **inputs.paths(), out=_tried_again(server, tmp_path / "out"))
    assert len(server.versions) == 1
    assert [version.version for version in versions.versions(connect(), "glyphs")] in ([1], ["1"])


def _answering(server: StandIn) -> StandIn:
    server.mode = "answer"
    return server


def _tried_again(server: StandIn, out: Path) -> Path:
    _answering(server)
    return out
