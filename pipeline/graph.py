"""The compiled pipeline as a picture, drawn from the compiled file alone: `python -m pipeline.graph PIPELINE PICTURE`."""

import sys
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from pipeline import package

WIDE, HIGH, APART = 1.15, 0.62, 1.75
COLOURS = {
    "dataset": "#0072b2",
    "verdict": "#009e73",
    "model": "#d55e00",
    "embeddings": "#56b4e9",
    "probe": "#cc79a7",
    "report": "#e69f00",
}
GREY = "#8a8f98"


@dataclass(frozen=True)
class Edge:
    """An artifact that goes from one task to another."""

    source: str
    target: str
    artifact: str


def order(pipeline: package.Package) -> list[str]:
    """The tasks in an order in which they can run: each after all that it depends on, a group after what is in it."""
    spec = pipeline.spec
    before: dict[str, set[str]] = {}

    def add(dag: dict[str, Any], groups: set[str]) -> None:
        for name, task in sorted(dag.items()):
            inside = spec["components"][task["componentRef"]["name"]].get("dag", {}).get("tasks", {})
            needs = groups | set(task.get("dependentTasks", []))
            before[name] = needs | set(inside)
            add(inside, needs)

    add(spec["root"]["dag"]["tasks"], set())
    return [name for name in TopologicalSorter(before).static_order() if name in pipeline.steps]


def edges(pipeline: package.Package) -> list[Edge]:
    """Every artifact that a task which runs a container takes from another such task."""
    spec = pipeline.spec
    found: list[Edge] = []

    def add(dag: dict[str, Any], given: dict[str, tuple[str, str]]) -> None:
        for name, task in sorted(dag.items()):
            taken = {key: _source(spec, dag, given, chosen) for key, chosen in task.get("inputs", {}).get("artifacts", {}).items()}
            inside = spec["components"][task["componentRef"]["name"]].get("dag")
            if inside:
                add(inside["tasks"], taken)
            else:
                found.extend(Edge(source, name, artifact) for source, artifact in taken.values())

    add(spec["root"]["dag"]["tasks"], {})
    return found


def _source(
    spec: dict[str, Any], dag: dict[str, Any], given: dict[str, tuple[str, str]], chosen: dict[str, Any]
) -> tuple[str, str]:
    """The task that made an artifact, and what it calls it: a group is given artifacts, and hands on those of tasks in it."""
    if "componentInputArtifact" in chosen:
        return given[chosen["componentInputArtifact"]]
    maker, artifact = chosen["taskOutputArtifact"]["producerTask"], chosen["taskOutputArtifact"]["outputArtifactKey"]
    while "dag" in (component := spec["components"][dag[maker]["componentRef"]["name"]]):
        handed_on = component["dag"]["outputs"]["artifacts"][artifact]["artifactSelectors"][0]
        dag, maker, artifact = component["dag"]["tasks"], handed_on["producerSubtask"], handed_on["outputArtifactKey"]
    return maker, artifact


def draw(pipeline: package.Package, picture: Path) -> None:
    """Draw `pipeline` into `picture` (PNG or SVG by its name)."""
    places = {name: index * APART for index, name in enumerate(order(pipeline))}
    tasks = {name: task for dag in package.dags(pipeline.spec) for name, task in dag.items()}
    figure = Figure(figsize=(1.62 * len(places), 4.3), layout="constrained")
    axes = figure.subplots()
    shown: set[str] = set()
    for edge in edges(pipeline):
        _arrow(axes, places[edge.source], places[edge.target], COLOURS.get(edge.artifact, GREY), edge.artifact, shown)
    for name, x in places.items():
        last = "taskFinalStatus" in str(tasks[name].get("inputs", {}))
        cached = tasks[name].get("cachingOptions", {}).get("enableCache", False)
        _box(axes, x, name, _below(tasks[name], cached, last), dashed=last)
    axes.set(xlim=(-0.9, max(places.values()) + 0.9), ylim=(-1.35, 2.75))
    axes.set_axis_off()
    axes.legend(loc="upper left", ncols=len(shown), frameon=False, title="artifacts", alignment="left", fontsize=9)
    figure.savefig(picture, dpi=110, metadata={"Software": None} if picture.suffix == ".png" else {"Date": None})


def _below(task: dict[str, Any], cached: bool, last: bool) -> str:
    """What stands below a box: its settings, whether it is cached, how often it is tried again."""
    given = dict(task.get("inputs", {}).get("parameters", {}))
    sections = [name.removesuffix("_settings") for name in given if name.endswith("_settings")]
    lines = [", ".join(sections[start : start + 2]) for start in range(0, len(sections), 2)]
    retry = task.get("retryPolicy")
    lines.append("always runs" if not cached else "cached")
    if retry:
        lines.append(f"tried again {retry['maxRetryCount']} times")
    if last:
        lines = ["after all of them,", "whatever happened"]
    return "\n".join(lines)


def _box(axes: Axes, x: float, name: str, below: str, *, dashed: bool) -> None:
    edge = GREY if dashed else "#1f2430"
    axes.add_patch(
        FancyBboxPatch(
            (x - WIDE / 2, -HIGH / 2),
            WIDE,
            HIGH,
            boxstyle="round,pad=0.04",
            fc="white",
            ec=edge,
            ls="--" if dashed else "-",
            lw=1.4,
        )
    )
    axes.text(x, 0, name, ha="center", va="center", fontsize=11, weight="bold", color=edge)
    axes.text(x, -HIGH / 2 - 0.14, below, ha="center", va="top", fontsize=8, color=GREY, linespacing=1.35)


def _arrow(axes: Axes, start: float, end: float, colour: str, artifact: str, shown: set[str]) -> None:
    """A straight arrow to the next box, an arc above the boxes to a later one."""
    near = end - start < 1.5 * APART
    y = 0.0 if near else HIGH / 2 + 0.06
    ends = (start + WIDE / 2 + 0.05, y), (end - WIDE / 2 - 0.07, y)
    if not near:
        ends = (start + WIDE * 0.28, y), (end - WIDE * 0.28, y)
    bend = 0.0 if near else -0.42
    axes.add_patch(
        FancyArrowPatch(*ends, connectionstyle=f"arc3,rad={bend}", arrowstyle="-|>", mutation_scale=11, color=colour, lw=1.5)
    )
    if artifact not in shown:
        axes.plot([], [], color=colour, lw=2, label=artifact)
        shown.add(artifact)


if __name__ == "__main__":
    draw(package.read(Path(sys.argv[1])), Path(sys.argv[2]))
