"""Argo's retries with and without the stock manifests, the window that ends them, and runs that are tried again or ended."""

from collections.abc import Iterator
from typing import Any

import pytest
from kfp import dsl

from tests.standin.backend import body_of
from tests.standin.conftest import Install
from tests.standin.errors import ApiError
from tests.standin.pipelines import compiled, make, of_one, safe, told, use
from tests.standin.pod import Ended, Pod
from tests.standin.retry import Strategy, decide
from tests.standin.scripted import make_outputs, wait_for_stop, work

ENDS = {
    "exit 1": Ended(1),
    "out of memory": Ended(137, oom=True),
    "deleted": Ended(143, deleted=True),
}


def retried(count: int = 3, wait: str = "60s", factor: float = 2.0, window: str = "1h") -> Any:
    return lambda task: task.set_retry(count, backoff_duration=wait, backoff_factor=factor, backoff_max_duration=window)


@pytest.mark.parametrize(
    ("end", "stock", "tries"),
    [
        ("exit 1", True, 1),
        ("out of memory", True, 1),
        ("deleted", True, 4),
        ("exit 1", False, 4),
        ("out of memory", False, 4),
        ("deleted", False, 1),
    ],
)
def test_which_policy_tries_what_again(install: Install, end: str, stock: bool, tries: int) -> None:
    ends: Iterator[Any] = iter([ENDS[end]] * 3)

    def step(pod: Pod) -> Any:
        return next(ends, None) or make_outputs(pod)

    backend, pods = install({"make": step}, stock=stock)
    run = backend.run(of_one(retried()))
    assert len(pods.pods) == tries
    assert (run["state"] == "SUCCEEDED") == (tries == 4)
    assert [pod.env["KFP_RETRY_INDEX"] for pod in pods.pods] == [str(attempt) for attempt in range(tries)]


def test_without_retries_the_stock_manifests_try_a_lost_pod_twice_more(install: Install) -> None:
    ends: Iterator[Any] = iter([ENDS["deleted"]] * 2)
    backend, pods = install({"make": lambda pod: next(ends, None) or make_outputs(pod)})
    assert backend.run(of_one())["state"] == "SUCCEEDED"
    assert len(pods.pods) == 3


def test_each_wait_is_longer_and_each_log_is_kept(install: Install) -> None:
    starts: list[float] = []

    def step(pod: Pod) -> Ended:
        starts.append(pod.clock.now())
        return Ended(1, f"try {pod.attempt}")

    backend, _ = install({"make": step}, stock=False)
    run = backend.run(of_one(retried()))
    assert starts == [0, 60, 180, 420]
    places = sorted(place.name for place in backend.path(run["run_id"], "make", "executor-logs").parent.iterdir())
    assert places == [f"executor-logs-{number}" for number in range(4)]


def test_the_window_is_counted_from_the_first_start(install: Install) -> None:
    """Training takes two hours, the longest wait is to be one hour: it is never tried again."""

    def step(pod: Pod) -> int:
        work(pod, 7200)
        return 1

    backend, pods = install({"make": step}, stock=False)
    run = backend.run(of_one(retried(window="1h")))
    assert len(pods.pods) == 1
    outer = next(node for node in backend.workflow(run["run_id"]).nodes.all() if node.display == "executor")
    assert outer.message == "Max duration limit exceeded"


def test_and_ends_a_further_try_in_the_middle(install: Install) -> None:
    lasts = iter([600, 7200])
    backend, pods = install({"make": lambda pod: work(pod, next(lasts)) or 1}, stock=False)
    backend.run(of_one(retried(window="1h")))
    assert len(pods.pods) == 2
    assert pods.pods[0].deadline is None
    assert pods.pods[1].deadline == 3600 - 600 - 60


def test_a_factor_that_is_no_whole_number_is_an_error_at_the_first_failure(install: Install) -> None:
    backend, pods = install({"make": lambda pod: 1}, stock=False)
    run = backend.run(of_one(retried(factor=1.5)))
    assert len(pods.pods) == 1
    outer = next(node for node in backend.workflow(run["run_id"]).nodes.all() if node.display == "executor")
    assert (outer.phase, outer.message) == ("Error", 'strconv.Atoi: parsing "1.5": invalid syntax')


def test_a_failure_that_is_not_tried_again_still_waits() -> None:
    rule = Strategy(limit=3, policy="OnError", duration=60, factor="2", window=3600)
    decision = decide(rule, tries=1, phase="Failed", first_start=0, last_end=10, now=10)
    assert (decision.again, decision.wait) == (False, 60)


def test_a_time_limit_ends_a_try(install: Install) -> None:
    from kfp import kubernetes

    backend, _ = install({"make": lambda pod: work(pod, 100) or 0})
    run = backend.run(of_one(lambda task: kubernetes.set_timeout(task, 30)))
    assert run["state"] == "FAILED"
    pod = next(node for node in backend.workflow(run["run_id"]).nodes.all() if node.display == "executor(0)")
    assert "longer than the specified deadline" in pod.message
    assert backend.execution(run["run_id"], "make").state == "RUNNING"  # the launcher died with it


def chain() -> None:
    first = make(word="a").set_caching_options(False)
    second = use(given=first.outputs["made"]).set_caching_options(False)
    at_end = told()
    safe(first, second, at_end)


def handled() -> None:
    at_end = told()
    with dsl.ExitHandler(at_end, name="steps"):
        first = make(word="a").set_caching_options(False)
        safe(first, use(given=first.outputs["made"]).set_caching_options(False))
    safe(at_end)


@pytest.mark.parametrize("stock", [True, False])
def test_a_failed_run_that_is_tried_again_keeps_what_succeeded(install: Install, stock: bool) -> None:
    codes = iter([1])
    backend, pods = install({"use": lambda pod: next(codes, 0) or make_outputs(pod)}, stock=stock)
    run = backend.run(compiled(handled))
    assert run["state"] == "FAILED"
    backend.retry_run(run["run_id"])
    again = backend.wait(run["run_id"])
    assert again["state"] == "SUCCEEDED"
    # the exit task succeeded the first time, so it is one of those that stay
    assert [pod.task for pod in pods.pods] == ["make", "use", "told", "use"]
    assert [one["state"] for one in again["state_history"]] == ["PENDING", "RUNNING", "FAILED", "RUNNING", "SUCCEEDED"]
    with pytest.raises(ApiError, match="must be Failed/Error to retry"):
        backend.retry_run(run["run_id"])


def test_a_run_that_is_ended_runs_its_exit_task_and_is_failed(install: Install) -> None:
    """No CANCELED: 2.17.0 never says it. While the exit task runs the state is CANCELING, and the status it is told RUNNING."""
    import json

    seen: list[str] = []
    backend, pods = install({"make": wait_for_stop, "told": lambda pod: seen.append(backend.get_run(pod.run_id)["state"]) or 0})
    run_id = backend.create_run(body_of(compiled(handled)))["run_id"]
    while not pods.pods:
        backend._threads[run_id].join(0.01)
    backend.terminate_run(run_id)
    run = backend.wait(run_id)
    assert run["state"] == "FAILED"
    assert [one["state"] for one in run["state_history"]] == ["PENDING", "RUNNING", "CANCELING", "FAILED"]
    assert seen == ["CANCELING"]
    assert json.loads(pods.one("told").command[1])["state"] == "RUNNING"
    assert backend.execution(run_id, "make").state == "RUNNING"
    with pytest.raises(ApiError, match="Row not found"):
        backend.terminate_run(run_id)


def test_a_deleted_pod_is_an_error(install: Install) -> None:
    backend, pods = install({"make": wait_for_stop}, stock=False)
    run_id = backend.create_run(body_of(of_one()))["run_id"]
    while not pods.pods:
        backend._threads[run_id].join(0.01)
    backend.delete_pod(run_id, pods.pods[0].name)
    assert backend.wait(run_id)["state"] == "FAILED"
    node = backend.workflow(run_id).nodes.find(pods.pods[0].name)
    assert node is not None
    assert (node.phase, node.message) == ("Error", "pod deleted")


def test_logs_by_the_pods_name_and_what_argo_kept_of_a_node(install: Install) -> None:
    backend, pods = install({"make": lambda pod: Ended(2, "dier: error: no\n")})
    run = backend.run(of_one())
    assert backend.log(run["run_id"], pods.pods[0].name).startswith("dier: error: no\n")
    [task] = [one for one in run["run_details"]["task_details"] if one["display_name"] == "executor"]
    node = task["child_tasks"][0]["pod_name"]
    assert backend.read_artifact(run["run_id"], node, "main-logs").startswith(b"dier: error: no\n")
    assert all("error" not in one for one in run["run_details"]["task_details"])
    for ask in (lambda: backend.log(run["run_id"], "nobody"), lambda: backend.read_artifact(run["run_id"], node, "made")):
        with pytest.raises(ApiError):
            ask()
    with pytest.raises(ApiError, match="not found"):
        backend.get_run("nothing")
