"""Tuning: the example as Katib takes it, and a trial really run by the line that Katib makes of it, its output read as there."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from components.common.settings import Settings, load
from pipeline import cli
from tests.pipeline.experiment_rules import check, collected, shell_line

ROOT = Path(__file__).parents[2]
SMALL = ("data.limit=200", "model.depth=1", "train.steps=20", "train.warmup_steps=5", "train.log_every=10", "train.min_gap=0")


@pytest.fixture
def experiment() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "examples" / "tuning" / "experiment.yaml").read_text())


def words(experiment: dict[str, Any]) -> list[str]:
    (trial,) = experiment["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"]
    return [*trial["command"], *trial["args"]]


def test_katib_takes_the_experiment(experiment: dict[str, Any]) -> None:
    check(experiment)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "objective", "metric"), "x"),
        (("spec", "objective", "type"), "most"),
        (("metadata", "name"), "a" * 41),
        (("spec", "parallelTrialCount"), 13),
        (("spec", "trialTemplate", "trialParameters", 0, "reference"), "rate"),
        (("spec", "trialTemplate", "trialSpec", "spec", "template", "spec", "containerz"), []),
        (("spec", "trialTemplate", "trialSpec", "metadata"), {"name": "mine"}),
        (("spec", "trialTemplate", "primaryContainerName"), "other"),
        (("spec", "parameters", 0, "feasibleSpace", "max"), None),
    ],
)
def test_the_rules_refuse_what_katib_refuses(experiment: dict[str, Any], path: tuple[Any, ...], value: Any) -> None:
    changed = copy.deepcopy(experiment)
    place = changed
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError, AssertionError)):
        check(changed)


def test_every_setting_that_a_trial_is_given_is_one_and_within_its_bounds(experiment: dict[str, Any]) -> None:
    parameters = {parameter["name"]: parameter["feasibleSpace"] for parameter in experiment["spec"]["parameters"]}
    for lr in (parameters["lr"]["min"], parameters["lr"]["max"]):
        for dim in parameters["embed-dim"]["list"]:
            settings = [word.removeprefix("--set=") for word in words(experiment) if word.startswith("--set=")]
            given = [one.replace("${trialParameters.lr}", lr).replace("${trialParameters.embedDim}", dim) for one in settings]
            loaded = load("{}", given)
            assert (loaded.train.lr, loaded.model.embed_dim) == (float(lr), int(dim))
    assert Settings().train.lr < float(parameters["lr"]["max"])


@pytest.mark.slow
def test_a_trial_runs_by_the_line_that_katib_makes_and_its_metric_is_read(experiment: dict[str, Any], tmp_path: Path) -> None:
    log = tmp_path / "metrics.log"
    line = shell_line(experiment, str(log), lr="0.0021", embedDim="32").replace("/state/", f"{tmp_path}/")
    line = line.replace("--set=train.steps=1000", " ".join(f"--set={setting}" for setting in SMALL))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{tmp_path}/mlflow.db"
    subprocess.run(["sh", "-c", line], cwd=tmp_path, env=environment, check=False)
    read = collected(log.read_text(), experiment)
    assert read.keys() == {"val_accuracy", "val_balanced_accuracy"}, log.read_text()
    probed = json.loads((tmp_path / "trial" / "probe" / "metrics.json").read_text())
    assert read["val_accuracy"] == [pytest.approx(probed["val"]["accuracy"]["value"], abs=1e-6)]
    assert probed["baselines"] == {}
    assert json.loads((tmp_path / "trial" / "model" / "config.json").read_text())["embed_dim"] == 32
    assert "test_accuracy" not in log.read_text()


def test_a_trial_that_fails_ends_as_the_step_that_failed_and_reports_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        cli.main(["trial", "--params", "{}", "--set", "data.source=folder", "--set", "data.path=nowhere", "--root", str(tmp_path)])
        == 3
    )
    said = capsys.readouterr()
    assert "val_" not in said.out
    assert "nowhere" in said.err
