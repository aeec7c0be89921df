"""Commands that talk to a cluster's API: versions stored, runs started, scheduled, listed, explained, tried again, ended."""

from typing import Any

import click

from pipeline.commands.options import (
    ALLOW_TAG,
    CLUSTER,
    EXPERIMENT,
    NO_CACHE,
    PARAM,
    PIPELINE,
    PIPELINE_NAME,
    WAIT,
    connection,
)

RUN = click.argument("run", metavar="RUN")
"""A run's id, or its name where no other has it."""


def add_to(dier: click.Group) -> None:
    """Add the commands, in the order in which --help lists them."""
    for command in (upload, submit, schedule, runs, logs, retry, terminate):
        dier.add_command(command)


@click.command()
@PIPELINE
@connection
@PIPELINE_NAME
@click.option("--version-name", metavar="V", help="name of the version; without it the file's digest")
@click.option("--description", metavar="TEXT", help="what is new in it; without it the pipeline's own")
@ALLOW_TAG
def upload(**options: Any) -> None:
    """Store the compiled pipeline on a cluster, as a new version where the pipeline is known."""
    from pipeline.kubeflow.runs.versions import upload

    upload(**options)


@click.command()
@PIPELINE
@connection
@PIPELINE_NAME
@EXPERIMENT
@click.option("--run-name", metavar="R", help="name of the run; without it dier and the time")
@CLUSTER
@NO_CACHE
@WAIT
@PARAM
@ALLOW_TAG
def submit(**options: Any) -> int:
    """Start a run of the compiled pipeline's stored version on a cluster; of the cluster settings the service account counts."""
    from pipeline.kubeflow.runs.submit import submit

    return submit(**options)


@click.command()
@click.argument("name", required=False)
@click.option("--cron", metavar="CRON", help="minute hour day month weekday, such as '0 2 * * *'; six fields: seconds first")
@click.option("--list", "listed", is_flag=True, help="show the schedules instead")
@click.option("--remove", metavar="NAME", help="remove a schedule instead; its runs stay")
@click.option(
    "--cache-data/--no-cache-data", default=False, help="take prepare's cached result, though what it reads may have changed"
)
@PIPELINE
@connection
@PIPELINE_NAME
@EXPERIMENT
@CLUSTER
@NO_CACHE
@PARAM
@ALLOW_TAG
def schedule(name: str | None, cron: str | None, listed: bool, remove: str | None, **options: Any) -> None:
    """Run the compiled pipeline again and again, by cron, as its stored version; one schedule of a name."""
    from pipeline.kubeflow.runs import schedule
    from pipeline.kubeflow.runs.connection import Connection

    asked = [bool(name), listed, bool(remove)]
    if sum(asked) != 1 or bool(name) != bool(cron):
        raise click.UsageError("give NAME and --cron, or --list, or --remove NAME")
    if name is not None and cron is not None:
        schedule.schedule(name, cron=cron, **options)
        return
    where = {key: options[key] for key in Connection.__annotations__}
    if remove is not None:
        schedule.remove(remove, **where)
    else:
        print(schedule.schedules(**where))


@click.command()
@connection
@click.option("--experiment", metavar="E", help="of this experiment alone")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, metavar="N", help="how many, the newest")
def runs(**options: Any) -> None:
    """List the runs of a cluster: id, name, version, state, times in UTC, and which step failed."""
    from pipeline.kubeflow.runs.listing import runs

    print(runs(**options))


@click.command()
@RUN
@click.argument("step", required=False)
@connection
def logs(run: str, step: str | None, **options: Any) -> None:
    """Print the log of a step of a run, by its id or only name; without STEP that of the step that failed."""
    from pipeline.kubeflow.runs.control import logs

    for line in logs(run, step, **options):
        print(line)


@click.command()
@RUN
@connection
@WAIT
def retry(run: str, **options: Any) -> int:
    """Run again what failed in a run, by its id or only name; steps that succeeded stay."""
    from pipeline.kubeflow.runs.control import retry_run

    return retry_run(run, **options)


@click.command()
@RUN
@connection
def terminate(run: str, **options: Any) -> None:
    """End a run that is under way, by its id or only name, and its training's run in MLflow."""
    from pipeline.kubeflow.runs.control import terminate

    terminate(run, **options)
