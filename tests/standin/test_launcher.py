"""What the launcher does around a step: copies, folders, the executor output, exit codes; and the cache."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from kfp import dsl, kubernetes

from tests.standin.backend import Backend
from tests.standin.conftest import Install
from tests.standin.pipelines import compiled, make, of_one, safe, settings, split, use
from tests.standin.pod import Ended, Pod
from tests.standin.scripted import Script, make_outputs, output, tell


def chain() -> None:
    first = make(word="a")
    safe(first, use(given=first.outputs["made"]))


def told(metadata: Any, then: Callable[[Pod], int] = make_outputs) -> Script:
    def step(pod: Pod) -> int:
        code = then(pod)
        tell(pod, json.dumps({"artifacts": {"made": {"artifacts": [{"name": "made", "metadata": metadata}]}}}))
        return code

    return step


def log(backend: Backend, run: dict[str, Any], display: str = "executor(0)") -> str:
    return next(node.log for node in backend.workflow(run["run_id"]).nodes.all() if node.display == display)


def test_only_the_folder_above_an_output_is_there(install: Install) -> None:
    def step(pod: Pod) -> int:
        assert output(pod, "made").parent.is_dir()
        assert not output(pod, "made").exists()
        return 0

    backend, _ = install({"make": step})
    run = backend.run(of_one())
    assert run["state"] == "SUCCEEDED"  # an output that was not made is no error: it is there, empty
    assert not backend.path(run["run_id"], "make", "made").exists()


def test_folders_are_copied_whole_but_empty_ones_are_lost(install: Install) -> None:
    def step(pod: Pod) -> int:
        place = output(pod, "made")
        (place / "a" / "b").mkdir(parents=True)
        (place / "empty").mkdir()
        (place / "a" / "b" / "file").write_text("12345")
        return 0

    def reads(pod: Pod) -> int:
        place = pod.local(pod.command[2])
        assert (place / "a" / "b" / "file").read_text() == "12345"
        assert not (place / "empty").exists()
        assert (place / "a").stat().st_mode & 0o777 == 0o755
        assert (place / "a" / "b" / "file").stat().st_mode & 0o777 == 0o666
        return 0

    backend, _ = install({"make": step, "use": reads}, publish_logs=False)
    run = backend.run(compiled(chain))
    assert run["state"] == "SUCCEEDED"
    moved = backend.traffic(run["run_id"], "use")
    assert (moved.downloaded, moved.uploaded) == (5, 0)
    assert backend.traffic(run["run_id"], "make").uploaded == 5


def test_a_failed_step_keeps_its_log_and_nothing_else(install: Install) -> None:
    def step(pod: Pod) -> Ended:
        make_outputs(pod)
        tell(pod, json.dumps({"artifacts": {"made": {"artifacts": [{"metadata": {"a": 1}}]}}}))
        return Ended(4, "its last words\n")

    backend, _ = install({"make": step})
    run = backend.run(of_one())
    execution = backend.execution(run["run_id"], "make")
    assert execution.state == "FAILED"
    assert set(execution.output_artifacts) == {"executor-logs"}
    assert backend.path(run["run_id"], "make", "executor-logs").read_text() == "its last words\n"
    assert log(backend, run).endswith("failed to execute component: exit status 4\n")
    node = next(node for node in backend.workflow(run["run_id"]).nodes.all() if node.display == "executor(0)")
    assert node.message == "main: Error (exit code 1)"  # whatever the step's code was


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ('{"t": null}', "unknown/unsupported value type *structpb.Value_NullValue"),
        ('{"t": NaN}', "failed to unmarshall ExecutorOutput"),
    ],
)
def test_metadata_without_null_and_nan(install: Install, metadata: str, why: str) -> None:
    def step(pod: Pod) -> int:
        make_outputs(pod)
        tell(pod, f'{{"artifacts": {{"made": {{"artifacts": [{{"metadata": {metadata}}}]}}}}}}')
        return 0

    backend, _ = install({"make": step})
    run = backend.run(of_one())
    assert run["state"] == "FAILED"
    assert why in log(backend, run)
    assert "made" not in backend.execution(run["run_id"], "make").output_artifacts


def test_metadata_arrives(install: Install) -> None:
    backend, _ = install({"make": told({"a": 1, "b": True, "c": [1], "d": {"e": 2}})})
    run = backend.run(of_one())
    found = dict(backend.artifact(run["run_id"], "make", "made").properties)
    assert found.pop("store_session_info")
    assert found == {"a": 1.0, "b": 1.0, "c": {"list": [1.0]}, "d": {"struct": {"e": 2.0}}, "display_name": "made"}


def test_an_executor_output_with_an_unknown_field_fails_the_task(install: Install) -> None:
    def step(pod: Pod) -> int:
        tell(pod, '{"artefacts": {}}')
        return 0

    backend, _ = install({"make": step})
    run = backend.run(of_one())
    assert "failed to unmarshall ExecutorOutput" in log(backend, run)


def test_an_output_parameter_is_read_as_its_type(install: Install) -> None:
    def parts() -> None:
        safe(split(count=1))

    def wrong(pod: Pod) -> int:
        pod.local("/tmp/kfp/outputs/parts").parent.mkdir(parents=True)
        pod.local("/tmp/kfp/outputs/parts").write_text("no list")
        return 0

    backend, _ = install({"split": wrong})
    run = backend.run(compiled(parts))
    assert 'failed to read output parameter name="parts"' in log(backend, run)


def test_nothing_at_an_inputs_place_is_no_error(install: Install) -> None:
    def importing() -> None:
        safe(use(given=dsl.importer(artifact_uri="s3://bucket/nothing", artifact_class=dsl.Dataset).output))

    seen: list[bool] = []
    backend, _ = install({"use": lambda pod: seen.append(pod.local("/s3/bucket/nothing").exists()) or 0})
    assert backend.run(compiled(importing))["state"] == "SUCCEEDED"
    assert seen == [False]


def test_the_second_run_is_cached_with_everything_behind_it(install: Install) -> None:
    backend, pods = install()
    first, second = backend.run(compiled(chain)), backend.run(compiled(chain))
    assert [pod.task for pod in pods.pods] == ["make", "use"]
    assert backend.execution(second["run_id"], "use").state == "CACHED"
    assert backend.artifact(second["run_id"], "use", "used") is backend.artifact(first["run_id"], "use", "used")
    states = {one["display_name"]: one["state"] for one in second["run_details"]["task_details"]}
    assert states["use"] == "SUCCEEDED"
    assert states["executor"] == "SKIPPED"


def test_what_the_cache_looks_at(install: Install) -> None:
    backend, pods = install()
    backend.cluster.claim("claim")
    backend.run(of_one())
    backend.run(of_one(lambda task: task.set_env_variable("A", "1")))
    backend.run(of_one(lambda task: task.set_memory_request("1Gi")))
    assert len(pods.pods) == 1  # neither environment nor resources
    backend.run(of_one(word="b"))
    assert len(pods.pods) == 2  # a value
    backend.run(of_one(lambda task: kubernetes.mount_pvc(task, "claim", "/data")))
    assert len(pods.pods) == 3  # a claim
    backend.run(of_one(lambda task: task.set_caching_options(False)))
    assert len(pods.pods) == 4
    backend.run(of_one().replace("image: image", "image: other"))
    assert len(pods.pods) == 5
    backend.run(of_one().replace("name: one", "name: another"))
    assert len(pods.pods) == 6  # another pipeline


def test_a_failed_task_is_not_cached_and_a_forced_one_makes_what_follows_anew(install: Install) -> None:
    codes = iter([1, 0])
    backend, pods = install({"make": lambda pod: next(codes, 0) or make_outputs(pod)})
    assert backend.run(of_one())["state"] == "FAILED"
    assert backend.run(of_one())["state"] == "SUCCEEDED"
    assert len(pods.pods) == 2


def test_a_missing_value_of_a_component_fails_the_driver(install: Install) -> None:
    """A default of a component's own: kfp writes it into the component, and the driver of 2.17.0 does not look there."""

    @dsl.container_component
    def optional(word: str = "a") -> dsl.ContainerSpec:
        return dsl.ContainerSpec(image="image", command=["say", word])

    def defaults() -> None:
        safe(optional())

    backend, pods = install()
    run = backend.run(compiled(defaults))
    assert 'parameter "word" not found in executor input' in log(backend, run, "optional-driver(0)")
    assert not pods.pods


def test_settings_with_letters_that_html_minds_stay_json(install: Install) -> None:
    def values(values: dict = {}) -> None:  # type: ignore[type-arg]  # noqa: B006
        safe(settings(values=values, more=1.0))

    backend, pods = install()
    backend.run(compiled(values), {"values": {"a": "<b> & 'c'"}})
    assert json.loads(pods.one("settings").command[2]) == {"all": {"a": "<b> & 'c'"}}
