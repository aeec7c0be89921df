"""Ending the TrainJob of a run that was terminated, from the exit handler: never an exception, one line, one answer."""

from pathlib import Path

import pytest

from pipeline.kubeflow.cluster import Cluster
from pipeline.trainjob.end import end_trainjob
from pipeline.trainjob.manifest import manifest, name_of, named
from tests.pipeline.trainjob.kubernetes_standin import NAMESPACE, StandIn, condition, refusal

RUN_ID = "9b2f0f2e-8f4e-4f0c-9e55-0d7a8b1c2d3e"
NAME = name_of(RUN_ID)


@pytest.fixture(autouse=True)
def made(api: StandIn) -> None:
    api.jobs[NAME] = named(manifest(Cluster.model_validate({"work": {"claim": "c"}})), NAME)


@pytest.mark.parametrize("conditions", [[], [condition("Suspended")], [condition("Suspended", status="False")]])
def test_one_that_goes_on_is_deleted(api: StandIn, capsys: pytest.CaptureFixture[str], conditions: list[dict[str, str]]) -> None:
    api.conditions = [conditions]
    assert end_trainjob(RUN_ID)
    assert not api.jobs
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"TrainJob {NAME}: it was still going on and is deleted")
    assert set(api.calls) <= api.allowed


@pytest.mark.parametrize("kind", ["Complete", "Failed"])
def test_one_that_has_ended_stays_to_be_looked_at(api: StandIn, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    api.conditions = [[condition(kind)]]
    assert not end_trainjob(RUN_ID)
    assert list(api.jobs) == [NAME]
    assert capsys.readouterr().err == ""


def test_where_there_is_none_nothing_happens(api: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert not end_trainjob("another")
    assert list(api.jobs) == [NAME]
    assert capsys.readouterr().err == ""


def test_an_api_that_is_away_for_a_moment_is_asked_again(api: StandIn) -> None:
    api.conditions = [[]]
    away = refusal(503, "away")
    api.faults = {"get trainjobs": [away, (0, None)], "delete trainjobs": [away, away]}
    assert end_trainjob(RUN_ID)
    assert not api.jobs


@pytest.mark.parametrize("verb", ["get", "delete"])
def test_without_rights_it_says_so_in_one_line_and_does_not_raise(
    api: StandIn, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    api.conditions = [[]]
    api.allowed.discard(f"{verb} trainjobs")
    assert not end_trainjob(RUN_ID)
    [line] = capsys.readouterr().err.splitlines()
    assert f"the TrainJob {NAME} may train on: cannot {verb} {NAME} in {NAMESPACE} (403): not allowed" in line


def test_outside_of_a_cluster_it_does_not_raise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    assert not end_trainjob(RUN_ID)


def test_an_api_that_stays_away_is_not_waited_for_long(api: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    api.faults = {"get trainjobs": [refusal(503, "away")] * 99}
    assert not end_trainjob(RUN_ID)
    assert api.calls == ["get trainjobs"] * 4
    assert "may train on" in capsys.readouterr().err.splitlines()[-1]
