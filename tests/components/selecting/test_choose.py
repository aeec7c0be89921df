"""embed.timesteps auto over real digits and a real network: every way of choosing, what is written, parts, and what follows."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
from safetensors.numpy import load_file

from components import embed, prepare, probe
from components.common import artifact
from components.common.errors import ArtifactError, SettingsError
from components.common.settings import DataSettings, EmbedSettings, ProbeSettings
from components.embedding import store
from components.embedding.parts import join, split
from components.registry.package import _package_source, _serving, _stage, copy_package
from components.registry.served_model import ServedModel, output_sizes
from components.selecting.choose import METHODS, choose
from components.selecting.places import grid, side_by_side
from data.format import Dataset, open_dataset
from model.config import ModelConfig
from model.dier import DiER
from model.weights import load_model, save_model

pytestmark = pytest.mark.slow  # each way of choosing encodes some thousand images


def a_model(folder: Path, dataset: Path, train: dict) -> None:
    """A real network of the digits' shape as train would leave it, untrained, with the settings `train`."""
    network = DiER(ModelConfig(1, 32, 2, image_height=8, image_width=8, channels=1, patch_size=2, embed_dim=16))
    with artifact.create(folder, "model", {"dataset": artifact.read(dataset, "dataset").fingerprint}) as place:
        save_model(place, network, network.state_dict())
        artifact.write_json(place / "settings.json", {"train": train})
        artifact.write_json(place / "summary.json", {})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset of digits in several shards and a model."""
    folder = tmp_path_factory.mktemp("auto")
    prepare.run(data_settings=DataSettings(limit=150), out=folder / "dataset")
    a_model(folder / "model", folder / "dataset", {"condition_dropout": 0.1})
    return folder


@pytest.fixture(scope="module")
def opened(made: Path) -> Iterator[tuple[DiER, Dataset]]:
    return load_model(made / "model"), open_dataset(made / "dataset")


def test_the_settings_name_every_way_of_choosing() -> None:
    assert set(get_args(EmbedSettings.model_fields["select"].annotation)) == {"auto", *METHODS}
    assert EmbedSettings(timesteps="auto").timesteps == []


@pytest.mark.parametrize("select", list(METHODS))
def test_every_way_chooses_the_same_each_time(opened: tuple[DiER, Dataset], select: str) -> None:
    found = choose(select, 3, *opened, condition_dropout=True)
    assert choose(select, 3, *opened, condition_dropout=True) == found
    assert found["timesteps"] == side_by_side(found["t"], 3, "linear")
    assert found["t"] in {row["t"] for row in found["scores"]}
    if select != "golden":
        assert {row["t"] for row in found["scores"]} == set(grid("linear"))
    assert found["cost"]["encoded"] > 0
    assert (found["cost"]["denoised"] > 0) == (select == "label_free")
    assert (found["cost"]["probes"] == 0) == (select == "label_free")


def test_what_was_measured_against_is_said(opened: tuple[DiER, Dataset]) -> None:
    with_, without = (choose("label_free", 1, *opened, condition_dropout=used) for used in (True, False))
    assert "withheld" in with_["notes"][0]
    assert "without train.condition_dropout" in without["notes"][0]
    assert [row["gap_nats"] for row in with_["scores"]] != [row["gap_nats"] for row in without["scores"]]


def test_no_way_but_one_without_classes(made: Path, tmp_path: Path) -> None:
    dataset = open_dataset(made / "dataset")
    one = dataset.info.__class__(**(vars(dataset.info) | {"class_names": ["scan"]}))
    unlabelled = dataset.__class__(**(vars(dataset) | {"info": one}))
    model = load_model(made / "model")
    for select in METHODS:
        if select == "label_free":
            assert choose("auto", 1, model, unlabelled, condition_dropout=True)["select"] == "label_free"
            assert choose("auto", 1, model, dataset, condition_dropout=True)["select"] == "halving"
            assert choose(select, 1, model, unlabelled, condition_dropout=True)["timesteps"]
        else:
            with pytest.raises(SettingsError, match=rf"embed.select {select} needs labels.*label_free"):
                choose(select, 1, model, unlabelled, condition_dropout=True)


def embedded(made: Path, out: Path, **settings: object) -> artifact.Artifact:
    embed.run(EmbedSettings(**({"batch_size": 64} | settings)), made / "dataset", made / "model", out)
    return artifact.read(out, "embeddings" if "part" not in settings else store.PART)


def test_parts_that_chose_for_themselves_join_into_the_whole(made: Path, tmp_path: Path) -> None:
    """Fanned out, each part chooses; here with one file a split, so that the second part has other images than the first."""
    settings = EmbedSettings(timesteps="auto", select="halving", k=2, batch_size=64)
    whole = embedded(made, tmp_path / "whole", timesteps="auto", select="halving", k=2)
    assert whole.json("selection.json")["timesteps"] == whole.json("embeddings.json")["timesteps"]
    parts = split(settings, 2)
    assert [(part.timesteps, part.part) for part in parts] == [([], [0, 2]), ([], [1, 2])]
    for number, part in enumerate(parts):
        embed.run(part, made / "dataset", made / "model", tmp_path / f"part{number}")
    places = [tmp_path / "part0", tmp_path / "part1"]
    join(settings, places, tmp_path / "joined")
    assert artifact.read(tmp_path / "joined", "embeddings").fingerprint == whole.fingerprint
    with pytest.raises(ArtifactError, match=r"part0.*'k': 2.*'k': 3.*is needed"):
        join(settings.model_copy(update={"k": 3}), places, tmp_path / "other")
    with artifact.create(tmp_path / "odd", store.PART, artifact.read(places[1], store.PART).made_from) as folder:
        for file in ("embeddings.json", "selection.json"):
            artifact.write_json(folder / file, artifact.read(places[1], store.PART).json(file))
        artifact.write_json(folder / "selection.json", whole.json("selection.json") | {"timesteps": [1, 2]})
    with pytest.raises(ArtifactError, match=r"odd chose t = \[1, 2\].*machines that are alike"):
        join(settings, [places[0], tmp_path / "odd"], tmp_path / "other")
    given = split(EmbedSettings(timesteps=[0, 400], k=2))
    assert [(part.timesteps, part.k) for part in given] == [([0], 1), ([400], 1)]


def test_given_timesteps_joined_have_their_k(made: Path, tmp_path: Path) -> None:
    settings = EmbedSettings(timesteps=[0, 400], k=2, batch_size=64)
    whole = embedded(made, tmp_path / "whole", timesteps=[0, 400], k=2)
    for part in split(settings):
        embed.run(part, made / "dataset", made / "model", tmp_path / f"t{part.timesteps[0]}")
    join(settings, [tmp_path / "t0", tmp_path / "t400"], tmp_path / "joined")
    assert artifact.read(tmp_path / "joined", "embeddings").fingerprint == whole.fingerprint
    with pytest.raises(ArtifactError, match=r"t0 has given timesteps.*embed.timesteps auto"):
        join(EmbedSettings(timesteps="auto", k=2), [tmp_path / "t0"], tmp_path / "other")


def test_of_more_images_than_auto_above_t_is_chosen_whatever_the_list(made: Path, tmp_path: Path, capsys) -> None:
    counts = artifact.read(made / "dataset", "dataset").json("dataset.json")["counts"]
    images = sum(counts.values())
    assert [EmbedSettings(auto_above=above).chooses(images) for above in (images - 1, images, 0)] == [True, False, False]
    few = {"timesteps": [0, 400], "select": "auto", "splits": ["val"], "batch_size": 64}
    above = few | {"auto_above": counts["val"] - 1}  # of the splits that are embedded
    whole = embedded(made, tmp_path / "whole", **above)
    assert "are more than embed.auto_above" in capsys.readouterr().err
    chosen = embedded(made, tmp_path / "chosen", **(few | {"timesteps": "auto"}))
    assert whole.fingerprint == chosen.fingerprint
    for number in range(2):
        embed.run(EmbedSettings(**above, part=[number, 2]), made / "dataset", made / "model", tmp_path / f"part{number}")
    join(EmbedSettings(**above), [tmp_path / "part0", tmp_path / "part1"], tmp_path / "joined")
    assert artifact.read(tmp_path / "joined", "embeddings").fingerprint == whole.fingerprint
    for part in split(EmbedSettings(**above)):  # a task a timestep was asked for: the list stands
        embed.run(part, made / "dataset", made / "model", tmp_path / f"t{part.timesteps[0]}")
    join(EmbedSettings(**above), [tmp_path / "t0", tmp_path / "t400"], tmp_path / "listed")
    assert artifact.read(tmp_path / "listed", "embeddings").json("embeddings.json")["timesteps"] == [0, 400]


@pytest.mark.parametrize("timesteps", ["auto", [0, 100, 300, 600]])
def test_several_t_side_by_side_are_probed_and_served(
    made: Path, tmp_path: Path, timesteps: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three embeddings as one is what is judged; beside it the same reduced to one embedding's size, and the best single t."""
    read = embedded(made, tmp_path / "embeddings", timesteps=timesteps, k=3)
    probing = ProbeSettings(c_grid=[0.01, 0.1], baselines=["pixels"], bootstrap=100)
    probe.run(probing, made / "dataset", made / "model", tmp_path / "embeddings", tmp_path / "probe")
    found = artifact.read(tmp_path / "probe", "probe")
    metrics = found.json("metrics.json")
    assert len(metrics["timesteps"]) == 3
    assert metrics["t"] in metrics["timesteps"]
    assert set(metrics["timesteps"]) <= set(read.json("embeddings.json")["timesteps"])
    assert set(metrics["baselines"]) == {"dier_one_t", "dier_k_pca", "pixels"}
    assert metrics["baselines"]["dier_one_t"]["t"] == metrics["t"]
    assert "16 components" in metrics["baselines"]["dier_k_pca"]["variant"]
    assert any("DiER at its best single t" in sentence for sentence in metrics["conclusions"])
    weights = load_file(tmp_path / "probe" / "classifier.safetensors")
    assert weights["weight"].shape == (10, 3 * 16)
    serving = _serving(metrics)
    assert output_sizes({"embed_dim": 16}, serving) == {"embedding": 3 * 16, "probabilities": 10}
    package = copy_package(_package_source(), tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    files = _stage(artifact.read(made / "model", "model"), found, serving | {"package": package.name}, tmp_path / "files")
    served, test = ServedModel(), open_dataset(made / "dataset").split("test")
    served.load_context(SimpleNamespace(artifacts={"files": str(files)}))
    given = served.predict(None, test.images)
    v = np.concatenate([store.read(read, "test", t) for t in metrics["timesteps"]], axis=1)
    np.testing.assert_allclose(given["embedding"], v, rtol=1e-4, atol=1e-5)
    right = given["probabilities"].argmax(1) == test.labels
    assert right.mean() == pytest.approx(metrics["test"]["accuracy"]["value"], abs=0.01)
