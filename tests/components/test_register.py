"""The register step against a real store in SQLite: what is stored, once, with which alias, and what is refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from components import register
from components.common import artifact
from components.common.errors import ArtifactError, GateRefused
from components.common.settings import Settings
from components.registry import promotions, versions
from components.registry.listing import models
from components.registry.promote import promote
from components.tracking.client import TrackingError, connect
from components.tracking.live import LiveLog
from model.features import embed
from model.weights import load_model
from tests.components.registry_artifacts import CLASSES, CONFIG, Inputs, correct, make, settings

NAME = "glyphs"


def do(inputs: Inputs, out: Path, **changes: object) -> dict[str, Any]:
    """Register; give what registration.json says."""
    register.run(settings(**changes), **inputs.paths(), out=out)
    found: dict[str, Any] = artifact.read(out, "registration").json("registration.json")
    return found


def metric(run_id: str, name: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in connect().get_metric_history(run_id, name)]


@pytest.mark.slow
def test_everything_that_belongs_to_a_version_is_stored(store: str, tmp_path: Path) -> None:
    inputs = make(tmp_path)
    done = do(inputs, tmp_path / "out")
    assert (done["name"], done["version"], done["aliases"], done["gate"]["passed"]) == (NAME, 1, ["candidate"], True)
    made_from = artifact.read(tmp_path / "out", "registration").made_from
    assert made_from == {name: artifact.read(path, name).fingerprint for name, path in inputs.paths().items()}

    client = connect()
    run = client.get_run(done["run_id"])
    assert metric(run.info.run_id, "train/loss") == [(100, 1.5), (200, 0.5)]
    assert metric(run.info.run_id, "train/loss_t000_199") == [(200, 0.25)]
    assert metric(run.info.run_id, "probe/dier/val_accuracy") == [(0, 0.7), (300, 0.8)]
    assert run.info.status == "FINISHED"
    assert client.get_experiment(run.info.experiment_id).name == "tests"
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"probe", "report.html", "training"}

    version = client.get_model_version(NAME, "1")
    model = artifact.read(inputs.model, "model")
    expected = {
        "dier.digest": done["digest"],
        "dier.model": model.fingerprint,
        "dier.dataset": model.made_from["dataset"],
        "dier.report": artifact.read(inputs.report, "report").fingerprint,
        "dier.verdict": "passed, 2 warnings",
        "dier.gate": "passed",
        "dier.accuracy": "0.9000",
        "dier.t": "300",
        "dier.git_commit": "unknown",
    }
    assert expected.items() <= version.tags.items()
    assert json.loads(version.tags["dier.gate_reasons"]) == done["gate"]["reasons"]
    assert version.current_stage in (None, "None")


@pytest.mark.slow
def test_the_same_model_twice_is_one_version(store: str, tmp_path: Path) -> None:
    inputs = make(tmp_path)
    first = do(inputs, tmp_path / "out")
    again = do(inputs, tmp_path / "out")
    assert again == first
    client = connect()
    assert len(client.search_model_versions(f"name='{NAME}'")) == 1
    assert len(client.search_logged_models([client.get_run(first["run_id"]).info.experiment_id])) == 1
    assert metric(first["run_id"], "train/loss") == [(100, 1.5), (200, 0.5)]
    assert metric(first["run_id"], "probe/dier/val_accuracy") == [(0, 0.7), (300, 0.8)]


@pytest.mark.parametrize("may_delete", [True, False])
def test_a_request_that_is_repeated_makes_one_version_that_counts(
    store: str, tmp_path: Path, may_delete: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's client sends it again where the answer was lost, and the server may have done it already."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    whole = MlflowClient.create_model_version

    def twice(*arguments: Any, **named: Any) -> Any:
        whole(*arguments, **named)
        return whole(*arguments, **named)

    def refuse(*arguments: Any) -> None:
        raise MlflowException("Permission denied")

    inputs = make(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "create_model_version", twice)
        if not may_delete:
            patched.setattr(MlflowClient, "delete_model_version", refuse)
        done = do(inputs, tmp_path / "out")
    assert (done["version"], done["aliases"]) == (1, ["candidate"])
    assert [int(each.version) for each in versions.versions(connect(), NAME)] == ([1] if may_delete else [1, 2])
    assert do(inputs, tmp_path / "out") == done


@pytest.mark.slow
def test_a_version_that_stands_is_neither_judged_nor_moved_again(store: str, tmp_path: Path) -> None:
    """DVC asks at every repro: an old commit checked out must not take the alias back, nor fail beside a better champion."""
    first = make(tmp_path / "1")
    do(first, tmp_path / "out", policy="auto")
    do(make(tmp_path / "2", right=correct(1.0), training="t2"), tmp_path / "out", policy="auto")
    client = connect()
    before = client.get_registered_model(NAME)
    again = do(first, tmp_path / "out", policy="auto")
    assert (again["version"], again["aliases"], again["gate"]["passed"]) == (1, [], True)
    after = client.get_registered_model(NAME)
    assert (after.aliases, after.tags) == (before.aliases, before.tags)
    with pytest.raises(GateRefused, match="may be worse than champion version 2"):
        do(first, tmp_path / "out", policy="auto", min_accuracy=0.6)  # other settings: a question that was not asked before


def test_a_registration_that_was_cut_short_is_completed(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*arguments: object) -> None:
        """Stand-in for a process that ends before the alias is set."""
        raise KeyboardInterrupt

    inputs = make(tmp_path)
    with monkeypatch.context() as cut:
        cut.setattr(register, "_set_alias", killed)
        with pytest.raises(KeyboardInterrupt):
            do(inputs, tmp_path / "out")
    assert versions.aliases(connect(), NAME) == {}
    assert do(inputs, tmp_path / "out")["aliases"] == ["candidate"]


@pytest.mark.slow
def test_another_registry_gets_its_own_version(
    store: str, migrated_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = make(tmp_path)
    do(inputs, tmp_path / "out")
    shutil.copyfile(migrated_store, tmp_path / "other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")
    assert do(inputs, tmp_path / "out")["version"] == 1
    assert len(connect().search_model_versions(f"name='{NAME}'")) == 1


def test_the_run_of_the_live_log_is_completed_not_doubled(store: str, tmp_path: Path) -> None:
    inputs = make(tmp_path)
    with LiveLog(artifact.read(inputs.model, "model").json("summary.json")["training_key"], tmp_path / "work") as log:
        log.log(100, {"loss": 1.5000001})  # before it was rounded into the file
    done = do(inputs, tmp_path / "out")
    assert metric(done["run_id"], "train/loss") == [(100, 1.5000001), (200, 0.5)]
    client = connect()
    everywhere = [e.experiment_id for e in client.search_experiments()]
    assert [run.info.run_id for run in client.search_runs(everywhere)] == [done["run_id"]]


def test_a_joined_run_is_used_and_stays_open(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = connect()
    run_id = client.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    done = do(make(tmp_path), tmp_path / "out")
    assert done["run_id"] == run_id
    assert client.get_run(run_id).info.status == "RUNNING"
    assert client.get_model_version(NAME, "1").run_id == run_id
    everywhere = [e.experiment_id for e in client.search_experiments()]
    assert len(client.search_runs(everywhere)) == 1


def test_auto_moves_champion_and_records_it(store: str, tmp_path: Path) -> None:
    assert do(make(tmp_path / "1"), tmp_path / "out", policy="auto")["aliases"] == ["champion"]
    better = make(tmp_path / "2", right=correct(0.95), training="t2")
    assert do(better, tmp_path / "out", policy="auto")["aliases"] == ["champion"]
    do(better, tmp_path / "out", policy="auto")  # holds it already: no third record
    record = promotions.record(connect(), connect().get_registered_model(NAME))
    assert [(e.before, e.to, e.alias, e.kind) for e in record] == [(None, 1, "champion", "auto"), (1, 2, "champion", "auto")]
    assert all("policy auto" in e.why for e in record)


@pytest.mark.slow
def test_worse_than_the_champion_is_stored_refused_without_an_alias(store: str, tmp_path: Path) -> None:
    do(make(tmp_path / "1"), tmp_path / "out", policy="auto")
    with pytest.raises(GateRefused, match=r"the gate refused glyphs version 2: may be worse than champion version 1 .*--force"):
        do(make(tmp_path / "2", right=correct(0.7, seed=1), training="t2"), tmp_path / "refused", policy="auto")
    stored = artifact.read(tmp_path / "refused", "registration").json("registration.json")
    assert (stored["version"], stored["aliases"], stored["gate"]["passed"]) == (2, [], False)
    client = connect()
    assert client.get_model_version(NAME, "2").tags["dier.gate"] == "refused"
    assert versions.aliases(client, NAME) == {"champion": 1}


def test_another_dataset_never_replaces_the_champion_by_itself(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another data.seed makes other test images: neither accuracy says anything of the other."""
    do(make(tmp_path / "1"), tmp_path / "out", policy="auto")
    done = do(make(tmp_path / "2", right=correct(0.7), dataset="d2", training="t2"), tmp_path / "out", policy="auto")
    assert (done["gate"]["passed"], done["gate"]["verdict"], done["aliases"]) == (True, "uncompared", ["candidate"])
    assert "not comparable with champion version 1: it was tested on another dataset" in done["gate"]["reasons"]
    assert "not comparable with champion version 1" in capsys.readouterr().err
    client = connect()
    assert versions.aliases(client, NAME) == {"champion": 1, "candidate": 2}
    assert client.get_model_version(NAME, "2").tags["dier.gate"] == "uncompared"
    assert "(gate uncompared)" in promote(NAME, version=None, alias="champion", force=False, reason="the test set was renewed")
    assert promotions.record(client, client.get_registered_model(NAME))[-1].gate == "uncompared"


def test_a_champion_whose_predictions_are_gone_is_not_replaced_by_itself(store: str, tmp_path: Path) -> None:
    do(make(tmp_path / "1"), tmp_path / "out", policy="auto")
    for file in Path("mlruns").rglob("predictions.parquet"):
        file.unlink()
    done = do(make(tmp_path / "2", right=correct(0.95), training="t2"), tmp_path / "out", policy="auto")
    assert done["aliases"] == ["candidate"]
    assert "its predictions of the same dataset are missing or damaged" in done["gate"]["reasons"][-1]


@pytest.mark.slow
def test_a_champion_that_cannot_be_fetched_for_a_moment_leaves_no_verdict(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    from requests import ConnectionError as Reset  # type: ignore[import-untyped, unused-ignore]

    def reset(*arguments: object, **named: object) -> None:
        raise Reset("Connection reset by peer")

    do(make(tmp_path / "1"), tmp_path / "out", policy="auto")
    second = make(tmp_path / "2", right=correct(0.95), training="t2")
    with monkeypatch.context() as patch:
        patch.setattr(mlflow.artifacts, "download_artifacts", reset)
        with pytest.raises(TrackingError, match="does not answer"):
            do(second, tmp_path / "out", policy="auto")
    assert len(versions.versions(connect(), NAME)) == 1
    assert do(second, tmp_path / "out", policy="auto")["aliases"] == ["champion"]


@pytest.mark.slow
def test_a_champion_set_by_other_means_while_files_go_up_stays(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    do(make(tmp_path / "1"), tmp_path / "out", policy="auto")
    do(make(tmp_path / "2", training="t2"), tmp_path / "out", margin=0.5)
    whole = register._store_version

    def slow(*arguments: Any) -> int:
        connect().set_registered_model_alias(NAME, "champion", "2")
        return whole(*arguments)

    monkeypatch.setattr(register, "_store_version", slow)
    third = make(tmp_path / "3", right=correct(0.95), training="t3")
    assert do(third, tmp_path / "out", policy="auto")["aliases"] == ["candidate"]
    assert versions.aliases(connect(), NAME) == {"champion": 2, "candidate": 3}
    assert "it was moved to 2 by other means" in capsys.readouterr().err


@pytest.mark.slow
def test_a_verdict_given_beside_another_champion_is_given_anew_at_promotion(store: str, tmp_path: Path) -> None:
    """All three were registered while there was no champion, and passed."""
    for version, accuracy in enumerate((0.7, 0.95, 0.9), start=1):
        inputs = make(tmp_path / str(version), right=correct(accuracy), training=f"t{version}")
        assert do(inputs, tmp_path / "out", margin=0.01)["gate"]["verdict"] == "passed"

    def move(version: int, alias: str = "champion", *, force: bool = False) -> str:
        return promote(NAME, version=version, alias=alias, force=force, reason="because" if force else None)

    assert "champion moved to version 1 (gate passed)" in move(1)
    assert "from version 1 to version 2 (gate passed)" in move(2)
    with pytest.raises(GateRefused, match=r"the gate refused glyphs version 3: may be worse than champion version 2 .*--force"):
        move(3)
    assert "shadow moved to version 3 (gate passed)" in move(3, "shadow")  # nothing is said of other aliases
    assert "(gate refused, forced)" in move(3, force=True)
    client = connect()
    client.delete_model_version_tag(NAME, "1", versions.BESIDE_TAG)  # as an earlier dier registered it
    for file in Path(versions.location(client, NAME, 3).removeprefix("file://")).rglob("predictions.parquet"):
        file.unlink()
    with pytest.raises(GateRefused, match="may be worse than champion version 2"):
        move(1)
    client.delete_model_version(NAME, "2")
    assert "from version 3 to version 1 (gate uncompared)" in move(1)


@pytest.mark.slow
def test_champions_do_not_get_worse_by_small_steps(store: str, tmp_path: Path) -> None:
    """Each step lies within the margin of the champion of its time; together they would not."""
    for step, accuracy in enumerate((0.9, 0.88, 0.86)):
        inputs = make(tmp_path / str(step), right=np.arange(200) >= round(200 * (1 - accuracy)), training=f"t{step}")
        if step < 2:
            assert do(inputs, tmp_path / "out", policy="auto", margin=0.045)["aliases"] == ["champion"]
        else:
            with pytest.raises(GateRefused, match=r"version 3: may be worse than champion version 1 \(difference -0\.0400"):
                do(inputs, tmp_path / "out", policy="auto", margin=0.045)
    client = connect()
    assert versions.aliases(client, NAME) == {"champion": 2}
    client.delete_model_version(NAME, "1")  # the way to have an earlier champion count no more
    assert do(inputs, tmp_path / "out", policy="auto", margin=0.045)["aliases"] == ["champion"]


def test_a_model_that_does_not_use_its_encoder_is_refused(store: str, tmp_path: Path) -> None:
    with pytest.raises(GateRefused, match="does not use the encoder"):
        do(make(tmp_path, summary={"encoder_used": False}), tmp_path / "out")


def params_of(version: Any) -> dict[str, str]:
    """Of the logged model behind a version."""
    found: dict[str, str] = connect().get_logged_model(version.source.removeprefix("models:/")).params
    return found


GIVEN: dict[str, dict[str, object]] = {
    "data": {"source": "folder", "path": "/home/ada/scans", "seed": 3},
    "train": {"lr": 0.004, "batch_size": 32, "views": "crop", "seed": 5},
    "embed": {"dtype": "float16"},
    "probe": {"bootstrap": 300},
}


def test_every_setting_of_every_section_reaches_mlflow(store: str, tmp_path: Path) -> None:
    done = do(make(tmp_path, given=GIVEN), tmp_path / "out", margin=0.04)
    client = connect()
    run_params = client.get_run(done["run_id"]).data.params
    version = client.get_model_version(NAME, "1")
    version_params = params_of(version)
    whole = Settings.model_validate(GIVEN)
    for name in ("data", "validate", "model", "train", "embed", "probe"):
        for key in type(whole.section(name)).model_fields:
            assert f"{name}.{key}" in version_params
            assert (f"{name}.{key}" in run_params) == (name in ("data", "validate", "model", "train"))
    expected = {
        "train.lr": "0.004",
        "train.batch_size": "32",
        "train.views": "crop",
        "train.seed": "5",
        "train.micro_batch": "null",
        "data.seed": "3",
        "data.path": "scans",
        "data.name": "glyph set",
        "config.embed_dim": "12",
    }
    assert expected.items() <= run_params.items()
    assert (expected | {"embed.dtype": "float16", "probe.c_grid": "[0.01, 0.1, 1.0, 10.0]"}).items() <= version_params.items()
    assert json.loads(version.tags["dier.register"]) == settings(margin=0.04).model_dump(exclude={"model_registry", "sample"})
    assert not any("/home/ada" in value for value in [*run_params.values(), *version_params.values()])


def test_settings_that_differ_between_versions_of_one_training_stand_with_each(store: str, tmp_path: Path) -> None:
    """MLflow refuses another value of a run's param."""
    for number, bootstrap in enumerate((300, 400)):
        done = do(make(tmp_path / str(number), given={"probe": {"bootstrap": bootstrap}, "train": {"device": "cpu"}},
                       right=correct(0.9, seed=number)), tmp_path / "out")  # fmt: skip
    client = connect()
    both = client.search_model_versions(f"name='{NAME}'", order_by=["version_number ASC"])
    assert [params_of(v)["probe.bootstrap"] for v in both] == ["300", "400"]
    assert {v.run_id for v in both} == {done["run_id"]}


def test_a_candidate_that_would_not_pass_any_more_loses_its_alias(store: str, tmp_path: Path) -> None:
    inputs = make(tmp_path)
    assert do(inputs, tmp_path / "out")["aliases"] == ["candidate"]
    with pytest.raises(GateRefused, match=r"0\.9000 is below register\.min_accuracy 0\.99"):
        do(inputs, tmp_path / "out", min_accuracy=0.99)
    assert versions.aliases(connect(), NAME) == {}


@pytest.mark.parametrize(
    ("swapped", "line"),
    [
        ("verdict", "the model .* was made from another dataset than the verdict"),
        ("model", "the model .* was made from another dataset than the verdict"),
        ("probe", "the probe .* was made from another dataset than the verdict"),
        ("report", "the report .* was made from another dataset than the verdict"),
    ],
)
def test_artifacts_of_different_runs_are_refused_before_mlflow_is_touched(
    store: str, tmp_path: Path, swapped: str, line: str
) -> None:
    one = make(tmp_path / "1")
    two = make(tmp_path / "2", dataset="d2", right=correct(0.8), training="t2")
    mixed = Inputs(**{**one.paths(), swapped: getattr(two, swapped)})
    with pytest.raises(ArtifactError, match=line):
        do(mixed, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert connect().search_registered_models() == []


def test_a_damaged_model_is_refused(store: str, tmp_path: Path) -> None:
    inputs = make(tmp_path)
    file = inputs.model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match=r"model\.safetensors does not match"):
        do(inputs, tmp_path / "out")


def test_where_the_artifact_cannot_be_written_nothing_is_registered(store: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        do(make(tmp_path), tmp_path / "file" / "out")
    assert connect().search_registered_models() == []


def expected_outputs(inputs: Inputs, images: np.ndarray, *, multi_label: bool = False) -> tuple[np.ndarray, np.ndarray]:
    v = embed(load_model(inputs.model), images, 300)
    probe = load_file(inputs.probe / "classifier.safetensors")
    logits = v @ probe["weight"].T + probe["bias"]
    probabilities = 1 / (1 + np.exp(-logits)) if multi_label else np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return v, probabilities


def pictures(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, CONFIG.image_height, CONFIG.image_width, CONFIG.channels), dtype=np.uint8)


def test_a_multi_label_model_gives_each_label_its_own_probability(store: str, tmp_path: Path) -> None:
    import mlflow
    from mlflow.exceptions import MlflowException

    inputs = make(tmp_path, multi_label=True)
    do(inputs, tmp_path / "out")
    loaded = mlflow.pyfunc.load_model(f"models:/{NAME}@candidate")
    images = pictures(5)
    out = loaded.predict(images)
    described = {spec.name: spec.shape for spec in loaded.metadata.signature.outputs.inputs}
    assert {name: (-1, *values.shape[1:]) for name, values in out.items()} == described
    v, probabilities = expected_outputs(inputs, images, multi_label=True)
    np.testing.assert_allclose(out["embedding"], v, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(out["probabilities"], probabilities, rtol=1e-4, atol=1e-6)
    with pytest.raises(MlflowException, match=r"uint8|float64"):
        loaded.predict(images / 255.0)
    with pytest.raises(MlflowException, match="shape"):
        loaded.predict(pictures(2)[:, :4])


@pytest.mark.slow
def test_loading_a_model_and_predicting_leave_the_generators_of_the_caller_alone(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import random

    import mlflow
    import torch

    do(make(tmp_path), tmp_path / "out")
    reseeded = []
    whole = torch.cuda.manual_seed_all
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: (reseeded.append(seed), whole(seed)))  # seen without a GPU too
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    mlflow.pyfunc.load_model(f"models:/{NAME}@candidate").predict(pictures(2))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert str(np.random.get_state()) == str(states[1])
    assert random.getstate() == states[2]
    assert reseeded == []


def shares(mean: float, seed: int = 0) -> np.ndarray:
    """The share of its neighbours that each of 200 test images keeps."""
    return np.clip(np.random.default_rng(seed).normal(mean, 0.05, 200), 0, 1)


def test_unlabelled_images_end_with_a_candidate_that_serves_embeddings_alone(store: str, tmp_path: Path) -> None:
    import mlflow

    inputs = make(tmp_path, labelled=False, right=shares(0.4))
    done = do(inputs, tmp_path / "out")
    assert (done["gate"]["verdict"], done["aliases"]) == ("passed", ["candidate"])
    client = connect()
    version = client.get_model_version(NAME, "1")
    assert "dier.accuracy" not in version.tags
    assert float(version.tags["dier.neighbours_kept"]) == pytest.approx(0.4, abs=0.01)
    assert metric(done["run_id"], "probe/dier/val_score") == [(0, 0.3), (300, 0.8)]
    loaded, images = mlflow.pyfunc.load_model(f"models:/{NAME}@candidate"), pictures(5)
    out = loaded.predict(images)
    assert set(out) == {"embedding"} == {spec.name for spec in loaded.metadata.signature.outputs.inputs}
    np.testing.assert_allclose(out["embedding"], embed(load_model(inputs.model), images, 300), rtol=1e-5, atol=1e-6)
    assert "kept 0.40" in models(NAME)
    promote(NAME, version=None, alias="champion", force=False, reason=None)
    assert versions.aliases(client, NAME)["champion"] == 1


@pytest.mark.slow
def test_unlabelled_versions_are_compared_by_neighbours_kept(store: str, tmp_path: Path) -> None:
    def add(number: int, kept: np.ndarray, **more: Any) -> dict[str, Any]:
        inputs = make(tmp_path / str(number), labelled=False, right=kept, training=f"t{number}", **more)
        return do(inputs, tmp_path / f"out{number}", policy="auto")

    assert add(1, shares(0.4))["aliases"] == ["champion"]
    assert add(2, shares(0.4) + 0.1)["aliases"] == ["champion"]
    with pytest.raises(GateRefused, match=r"version 3: may be worse than champion version 2 \(difference -0\.1"):
        add(3, shares(0.4, seed=1))
    other = add(4, shares(0.9), dataset="d2")
    assert (other["gate"]["verdict"], other["aliases"]) == ("uncompared", ["candidate"])
    for file in Path("mlruns").rglob("neighbours.parquet"):
        file.unlink()
    unknown = add(5, shares(0.9))
    assert (unknown["gate"]["verdict"], unknown["aliases"]) == ("uncompared", ["candidate"])
    assert versions.aliases(connect(), NAME)["champion"] == 2


def test_a_probe_that_measured_no_neighbours_is_refused(store: str, tmp_path: Path) -> None:
    """One of before there was a gate without labels: an accuracy of 1 over a single class."""
    inputs = make(tmp_path, labelled=False)
    made = artifact.read(inputs.probe, "probe")
    with artifact.create(inputs.probe, "probe", made.made_from) as out:
        artifact.write_json(out / "metrics.json", made.json("metrics.json"))
    with artifact.create(
        inputs.report,
        "report",
        artifact.read(inputs.report, "report").made_from | {"probe": artifact.read(inputs.probe, "probe").fingerprint},
    ):
        pass
    with pytest.raises(ArtifactError, match=r"has no neighbours\.parquet, which the gate needs: probe again"):
        do(inputs, tmp_path / "out")


# Runs without site (-S): no .pth file, so no editable install; the packages' folder is put on the path by hand.
ELSEWHERE = """
import sys
sys.path[:0] = [{here!r}, {packages!r}]
import importlib.util, pathlib
for name in ("components", "pipeline", "dier"):
    assert importlib.util.find_spec(name) is None, name
import data, model
assert model.MINE == data.MINE == "decoy"
import mlflow, numpy as np
loaded = mlflow.pyfunc.load_model("models:/glyphs@champion")
images = np.load("images.npy", allow_pickle=False)
import torch
encoder = loaded.unwrap_python_model().encoder
with torch.no_grad():
    parts = {{"encoded": encoder(encoder.scale(torch.from_numpy(images[:7])).to(encoder.timesteps.device)).numpy(force=True)}}
for n in (1, 7, len(images)):
    out = loaded.predict(images[:n])
    assert out["embedding"].shape == (n, {dim}) and out["probabilities"].shape == (n, {classes}), n
    assert out["embedding"].dtype == out["probabilities"].dtype == np.float32
    parts[f"v{{n}}"], parts[f"p{{n}}"] = out["embedding"], out["probabilities"]
np.savez("out.npz", **parts)
import data, model
assert model.MINE == data.MINE == "decoy"
folders = tuple({checkout!r} + name + "/" for name in ("components", "pipeline", "model", "data"))
ours = sorted(name for name, module in sys.modules.items() if str(getattr(module, "__file__", "")).startswith(folders))
assert not ours, ours
"""


@pytest.mark.slow
def test_it_loads_in_a_process_with_its_own_model_and_data_and_no_checkout(store: str, tmp_path: Path) -> None:
    inputs = make(tmp_path / "artifacts")
    do(inputs, tmp_path / "out", policy="auto")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("model", "data"):
        (elsewhere / f"{name}.py").write_text("MINE = 'decoy'\n")
    images = pictures(1201)  # more than two batches of 500
    np.save(elsewhere / "images.npy", images)
    shutil.rmtree(tmp_path / "artifacts" / "report")  # nothing of the inputs is needed, as the rest shows
    program = ELSEWHERE.format(
        here=str(elsewhere),
        packages=str(Path(np.__file__).parents[1]),
        dim=CONFIG.embed_dim,
        classes=len(CLASSES),
        checkout=f"{Path(register.__file__).parents[1]}/",
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MLFLOW"))}
    environment |= {
        "MLFLOW_TRACKING_URI": store,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    out = np.load(elsewhere / "out.npz")
    v, probabilities = expected_outputs(inputs, images)
    np.testing.assert_allclose(out["encoded"], v[:7], rtol=1e-4, atol=1e-5)
    for n in (1, 7, len(images)):
        np.testing.assert_allclose(out[f"v{n}"], v[:n], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(out[f"p{n}"], probabilities[:n], rtol=1e-4, atol=1e-5)
    kinds = {file.suffix for file in Path("mlruns").rglob("*") if file.is_file()}
    assert not kinds & {".pkl", ".pickle", ".pt", ".pth", ".bin"}
