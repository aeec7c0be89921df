"""What a task is given: placeholders, values, artifacts by their maker's name, loops, nested pipelines, exit tasks."""

import json
from typing import Any

import pytest
from kfp import dsl

from tests.standin.conftest import Install
from tests.standin.errors import ApiError
from tests.standin.pipelines import IMAGE, compiled, join, make, of_one, safe, settings, split, told, use
from tests.standin.scripted import make_outputs
from tests.standin.values import go_json, number


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.0, "3"), (0.5, "0.5"), (1e-05, "0.00001"), (1e-07, "1e-7"), (1e21, "1e+21"), (-2.0, "-2"), (123456789.25, "123456789.25")],
)
def test_numbers_as_go_writes_them(value: float, text: str) -> None:
    assert number(value) == text


def test_json_as_go_writes_it() -> None:
    assert go_json({"b": [True, None], "a": "<&>"}) == '{"a":"\\u003c\\u0026\\u003e","b":[true,null]}'


def test_a_value_of_the_run_is_known_only_as_the_whole_constant_of_an_input(install: Install) -> None:
    def placeholders() -> None:
        whole = make(word=dsl.PIPELINE_JOB_ID_PLACEHOLDER)
        inside = make(word=f"run-{dsl.PIPELINE_JOB_ID_PLACEHOLDER}").set_caching_options(False)
        safe(whole, inside)

    backend, pods = install()
    run = backend.run(compiled(placeholders))
    words = {pod.task: pod.command[2] for pod in pods.pods}
    assert words == {"make": run["run_id"], "make-2": "run-{{$.pipeline_job_uuid}}"}


def test_in_a_command_it_stays_as_it_is(install: Install) -> None:
    @dsl.container_component
    def literal() -> dsl.ContainerSpec:
        return dsl.ContainerSpec(
            image=IMAGE, command=["say", dsl.PIPELINE_JOB_ID_PLACEHOLDER, f"x/{dsl.PIPELINE_TASK_NAME_PLACEHOLDER}"]
        )

    def in_command() -> None:
        safe(literal())

    backend, pods = install()
    backend.run(compiled(in_command))
    assert pods.one("literal").command == ["say", "{{$.pipeline_job_uuid}}", "x/{{$.pipeline_task_name}}"]


def test_kubernetes_itself_fills_in_variables_of_the_container(install: Install) -> None:
    @dsl.container_component
    def variable() -> dsl.ContainerSpec:
        return dsl.ContainerSpec(image=IMAGE, command=["say"], args=["$(MINE)", "$(OTHER)", "$$(MINE)"])

    def variables() -> None:
        task = variable().set_env_variable("MINE", "1")
        safe(task)

    backend, pods = install()
    backend.run(compiled(variables))
    assert pods.one("variable").command == ["say", "1", "$(OTHER)", "$(MINE)"]


def test_numbers_and_json_of_a_run(install: Install) -> None:
    def values(values: dict = {"n": 3, "text": "a b"}, more: float = 2) -> None:  # type: ignore[type-arg]  # noqa: B006
        safe(settings(values=values, more=more))

    backend, pods = install()
    backend.run(compiled(values), {"values": {"n": 10, "list": [1, 0.5]}})
    assert pods.one("settings").command == ["settings", "--values", '{"all": {"list":[1,0.5],"n":10}}', "--more", "2"]


@pytest.mark.parametrize(
    ("given", "why"), [({"other": 1}, "not required by pipeline: other"), ({"values": 3}, "requires type struct")]
)
def test_the_api_refuses_parameters_that_do_not_fit(install: Install, given: dict[str, Any], why: str) -> None:
    def values(values: dict = {}, more: float = 2) -> None:  # type: ignore[type-arg]  # noqa: B006
        safe(settings(values=values, more=more))

    backend, _ = install()
    with pytest.raises(ApiError, match=why):
        backend.run(compiled(values), given)


def test_an_artifact_comes_with_its_number_as_name(install: Install) -> None:
    def chain() -> None:
        first = make(word="a")
        safe(first, use(given=first.outputs["made"]))

    backend, pods = install()
    run = backend.run(compiled(chain))
    pod = pods.one("use")
    given = json.loads(pod.command[1])["inputs"]["artifacts"]["given"]["artifacts"][0]
    assert given["name"] == str(backend.artifact(run["run_id"], "make", "made").id)
    assert pod.command[2] == "/minio/" + given["uri"].removeprefix("minio://")
    assert pod.command[3] == given["uri"]
    assert given["uri"].startswith(f"minio://mlpipeline/v2/artifacts/chain/{run['run_id']}/make/")


def test_a_loop_and_what_is_collected_out_of_it(install: Install) -> None:
    def loop() -> None:
        parts = split(count=3)
        with dsl.ParallelFor(parts.output, parallelism=2) as part:
            made = make(word=part)
            safe(made)
        safe(parts, join(parts=dsl.Collected(made.outputs["made"])))

    def three(pod: Any) -> int:
        pod.local("/tmp/kfp/outputs/parts").parent.mkdir(parents=True)
        pod.local("/tmp/kfp/outputs/parts").write_text('["x", "y", "z"]')
        return 0

    backend, pods = install({"split": three})
    run = backend.run(compiled(loop))
    assert run["state"] == "SUCCEEDED"
    assert sorted(pod.command[2] for pod in pods.of("make")) == ["x", "y", "z"]
    parts = json.loads(pods.one("join").command[1])["inputs"]["artifacts"]["parts"]["artifacts"]
    words = [backend.store.path(one["uri"]) for one in parts]
    assert len(set(words)) == 3
    assert {word.name for word in words} == {"made"}


def test_outputs_of_a_nested_pipeline(install: Install) -> None:
    @dsl.pipeline(name="inner")
    def inner(given: dsl.Input[dsl.Dataset]) -> dsl.Model:
        used = use(given=given)
        safe(used)
        return used.outputs["used"]

    @dsl.container_component
    def last(model: dsl.Input[dsl.Model]) -> dsl.ContainerSpec:
        return dsl.ContainerSpec(image=IMAGE, command=["last"], args=[model.path])

    def nested() -> None:
        first = make(word="a")
        safe(first, last(model=inner(given=first.outputs["made"]).output))

    backend, pods = install()
    run = backend.run(compiled(nested))
    assert run["state"] == "SUCCEEDED"
    assert pods.one("last").command[1].endswith("/used")


def test_an_importer_is_known_by_its_display_name_alone(install: Install) -> None:
    """The fault of kubeflow/pipelines #11173."""

    def imported(name: str | None) -> str:
        def importing() -> None:
            task = dsl.importer(artifact_uri="s3://bucket/dataset", artifact_class=dsl.Dataset, reimport=False)
            if name:
                task.set_display_name(name)
            safe(use(given=task.output))

        return compiled(importing)

    backend, pods = install()
    place = backend.store.path("s3://bucket/dataset/one.txt")
    place.parent.mkdir(parents=True)
    place.write_text("1")
    first = backend.run(imported(None))
    assert first["state"] == "SUCCEEDED"
    assert backend.traffic(first["run_id"], "use").downloaded == 1
    run = backend.run(imported("dataset"))
    assert run["state"] == "FAILED"
    node = next(node for node in backend.workflow(run["run_id"]).nodes.all() if node.display == "use-driver(0)")
    assert 'cannot find producer task "importer_' in node.log
    assert len(pods.pods) == 1


def test_an_importer_takes_what_an_importer_brought_before_but_not_what_a_task_made(install: Install) -> None:
    def importing(uri: str, reimport: bool) -> str:
        def chain() -> None:
            safe(use(given=dsl.importer(artifact_uri=uri, artifact_class=dsl.Dataset, reimport=reimport).output))

        return compiled(chain)

    def making() -> None:
        safe(make(word="a"))

    backend, pods = install()
    first = backend.run(compiled(making).replace("name: making", "name: chain"))
    uri = backend.artifact(first["run_id"], "make", "made").uri
    numbers = []
    for reimport in (False, False, True):
        run = backend.run(importing(uri, reimport))
        numbers.append(backend.execution(run["run_id"], "importer").output_artifacts["artifact"])
    assert len({backend.artifact(first["run_id"], "make", "made").id, *numbers}) == 3
    assert numbers[0] == numbers[1]
    assert len(pods.of("use")) == 2  # the second is cached


def test_an_exit_task_is_told_the_state_in_metadatas_words(install: Install) -> None:
    def handled() -> None:
        at_end = told()
        with dsl.ExitHandler(at_end, name="steps"):
            safe(make(word="a"))
        safe(at_end)

    backend, pods = install()
    run = backend.run(compiled(handled))
    status = json.loads(pods.of("told")[0].command[1])
    assert status == {
        "state": "COMPLETE",
        "pipelineTaskName": "exit-handler-1",
        "pipelineJobResourceName": backend.workflow(run["run_id"]).name,
        "error": {},
    }
    backend, pods = install({"make": lambda pod: 3})
    run = backend.run(compiled(handled))
    assert run["state"] == "FAILED"
    assert json.loads(pods.of("told")[0].command[1])["state"] == "FAILED"


def test_tasks_behind_a_failed_one_are_omitted(install: Install) -> None:
    def chain() -> None:
        first = make(word="a")
        other = make(word="b")
        safe(first, use(given=first.outputs["made"]), other)

    backend, pods = install({"make": lambda pod: 1, "make-2": make_outputs})
    run = backend.run(compiled(chain))
    states = {one["display_name"]: one["state"] for one in run["run_details"]["task_details"]}
    assert run["state"] == "FAILED"
    assert states["make"] == "FAILED"
    assert states["make-2"] == "SUCCEEDED"
    assert states["use"] == "RUNTIME_STATE_UNSPECIFIED"
    assert {pod.task for pod in pods.pods} == {"make", "make-2"}


def test_a_task_of_one_is_safe_and_makes_its_output(install: Install) -> None:
    backend, _ = install()
    run = backend.run(of_one())
    assert (backend.path(run["run_id"], "make", "made") / "content").read_text() == "made of make"
