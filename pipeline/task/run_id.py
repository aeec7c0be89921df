"""The run that a task belongs to.

Kubeflow resolves no placeholder for it inside a command. The pod's label is read into the environment, which the cache key does
not hold (pipeline/kubeflow/placement.py), and `dier run-local` sets the same variable.
"""

import os

from components.common.errors import SettingsError
from components.tracking.client import KUBEFLOW_RUN

VARIABLE = KUBEFLOW_RUN
LABEL = "pipeline/runid"
"""Where Kubeflow writes it on every pod of a run."""


def run_id() -> str:
    """The run's id. Raises SettingsError outside of a run."""
    found = os.environ.get(VARIABLE, "")
    if not found:
        raise SettingsError(
            f"no {VARIABLE} in the environment: it comes from the second document of the compiled pipeline; compile again with "
            "dier compile, and submit the file whole"
        )
    return found
