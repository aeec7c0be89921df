"""train, embed and probe over real digits: a few steps of training, the artifacts, and what they refuse."""

import csv
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from components import embed, prepare, probe, train
from components.common import artifact
from components.common.errors import ArtifactError, SettingsError
from components.common.settings import DataSettings, EmbedSettings, ModelSettings, ProbeSettings, TrainSettings
from components.embedding.store import read
from components.training import callbacks, online_probe
from data.errors import DataError
from data.format import open_dataset
from model import features
from model.config import ModelConfig
from model.errors import CheckpointError, ConfigError, PermanentTrainingError
from model.schedule import log_snr
from model.training.run_configuration import code_digest
from model.training.trainer import Trainer
from model.weights import load_model

pytestmark = pytest.mark.slow  # they share trainings that take longer than a second

MODEL = ModelSettings(width=32, heads=2, embed_dim=16)
TRAIN = TrainSettings(steps=30, warmup_steps=5, batch_size=32, log_every=10, checkpoint_every=10, min_gap=0)
EMBED = EmbedSettings(timesteps=[0, 400, 999], batch_size=100)
PROBE = ProbeSettings(c_grid=[0.01, 0.1], baseline_timesteps=[100], bootstrap=100)


def differing(one: Path, other: Path) -> set[str]:
    """Names of the files, but for the manifest, in which two artifacts differ."""
    names = {path.name for folder in (one, other) for path in folder.iterdir()} - {artifact.MANIFEST}
    return {name for name in names if (one / name).read_bytes() != (other / name).read_bytes()}


def verdict_of(dataset: Path, out: Path, passed: bool = True) -> Path:
    """A stand-in for validate's artifact: what train reads of one."""
    with artifact.create(out, "verdict", {"dataset": artifact.read(dataset, "dataset").fingerprint}) as folder:
        artifact.write_json(folder / "verdict.json", {"passed": passed, "warnings": 0})
    return out


@contextmanager
def changed(source: Path, target: Path) -> Iterator[Path]:
    """A copy of the dataset below `source`, to be changed, as the dataset below `target`, with a passing verdict."""
    with artifact.create(target / "dataset", "dataset", {}) as folder:
        shutil.copytree(source / "dataset", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
        yield folder
    verdict_of(target / "dataset", target / "verdict")


def unlabelled(source: Path, target: Path) -> None:
    """The dataset below `source` with one class for all, below `target`."""
    with changed(source, target) as folder:
        for split in ("train", "val", "test"):
            np.save(folder / split / "labels.npy", np.zeros_like(np.load(folder / split / "labels.npy")))
        info = json.loads((folder / "dataset.json").read_text()) | {"class_names": ["unlabelled"]}
        artifact.write_json(folder / "dataset.json", info)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, migrated_store: Path) -> Iterator[Path]:
    """A folder with dataset, verdict, model, embeddings and probe, made once."""
    folder = tmp_path_factory.mktemp("run")
    shutil.copyfile(migrated_store, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        make_all(folder)
        yield folder


def make_all(folder: Path) -> None:
    """Every artifact up to the probe's."""
    prepare.run(data_settings=DataSettings(limit=400), out=folder / "dataset")
    verdict_of(folder / "dataset", folder / "verdict")
    train.run(MODEL, TRAIN, folder / "dataset", folder / "verdict", folder / "work", folder / "model")
    embed.run(EMBED, folder / "dataset", folder / "model", folder / "embeddings")
    probe.run(PROBE, folder / "dataset", folder / "model", folder / "embeddings", folder / "probe")


def test_the_model_artifact_holds_what_the_contract_says(run: Path) -> None:
    made = artifact.read(run / "model", "model")
    assert set(made.made_from) == {"dataset", "verdict"}
    summary = made.json("summary.json")
    assert summary["steps"] == 30
    assert [row["t"] for row in summary["gap"]] == callbacks.GAP_TIMESTEPS
    assert (summary["encoder_used"], summary["warnings"]) == (True, [])
    assert made.json("settings.json") == {"model": MODEL.model_dump(), "train": TRAIN.model_dump()}
    with (run / "model" / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [10, 20, 30]
    assert "images_per_second" not in rows[0]
    rates = next((run / "work").glob("*/rates.csv")).read_text().splitlines()
    assert len(rates) == 3


BEST = TRAIN.model_copy(update={"keep": "best_probe", "probe_every": 8})


def evaluations(work: Path) -> dict[int, float]:
    """The best probe of each evaluation, by step."""
    with next(work.glob("*/watch.csv")).open() as file:
        return {int(row["step"]): max(float(v) for k, v in row.items() if k.startswith("probe_")) for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def best(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model of the best probe."""
    folder = tmp_path_factory.mktemp("best")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "sqlite:////nowhere/mlflow.db")
        train.run(MODEL, BEST, run / "dataset", run / "verdict", folder / "work", folder / "model")
    return folder


def test_the_evaluation_with_the_best_probe_is_what_is_exported(run: Path, best: Path, tmp_path: Path) -> None:
    scores = evaluations(best / "work")
    assert sorted(scores) == [8, 16, 24, 30]  # and the last step
    made = artifact.read(best / "model", "model").json("summary.json")
    step = next(step for step, score in scores.items() if score == max(scores.values()))
    assert made["kept"] == {"step": step, "probe": scores[step]}
    assert made["steps"] == 30
    curve = [(folder / "model" / "curve.csv").read_bytes() for folder in (run, best)]
    assert curve[0] == curve[1]
    work = next((best / "work").glob("*"))
    newest = {part: load_file(work / "step-000000030" / f"{part}.safetensors") for part in ("best", "ema")}
    exported = load_file(best / "model" / "model.safetensors")
    assert all(torch.equal(exported[name], newest["best"][name]) for name in exported)
    assert all(torch.equal(exported[name], newest["ema"][name]) for name in exported) is (step == 30)
    plain = load_file(run / "model" / "model.safetensors")
    assert all(torch.equal(plain[name], newest["ema"][name]) for name in plain)  # evaluating changed nothing


@pytest.mark.parametrize("stopped", [9, 29])
def test_a_stopped_run_chooses_the_same_step_with_the_same_bits(
    run: Path, best: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: int
) -> None:
    paths = (run / "dataset", run / "verdict", tmp_path / "work", tmp_path / "model")
    ordinary = Trainer._train_step

    def dies(self: Trainer) -> None:
        if self.step == stopped:
            raise KeyboardInterrupt
        ordinary(self)

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////nowhere/mlflow.db")
    monkeypatch.setattr(Trainer, "_train_step", dies)
    with pytest.raises(KeyboardInterrupt):
        train.run(MODEL, BEST, *paths)
    monkeypatch.setattr(Trainer, "_train_step", ordinary)
    train.run(MODEL, BEST, *paths)
    assert artifact.read(tmp_path / "model", "model").fingerprint == artifact.read(best / "model", "model").fingerprint
    assert evaluations(tmp_path / "work") == evaluations(best / "work")


def test_evaluations_that_all_fail_leave_nothing_to_keep(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr("components.training.online_probe.shuffled_gap", fails)
    with pytest.raises(PermanentTrainingError, match=r"train\.keep best_probe: no evaluation .* set train\.keep to last"):
        train.run(MODEL, BEST, run / "dataset", run / "verdict", tmp_path / "work", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_every_option_at_once_goes_through_to_the_probe(run: Path, tmp_path: Path) -> None:
    """And the curve is over the model's own log-SNR."""
    changed = {
        "probe_every": 20,
        "views": "crop_flip_colour",
        "identity_share": 0.2,
        "variance_covariance": 0.1,
        "mask_ratio": 0.5,
        "loss_weight": "min_snr",
        "condition_dropout": 0.2,
    }
    settings = MODEL.model_copy(update={"schedule": "cosine", "prediction": "v", "pool": "flat"}), BEST.model_copy(update=changed)
    train.run(*settings, run / "dataset", run / "verdict", tmp_path / "work", tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (config["schedule"], config["prediction"]) == ("cosine", "v")
    embed.run(EMBED, run / "dataset", tmp_path / "model", tmp_path / "embeddings")
    probe.run(PROBE, run / "dataset", tmp_path / "model", tmp_path / "embeddings", tmp_path / "probe")
    with (tmp_path / "probe" / "curve.csv").open() as file:
        levels = {int(row["t"]): float(row["log_snr"]) for row in csv.DictReader(file) if row["representation"] == "dier"}
    assert levels == {t: round(log_snr(t, "cosine"), 4) for t in (0, 400, 999)}
    summary = artifact.read(tmp_path / "model", "model").json("summary.json")
    assert [row["log_snr"] for row in summary["gap"]] == [log_snr(t, "cosine") for t in callbacks.GAP_TIMESTEPS]
    metrics = artifact.read(tmp_path / "probe", "probe").json("metrics.json")
    assert any("Trained was DiER+views+mask+variance-covariance: " in sentence for sentence in metrics["conclusions"])
    plain = artifact.read(run / "probe", "probe").json("metrics.json")
    assert not any("Trained was" in sentence for sentence in plain["conclusions"])
    assert metrics["log_snr"] == log_snr(metrics["t"], "cosine")


def test_the_models_configuration_says_what_is_predicted_and_noise_of_wide_patches_is_warned_of(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ModelConfig.load(run / "model" / "config.json").prediction == MODEL.prediction == "x0"
    wide, paths = MODEL.model_copy(update={"patch_size": 8}), (run / "dataset", run / "verdict", tmp_path / "work")
    by_itself = [MODEL.model_copy(update={"prediction": "auto", "patch_size": patch}) for patch in (2, 8)]
    assert [train.model_config(one, 8, 8, 1, seed=0).prediction for one in by_itself] == ["eps", "x0"]  # 64 numbers, width 32
    train.run(wide.model_copy(update={"prediction": "eps"}), TRAIN, *paths, tmp_path / "model")
    said = capsys.readouterr().err
    assert "train: WARNING: model.prediction eps with patches of 64 numbers and a width of 32" in said
    assert re.search(r"^train: memory by arithmetic: .* GB with 32 at a time$", said, re.MULTILINE)
    assert ModelConfig.load(tmp_path / "model" / "config.json").prediction == "eps"


@pytest.mark.slow
@pytest.mark.parametrize(
    "form",
    [
        {"encoder": "resnet", "pool": "grid", "denoiser_width": 16, "denoiser_depth": 3},
        {"stem": "conv", "condition": "block", "condition_dim": 4},
    ],
)
def test_other_encoders_and_denoisers_go_through_all_steps_and_say_their_ranks(form: dict, run: Path, tmp_path: Path) -> None:
    settings = MODEL.model_copy(update=form)
    train.run(settings, TRAIN, run / "dataset", run / "verdict", tmp_path / "work", tmp_path / "model")
    rank = artifact.read(tmp_path / "model", "model").json("summary.json")["rank"]
    most = {"resnet": 16, "vit": 4}[settings.encoder]  # the denoiser's width, or what was asked for
    assert rank["map"]["numerical"] == most
    assert all(row["used"]["effective"] <= most + 1e-6 for row in rank["v"])
    embed.run(EMBED, run / "dataset", tmp_path / "model", tmp_path / "embeddings")
    probe.run(PROBE, run / "dataset", tmp_path / "model", tmp_path / "embeddings", tmp_path / "probe")
    assert artifact.read(tmp_path / "probe", "probe").json("metrics.json")["t"] in EMBED.timesteps


def test_no_label_is_read_while_training(run: Path, tmp_path: Path) -> None:
    """The same images with their labels shuffled give the same weights."""
    shutil.copytree(run / "dataset", tmp_path / "source")
    labels = np.load(tmp_path / "source" / "train" / "labels.npy")
    np.save(tmp_path / "source" / "train" / "labels.npy", labels[::-1].copy())
    with artifact.create(tmp_path / "dataset", "dataset", {}) as folder:
        shutil.copytree(tmp_path / "source", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
    verdict_of(tmp_path / "dataset", tmp_path / "verdict")
    train.run(MODEL, TRAIN, tmp_path / "dataset", tmp_path / "verdict", tmp_path / "work", tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == (run / "model" / "model.safetensors").read_bytes()


def test_embeddings_are_the_models_in_the_datasets_order(run: Path) -> None:
    images = open_dataset(run / "dataset").split("val").images
    made = artifact.read(run / "embeddings", "embeddings")
    expected = features.embed(load_model(run / "model"), np.asarray(images), 400)
    np.testing.assert_allclose(read(made, "val", 400), expected, rtol=1e-4, atol=1e-5)


def test_the_probe_reads_test_once_a_representation_and_shows_every_baseline(run: Path) -> None:
    with (run / "probe" / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = {"dier", "pixels", "pca", "untrained", "denoiser_given_v_block0", "denoiser_given_v_block1"}
    accuracy = [row for row in rows if row["metric"] == "accuracy"]
    assert {row["representation"] for row in accuracy} == names
    assert sorted(row["representation"] for row in accuracy if row["split"] == "test") == sorted(names)
    assert [row["t"] for row in accuracy if row["representation"] == "dier" and row["split"] == "val"] == ["0", "400", "999"]
    metrics = artifact.read(run / "probe", "probe").json("metrics.json")
    assert set(metrics["baselines"]) == names - {"dier"}
    val = {row["t"]: float(row["value"]) for row in accuracy if row["representation"] == "dier" and row["split"] == "val"}
    assert val[str(metrics["t"])] == max(val.values())
    assert metrics["conclusions"]


def test_the_probe_keeps_embeddings_of_training_images_for_those_that_come_later(run: Path, tmp_path: Path) -> None:
    metrics = artifact.read(run / "probe", "probe").json("metrics.json")
    train_images = open_dataset(run / "dataset").split("train").images
    whole = read(artifact.read(run / "embeddings", "embeddings"), "train", metrics["t"])
    kept = {name: values.numpy() for name, values in load_file(run / "probe" / "reference.safetensors").items()}
    assert np.array_equal(kept["embedding"], whole)  # fewer than probe.reference
    assert np.allclose(kept["mean"], train_images.mean((1, 2, 3)), atol=1e-4)
    for size in (20, 0):
        some = PROBE.model_copy(update={"reference": size})
        probe.run(some, run / "dataset", run / "model", run / "embeddings", tmp_path / str(size))
    few = load_file(tmp_path / "20" / "reference.safetensors")["embedding"].numpy()
    assert len(few) == 20
    assert {row.tobytes() for row in few} <= {row.tobytes() for row in whole}
    assert not (tmp_path / "0" / "reference.safetensors").exists()


def test_the_encoder_before_its_head_is_probed_at_each_embedded_timestep(run: Path, tmp_path: Path) -> None:
    settings = PROBE.model_copy(update={"baselines": ["dier_trunk"]})
    probe.run(settings, run / "dataset", run / "model", run / "embeddings", tmp_path / "probe")
    with (tmp_path / "probe" / "curve.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["representation"] == "dier_trunk" and row["metric"] == "accuracy"]
    assert [(row["t"], row["split"]) for row in rows[:3]] == [("0", "val"), ("400", "val"), ("999", "val")]
    assert [row["split"] for row in rows[3:]] == ["test"]
    metrics = artifact.read(tmp_path / "probe", "probe").json("metrics.json")
    assert set(metrics["baselines"]) == {"dier_trunk"}
    assert any("the encoder before its head: " in sentence for sentence in metrics["conclusions"])
    assert any("no other method" in sentence for sentence in metrics["conclusions"])


def test_test_labels_have_no_say_in_what_is_chosen(run: Path, tmp_path: Path) -> None:
    with changed(run, tmp_path) as folder:
        labels = np.load(folder / "test" / "labels.npy")
        np.save(folder / "test" / "labels.npy", labels[::-1].copy())
    train.run(MODEL, TRAIN, tmp_path / "dataset", tmp_path / "verdict", tmp_path / "work", tmp_path / "model")
    embed.run(EMBED, tmp_path / "dataset", tmp_path / "model", tmp_path / "embeddings")
    probe.run(PROBE, tmp_path / "dataset", tmp_path / "model", tmp_path / "embeddings", tmp_path / "probe")
    shuffled, original = (artifact.read(folder / "probe", "probe").json("metrics.json") for folder in (tmp_path, run))
    assert (shuffled["t"], shuffled["c"], shuffled["val"]) == (original["t"], original["c"], original["val"])
    assert shuffled["test"] != original["test"]


def test_images_without_labels_are_embedded_and_t_is_chosen_without_them(run: Path, tmp_path: Path) -> None:
    unlabelled(run, tmp_path)
    train.run(MODEL, TRAIN, tmp_path / "dataset", tmp_path / "verdict", tmp_path / "work", tmp_path / "model")
    embed.run(EMBED, tmp_path / "dataset", tmp_path / "model", tmp_path / "embeddings")
    probe.run(PROBE, tmp_path / "dataset", tmp_path / "model", tmp_path / "embeddings", tmp_path / "probe")
    with pytest.raises(DataError, match=r"train\.keep best_probe needs labels"):
        train.run(MODEL, BEST, tmp_path / "dataset", tmp_path / "verdict", tmp_path / "work", tmp_path / "again")
    metrics = artifact.read(tmp_path / "probe", "probe").json("metrics.json")
    assert metrics["chosen_by"] == "label_free"
    assert "no accuracy" in metrics["peak"]["sentence"]
    curve = pd.read_csv(tmp_path / "probe" / "curve.csv")
    scores = curve[(curve["metric"] == "score") & (curve["split"] == "val")]
    assert scores["t"].tolist() == EMBED.timesteps
    assert scores.loc[scores["value"].idxmax(), "t"] == metrics["t"]
    kept = pq.read_table(tmp_path / "probe" / "neighbours.parquet")
    assert kept["kept"].to_numpy().mean() == pytest.approx(metrics["test"]["kept"]["value"], abs=1e-6)
    probe.run(PROBE, tmp_path / "dataset", tmp_path / "model", tmp_path / "embeddings", tmp_path / "again")
    assert artifact.read(tmp_path / "again", "probe").fingerprint == artifact.read(tmp_path / "probe", "probe").fingerprint


def test_a_verdict_of_other_data_or_a_failed_one_stops_training(run: Path, tmp_path: Path) -> None:
    prepare.run(data_settings=DataSettings(limit=100), out=tmp_path / "dataset")
    paths = {"work": tmp_path / "work", "out": tmp_path / "model"}
    with pytest.raises(ArtifactError, match=r"the verdict .* was not made from the dataset"):
        train.run(MODEL, TRAIN, dataset=tmp_path / "dataset", verdict=run / "verdict", **paths)
    failed = verdict_of(run / "dataset", tmp_path / "failed", passed=False)
    with pytest.raises(DataError, match="data failed"):
        train.run(MODEL, TRAIN, dataset=run / "dataset", verdict=failed, **paths)
    assert not (tmp_path / "model").exists()


def test_what_does_not_fit_together_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.batch_size 4096"):
        train.run(MODEL, TRAIN.model_copy(update={"batch_size": 4096}), run / "dataset", run / "verdict", tmp_path, tmp_path / "m")
    with pytest.raises(ConfigError, match=r"model\.patch_size"):
        train.run(MODEL.model_copy(update={"patch_size": 3}), TRAIN, run / "dataset", run / "verdict", tmp_path, tmp_path / "m")
    prepare.run(data_settings=DataSettings(limit=100, image_size=16), out=tmp_path / "larger")
    with pytest.raises(ArtifactError, match="8x8x1"):
        embed.run(EMBED, tmp_path / "larger", run / "model", tmp_path / "e")
    prepare.run(data_settings=DataSettings(limit=100), out=tmp_path / "other")
    with pytest.raises(ArtifactError, match=r"the model .* was not made from the dataset"):
        probe.run(PROBE, tmp_path / "other", run / "model", run / "embeddings", tmp_path / "p")
    embed.run(EmbedSettings(timesteps=[0], splits=["train"]), run / "dataset", run / "model", tmp_path / "partial")
    with pytest.raises(SettingsError, match=r"embed\.splits lacks test, val"):
        probe.run(PROBE, run / "dataset", run / "model", tmp_path / "partial", tmp_path / "p")


def test_a_finished_training_with_a_dead_encoder_is_kept_and_says_so(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run / "work", tmp_path / "work")  # it is finished: only the check is done again
    strict = TRAIN.model_copy(update={"min_gap": 1.5})
    train.run(MODEL, strict, run / "dataset", run / "verdict", tmp_path / "work", tmp_path / "model")
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("train: WARNING: dead encoder: shuffling v_t raises the loss at most")
    made = artifact.read(tmp_path / "model", "model").json("summary.json")
    assert made["encoder_used"] is False
    assert len(made["warnings"]) == 1
    assert made["warnings"][0] in last
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == (run / "model" / "model.safetensors").read_bytes()


def test_the_training_key_follows_what_the_weights_depend_on() -> None:
    def key(
        dataset: str = "data", model: dict | None = None, *, on_cuda: bool = False, compiled: bool = False, **changes: object
    ) -> str:
        settings = MODEL.model_copy(update=model or {}), TRAIN.model_copy(update=changes)
        return artifact.digest(train.run_configuration(dataset, *settings, on_cuda=on_cuda, compiled=compiled))

    free = {"device": "cpu", "checkpoint_every": 7, "checkpoint_minutes": 1.5, "keep_checkpoints": 9, "min_gap": 2.0, "workers": 3}
    free |= {"checkpoint_activations": True, "fsdp": "on"}
    assert key() == key(**free) == key(deterministic=True) != key(on_cuda=True)  # whose generators give other numbers
    assert key() == key(compile="off") != key(compiled=True)
    best = {"keep": "best_probe", "probe_every": 5}
    assert key() == key(probe_every=5)
    assert len({key(), key(**best), key(**best | {"probe_every": 7})}) == 3
    configuration = train.run_configuration("data", MODEL, TRAIN.model_copy(update=best))
    assert configuration["components/training/online_probe.py"] == code_digest(Path(str(online_probe.__file__)))
    assert {"model/dier.py", "model/training/trainer.py"} <= set(configuration)
    keys = key(), key("other"), key(model={"pool": "flat"}), key(lr=1e-4), key(on_cuda=True), key(deterministic=True, on_cuda=True)
    assert len(set(keys)) == 6
    assert len({key(precision=precision) for precision in ("float32", "tf32", "bf16")}) == 3


@pytest.mark.parametrize(("local_rank", "checked"), [(None, True), ("0", True), ("1", False)])
def test_the_dataset_is_hashed_by_the_first_process_of_a_node_alone(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local_rank: str | None, checked: bool
) -> None:
    hashed: list[Path] = []
    check = artifact._check
    monkeypatch.setattr(artifact, "_check", lambda path, *more: (hashed.append(path), check(path, *more)))
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    with changed(run, tmp_path) as folder:
        (folder / "train" / "images.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match="cannot read"):
        train.run(MODEL, TRAIN, tmp_path / "dataset", tmp_path / "verdict", tmp_path / "work", tmp_path / "model")
    assert (tmp_path / "dataset" in hashed[1:]) is checked  # the first time was for the verdict's stand-in


def test_a_work_folder_of_another_training_is_refused(run: Path, tmp_path: Path) -> None:
    """Its name is the key, so it was renamed or copied: here to where a training with another rate would look."""
    (folder,) = (run / "work").iterdir()
    other = TRAIN.model_copy(update={"lr": 1e-3})
    configuration = train.run_configuration(artifact.read(run / "dataset", "dataset").fingerprint, MODEL, other)
    copied = tmp_path / "work" / artifact.digest(configuration)[:16]
    shutil.copytree(folder, copied)
    with pytest.raises(
        CheckpointError, match=r"step-000000030 is of another training: train\.lr was 0\.002, is 0\.001; undo"
    ) as caught:
        train.run(MODEL, other, run / "dataset", run / "verdict", tmp_path / "work", tmp_path / "model")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_deterministic_changes_nothing_on_the_cpu(run: Path, tmp_path: Path) -> None:
    before = torch.are_deterministic_algorithms_enabled(), os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    exact = TRAIN.model_copy(update={"deterministic": True, "device": "cpu"})
    train.run(MODEL, exact, run / "dataset", run / "verdict", tmp_path / "work", tmp_path / "model")
    assert before == (torch.are_deterministic_algorithms_enabled(), os.environ.get("CUBLAS_WORKSPACE_CONFIG"))
    assert differing(tmp_path / "model", run / "model") == {"settings.json"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_cuda_device_that_is_not_there_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no CUDA device"):
        train.run(MODEL, TRAIN.model_copy(update={"device": "cuda"}), run / "dataset", run / "verdict", tmp_path, tmp_path / "m")
