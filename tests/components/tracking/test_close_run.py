"""MLflow's run of a Kubeflow run that was ended from outside."""

import pytest
from mlflow import MlflowClient

from components.tracking.client import KUBEFLOW_TAG
from components.tracking.close_run import close_mlflow_run


def test_only_what_runs_for_that_kubeflow_run_is_closed(store: str) -> None:
    client = MlflowClient(store)
    mine, ended, other = (client.create_run("0", tags={KUBEFLOW_TAG: tag}).info.run_id for tag in ("a", "a", "b"))
    client.set_terminated(ended)
    assert close_mlflow_run("a") == [mine]
    assert close_mlflow_run("a") == []
    assert [client.get_run(run).info.status for run in (mine, ended, other)] == ["KILLED", "FINISHED", "RUNNING"]
    assert close_mlflow_run("b", "FAILED") == [other]


def test_without_a_server_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert close_mlflow_run("a") == []
