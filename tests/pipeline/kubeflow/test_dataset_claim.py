"""`dataset.claim`: prepare leaves the dataset on a claim once, and nobody copies it again. Compiled, and the tasks run."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.common import artifact
from pipeline import cli
from pipeline.steps import DATASETS
from tests.pipeline.kubeflow.test_compile import compile_with, kubernetes, strict
from tests.pipeline.task.test_task import executor_input, words

READERS = ("validate", "train", "embed", "probe", "report")


def copies(spec: dict[str, Any]) -> int:
    """How often a run that finds nothing in the cache moves the dataset between store and pods.

    kubeflow/pipelines 2.17.0, backend/src/v2/component/launcher_v2.go: uploadOutputArtifacts takes every output artifact,
    downloadArtifacts (942-977) every input artifact of a task, whether it is used or not.
    """
    executors = [one for one in spec["components"].values() if "executorLabel" in one]
    return sum(
        name in ("dataset", "dataset_in")
        for one in executors
        for way in ("inputDefinitions", "outputDefinitions")
        for name in one.get(way, {}).get("artifacts", {})
    )


def test_without_it_every_reader_gets_a_copy() -> None:
    spec, _ = compile_with()
    assert copies(spec) == 1 + len(READERS)


@pytest.mark.parametrize("fan_out", [False, True])
def test_with_it_the_dataset_is_uploaded_once_and_read_in_place(fan_out: bool) -> None:
    spec, platform = compile_with(dataset={"claim": "dier-sets"}, embed={"fan_out": fan_out})
    strict(yaml.safe_dump_all([spec, platform]))
    assert copies(spec) == 1
    fingerprint = "{{$.inputs.parameters['dataset_in']}}"
    for step in READERS:
        container = spec["deploymentSpec"]["executors"][f"exec-{step}"]["container"]
        assert container["args"][container["args"].index("--dataset") + 1] == f"{DATASETS}/{fingerprint}"
        assert f"dataset={fingerprint}" in container["command"]
    for step in ("prepare", *READERS):
        mounts = [(mount["constant"], mount["mountPath"]) for mount in kubernetes(platform, step)["pvcMount"]]
        assert mounts == [("dier-sets", DATASETS)]
    assert "pvcMount" not in kubernetes(platform, "register")


def test_readers_are_given_the_fingerprint_so_the_cache_sees_the_content() -> None:
    spec, _ = compile_with(dataset={"claim": "dier-sets"})
    dags = [one["dag"]["tasks"] for one in (spec["root"], *spec["components"].values()) if "dag" in one]
    tasks = next(found for found in dags if "prepare" in found)
    for step in READERS:
        given = tasks[step]["inputs"]["parameters"]["dataset_in"]
        assert given == {"taskOutputParameter": {"outputParameterKey": "dataset_fingerprint", "producerTask": "prepare"}}


def prepare(tmp_path: Path, claim: Path) -> int:
    more = ["--keep-in", str(claim), "--fingerprint-to", str(tmp_path / "told" / "fingerprint")]
    given = json.dumps(executor_input(tmp_path, "prepare"))
    return cli.main(["task", "--executor-input", given, *more, "--", *words(tmp_path, "prepare")])


def test_the_dataset_is_left_under_its_fingerprint_once(tmp_path: Path) -> None:
    claim = tmp_path / "claim"
    claim.mkdir()
    assert prepare(tmp_path, claim) == 0
    made = artifact.read(tmp_path / "prepare" / "dataset", "dataset").fingerprint
    assert (tmp_path / "told" / "fingerprint").read_text() == made
    kept = claim / made
    assert artifact.read(kept, "dataset").fingerprint == made
    inode = kept.stat().st_ino
    assert prepare(tmp_path, claim) == 0
    assert (kept.stat().st_ino, [one.name for one in claim.iterdir()]) == (inode, [made])


def test_one_that_was_damaged_there_is_replaced(tmp_path: Path) -> None:
    claim = tmp_path / "claim"
    claim.mkdir()
    assert prepare(tmp_path, claim) == 0
    kept = next(claim.iterdir())
    (kept / "dataset.json").write_text("{}")
    assert prepare(tmp_path, claim) == 0
    assert artifact.read(kept, "dataset").fingerprint == kept.name


def test_a_claim_that_cannot_be_written_is_said_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(tmp_path, Path("/sys/nowhere")) == 1  # where not even root may write
    assert "cannot write /sys/nowhere: " in capsys.readouterr().err
    assert not (tmp_path / "prepare" / "dataset").exists()


def test_a_reader_of_a_claim_that_lost_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = json.dumps(executor_input(tmp_path, "validate"))
    line = ["validate", "--params", "{}", "--dataset", str(tmp_path / "claim" / ("a" * 64)), "--out", str(tmp_path / "verdict")]
    assert cli.main(["task", "--executor-input", given, "--expect", f"dataset={'a' * 64}", "--", *line]) == 3
    assert "no dataset artifact at" in capsys.readouterr().err
