"""The design's import rules, and that DVC's stages depend on exactly the code they use."""

import ast
import subprocess
import sys
from pathlib import Path

import grimp
import pytest
import yaml

from pipeline.steps import STEPS, Step

ROOT = Path(__file__).parents[1]
PACKAGES = ("pipeline", "components", "model", "data")
LOADED_BY_NAME = {"prepare": ["data.sources"], "register": ["components.registry.served_model", "model"]}
"""The sources, the served model's script, and the package that a registered model carries."""
SETTINGS = "components.common.settings"
"""Never a dependency, nor what it imports to name choices: the settings' values are params; were the schema one too, a new setting
of one step, or a new source of images, would retrain."""
NOT_IN_THE_MODEL = {
    "components/common/peak_memory.py",
    "components/tracking/client.py",
    "components/tracking/energy.py",
    "components/tracking/environment.py",
    "components/tracking/live.py",
    "components/tracking/metrics.py",
    "components/tracking/spool.py",
    "components/training/callbacks.py",
    "components/training/stop_signals.py",
}
"""What only tells MLflow, or a person, about a training while it runs, or stops it; a change there must not retrain.

components/training/online_probe.py is no such: its probe may choose the weights.
"""


def test_import_rules_hold() -> None:
    done = subprocess.run([Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def source_of(module: str) -> str:
    file = ROOT / (module.replace(".", "/") + ".py")
    return str((file if file.is_file() else file.with_suffix("") / "__init__.py").relative_to(ROOT))


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES)


@pytest.fixture(scope="module")
def stages() -> dict:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def code_of(step: Step, graph: grimp.ImportGraph) -> set[str]:
    """The source files behind a step: what it imports, what it loads by name, and the packages these stand in."""
    graph.remove_module(SETTINGS)
    roots = {f"components.{step.name}"}
    for package in LOADED_BY_NAME.get(step.name, ()):
        roots |= {package} | graph.find_descendants(package)
    modules = roots.union(*(graph.find_upstream_modules(root) for root in roots))
    files = {source_of(module) for module in modules}
    files |= {str(Path(file).parent / "__init__.py") for file in files}
    return {file for file in files if holds_code(file)} - (NOT_IN_THE_MODEL if step.name == "train" else set())


def holds_code(file: str) -> bool:
    """Not so a package's `__init__.py` that says in its docstring what the folder is, and no more."""
    return len(ast.parse((ROOT / file).read_text()).body) > 1


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_stage_depends_on_exactly_the_code_it_uses(step: Step, graph: grimp.ImportGraph, stages: dict) -> None:
    used = code_of(step, graph)
    listed = [ROOT / dep for dep in stages[step.name]["deps"] if not dep.startswith("artifacts/")]
    files = {file for dep in listed for file in ([dep] if dep.is_file() else dep.rglob("*.py"))}
    names = {str(file.relative_to(ROOT)) for file in files if holds_code(str(file.relative_to(ROOT)))}
    assert used == names, f"dvc.yaml misses {sorted(used - names)} and lists {sorted(names - used)} too much"


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_stage_runs_the_steps_command_on_its_own_sections(step: Step, stages: dict) -> None:
    stage = stages[step.name]
    words = stage["cmd"].split()
    assert words[:4] == ["dier", step.name, "--params", "params.yaml"]
    assert [word.removeprefix("--") for word in words[4::2]] == [*step.inputs, "out"]
    places = dict(zip([word.removeprefix("--") for word in words[4::2]], words[5::2], strict=True))
    assert stage.get("params", []) == list(step.sections)
    artifacts = [places[name] for name in step.inputs if name != "work"]
    assert [dep for dep in stage["deps"] if dep.startswith("artifacts/")] == artifacts
    outs = [next(iter(out)) if isinstance(out, dict) else out for out in stage.get("outs", [])]
    assert outs == ([] if stage.get("always_changed") else [places["out"]])
    assert stage.get("always_changed", False) == (step.name == "register")  # it asks the registry each time; nothing else runs idle
