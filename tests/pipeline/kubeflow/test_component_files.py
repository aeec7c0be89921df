"""The component files: committed as made, the pipeline's own, loadable by others; and a whole pipeline around three of them."""

import csv
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from kfp import compiler, components, dsl

from components.common.settings import SECTIONS, Settings
from components.embedding import store
from examples.novelty import pipeline as novelty
from pipeline import cli
from pipeline.kubeflow.cluster import Cluster
from pipeline.kubeflow.component_files import files
from pipeline.kubeflow.pipeline import compiled
from pipeline.steps import STEPS
from tests.pipeline.kubeflow.test_compile import DIGEST, documents, strict

ROOT = Path(__file__).parents[3]
COMMITTED = ROOT / "pipeline" / "compiled" / "components"
STEP_NAMES = [step.name for step in STEPS]
NAMES = STEP_NAMES + [step.gate for step in STEPS if step.gate]
VERSION = re.compile(r"sdkVersion: kfp-[\d.]+")


@pytest.mark.slow
def test_the_committed_files_are_what_the_command_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert cli.main(["components", "--allow-tag", "--out", str(tmp_path)]) == 0
    fresh, there = ({file.name: VERSION.sub("", file.read_text()) for file in folder.iterdir()} for folder in (tmp_path, COMMITTED))
    assert fresh == there, "run: dier components --allow-tag"
    assert set(there) == {f"{name}.{kind}" for name in NAMES for kind in ("yaml", "md")} | {"README.md"}


@pytest.mark.parametrize("name", NAMES)
def test_a_component_is_the_pipelines_own_and_others_can_load_it(name: str) -> None:
    pipelines, _ = documents((ROOT / "pipeline" / "compiled" / "dier.yaml").read_text())
    own = yaml.safe_load((COMMITTED / f"{name}.yaml").read_text())
    container, there = ({**spec["deploymentSpec"]["executors"][f"exec-{name}"]["container"]} for spec in (own, pipelines))
    assert container == {key: there[key] for key in ("image", "command", "args")}
    assert _without_defaults(own["components"][f"comp-{name}"]) == pipelines["components"][f"comp-{name}"]
    loaded = components.load_component_from_file(str(COMMITTED / f"{name}.yaml"))
    assert loaded.component_spec.name == name
    assert all(spec.optional for spec in (loaded.component_spec.inputs or {}).values() if not spec.type.startswith("system."))


def _without_defaults(component: dict[str, Any]) -> dict[str, Any]:
    for parameter in component.get("inputDefinitions", {}).get("parameters", {}).values():
        parameter.pop("defaultValue", None)
        parameter.pop("isOptional", None)
    return component


@pytest.mark.parametrize("name", NAMES)
def test_its_page_says_every_input_output_setting_and_need(name: str) -> None:
    page = (COMMITTED / f"{name}.md").read_text()
    own = components.load_component_from_file(str(COMMITTED / f"{name}.yaml")).component_spec
    for said in [*(own.inputs or {}), *(own.outputs or {})]:
        assert f"`{said}`" in page
    needs = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])
    assert {"securityContext", "emptyDirMounts", "imagePullPolicy", "resources"} <= needs.keys()
    assert any(mount["mountPath"] == "/state" for mount in needs["emptyDirMounts"])


def test_the_pages_together_explain_every_setting_once() -> None:
    pages = "\n".join((COMMITTED / f"{name}.md").read_text() for name in STEP_NAMES)
    for name in SECTIONS:
        for key, field in type(Settings().section(name)).model_fields.items():
            assert pages.count(f"| `{key}` | ") >= 1
            assert str(field.description).replace("|", "\\|") in pages


@pytest.mark.slow
def test_a_component_takes_its_dataset_whatever_the_cluster_file_says_and_names_its_image() -> None:
    volume: dict[str, Any] = {
        "image": DIGEST,
        "volumes": [{"claim": "sets", "mount_path": "/sets", "steps": []}],
        "dataset": {"source": "volume", "path": "/sets/blood", "fingerprint": "c" * 64},
        "embed": {"fan_out": True},
    }
    made = files(Cluster.model_validate(volume))
    embed = yaml.safe_load(made["embed.yaml"])
    assert set(embed["components"]["comp-embed"]["inputDefinitions"]["artifacts"]) == {"dataset_in", "model_in"}
    assert embed["deploymentSpec"]["executors"]["exec-embed"]["container"]["image"] == DIGEST
    assert "fingerprint" not in made["embed.yaml"]
    assert "prepare.yaml" in made
    assert compiled(Settings(), Cluster())  # a compilation leaves nothing behind for the next one


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("example") / "novelty.yaml"
    compiler.Compiler().compile(novelty.pipeline, str(file))
    return file.read_text()


def test_the_example_compiles_strictly_and_holds_the_three_components_as_they_are(example: str) -> None:
    strict(example)
    spec, platform = documents(example)
    for name in ("prepare", "validate", "data-gate", "embed"):
        own = yaml.safe_load((COMMITTED / f"{name}.yaml").read_text())
        assert spec["deploymentSpec"]["executors"][f"exec-{name}"] == own["deploymentSpec"]["executors"][f"exec-{name}"]
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(pods) == {f"exec-{name}" for name in ("prepare", "validate", "data-gate", "embed", "novelty")}
    for pod in pods.values():
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["emptyDirMounts"][0]["mountPath"] == "/state"
    tasks = spec["root"]["dag"]["tasks"]
    assert tasks["embed"]["inputs"]["artifacts"]["model_in"]["taskOutputArtifact"]["producerTask"] == "importer"
    assert "data-gate" in tasks["embed"]["dependentTasks"]


def test_no_task_of_the_example_is_named_otherwise_than_it_is(example: str) -> None:
    """An importer with a display name cannot be found by the tasks that need what it imports."""
    spec, _ = documents(example)
    assert {name: task["taskInfo"]["name"] for name, task in spec["root"]["dag"]["tasks"].items()} == {
        name: name for name in spec["root"]["dag"]["tasks"]
    }


def test_its_own_component_finds_the_image_that_looks_like_none(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    known, new = rng.normal(size=(60, 8)).astype(np.float32), rng.normal(size=(10, 8)).astype(np.float32)
    new[7] += 50
    for split, vectors in (("train", known), ("test", new)):
        store.write(store.file_of(tmp_path, split, 300), np.zeros(len(vectors), np.int64), [vectors], "float32")
    logged: dict[str, float] = {}
    figures = SimpleNamespace(log_metric=logged.__setitem__)
    unusual = dsl.Dataset(uri=str(tmp_path / "unusual.csv"))
    novelty.novelty.python_func(dsl.Dataset(uri=str(tmp_path)), 3, unusual, figures)
    with open(unusual.path, newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert len(rows) == 3
    assert rows[0]["test_index"] == "7"
    assert logged["images"] == 10
    assert logged["beyond_twice_the_usual"] >= 1
