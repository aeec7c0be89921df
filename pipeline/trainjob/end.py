"""Ending the TrainJob of a run that is over: a terminated run's task is killed, but its TrainJob trains on, on all its GPUs."""

from components.common.progress import say
from pipeline.kubeflow.retry import retrying
from pipeline.run_step import one_line
from pipeline.trainjob.client import Jobs
from pipeline.trainjob.manifest import name_of
from pipeline.trainjob.watch import ended

TIMES = 3
TIMEOUT_S = (5.0, 10.0)
"""Seconds for a connection and an answer: with two questions, each asked 1 + TIMES times, this is over in 3 minutes."""


def end_trainjob(run_id: str) -> bool:
    """Delete the TrainJob of the run unless it has ended by itself; whether one was deleted. Problems are said, never raised."""
    name = name_of(run_id)
    try:
        jobs = Jobs(TIMEOUT_S)
        there = retrying(lambda: jobs.get(name), f"cannot see the TrainJob {name}", TIMES)
        if there is None or ended(there) is not None:
            return False
        retrying(lambda: jobs.delete(name), f"cannot delete the TrainJob {name}", TIMES)
    except Exception as error:  # this is called while a run ends: whatever it is, the rest of the ending must go on
        say(one_line(f"the TrainJob {name} may train on: {error}; kubectl delete trainjob {name} ends it"))
        return False
    say(f"TrainJob {name}: it was still going on and is deleted")
    return True
