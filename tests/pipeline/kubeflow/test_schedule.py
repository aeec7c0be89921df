"""`dier schedule`: recurring runs of stored versions, against a stand-in server."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.common.errors import SettingsError
from pipeline.kubeflow.runs.schedule import six_fields
from tests.pipeline.conftest import Command
from tests.pipeline.kubeflow.kfp_rules import wrong_in_cron
from tests.pipeline.kubeflow.kfp_standin import DROP, StandIn
from tests.pipeline.kubeflow.test_submit import cached

NIGHTLY = ("--cron", "0 2 * * *")


def test_a_schedule_runs_a_stored_version_whose_data_is_read_anew(dier: Command, server: StandIn) -> None:
    options = ["--host", server.url, *NIGHTLY, "--namespace", "team", "--param", "train.steps=500"]
    assert dier("schedule", "nightly", *options).code == 0
    [made], [version] = server.recurring, server.versions
    assert f"({made['display_name']}) of version {version['display_name']}: 0 0 2 * * *, from '0 2 * * *'" in dier.out
    assert "times are those of Kubeflow's scheduler: UTC" in dier.err
    assert version["display_name"].endswith("-fresh-data")
    assert {"validate", "train"} <= cached(server, 0)
    assert "prepare" not in cached(server, 0)
    sent = server.only("POST /recurringruns").json
    assert sent["trigger"] == {"cron_schedule": {"cron": "0 0 2 * * *"}}
    assert sent["pipeline_version_reference"] == {"pipeline_id": "pipeline-1", "pipeline_version_id": "pipeline_version-1"}
    assert (sent["mode"], int(sent["max_concurrency"]), sent["no_catchup"]) == ("ENABLE", 1, True)
    assert sent["runtime_config"]["parameters"]["train_steps"] == 500


def test_what_is_cached_is_for_whoever_asks(dier: Command, server: StandIn) -> None:
    dier("schedule", "one", "--host", server.url, *NIGHTLY, "--cache-data")
    dier("schedule", "two", "--host", server.url, *NIGHTLY, "--no-cache")
    assert "prepare" in cached(server, 0)
    assert cached(server, 1) == set()


def test_one_schedule_of_a_name(dier: Command, server: StandIn) -> None:
    for _ in range(2):
        assert dier("schedule", "nightly", "--host", server.url, *NIGHTLY).code == 0
    assert dier.out.startswith("already there: schedule recurring_run-1 (nightly), 0 0 2 * * *")
    for options, what in ((["--cron", "@daily"], "cron"), ([*NIGHTLY, "--param", "probe.max_iter=7"], "settings")):
        assert dier("schedule", "nightly", "--host", server.url, *options).code == 1
        assert f"schedule 'nightly' is there already, with another {what}: dier schedule --remove nightly" in dier.error
    assert len(server.recurring) == 1


def test_schedules_are_listed_and_removed(dier: Command, server: StandIn) -> None:
    assert dier("schedule", "--list", "--host", server.url).out.startswith("no schedules")
    dier("schedule", "nightly", "--host", server.url, *NIGHTLY)
    head, row = dier("schedule", "--list", "--host", server.url).out.splitlines()
    assert head.split() == ["NAME", "CRON", "STATE", "VERSION", "MADE", "ID"]
    assert row.split()[:8] == ["nightly", "0", "0", "2", "*", "*", "*", "enabled"]
    assert "-fresh-data" in row
    assert "recurring_run-1" in row
    assert dier("schedule", "--remove", "nightly", "--host", server.url).code == 0
    assert server.recurring == []
    assert dier("schedule", "--remove", "nightly", "--host", server.url).code == 1
    assert "has no schedule 'nightly'" in dier.error


def test_a_lost_answer_may_be_asked_for_again(dier: Command, server: StandIn) -> None:
    server.on("POST /recurringruns", DROP)
    assert dier("schedule", "nightly", "--host", server.url, *NIGHTLY).code == 1
    assert "it looks first, and makes no schedule twice" in dier.error
    assert server.calls().count("POST /recurringruns") == 1


def test_what_the_server_does_not_take_as_cron_is_its_word(dier: Command, server: StandIn) -> None:
    assert dier("schedule", "nightly", "--host", server.url, "--cron", "0 2 * * 7").code == 1
    assert "Schedule cron is not a supported format" in dier.error


@pytest.mark.parametrize(
    "options",
    [[], ["nightly"], [*NIGHTLY], ["nightly", "--list"], ["nightly", *NIGHTLY, "--remove", "x"], ["--list", *NIGHTLY]],
    ids=lambda options: " ".join(options) or "nothing",
)
def test_usage(dier: Command, server: StandIn, options: list[str]) -> None:
    assert dier("schedule", "--host", server.url, *options).code == 2
    assert server.requests == []


def test_five_fields_get_their_second() -> None:
    """Kubeflow takes five as well, but as seconds, minutes, hours, days, months: 0 2 * * * would be minute 2 of every hour."""
    assert wrong_in_cron("0 2 * * *") == ""
    assert six_fields("0 2 * * *") == "0 0 2 * * *"
    assert six_fields(" 30 0 2 * * MON-FRI ") == "30 0 2 * * MON-FRI"
    assert six_fields("@every 6h") == "@every 6h"
    for wrong in ("", "2", "* * * *", "0 0 2 * * * *", "0 2 * * ;", "@never", "every day at 2"):
        with pytest.raises(SettingsError, match="is no cron"):
            six_fields(wrong)


numbers = st.tuples(st.integers(0, 59), st.integers(0, 23), st.integers(1, 31), st.integers(1, 12), st.integers(0, 6))


@given(numbers, st.tuples(*[st.sampled_from(["{}", "*", "*/{}", "{0}-{0}", "{0},{0}"])] * 5))
def test_whatever_five_fields_say_the_server_takes_with_the_second_before_them(values: tuple, shapes: tuple) -> None:
    fields = [shape.format(value or 1) for value, shape in zip(values, shapes, strict=True)]
    six = six_fields(" ".join(fields))
    assert six.split() == ["0", *fields]
    assert wrong_in_cron(six) == ""
