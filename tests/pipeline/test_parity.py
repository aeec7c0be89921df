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
from pipeline.kubeflow import parameters
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
    return spec["root"]["dag"]["tasks"]


GATES = {step.gate: step for step in STEPS if step.gate}
"""Tasks of Kubeflow alone, where a failed step keeps nothing: each holds to the artifact of a step."""


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
    assert set(tasks) == {*NAMES, *GATES}
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
    assert set(words[4:-1:2]) <= {"--show", "--permanent-failures", "--gated"}
    assert ("--gated" in words) is (step in {gated.name for gated in GATES.values()})


def test_no_placeholder_of_a_run_stands_where_kubeflow_resolves_none() -> None:
    """Inside a command only inputs, outputs and the executor input are; kfp's local runner resolves more."""
    assert not re.findall(r"\{\{\$\.pipeline\w*", COMPILED.read_text())


@pytest.mark.parametrize("gate", GATES)
def test_a_gate_holds_to_its_artifact_before_anything_reads_it(gate: str, spec: dict[str, Any], tasks: dict[str, Any]) -> None:
    step = GATES[gate]
    words = container(spec, gate)
    assert words["command"] == ["dier", "gate"]
    assert words["args"] == [f"--{step.output}", f"{{{{$.inputs.artifacts['{step.output}_in'].path}}}}"]
    source = tasks[gate]["inputs"]["artifacts"][f"{step.output}_in"]["taskOutputArtifact"]
    assert source == {"producerTask": step.name, "outputArtifactKey": step.output}
    readers = [other.name for other in STEPS if step.output in other.inputs]
    waiting = [name for name in tasks if gate in tasks[name].get("dependentTasks", [])]
    assert waiting == readers[:1]
    behind = set(waiting)
    for name in NAMES:  # in the order of the chain
        behind |= {name} if behind & set(tasks[name].get("dependentTasks", [])) else set()
    assert set(readers) <= behind


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
    assert sorted(set(tasks[step].get("dependentTasks", [])) - set(GATES)) == sorted(set(dvc.values()))


@pytest.mark.parametrize("step", NAMES)
def test_an_edge_carries_the_artifact_that_the_producer_makes(step: str, spec: dict[str, Any], tasks: dict[str, Any]) -> None:
    for chosen in tasks[step]["inputs"].get("artifacts", {}).values():
        source = chosen["taskOutputArtifact"]
        out = dict(ir_flags(spec, source["producerTask"]))["--out"]
        assert out == f"{{{{$.outputs.artifacts['{source['outputArtifactKey']}'].path}}}}"


@pytest.mark.parametrize("step", NAMES)
def test_the_same_sections(step: str, stages: dict[str, Any], spec: dict[str, Any], tasks: dict[str, Any]) -> None:
    sections = stages[step]["params"]
    assert dict(ir_flags(spec, step))["--params"] == "{}"  # dier task has them from the executor input
    given = {name: source["componentInputParameter"] for name, source in tasks[step]["inputs"]["parameters"].items()}
    single = {parameters.name(setting) for setting in parameters.OWN if setting.partition(".")[0] in sections}
    assert given == {f"{section}_settings": section for section in sections} | {name: name for name in single}


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
    given = spec["root"]["inputDefinitions"]["parameters"]
    assert set(given) == {*SECTIONS, *map(parameters.name, parameters.OWN)}
    values = {name: parameter["defaultValue"] for name, parameter in given.items()}
    assert load(json.dumps(parameters.merged(values))) == load(ROOT / "params.yaml")


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
