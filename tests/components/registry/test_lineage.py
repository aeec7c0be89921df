"""`dier lineage`: back from a version to what is behind it, forward from a dataset to every version trained on it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from components import register
from components.common import artifact
from components.common.errors import SettingsError
from components.common.settings import Settings
from components.registry import provenance
from components.registry.lineage import lineage, trained_on
from components.registry.promote import promote
from components.tracking.client import connect
from components.tracking.environment import IMAGE
from components.tracking.live import LiveLog
from pipeline.cli import main
from tests.components.registry_artifacts import Inputs, correct, make, settings
from tests.components.report_inputs import Paths

pytestmark = pytest.mark.slow


def add(inputs: Inputs, out: Path, **changes: object) -> None:
    register.run(settings(**{"min_accuracy": 0, "margin": 1, **changes}), **inputs.paths(), out=out)


def test_a_version_tells_all_that_is_behind_it(
    store: str,
    digits: Paths,
    to_register: Inputs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    image = "registry.example/dier@sha256:" + "a" * 64
    monkeypatch.setenv("DIER_GIT_COMMIT", "1234abc-dirty")
    monkeypatch.setenv(IMAGE, image)
    key = artifact.read(to_register.model, "model").json("summary.json")["training_key"]
    with LiveLog(key, tmp_path / "work"):
        pass
    monkeypatch.delenv(IMAGE)  # what counts is where it was trained
    monkeypatch.setenv("DIER_GIT_COMMIT", "5678def")
    with LiveLog(key, tmp_path / "work"):  # trained already: it only looks
        pass
    add(to_register, tmp_path / "out")
    found = json.loads(lineage("glyphs@candidate", artifacts=digits["dataset"].parent, as_json=True))
    assert (found["model"], found["version"], found["aliases"]) == ("glyphs", 1, ["candidate"])
    assert (found["trained_git_commit"], found["git_commit"], found["image"]) == ("1234abc", "5678def", image)
    assert found["registered_with"]["image"] == "unknown"
    assert found["trained_with"]["torch"] == found["registered_with"]["torch"]
    assert (found["training_key"], found["licence"], found["use"]) == (key, "BSD", None)
    assert found["verdict"] == "passed, 1 warnings"
    assert found["settings"]["train.steps"] == str(Settings().train.steps)
    for kind, one in found["artifacts"].items():
        assert one["fingerprint"] == artifact.read(digits[kind], kind, check=False).fingerprint
        assert (one["at"], one["dvc"]) == (str(digits[kind]), None)

    assert main(["lineage", "glyphs/1"]) == 0
    shown = capsys.readouterr().out
    assert f"container image  {image}" in shown
    assert "git commit       1234abc, with changes (trained); 5678def, whether changed is unknown (registered)" in shown
    assert "at hand" not in shown  # not in this folder


def test_where_a_version_comes_from_is_written_once(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a judgement by other settings nor another report makes the files younger than they are."""

    def registered(commit: str, dvc: dict[str, str], **changes: object) -> dict[str, str]:
        monkeypatch.setenv("DIER_GIT_COMMIT", commit)
        monkeypatch.setattr(provenance, "dvc_outputs", lambda folder, report: dvc)
        add(inputs, tmp_path / "out", **changes)
        tags: dict[str, str] = connect().get_model_version("glyphs", "1").tags
        return tags

    inputs = make(tmp_path)
    first = registered("1111aaa", {"model": "m", "report": "old"})
    assert (first["dier.git_commit"], json.loads(first["dier.dvc"])) == ("1111aaa", {"model": "m", "report": "old"})
    judged = registered("2222bbb", {"model": "m", "report": "other"}, min_accuracy=0.1)
    assert judged["dier.register"] != first["dier.register"]
    written_once = ("dier.git_commit", "dier.git_dirty", "dier.environment", "dier.dvc")
    assert [judged[tag] for tag in written_once] == [first[tag] for tag in written_once]

    made_from = artifact.read(inputs.report, "report").made_from
    for page, dvc, expected in (
        ("unknown to DVC", {}, {"model": "m"}),
        ("by DVC", {"model": "m", "report": "new"}, {"model": "m", "report": "new"}),
    ):
        with artifact.create(inputs.report, "report", made_from) as folder:
            (folder / "report.html").write_text(page)
        tags = registered("3333ccc", dvc, min_accuracy=0.1)
        assert tags["dier.report"] == artifact.read(inputs.report, "report").fingerprint
        assert json.loads(tags["dier.dvc"]) == expected
        assert [tags[tag] for tag in written_once[:3]] == [first[tag] for tag in written_once[:3]]


def test_forward_from_a_dataset(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(make(tmp_path / "1"), tmp_path / "out")
    promote("glyphs", version=None, alias="champion", force=False, reason=None)
    add(make(tmp_path / "2", training="t2", right=correct(0.8)), tmp_path / "out", name="others")
    add(make(tmp_path / "3", training="t3", dataset="d2"), tmp_path / "out")
    wanted, other = artifact.digest("d1"), artifact.digest("d2")
    rows = json.loads(trained_on(wanted, as_json=True))
    assert [(row["model"], row["version"], row["aliases"]) for row in rows] == [
        ("glyphs", 1, ["champion"]),
        ("others", 1, ["candidate"]),
    ]
    assert {row["dataset"] for row in rows} == {wanted}
    assert main(["lineage", "--dataset", wanted[:8]]) == 0
    shown = capsys.readouterr().out
    assert wanted in shown
    assert "others" in shown
    assert json.loads(trained_on(other[:12], as_json=True))[0]["version"] == 2
    assert "was trained on the dataset 00000000" in trained_on("0" * 8, as_json=False)
    connect().set_model_version_tag("glyphs", "2", "dier.dataset", wanted[:8] + "f" * 56)
    with pytest.raises(SettingsError, match=f"2 datasets begin with {wanted[:8]}"):
        trained_on(wanted[:8], as_json=True)
    for nothing in ("xyz", wanted[:7], "' OR 1=1"):
        with pytest.raises(SettingsError, match="is no dataset"):
            trained_on(nothing, as_json=True)
    assert main(["lineage"]) == main(["lineage", "glyphs/1", "--dataset", wanted]) == 2


def test_the_folder_of_a_dataset_says_which_it_is(store: str, digits: Paths, to_register: Inputs, tmp_path: Path) -> None:
    add(to_register, tmp_path / "out")
    assert [row["version"] for row in json.loads(trained_on(str(digits["dataset"]), as_json=True))] == [1]


STAGES = """
stages:
  model:
    cmd: mkdir -p artifacts/model/sub && echo 1 > artifacts/model/sub/a && echo 2 > artifacts/model/sub.a
    outs: [artifacts/model]
  report:
    cmd: mkdir artifacts/report && echo 3 > artifacts/report/b && echo 4 > artifacts/report/a
    deps: [artifacts/model]
    outs: [artifacts/report]
"""


def test_dvcs_digests_are_told_where_its_lock_is_of_this_run(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text(STAGES)
    for command in (["init", "--no-scm", "--quiet"], ["repro", "--quiet"]):
        program = [sys.executable, "-m", "dvc", *command]
        subprocess.run(
            program, cwd=tmp_path, check=True, env={"DVC_NO_ANALYTICS": "1", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        )
    stages = yaml.safe_load((tmp_path / "dvc.lock").read_text())["stages"]
    report = tmp_path / "artifacts" / "report"
    expected = {name: stages[name]["outs"][0]["md5"] for name in ("model", "report")}
    assert provenance.dvc_outputs(tmp_path, report) == expected
    (report / "b").write_text("another run")
    assert provenance.dvc_outputs(tmp_path, report) == {}
    assert provenance.dvc_outputs(tmp_path, tmp_path / "elsewhere") == {}
    assert provenance.dvc_outputs(tmp_path / "artifacts", report) == {}
