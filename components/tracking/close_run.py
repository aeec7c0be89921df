"""Close MLflow's run of a Kubeflow run that was ended from outside: its training could not."""

import os

from components.tracking.client import KUBEFLOW_TAG, connect, every, one_line_errors


def close_mlflow_run(run_id: str, status: str = "KILLED") -> list[str]:
    """Give the MLflow runs of the Kubeflow run `run_id` that still count as running this `status`; return their ids.

    Nothing is done where MLFLOW_TRACKING_URI is not set. Raises TrackingError, SettingsError for a file that is not there.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        return []
    client = connect(must_exist=True)
    with one_line_errors():
        experiments = [experiment.experiment_id for experiment in every(client.search_experiments)]
        wanted = f"tags.`{KUBEFLOW_TAG}` = '{run_id}' and attributes.status = 'RUNNING'"
        found = [run.info.run_id for run in client.search_runs(experiments, wanted)] if experiments else []
        for each in found:
            client.set_terminated(each, status)
    return found
