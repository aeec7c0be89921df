"""One chain, three places: dvc.yaml, the compiled pipeline and the commands say the same.

dvc.yaml ──── stage: cmd, params ────┐
IR ────────── task: args, inputs ────┼── same steps, edges, flags, sections
run_step ──── command: options ──────┘
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.common import lineage
from components.common.settings import SECTIONS, load
from pipeline.run_step import dier
from pipeline.steps import STEPS
from pipeline.task import ui_metadata, ui_outputs

ROOT = Path(__file__).parents[2]
COMPILED = ROOT / "pipeline" / "compiled" / "dier.yaml"
NAMES = [step.name for step in STEPS]


@pytest.fixture(scope="module")
def stages() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    return next(yaml.safe_load_all(COMPILED.read_text()))


@pytest.fixture(scope="module")
def tasks(spec: dict[str, Any]) -> dict[str, Any]:
    return spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]


def container(spec: dict[str, Any], step: str) -> dict[str, Any]:
    return spec["deploymentSpec"]["executors"][f"exec-{step}"]["container"]


def dvc_flags(stage: dict[str, Any]) -> list[tuple[str, str]]:
    words = stage["cmd"].split()
    return list(zip(words[2::2], words[3::2], strict=True))


def ir_flags(spec: dict[str, Any], step: str) -> list[tuple[str, str]]:
    words = container(spec, step)["args"]
    return list(zip(words[1::2], words[2::2], strict=True))


def test_the_same_steps(stages: dict[str, Any], tasks: dict[str, Any]) -> None:
    assert list(stages) == NAMES
    assert set(tasks) == set(NAMES)
    assert list(dier.commands)[: len(NAMES)] == NAMES


@pytest.mark.parametrize("step", NAMES)
def test_the_same_flags_in_the_same_order(step: str, stages: dict[str, Any], spec: dict[str, Any]) -> None:
    flags = [flag for flag, _ in dvc_flags(stages[step])]
    assert [flag for flag, _ in ir_flags(spec, step)] == flags
    required = [option.opts[0] for option in dier.commands[step].params if option.required]
    assert required == flags
    assert container(spec, step)["args"][0] == step


@pytest.mark.parametrize("step", NAMES)
def test_what_follows_the_dashes_is_the_whole_command(step: str, spec: dict[str, Any]) -> None:
    words = container(spec, step)["command"]
    assert words[:4] == ["dier", "task", "--executor-input", "{{$}}"]
    assert words[-1] == "--"
    assert set(words[4:-1:2]) <= {"--show", "--permanent-failure"}


@pytest.mark.parametrize("step", NAMES)
def test_the_same_edges(step: str, stages: dict[str, Any], spec: dict[str, Any], tasks: dict[str, Any]) -> None:
    made_by = {dict(dvc_flags(stage))["--out"]: name for name, stage in stages.items()}
    dvc = {flag: made_by[place] for flag, place in dvc_flags(stages[step]) if place in made_by and flag != "--out"}
    inputs = tasks[step]["inputs"].get("artifacts", {})
    ir = {}
    for flag, place in ir_flags(spec, step):
        named = re.fullmatch(r"\{\{\$\.inputs\.artifacts\['(\w+)'\]\.path\}\}", place)
        if named:
            ir[flag] = inputs[named[1]]["taskOutputArtifact"]["producerTask"]
    assert ir == dvc
    assert sorted(tasks[step].get("dependentTasks", [])) == sorted(set(dvc.values()))


@pytest.mark.parametrize("step", NAMES)
def test_an_edge_carries_the_artifact_that_the_producer_makes(step: str, spec: dict[str, Any], tasks: dict[str, Any]) -> None:
    for chosen in tasks[step]["inputs"].get("artifacts", {}).values():
        source = chosen["taskOutputArtifact"]
        out = dict(ir_flags(spec, source["producerTask"]))["--out"]
        assert out == f"{{{{$.outputs.artifacts['{source['outputArtifactKey']}'].path}}}}"


@pytest.mark.parametrize("step", NAMES)
def test_the_same_sections(step: str, stages: dict[str, Any], spec: dict[str, Any], tasks: dict[str, Any]) -> None:
    sections = stages[step]["params"]
    text = dict(ir_flags(spec, step))["--params"]
    assert re.findall(r'"(\w+)": \{\{\$\.inputs\.parameters\[\'(\w+)\'\]\}\}', text) == [(s, f"{s}_settings") for s in sections]
    given = tasks[step]["inputs"]["parameters"]
    assert given == {f"{s}_settings": {"componentInputParameter": f"pipelinechannel--{s}"} for s in sections}


def test_every_output_that_the_ui_shows_has_what_writes_it() -> None:
    assert set(ui_outputs._SHOWN) == {(step.name, name) for step in STEPS for name in step.shown}
    assert set(ui_metadata._DESCRIBED) == {*NAMES, "embed-join"}


def test_no_two_boxes_of_a_run_have_the_same_name() -> None:
    """A page draws tasks and artifacts as boxes, each under its bare name (frontend/src/lib/v2/StaticFlow.ts:226-230 of 2.17.0)."""
    boxes = [name for step in STEPS for name in (step.name, step.kubeflow_output, *step.shown)]
    assert sorted(boxes) == sorted(set(boxes))
    assert not {"page", "metrics"} & set(boxes)


@pytest.mark.parametrize("step", ["probe", "register"])
def test_the_text_is_the_first_box_of_its_task(step: str) -> None:
    """Boxes are drawn in the order of a protobuf map as JSON, which is alphabetical."""
    made = next(one for one in STEPS if one.name == step)
    first = min(made.kubeflow_output, *made.shown)
    assert made.shown[first] == "Markdown"


def test_the_defaults_are_those_of_params_yaml(spec: dict[str, Any]) -> None:
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert set(parameters) == set(SECTIONS)
    text = json.dumps({name: parameter["defaultValue"] for name, parameter in parameters.items()})
    assert load(text) == load(ROOT / "params.yaml")


def test_what_may_be_null_is_null_by_default() -> None:
    """The pipeline leaves a null out of its parameters, so it must mean the default."""
    for name in SECTIONS:
        section = load("{}").section(name)
        for key, field in type(section).model_fields.items():
            if type(None) in getattr(field.annotation, "__args__", ()):
                assert getattr(section, key) is None, f"{name}.{key}"


def test_what_artifacts_are_made_from_is_what_their_steps_are_given() -> None:
    given = {step.output: tuple(name for name in step.inputs if name != "work") for step in STEPS}
    assert given == lineage.MADE_FROM | {"registration": given["registration"]}
