"""`dier components`: each step and gate as a component file that others load, with a page on what it takes, gives and needs.

The components are those of the pipeline itself, and have defaults. The pages are read off them, off the schema of the settings, and
off what the compiled pipeline asks of the cluster: nothing is said here that stands elsewhere. A component takes its dataset as an
input, and embeds in one task, whatever the cluster file says of this repository's own pipeline.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kfp.dsl.base_component import BaseComponent

from components.common.progress import say
from components.common.settings import Settings
from model.atomic import write_whole
from pipeline.kubeflow import cluster as cluster_settings
from pipeline.kubeflow import parameters
from pipeline.kubeflow.cluster import Cluster
from pipeline.kubeflow.cluster_sections import Dataset, Embed
from pipeline.kubeflow.containers import gate_component, step_component
from pipeline.kubeflow.parameters import SUFFIX
from pipeline.kubeflow.pipeline import compiled, yaml_of
from pipeline.params_help import kind, text_of
from pipeline.steps import INPUT_HELP, STEPS, Step

HEAD = "# Made by: dier components. A container and a command line; {name}.md says what it needs of the cluster beside them.\n"
INDEX = """# The steps as components

Made by `dier components`; a test holds these files to the code. The image stands in each file, so for a cluster of your own:
`dier components --cluster FILE --out DIR`.

```python
from kfp import components, dsl, kubernetes

prepare = components.load_component_from_file("prepare.yaml")


@dsl.pipeline
def mine():
    task = prepare(data_source="medmnist", data_name="bloodmnist", data_settings={{"image_size": 28}})
    kubernetes.empty_dir_mount(task, "work", "/state")
    kubernetes.set_security_context(task, run_as_user=10001, run_as_group=10001, run_as_non_root=True)
```

- Every parameter has a default, those of `dier params`. `SECTION_settings` is a JSON object, and counts before a parameter of a
  single setting; an unknown name or a wrong value ends the task at once, with one line in its log and exit code 2.
- `validate` and `register` end well even where they found that data or model are not good enough, since Kubeflow keeps nothing of a
  task that fails. `data-gate` and `model-gate` then end the run: let what must not go on come after them.
- A component file holds image, command, inputs and outputs. What a pod needs beside them is the pipeline's: each page ends with
  what this repository's own asks for. Without `DIER_RUN_ID` train does not start: it remembers by run what no retry can cure.
  Where this repository is installed, `place` of `pipeline.kubeflow.placement` asks for all of that:
  `place(task, "prepare", cluster)`, with `cluster = pipeline.kubeflow.cluster.load(Path("cluster.yaml"))`.
- Artifacts are folders with a manifest of digests, which whoever reads them checks: [docs/data.md](../../../docs/data.md) says what
  a dataset holds, for components of your own.
- [examples/novelty/pipeline.py](../../../examples/novelty/pipeline.py) is a whole pipeline of somebody else around three of them.

| component | does | takes | gives |
|---|---|---|---|
{rows}"""
NEEDS = """
## What it needs of the cluster

By the cluster file that these files were made with; kfp and kfp-kubernetes name their calls after these.
"""


def write(out: Path, *, cluster: Path, allow_tag: bool) -> None:
    """Write the files of every step to the folder `out`. Raises SettingsError."""
    wanted = cluster_settings.load(cluster)
    wanted.check_image(allow_tag)
    found = files(wanted)
    out.mkdir(parents=True, exist_ok=True)
    for name, text in found.items():
        write_whole(out / name, text)
    say(f"wrote {len(found) // 2} components to {out} (image {wanted.image})")


@dataclass(frozen=True)
class Part:
    """One component: a step, or the gate of one."""

    name: str
    help: str
    step: Step
    component: BaseComponent


def files(cluster: Cluster) -> dict[str, str]:
    """Text by file name. The same settings give the same bytes."""
    cluster = cluster.model_copy(update={"dataset": Dataset(), "embed": Embed()})
    spec, platform = yaml.safe_load_all(compiled(Settings(), cluster))
    parts = list(_parts(cluster))
    made: dict[str, str] = {}
    for part in parts:
        made[f"{part.name}.yaml"] = HEAD.format(name=part.name) + yaml_of(part.component)
        made[f"{part.name}.md"] = "\n".join(_page(part, _needs(part.name, spec, platform))) + "\n"
    made["README.md"] = INDEX.format(rows="\n".join(map(_row, parts)) + "\n")
    return made


def _parts(cluster: Cluster) -> Iterator[Part]:
    known = parameters.defaults(Settings())
    for step in STEPS:
        given = parameters.of_task(step.sections)
        defaults = {name: {} if name.endswith(SUFFIX) else known[name] for name in given}
        yield Part(step.name, step.help, step, step_component(step, cluster, defaults))
        if step.gate:
            yield Part(step.gate, f"end the run where the {step.output} says no", step, gate_component(step, cluster))


def _row(part: Part) -> str:
    artifacts, _ = _inputs(part.component)
    taken = ", ".join(f"`{name}`" for name in artifacts)
    given = ", ".join(f"`{name}`" for name in part.component.component_spec.outputs or {})
    return f"| [{part.name}]({part.name}.md) | {part.help} | {taken} | {given} |"


def _inputs(component: BaseComponent) -> tuple[dict[str, Any], dict[str, Any]]:
    """The artifacts and the parameters that it takes."""
    found = dict(component.component_spec.inputs or {})
    artifacts = {name: spec for name, spec in found.items() if str(spec.type).startswith("system.")}
    return artifacts, {name: spec for name, spec in found.items() if name not in artifacts}


def _page(part: Part, needs: dict[str, Any]) -> Iterator[str]:
    """The Markdown page of a component, line by line."""
    step = part.step
    artifacts, given = _inputs(part.component)
    yield f"# {part.name}\n\n{part.help[0].upper()}{part.help[1:]}. Load `{part.name}.yaml`; [README.md](README.md) says how."
    if not step.cached:
        yield "\nWhat it tells is about something outside of the run: call `task.set_caching_options(False)`."
    if artifacts:
        yield "\n## Inputs\n\n| input | type | |\n|---|---|---|"
        for name, spec in artifacts.items():
            yield f"| `{name}` | `{_type(spec)}` | {INPUT_HELP.get(name.removesuffix('_in')) or f'{step.output} artifact'} |"
    if outputs := part.component.component_spec.outputs:
        yield "\n## Outputs\n\n| output | type | |\n|---|---|---|"
        for name, spec in outputs.items():
            what = f"{step.output} artifact" if name == step.kubeflow_output else "what Kubeflow's pages show of it"
            yield f"| `{name}` | `{_type(spec)}` | {what} |"
    if given:
        yield from _parameters(given, step)
    yield NEEDS
    yield f"```yaml\n{yaml.safe_dump(needs, sort_keys=True).rstrip()}\n```"


def _parameters(given: Mapping[str, Any], step: Step) -> Iterator[str]:
    yield "\n## Parameters"
    said = parameters.descriptions()
    if single := [name for name in given if not name.endswith(SUFFIX)]:
        yield "\n| parameter | default | |\n|---|---|---|"
        for name in single:
            yield f"| `{name}` | `{text_of(given[name].default)}` | {_cell(said[name])} |"
    for name in given:
        if name.endswith(SUFFIX):
            yield from _section(name.removesuffix(SUFFIX), step)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _type(spec: Any) -> str:
    return str(spec.type).partition("@")[0]


def _section(name: str, step: Step) -> Iterator[str]:
    """The settings of a section, or where its table stands: with the first step that takes it."""
    yield f"\n### `{name}{SUFFIX}`\n"
    home = next(other for other in STEPS if name in other.sections)
    if home is not step:
        yield f"What {home.name} was given: [{home.name}.md]({home.name}.md)."
        return
    section = Settings().section(name)
    schema = type(section).model_json_schema()
    yield f"{schema['description']}\n\n| setting | default | may be | meaning |\n|---|---|---|---|"
    for key, field in schema["properties"].items():
        cells = (f"`{key}`", f"`{text_of(getattr(section, key))}`", kind(field), field["description"])
        yield "| " + " | ".join(map(_cell, cells)) + " |"


def _needs(name: str, spec: dict[str, Any], platform: dict[str, Any]) -> dict[str, Any]:
    """What the compiled pipeline asks for a step beside its command: of the container, and of the pod."""
    executor = f"exec-{name}"
    container = spec["deploymentSpec"]["executors"][executor]["container"]
    pod = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][executor]
    return {key: _without_repetition(value) for key, value in container.items() if key in ("resources", "env")} | {
        key: _without_repetition(value) for key, value in pod.items()
    }


def _without_repetition(value: Any) -> Any:
    """kfp writes some values twice, for backends of long ago: cpuRequest beside resourceCpuRequest, a name and its parameter."""
    if isinstance(value, list):
        return [_without_repetition(one) for one in value]
    if not isinstance(value, dict):
        return value
    newer = {f"resource{key[0].upper()}{key[1:]}": key for key in value}
    older = {key for name, key in newer.items() if name in value} | {key for key in value if key.endswith("Parameter")}
    return {key: _without_repetition(one) for key, one in value.items() if key not in older}
