"""Inside a Kubeflow task: real steps on the bundled digits, and what Kubeflow is told of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from components.common import artifact
from pipeline import cli
from pipeline.kubeflow.cluster_sections import STEP_NAMES
from pipeline.steps import BY_NAME, STEPS
from pipeline.task import file_modes, task
from pipeline.task.task import run_task
from tests.standin.dier import COLLAPSE

SHORT = {
    "data": {"limit": 200.0},
    "model": {"size": "demo", "depth": 1.0},
    "train": {"steps": 20.0, "warmup_steps": 5.0, "log_every": 10.0, "min_gap": 0.0},
    "embed": {"timesteps": [0.0, 300.0]},
    "probe": {"c_grid": [0.1], "bootstrap": 100.0, "baseline_timesteps": [100.0], "max_iter": 50.0},
}


def executor_input(folder: Path, step: str) -> dict[str, Any]:
    """What Kubeflow hands the task: where each output goes, here as on its local runner."""
    outputs = [BY_NAME[step].kubeflow_output, *BY_NAME[step].shown] if step in BY_NAME else [step]
    artifacts = {
        name: {"artifacts": [{"name": name, "type": {"schemaTitle": "system.Artifact"}, "uri": str(folder / step / name)}]}
        for name in outputs
    }
    return {"inputs": {}, "outputs": {"artifacts": artifacts, "outputFile": str(folder / step / "executor_output.json")}}


def words(folder: Path, step: str) -> list[str]:
    table = BY_NAME[step]
    places = {one.output: folder / one.name / one.kubeflow_output for one in STEPS} | {"work": folder / "work"}
    settings = json.dumps({section: SHORT.get(section, {}) for section in table.sections})
    inputs = [word for name in table.inputs for word in (f"--{name}", str(places[name]))]
    return [step, "--params", settings, *inputs, "--out", str(places[table.output])]


def run(folder: Path, step: str, *more: str) -> int:
    shows = [word for name in BY_NAME[step].shown for word in ("--show", f"{name}={folder / step / name}")]
    given = json.dumps(executor_input(folder, step))
    return cli.main(["task", "--executor-input", given, *shows, *more, "--", *words(folder, step)])


def told(folder: Path, step: str) -> dict[str, Any]:
    """The executor output, read by Kubeflow's own strict parser."""
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    text = (folder / step / "executor_output.json").read_text()
    json_format.Parse(text, pipeline_spec_pb2.ExecutorOutput())
    return {name: found["artifacts"][0]["metadata"] for name, found in json.loads(text)["artifacts"].items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tasks")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody there: live logging gives up
        for step in STEP_NAMES[:-1]:
            assert run(made, step) == 0, step
    return made


@pytest.mark.slow
@pytest.mark.parametrize("step", STEP_NAMES[:-1])
def test_each_artifact_carries_its_fingerprint(folder: Path, step: str) -> None:
    name = BY_NAME[step].kubeflow_output
    assert told(folder, step)[name]["fingerprint"] == artifact.read(folder / step / name, BY_NAME[step].output).fingerprint
    assert set(told(folder, step)) == {name, *BY_NAME[step].shown}


@pytest.mark.slow
def test_the_metrics_are_those_of_the_artifacts(folder: Path) -> None:
    metrics = json.loads((folder / "probe" / "probe_results" / "metrics.json").read_text())
    shown = told(folder, "probe")["probe_metrics"]
    assert list(shown) == [
        "accuracy", "accuracy_lower", "accuracy_upper", "gain_over_pixels", "gain_over_pixels_lower", "gain_over_pixels_upper",
        "pixels_accuracy", "t", "val_accuracy",
    ]  # fmt: skip
    assert shown["t"] == metrics["t"]
    assert shown["accuracy_upper"] == round(metrics["test"]["accuracy"]["high"], 4)
    assert shown["pixels_accuracy"] == round(metrics["baselines"]["pixels"]["test"]["accuracy"]["value"], 4)
    assert shown["gain_over_pixels_lower"] == round(metrics["baselines"]["pixels"]["difference"]["accuracy"]["low"], 4)
    assert told(folder, "train")["training_metrics"]["step"] == 20


@pytest.mark.slow
def test_the_confusion_matrix_counts_every_test_image(folder: Path) -> None:
    matrix = told(folder, "probe")["confusion"]["confusionMatrix"]
    assert len(matrix["annotationSpecs"]) == 10
    assert sum(sum(row["row"]) for row in matrix["rows"]) == 200
    hits = sum(row["row"][i] for i, row in enumerate(matrix["rows"]))
    assert hits / 200 == pytest.approx(told(folder, "probe")["probe_metrics"]["accuracy"])


@pytest.mark.slow
def test_the_pages_are_whole_html_with_a_picture(folder: Path) -> None:
    for step, name in (("validate", "data_docs"), ("probe", "timestep_curve"), ("report", "report_page")):
        page = (folder / step / name).read_text()
        assert page.lstrip().lower().startswith("<!doctype html")
        assert "data:image" in page or step == "validate"
        assert "http://" not in page.replace("http://www.w3.org", "")


@pytest.mark.slow
def test_an_input_with_another_fingerprint_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    right = artifact.read(folder / "prepare" / "dataset", "dataset").fingerprint
    assert run(folder, "validate", "--expect", f"dataset={right}") == 0
    assert run(folder, "validate", "--expect", f"dataset={'0' * 64}") == 3
    assert "is not the one of the cluster file, 000000000000: its fingerprint is" in capsys.readouterr().err


def test_a_failure_that_no_retry_cures_is_not_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIER_RUN_ID", "run-1")
    failures = tmp_path / "permanent-failure"
    assert run(tmp_path, "train", "--permanent-failures", str(failures)) == 3  # no dataset
    first = capsys.readouterr().err
    assert "no dataset artifact" in first
    assert run(tmp_path, "train", "--permanent-failures", str(failures)) == 3
    again = capsys.readouterr().err
    assert "which a retry cannot cure" in again
    assert "no dataset artifact" not in again
    assert not (tmp_path / "train" / "executor_output.json").exists()
    monkeypatch.setenv("DIER_RUN_ID", "run-2")  # another run on the same claim is not told of it
    assert run(tmp_path, "train", "--permanent-failures", str(failures)) == 3
    assert "no dataset artifact" in capsys.readouterr().err


def test_a_task_without_the_runs_id_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DIER_RUN_ID", raising=False)
    assert run(tmp_path, "train", "--permanent-failures", str(tmp_path)) == 2
    assert "no DIER_RUN_ID in the environment" in capsys.readouterr().err


@pytest.mark.slow
def test_a_training_that_the_same_inputs_must_fail_again_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for section, settings in COLLAPSE.items():
        monkeypatch.setitem(SHORT, section, settings)
    assert run(tmp_path, "prepare") == 0
    checked = {"dataset": artifact.read(tmp_path / "prepare" / "dataset", "dataset").fingerprint}
    with artifact.create(tmp_path / "validate" / "verdict", "verdict", checked) as made:
        artifact.write_json(made / "verdict.json", {"passed": True})  # a stand-in
    monkeypatch.setenv("DIER_RUN_ID", "run-1")
    failures = str(tmp_path / "permanent-failure")
    assert run(tmp_path, "train", "--permanent-failures", failures) == 5
    assert "lower train.lr" in capsys.readouterr().err.splitlines()[-1]
    assert run(tmp_path, "train", "--permanent-failures", failures) == 5
    again = capsys.readouterr().err
    assert "ended with exit code 5, which a retry cannot cure" in again
    assert "train.lr" not in again


def test_what_a_retry_may_cure_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIER_RUN_ID", "run-1")
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    line = ["prepare", "--params", "{}", "--out", str(blocked / "dataset")]
    given = executor_input(tmp_path, "prepare")
    assert run_task(json.dumps(given), line, failures=tmp_path / "failures") == 1  # cannot be written
    assert not (tmp_path / "failures").exists()


def test_after_a_success_no_failure_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left by a run that had the same place, it would end every later one."""
    monkeypatch.setenv("DIER_RUN_ID", "run-1")
    failure_file = tmp_path / "run-1"
    failure_file.write_text("damaged")  # says nothing, so the step is tried
    given = executor_input(tmp_path, "prepare")
    assert run_task(json.dumps(given), words(tmp_path, "prepare"), failures=tmp_path) == 0
    assert not failure_file.exists()


def test_an_output_without_a_name_is_told_by_its_uri(tmp_path: Path) -> None:
    """Kubeflow below 2.15 does not say the name of an output artifact."""
    given = executor_input(tmp_path, "prepare")
    given["outputs"]["artifacts"]["dataset"]["artifacts"][0].pop("name")
    assert run_task(json.dumps(given), words(tmp_path, "prepare")) == 0
    assert set(told(tmp_path, "prepare")["dataset"]) > {"fingerprint", "classes"}


def probe_artifact(folder: Path, **metrics: Any) -> Path:
    """A whole artifact of what the UI reads of a probe."""
    out = folder / "probe" / "probe_results"
    with artifact.create(out, "probe", {}) as made:
        artifact.write_json(made / "metrics.json", metrics)
    return out


def test_what_the_ui_cannot_show_does_not_fail_a_finished_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def step(argv: list[str]) -> int:
        """A stand-in for the probe: its artifact is whole, and has nothing that the UI reads."""
        probe_artifact(tmp_path, dataset="d")
        return 0

    monkeypatch.setattr(task.run_step, "run", step)
    show = [f"{name}={tmp_path / name}" for name in BY_NAME["probe"].shown]
    assert run_task(json.dumps(executor_input(tmp_path, "probe")), words(tmp_path, "probe"), show=show) == 0
    assert set(told(tmp_path, "probe")) == {"probe_results", *BY_NAME["probe"].shown}
    assert told(tmp_path, "probe")["probe_results"]["fingerprint"]
    said = capsys.readouterr().err
    assert all(f"the UI will not show probe's {name}" in said for name in BY_NAME["probe"].shown)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"outputs": {}}', "{{$}}", "[" * 100_000])
def test_it_says_where_it_belongs(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["task", "--executor-input", text, "--", "prepare", "--params", "{}", "--out", "x"]) == 2
    assert "dier task runs inside Kubeflow" in capsys.readouterr().err


def test_a_gated_step_ends_well_once_its_artifact_is_whole_and_the_gate_ends_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kubeflow keeps nothing of a failed task: neither the Data Docs of a failed validation, nor who was refused by the gate."""
    assert run(tmp_path, "prepare") == 0
    capsys.readouterr()
    strict = json.dumps(
        {"validate": {"max_near_duplicate_share": 0.0, "warn_near_duplicate_share": 0.0, "near_duplicate_distance": 0.9}}
    )
    line = words(tmp_path, "validate")
    line[line.index("--params") + 1] = strict
    given = json.dumps(executor_input(tmp_path, "validate"))
    show = ["--show", f"data_docs={tmp_path / 'validate' / 'data_docs'}"]
    assert cli.main(["task", "--executor-input", given, *show, "--gated", "data-gate", "--", *line]) == 0
    assert "the task data-gate ends the run" in capsys.readouterr().err
    assert told(tmp_path, "validate")["verdict"]["verdict"] == "failed"
    assert (tmp_path / "validate" / "data_docs").is_file()
    assert cli.main(["gate", "--verdict", str(tmp_path / "validate" / "verdict")]) == 3
    said = capsys.readouterr().err
    assert said.startswith("dier: error: validation failed: near_duplicates")
    assert str(tmp_path) not in said  # a path that exists nowhere any more
    assert cli.main(["task", "--executor-input", given, "--gated", "data-gate", "--", *line[:4], "nowhere", *line[5:]]) == 3


def test_the_gate_of_the_model_reads_the_registration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gate = {"passed": True, "verdict": "passed", "reasons": ["accuracy 0.9"]}
    for passed, code in ((True, 0), (False, 4)):
        with artifact.create(tmp_path / "registration", "registration", {}) as folder:
            made = {"name": "eyes", "version": 7, "gate": gate | {"passed": passed}, "aliases": ["candidate"]}
            artifact.write_json(folder / "registration.json", made)
        assert cli.main(["gate", "--registration", str(tmp_path / "registration")]) == code
    passed, refused = capsys.readouterr().err.splitlines()
    assert passed == "registered eyes version 7 (candidate); gate passed: accuracy 0.9"
    assert refused.startswith("dier: error: the gate refused eyes version 7: accuracy 0.9.")
    assert cli.main(["gate", "--registration", str(tmp_path)]) == 3


@pytest.mark.parametrize(
    ("section", "single", "code"),
    [({}, {}, 0), ({}, {"data_source": "folder"}, 2), ({"source": "digits"}, {"data_source": "folder"}, 0)],
)
def test_a_sections_json_counts_before_a_single_setting(
    tmp_path: Path, section: dict[str, Any], single: dict[str, Any], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    given = executor_input(tmp_path, "prepare")
    given["inputs"]["parameterValues"] = {"data_settings": {"limit": 50.0, **section}, **single}
    line = ["prepare", "--params", "{}", "--out", str(tmp_path / "prepare" / "dataset")]
    assert run_task(json.dumps(given), line) == code
    assert ("data.source folder needs data.path" in capsys.readouterr().err) is (code == 2)


def test_a_section_that_is_no_json_object_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = executor_input(tmp_path, "prepare")
    given["inputs"]["parameterValues"] = {"data_settings": "digits"}
    line = ["prepare", "--params", "{}", "--out", str(tmp_path / "prepare" / "dataset")]
    assert cli.main(["task", "--executor-input", json.dumps(given), "--", *line]) == 2
    assert "the task's parameters data_settings are not a JSON object a section" in capsys.readouterr().err


def test_a_gate_that_is_given_nothing_lets_nothing_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["gate"]) == 2
    assert "give --verdict DIR, --registration DIR or --monitoring DIR" in capsys.readouterr().err


def test_a_task_leaves_the_umask_of_its_process_as_it_was(tmp_path: Path) -> None:
    before = file_modes.current()
    assert run(tmp_path, "prepare") == 0
    assert (tmp_path / "prepare" / "dataset").stat().st_mode & 0o777 == 0o770
    assert file_modes.current() == before
