"""`dier schedule`: a recurring run of the compiled pipeline's stored version, one of a name."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

import kfp_server_api as api

from components.common.errors import SettingsError
from components.common.progress import say
from pipeline.errors import ClusterError
from pipeline.kubeflow import argument_limits, compiled_file
from pipeline.kubeflow import cluster as cluster_settings
from pipeline.kubeflow.api.client import Client, every
from pipeline.kubeflow.api.errors import CallFailed
from pipeline.kubeflow.runs import versions
from pipeline.kubeflow.runs.connection import Connection, connect, experiment_id, where, within
from pipeline.kubeflow.runs.table import table, when

FIELD = re.compile(r"[0-9A-Za-z*/,?-]+")
NAMED = re.compile(r"@(yearly|annually|monthly|weekly|daily|midnight|hourly|every [0-9a-z.]+)")


def schedule(
    name: str,
    pipeline: Path,
    *,
    cron: str,
    cluster: Path,
    pipeline_name: str,
    experiment: str,
    overrides: Sequence[str],
    no_cache: bool,
    cache_data: bool,
    allow_tag: bool,
    **connection: Unpack[Connection],
) -> None:
    """Make the recurring run `name`. One of that name that does the same is left as it is; another one is an error.

    The steps that read data run each time, unless `cache_data`: no cache key covers what lies behind data.path. Raises as submit.
    """
    six = six_fields(cron)
    service_account = cluster_settings.load(cluster).service_account
    compiled = versions.read(pipeline, allow_tag)
    arguments = compiled_file.arguments(compiled, overrides)
    argument_limits.check_run(compiled, arguments)
    client, namespace = connect(connection), connection["namespace"]
    known = list(_named(client, name, namespace))
    version = versions.stored(client, compiled, pipeline_name, namespace, no_cache=no_cache, fresh_data=not cache_data)
    body = api.V2beta1RecurringRun(
        display_name=name,
        experiment_id=experiment_id(client, experiment, namespace),
        pipeline_version_reference=version.reference,
        runtime_config=api.V2beta1RuntimeConfig(parameters=arguments),
        service_account=service_account,
        max_concurrency=1,  # a run that takes longer than the time between two: the next one waits
        no_catchup=True,  # what a cluster that was away has missed is not made up for
        trigger=api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron=six)),
        mode=api.RecurringRunMode.ENABLE,
    )
    if known:
        print(_left_as_it_is(known, body, name))
        return
    made = _create(client, body)
    read_as = "" if six == cron.strip() else f", from {cron!r}"
    print(f"schedule {made.recurring_run_id} ({name}) of version {version.name}: {six}{read_as}")
    print(f"{client.ui}/#/recurringrun/details/{made.recurring_run_id}")
    say("times are those of Kubeflow's scheduler: UTC, unless its cronScheduleTimezone says otherwise")


def schedules(**connection: Unpack[Connection]) -> str:
    """Every recurring run of the namespace, as a table."""
    client, namespace = connect(connection), connection["namespace"]
    found = list(every(client.recurring.recurring_run_service_list_recurring_runs, "recurring_runs", **within(namespace)))
    names = versions.names_of(client, [one.pipeline_version_reference for one in found])
    rows = [
        (
            one.display_name,
            _cron(one) or "-",
            (one.status or "-").lower(),
            _version(one, names),
            when(one.created_at),
            one.recurring_run_id,
        )
        for one in found
    ]
    return table(("NAME", "CRON", "STATE", "VERSION", "MADE", "ID"), rows, "no schedules; dier schedule NAME --cron ... makes one")


def remove(name: str, **connection: Unpack[Connection]) -> None:
    """Remove the recurring run `name`; its runs stay. Raises ClusterError where there is none."""
    client = connect(connection)
    known = list(_named(client, name, connection["namespace"]))
    if not known:
        raise ClusterError(f"{client.base} has no schedule {name!r}: dier schedule --list shows them")
    for one in known:
        client.recurring.recurring_run_service_delete_recurring_run(one.recurring_run_id)
        print(f"removed schedule {one.recurring_run_id} ({name}); runs that it started stay")


def six_fields(cron: str) -> str:
    """`cron` as Kubeflow reads it, with seconds first (robfig/cron 1.2, of kubeflow/pipelines 2.17.0's go.mod:43).

    It takes five fields for seconds to months, so that `0 2 * * *` would start a run at minute 2 of every hour: five are read here
    as everybody else does, and start at second 0. Raises SettingsError for what is no cron.
    """
    fields = cron.split()
    if NAMED.fullmatch(cron.strip()):
        return cron.strip()
    if len(fields) not in (5, 6) or not all(FIELD.fullmatch(field) for field in fields):
        raise SettingsError(
            f"--cron {cron!r} is no cron: give minute, hour, day, month, weekday, such as '0 2 * * *' for 2 o'clock every day "
            "(six fields: seconds first), or @daily"
        )
    return " ".join(fields if len(fields) == 6 else ["0", *fields])


def _named(client: Client, name: str, namespace: str | None) -> Iterator[Any]:
    ask = client.recurring.recurring_run_service_list_recurring_runs
    return every(ask, "recurring_runs", filter=where("display_name", name), **within(namespace))


def _create(client: Client, body: Any) -> Any:
    try:
        return client.recurring.recurring_run_service_create_recurring_run(body)
    except CallFailed as error:
        again = "; run the same command again: it looks first, and makes no schedule twice" if error.unknown else ""
        raise ClusterError(f"{error}{again}") from error


def _left_as_it_is(known: Sequence[Any], wanted: Any, name: str) -> str:
    """What is said where the schedule is there. Raises ClusterError where it does something else."""
    there = known[0]
    same = {
        "cron": (_cron(there), _cron(wanted)),
        "version": (_reference(there), _reference(wanted)),
        "settings": (_parameters(there), _parameters(wanted)),
    }
    other = [what for what, (found, asked) in same.items() if found != asked]
    if len(known) > 1 or other:
        why = f"with another {', another '.join(other)}" if other else f"{len(known)} times"
        raise ClusterError(
            f"schedule {name!r} is there already, {why}: dier schedule --remove {name}, then again, or give another name"
        )
    return f"already there: schedule {there.recurring_run_id} ({name}), {_cron(there)}"


def _cron(one: Any) -> str | None:
    schedule = one.trigger.cron_schedule if one.trigger else None
    return schedule.cron if schedule else None


def _reference(one: Any) -> str | None:
    return one.pipeline_version_reference.pipeline_version_id if one.pipeline_version_reference else None


def _parameters(one: Any) -> dict[str, Any]:
    return (one.runtime_config.parameters if one.runtime_config else None) or {}


def _version(one: Any, names: dict[str, str]) -> str:
    return names.get(_reference(one) or "", "-")
