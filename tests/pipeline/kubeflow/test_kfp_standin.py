"""The stand-in refuses what the real server refuses: what passes here must not owe it to leniency."""

from pathlib import Path
from typing import Any

import kfp_server_api as api
import pytest

from pipeline.kubeflow.api.client import Client
from pipeline.kubeflow.api.errors import CallFailed
from tests.pipeline.kubeflow.argo_manifest import Tried
from tests.pipeline.kubeflow.kfp_rules import wrong_in_cron
from tests.pipeline.kubeflow.kfp_standin import RUN_1, StandIn


@pytest.fixture
def client(server: StandIn) -> Client:
    return Client(server.url)


@pytest.fixture
def stored(client: Client, compiled_file: Path) -> dict[str, Any]:
    """A version, and an experiment to run it in."""
    pipeline = client.pipelines.pipeline_service_create_pipeline(api.V2beta1Pipeline(display_name="dier"))
    version = client.uploads.upload_pipeline_version(str(compiled_file), name="v", pipelineid=pipeline.pipeline_id)
    experiment = client.experiments.experiment_service_create_experiment(api.V2beta1Experiment(display_name="e"))
    reference = {"pipeline_id": pipeline.pipeline_id, "pipeline_version_id": version.pipeline_version_id}
    return {"experiment_id": experiment.experiment_id, "display_name": "r", "pipeline_version_reference": reference}


def refused(ask: Any, *given: Any, **named: Any) -> int:
    with pytest.raises(CallFailed) as caught:
        ask(*given, **named)
    return caught.value.status


def test_a_run_needs_a_version_that_is_there_of_its_pipeline_and_parameters_that_it_has(client: Client, stored: dict) -> None:
    run = client.runs.run_service_create_run
    assert run(stored).state == "PENDING"
    elsewhere = {**stored["pipeline_version_reference"], "pipeline_id": "other"}
    assert refused(run, {**stored, "pipeline_version_reference": elsewhere}) == 500
    assert refused(run, {**stored, "pipeline_version_reference": {"pipeline_version_id": "none"}}) == 500
    assert refused(run, {**stored, "display_name": ""}) == 500
    assert refused(run, {**stored, "experiment_id": "none"}) == 404
    for parameters in ({"trains": {}}, {"train": "{}"}, {"train": [1]}):
        assert refused(run, {**stored, "runtime_config": {"parameters": parameters}}) == 400


def test_names_are_there_once(client: Client, stored: dict, compiled_file: Path, tmp_path: Path) -> None:
    upload = client.uploads.upload_pipeline_version
    assert refused(client.pipelines.pipeline_service_create_pipeline, {"display_name": "dier"}) == 409
    assert refused(upload, str(compiled_file), name="v", pipelineid="pipeline-1") == 409
    assert refused(upload, str(compiled_file), name="w", pipelineid="none") == 400
    assert refused(upload, str(compiled_file), name="x" * 128, pipelineid="pipeline-1") == 400
    wrong = tmp_path / "wrong.yaml"
    for text in ("stages: {}\n", "a: [", ""):
        wrong.write_text(text)
        assert refused(upload, str(wrong), name="w", pipelineid="pipeline-1") == 400


def test_a_recurring_run_is_checked(client: Client, stored: dict) -> None:
    ask = client.recurring.recurring_run_service_create_recurring_run
    body = {**stored, "max_concurrency": 1, "mode": "ENABLE", "trigger": {"cron_schedule": {"cron": "0 0 2 * * *"}}}
    assert ask(body).status == "ENABLED"
    assert refused(ask, {**body, "max_concurrency": 0}) == 400
    assert refused(ask, {**body, "trigger": {"cron_schedule": {"cron": "2 o'clock"}}}) == 400
    assert refused(ask, {**body, "display_name": ""}) == 500
    assert refused(client.recurring.recurring_run_service_delete_recurring_run, "none") == 404


@pytest.mark.parametrize(
    "text", ["", "*", "0 0 24 * * *", "60 0 0 * * *", "0 0 0 0 * *", "0 0 0 * * 7", "0 0 0 * x *", "@sometimes", "*/0 * * * * *"]
)
def test_what_is_no_cron(text: str) -> None:
    assert wrong_in_cron(text)


@pytest.mark.parametrize("text", ["0 0 2 * * *", "*/5 * * * *", "0 0 2 ? JAN-MAR mon,fri", "@hourly", "@every 1h30m"])
def test_what_is_a_cron(text: str) -> None:
    assert not wrong_in_cron(text)


def test_runs_that_cannot_be_tried_again_or_ended(client: Client, server: StandIn) -> None:
    server.add_run("SUCCEEDED", Tried("prepare"))
    assert refused(client.runs.run_service_retry_run, RUN_1) == 409
    assert refused(client.runs.run_service_terminate_run, RUN_1) == 400
    assert refused(client.runs.run_service_get_run, RUN_1[:-1] + "9") == 404


def test_lists_know_their_fields(client: Client, server: StandIn) -> None:
    wrong = '{"predicates": [{"operation": 1, "key": "colour", "stringValue": "red"}]}'
    assert refused(client.runs.run_service_list_runs, filter=wrong) == 400
    assert refused(client.runs.run_service_list_runs, sort_by="colour desc") == 400


def test_an_error_of_a_log_comes_with_200(client: Client, server: StandIn) -> None:
    server.add_run("FAILED")
    assert b"error_message" in client.bytes(f"/apis/v1alpha1/runs/{RUN_1}/nodes/none/log")
