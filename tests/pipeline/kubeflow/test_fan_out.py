"""The pipeline whose embed is a task a timestep: what compiles, and that nothing else of it changes.

embed-split ──▶ embed-by-timestep { for each section: embed ──▶ embed-join } ──▶ probe, report
"""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from components.common import artifact
from pipeline import cli
from pipeline.kubeflow.cluster_sections import STEP_NAMES
from pipeline.local.artifacts import gather
from pipeline.task.executor import listed
from pipeline.task.task import run_task
from tests.pipeline.kubeflow.test_compile import COMPILED, compile_with, documents, kubernetes, strict, tasks
from tests.pipeline.local.test_artifacts import NEEDS, run_steps
from tests.pipeline.test_parity import container

ON = {"fan_out": True, "parallelism": 3}


@pytest.fixture(scope="module")
def compiled() -> tuple[dict[str, Any], dict[str, Any]]:
    gpu = {"type": "nvidia.com/gpu", "count": 1}
    return compile_with(embed=ON, gpu=gpu, time_limits={"embed": 900}, resources={"embed": {"memory_limit": "8Gi"}})


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    return documents(COMPILED.read_text())[0]


def the_loop(spec: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The task that loops, and the graph that it repeats."""
    inside = spec["components"]["comp-embed-by-timestep"]["dag"]["tasks"]
    loop = next(task for task in inside.values() if "parameterIterator" in task)
    return loop, spec["components"][loop["componentRef"]["name"]]["dag"]["tasks"]


def test_it_is_off_unless_asked_for(plain: dict[str, Any]) -> None:
    assert set(tasks(plain)) == {*STEP_NAMES, "data-gate", "model-gate"}
    assert "parameterIterator" not in COMPILED.read_text()


def test_kubeflows_own_schema_accepts_it(compiled: tuple[dict[str, Any], dict[str, Any]]) -> None:
    strict(yaml.safe_dump_all(compiled))


def test_it_loops_over_the_sections_that_a_first_task_gives(compiled: tuple[dict[str, Any], dict[str, Any]]) -> None:
    spec, _ = compiled
    loop, repeated = the_loop(spec)
    assert loop["iteratorPolicy"] == {"parallelismLimit": 3}
    assert set(repeated) == {"embed"}
    item = repeated["embed"]["inputs"]["parameters"]["embed_settings"]["componentInputParameter"]
    assert item == loop["parameterIterator"]["itemInput"]
    assert spec["components"][loop["componentRef"]["name"]]["inputDefinitions"]["parameters"][item] == {"parameterType": "STRUCT"}
    given = tasks(spec)["embed-by-timestep"]["inputs"]["parameters"]
    assert given["sections"]["taskOutputParameter"] == {"producerTask": "embed-split", "outputParameterKey": "sections"}
    assert given["embed_settings"] == {"componentInputParameter": "embed"}
    assert given["embed_timesteps"] == {"componentInputParameter": "embed_timesteps"}


def test_no_embed_is_told_of_the_other_timesteps(compiled: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """They would be in the key of its cache: one timestep more, and all were embedded anew."""
    _, repeated = the_loop(compiled[0])
    given = repeated["embed"]["inputs"]["parameters"]
    assert given["embed_timesteps"] == {"runtimeValue": {"constant": []}}
    assert set(given) == {"embed_settings", "embed_timesteps"}


def test_each_embed_is_the_very_command_line_of_the_pipeline_without(
    compiled: tuple[dict[str, Any], dict[str, Any]], plain: dict[str, Any]
) -> None:
    spec, _ = compiled
    for step in STEP_NAMES:
        assert container(spec, step)["args"] == container(plain, step)["args"]
        assert container(spec, step)["command"] == container(plain, step)["command"]
    assert spec["components"]["comp-embed"] == plain["components"]["comp-embed"]


def test_embed_gets_in_the_loop_what_it_is_given_outside(compiled: tuple[dict[str, Any], dict[str, Any]]) -> None:
    spec, platform = compiled
    alone, alone_platform = compile_with(
        gpu={"type": "nvidia.com/gpu", "count": 1}, time_limits={"embed": 900}, resources={"embed": {"memory_limit": "8Gi"}}
    )
    assert container(spec, "embed")["resources"]["accelerator"]["resourceCount"] == "1"
    assert container(spec, "embed") == container(alone, "embed")
    assert kubernetes(platform, "embed") == kubernetes(alone_platform, "embed")
    for light in ("embed-split", "embed-join"):
        assert container(spec, light)["resources"]["resourceMemoryRequest"] == "512Mi"
        assert kubernetes(platform, light) == kubernetes(platform, "data-gate")


def test_probe_and_report_take_what_the_join_makes(compiled: tuple[dict[str, Any], dict[str, Any]]) -> None:
    spec, _ = compiled
    for step in ("probe", "report"):
        source = tasks(spec)[step]["inputs"]["artifacts"]["embeddings_in"]["taskOutputArtifact"]
        assert source["producerTask"] == "embed-by-timestep"
    outputs = spec["components"]["comp-embed-by-timestep"]["dag"]["outputs"]["artifacts"]
    assert [output["artifactSelectors"] for output in outputs.values()] == [
        [{"producerSubtask": "embed-join", "outputArtifactKey": "embeddings"}]
    ]
    words = container(spec, "embed-join")
    assert words["command"] == ["dier", "task", "--executor-input", "{{$}}", "--list", "parts", "--"]
    assert spec["components"]["comp-embed-join"]["inputDefinitions"]["artifacts"]["parts"]["isArtifactList"]


def test_the_split_is_told_how_many_parts_a_timestep_has(compiled: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """And nothing else of the pipeline changes."""
    parts, _ = compile_with(
        embed=ON | {"parts": 3},
        gpu={"type": "nvidia.com/gpu", "count": 1},
        time_limits={"embed": 900},
        resources={"embed": {"memory_limit": "8Gi"}},
    )
    one, _ = compiled
    assert container(one, "embed-split")["args"][:5] == ["embed-split", "--params", "{}", "--parts", "1"]
    assert container(parts, "embed-split")["args"][3:5] == ["--parts", "3"]
    container(parts, "embed-split")["args"][4] = "1"
    assert parts == one
    with pytest.raises(ValidationError, match=r"embed\.parts 3 needs embed\.fan_out: true"):
        compile_with(embed={"parts": 3})


@pytest.mark.parametrize(
    "dataset",
    [
        {"source": "importer", "uri": "s3://sets/blood/dataset"},
        {"source": "volume", "path": "/sets/blood", "fingerprint": "c" * 64},
    ],
    ids=["importer", "volume"],
)
def test_a_dataset_from_elsewhere_reaches_each_embed(dataset: dict[str, Any]) -> None:
    spec, platform = compile_with(embed=ON, dataset=dataset, volumes=[{"claim": "sets", "mount_path": "/sets", "steps": []}])
    strict(yaml.safe_dump_all([spec, platform]))
    _, repeated = the_loop(spec)
    mounted = dataset["source"] == "volume"
    assert ("dataset_in" in repeated["embed"]["inputs"]["artifacts"]) is not mounted
    assert ("/sets/blood" in container(spec, "embed")["args"]) is mounted
    assert ("pvcMount" in kubernetes(platform, "embed")) is mounted


def test_a_local_run_stands_on_the_joined_embeddings(tmp_path: Path) -> None:
    """The parts lie in folders of their own, and the next run, spared of all but the probe, finds the joined ones again."""
    runs = tmp_path / "runs"
    first = run_steps(runs / "dier-1", list(NEEDS), {}, "one")
    (runs / "dier-1" / "embed").rename(runs / "dier-1" / "embed-join")
    first["embeddings"] = runs / "dier-1" / "embed-join" / "embeddings"
    run_steps(runs / "dier-1" / "for-loop-1-iteration-0", ["embeddings"], first, "a part")
    assert gather(runs, runs / "dier-1") == first
    second = run_steps(runs / "dier-2", ["probe", "report", "registration"], first, "two")
    assert gather(runs, runs / "dier-2") == second
    (first["embeddings"] / "content").write_text("changed")
    assert "embeddings" not in gather(runs, runs / "dier-2")


def test_the_join_is_told_its_parts_by_the_executor_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No placeholder gives the paths of a list of artifacts; here those of a store that Kubeflow mounts, and of a local run."""
    uris = ["s3://bucket/run/1/embeddings", str(tmp_path / "2" / "embeddings")]
    given = {
        "inputs": {"artifacts": {"parts": {"artifacts": [{"name": "embeddings", "uri": uri, "metadata": {}} for uri in uris]}}},
        "outputs": {"outputFile": str(tmp_path / "executor_output.json")},
    }
    assert listed(given, "parts") == ["/s3/bucket/run/1/embeddings", uris[1]]
    words = ["embed-join", "--params", "{}", "--out", str(tmp_path / "out")]
    assert run_task(json.dumps(given), words, lists=["parts"]) == 3
    assert "no embeddings artifact at /s3/bucket/run/1/embeddings" in capsys.readouterr().err
    assert cli.main(["task", "--executor-input", json.dumps(given), "--list", "other", "--", *words]) == 2
    assert "no input artifacts other" in capsys.readouterr().err
    assert not (tmp_path / "out" / artifact.MANIFEST).exists()
