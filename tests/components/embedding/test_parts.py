"""embed in parts: joined, they are the artifact that one embed makes, to the last byte. Real digits and a real small model.

embed t = 0 ──┐
embed t = 400 ┼── join ── same fingerprint ── embed t = 400, 0, 999
embed t = 999 ┘
"""

import filecmp
import json
import shutil
from pathlib import Path

import pytest

from components import embed, prepare
from components.common import artifact
from components.common.errors import ArtifactError
from components.common.settings import DataSettings, EmbedSettings
from components.embedding.parts import join, split
from model.config import ModelConfig
from model.dier import DiER
from model.weights import save_model
from pipeline import cli

WHOLE = EmbedSettings(timesteps=[400, 0, 999], splits=["train", "test"], dtype="float16", batch_size=64)


def a_model(folder: Path, seed: int) -> Path:
    """A real network of the digits' shape as train would leave it, untrained: embeddings differ from seed to seed all the same."""
    network = DiER(ModelConfig(1, 32, 2, image_height=8, image_width=8, channels=1, patch_size=2, embed_dim=16, init_seed=seed))
    with artifact.create(folder, "model", {}) as place:
        save_model(place, network, network.state_dict())
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with dataset, two models, the whole embeddings, and those of each timestep."""
    folder = tmp_path_factory.mktemp("parts")
    prepare.run(data_settings=DataSettings(limit=150), out=folder / "dataset")
    a_model(folder / "model", 0)
    a_model(folder / "other-model", 1)
    embed.run(WHOLE, folder / "dataset", folder / "model", folder / "whole")
    for part in split(WHOLE):
        embed.run(part, folder / "dataset", folder / "model", folder / f"t{part.timesteps[0]}")
    return folder


def parts_of(made: Path) -> list[Path]:
    return [made / f"t{t}" for t in sorted(WHOLE.timesteps)]


def test_the_settings_are_split_by_timestep_and_otherwise_the_same() -> None:
    parts = split(WHOLE)
    assert [part.timesteps for part in parts] == [[400], [0], [999]]
    assert all(part.model_copy(update={"timesteps": WHOLE.timesteps}) == WHOLE for part in parts)


def test_the_parts_joined_are_the_whole_bit_for_bit(made: Path, tmp_path: Path) -> None:
    join(WHOLE, parts_of(made), tmp_path / "joined")
    joined, whole = (artifact.read(place, "embeddings") for place in (tmp_path / "joined", made / "whole"))
    assert joined.fingerprint == whole.fingerprint
    files = [str(file.relative_to(made / "whole")) for file in (made / "whole").rglob("*") if file.is_file()]
    assert len(files) == 2 * 3 + 2
    assert filecmp.cmpfiles(made / "whole", tmp_path / "joined", files, shallow=False) == (files, [], [])


def test_the_commands_do_the_same(made: Path, tmp_path: Path) -> None:
    settings = json.dumps(
        {"embed": WHOLE.model_dump(mode="json") | {"timesteps": [400.0, 0.0, 999.0]}}
    )  # as Kubeflow hands them over
    assert cli.main(["embed-split", "--params", settings, "--out", str(tmp_path / "some" / "list")]) == 0
    sections = json.loads((tmp_path / "some" / "list").read_text())
    assert [EmbedSettings.model_validate(section) for section in sections] == split(WHOLE)
    parts = [word for part in parts_of(made) for word in ("--parts", str(part))]
    assert cli.main(["embed-join", "--params", settings, *parts, "--out", str(tmp_path / "joined")]) == 0
    assert artifact.read(tmp_path / "joined", "embeddings").fingerprint == artifact.read(made / "whole", "embeddings").fingerprint


def refused(settings: EmbedSettings, parts: list[Path], tmp_path: Path) -> str:
    with pytest.raises(ArtifactError) as caught:
        join(settings, parts, tmp_path / "joined")
    assert not list(tmp_path.glob("*joined*"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_a_double_and_an_odd_timestep_are_refused(made: Path, tmp_path: Path) -> None:
    zero, middle, last = parts_of(made)
    assert "lack t = 999" in refused(WHOLE, [zero, middle], tmp_path)
    assert "hold twice t = 0" in refused(WHOLE, [zero, middle, last, zero], tmp_path)
    fewer = WHOLE.model_copy(update={"timesteps": [0, 400]})
    assert "beside those of embed.timesteps, t = 999" in refused(fewer, [zero, middle, last], tmp_path)


def test_parts_of_another_model_or_dataset_are_refused(made: Path, tmp_path: Path) -> None:
    zero, middle, _ = parts_of(made)
    last = WHOLE.model_copy(update={"timesteps": [999]})
    embed.run(last, made / "dataset", made / "other-model", tmp_path / "other")
    said = refused(WHOLE, [zero, middle, tmp_path / "other"], tmp_path)
    assert f"{tmp_path / 'other'} was made from the model" in said
    prepare.run(data_settings=DataSettings(limit=150, seed=1), out=tmp_path / "dataset")
    embed.run(last, tmp_path / "dataset", made / "model", tmp_path / "elsewhere")
    assert "was made from the dataset" in refused(WHOLE, [zero, middle, tmp_path / "elsewhere"], tmp_path)


def test_parts_of_other_settings_are_refused(made: Path, tmp_path: Path) -> None:
    zero, middle, _ = parts_of(made)
    embed.run(EmbedSettings(timesteps=[999], splits=["train", "test"]), made / "dataset", made / "model", tmp_path / "f32")
    assert "has dtype float32 where float16 is needed" in refused(WHOLE, [zero, middle, tmp_path / "f32"], tmp_path)
    wanted = WHOLE.model_copy(update={"splits": ["train", "val", "test"]})
    assert "has splits ['train', 'test'] where" in refused(wanted, parts_of(made), tmp_path)


def test_a_damaged_or_a_missing_part_is_refused(made: Path, tmp_path: Path) -> None:
    zero, middle, last = parts_of(made)
    shutil.copytree(last, tmp_path / "last")
    with (tmp_path / "last" / "test" / "t999.parquet").open("r+b") as file:
        file.seek(300)
        file.write(b"\xff\x00\xff")
    assert "test/t999.parquet does not match its sha256" in refused(WHOLE, [zero, middle, tmp_path / "last"], tmp_path)
    assert "no embeddings artifact" in refused(WHOLE, [zero, middle, tmp_path / "nowhere"], tmp_path)
    assert cli.main(["embed-join", "--params", "{}", "--parts", str(tmp_path / "nowhere"), "--out", str(tmp_path / "joined")]) == 3
