"""embed in parts: joined, they are the artifact that one embed makes, to the last byte. Real digits and a real small model.

embed t = 0 ──┐
embed t = 400 ┼── join ── same fingerprint ── embed t = 400, 0, 999
embed t = 999 ┘

And with the images in shards, embed t = 0, part 0 of 3, and so on.
"""

import filecmp
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from components import embed, prepare
from components.common import artifact
from components.common.errors import ArtifactError, SettingsError
from components.common.settings import DataSettings, EmbedSettings
from components.embedding import store
from components.embedding.parts import join, split
from data.format import Split
from model.config import ModelConfig
from model.dier import DiER
from model.training.compiling import LEAST_WORK, choose_compile
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
    assert all(part.model_copy(update={"timesteps": WHOLE.timesteps, "auto_above": WHOLE.auto_above}) == WHOLE for part in parts)


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


# images in shards


SHARD = 40
"""Images a shard in these tests: of 150 images four shards, the last of 30; batches of 16 would cross them."""
SHARDED = EmbedSettings(timesteps=[400, 0], splits=["train", "test"], batch_size=16)


@pytest.fixture
def in_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain dataset, said to lie in shards: a split tells the same of its images where it really does."""
    starts = range(0, 150, SHARD)
    monkeypatch.setattr(Split, "shards", property(lambda split: tuple(slice(s, min(s + SHARD, len(split))) for s in starts)))


@pytest.fixture
def whole(made: Path, in_shards: None, tmp_path: Path) -> Path:
    embed.run(SHARDED, made / "dataset", made / "model", tmp_path / "whole")
    return tmp_path / "whole"


def in_parts(made: Path, tmp_path: Path, parts: int, settings: EmbedSettings = SHARDED) -> list[Path]:
    """Every part embedded by itself, in the order in which embed-split names them."""
    places = []
    for number, section in enumerate(split(settings, parts)):
        places.append(tmp_path / f"{parts}-{number}")
        embed.run(section, made / "dataset", made / "model", places[-1])
    return places


def test_the_settings_are_split_by_timestep_and_part() -> None:
    assert [(one.timesteps, one.part) for one in split(SHARDED, 2)] == [
        ([400], [0, 2]),
        ([400], [1, 2]),
        ([0], [0, 2]),
        ([0], [1, 2]),
    ]
    with pytest.raises(SettingsError, match=r"embed\.part is \[0, 2\]"):
        split(SHARDED.model_copy(update={"part": [0, 2]}), 2)


def test_a_shard_has_a_file_of_its_own_with_what_one_file_would_hold(made: Path, whole: Path, tmp_path: Path) -> None:
    read = artifact.read(whole, "embeddings")
    names = [str(file.relative_to(whole)) for file in store.files_of(whole, "test", 0)]
    assert names == [f"test/t000/0000{number}.parquet" for number in range(4)]
    plain = artifact.read(made / "whole", "embeddings")
    for t in SHARDED.timesteps:
        v = store.read(read, "test", t)
        np.testing.assert_allclose(v, store.read(plain, "test", t), atol=2e-3)  # float16 there, and batches of 64
        rows = np.array([0, 39, 40, 149])
        np.testing.assert_array_equal(store.read(read, "test", t, rows), v[rows])


@pytest.mark.parametrize("parts", [1, 3, 9])
def test_parts_of_shards_joined_are_the_whole_bit_for_bit(
    made: Path, whole: Path, tmp_path: Path, parts: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eight shards of two splits: the ninth part has none, says so, and is joined as the others are."""
    places = in_parts(made, tmp_path, parts)
    assert ("part 8 of 9 has nothing to do: the splits train, test are 8 files" in capsys.readouterr().err) == (parts == 9)
    join(SHARDED, places[::-1], tmp_path / "joined")
    assert artifact.read(tmp_path / "joined", "embeddings").fingerprint == artifact.read(whole, "embeddings").fingerprint


def test_parts_may_be_divided_otherwise_at_another_timestep(made: Path, whole: Path, tmp_path: Path) -> None:
    two = in_parts(made, tmp_path, 2, SHARDED.model_copy(update={"timesteps": [400]}))
    three = in_parts(made, tmp_path, 3, SHARDED.model_copy(update={"timesteps": [0]}))
    join(SHARDED, [*two, *three], tmp_path / "joined")
    assert artifact.read(tmp_path / "joined", "embeddings").fingerprint == artifact.read(whole, "embeddings").fingerprint


def test_a_plain_dataset_is_divided_by_its_splits(made: Path, tmp_path: Path) -> None:
    join(WHOLE, in_parts(made, tmp_path, 3, WHOLE), tmp_path / "joined")
    assert artifact.read(tmp_path / "joined", "embeddings").fingerprint == artifact.read(made / "whole", "embeddings").fingerprint


@pytest.fixture
def four(made: Path, in_shards: None, tmp_path: Path) -> list[Path]:
    """Two timesteps of two parts."""
    return in_parts(made, tmp_path, 2)


def test_missing_double_and_odd_parts_are_refused(four: list[Path], made: Path, tmp_path: Path) -> None:
    assert "lack t = 400 (part 1 of 2)" in refused(SHARDED, [four[0], *four[2:]], tmp_path)
    assert "hold twice t = 0 (part 0 of 2)" in refused(SHARDED, [*four, four[2]], tmp_path)
    fewer = SHARDED.model_copy(update={"timesteps": [0]})
    assert "beside those of embed.timesteps, t = 400 (part 0 of 2), 400 (part 1 of 2)" in refused(fewer, four, tmp_path)
    third = SHARDED.model_copy(update={"timesteps": [0], "part": [1, 3]})
    embed.run(third, made / "dataset", made / "model", tmp_path / "third")
    assert "divide the shards at t = 0 into 2 and 3 parts" in refused(SHARDED, [*four[:3], tmp_path / "third"], tmp_path)


def test_a_foreign_or_a_damaged_part_is_refused(four: list[Path], made: Path, tmp_path: Path) -> None:
    *others, last = four
    section = SHARDED.model_copy(update={"timesteps": [0], "part": [1, 2]})
    embed.run(section, made / "dataset", made / "other-model", tmp_path / "other")
    assert f"{tmp_path / 'other'} was made from the model" in refused(SHARDED, [*others, tmp_path / "other"], tmp_path)
    embed.run(section.model_copy(update={"precision": "bf16"}), made / "dataset", made / "model", tmp_path / "bf16")
    assert "has precision bf16 where float32 is needed" in refused(SHARDED, [*others, tmp_path / "bf16"], tmp_path)
    (last / "train" / "t000" / "00001.parquet").write_bytes(b"")
    assert "train/t000/00001.parquet" in refused(SHARDED, four, tmp_path)


def test_a_part_is_not_taken_for_embeddings(four: list[Path]) -> None:
    with pytest.raises(ArtifactError, match="is a embeddings-part artifact where a embeddings artifact is needed"):
        artifact.read(four[0], "embeddings")


@pytest.mark.slow
@pytest.mark.skipif(not choose_compile("auto", torch.device("cpu"), LEAST_WORK)[0], reason="no C++ compiler, or no Python headers")
def test_compiled_parts_are_the_compiled_whole_and_no_short_batch_compiles_anew(made: Path, whole: Path, tmp_path: Path) -> None:
    compiled = SHARDED.model_copy(update={"compile": "on"})
    torch._dynamo.reset()  # what other tests compiled in this process counts as a compilation before
    with torch._dynamo.config.patch(error_on_recompile=True):
        embed.run(compiled, made / "dataset", made / "model", tmp_path / "compiled")
        places = in_parts(made, tmp_path, 2, compiled)
    join(compiled, places, tmp_path / "again")
    joined, one, eager = (artifact.read(place, "embeddings") for place in (tmp_path / "again", tmp_path / "compiled", whole))
    assert joined.fingerprint == one.fingerprint != eager.fingerprint
    assert one.json("embeddings.json") == eager.json("embeddings.json") | {"compiled": True}
    np.testing.assert_allclose(store.read(one, "test", 400), store.read(eager, "test", 400), atol=1e-4)
    plain = split(SHARDED, 2)[0]
    embed.run(plain, made / "dataset", made / "model", tmp_path / "eager part")
    assert "has compiled True where None is needed" in refused(SHARDED, [tmp_path / "eager part", *places[1:]], tmp_path)


def test_every_part_is_compiled_or_none(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What decides is the work of a timestep over all images, not the part's own."""
    asked = set()
    monkeypatch.setattr(embed, "choose_compile", lambda *given: (False, str(asked.add(given))))
    settings = WHOLE.model_copy(update={"timesteps": [0]})
    in_parts(made, tmp_path, 3, settings)
    embed.run(settings, made / "dataset", made / "model", tmp_path / "whole")
    ((wanted, device, work, section),) = asked
    assert (wanted, device.type, section) == ("auto", "cpu", "embed")
    assert work == 2 * 16 * (4 * 32 * 32 + 8 * 32 * 32) * 300


class Counted:
    """Images (N, H, W, C) as a sharded dataset gives them, which say what was read."""

    def __init__(self, images: np.ndarray, read: list[slice]) -> None:
        self.shape, self._images, self._read = images.shape, images, read

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, rows: slice) -> np.ndarray:
        self._read.append(rows)
        return np.asarray(self._images[rows])


def test_each_shard_is_read_once_for_all_timesteps(
    made: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are open at a time."""
    read: list[slice] = []
    opened = embed.open_dataset(made / "dataset")
    splits = {name: opened.split(name) for name in SHARDED.splits}
    counted = {name: Split(split.name, Counted(split.images, read), split.labels) for name, split in splits.items()}  # type: ignore[arg-type]
    monkeypatch.setattr(type(opened), "split", lambda _, name: counted[name])
    monkeypatch.setattr(embed, "MOST_FILES", 1)
    embed.run(SHARDED, made / "dataset", made / "model", tmp_path / "counted")
    assert read == 2 * [slice(0, 40), slice(40, 80), slice(80, 120), slice(120, 150)]
    assert artifact.read(tmp_path / "counted", "embeddings").fingerprint == artifact.read(whole, "embeddings").fingerprint


def test_the_commands_divide_and_join_parts(made: Path, whole: Path, tmp_path: Path) -> None:
    settings = json.dumps({"embed": SHARDED.model_dump(mode="json", exclude_none=True)})
    assert cli.main(["embed-split", "--params", settings, "--parts", "2", "--out", str(tmp_path / "list")]) == 0
    given = ["--dataset", str(made / "dataset"), "--model", str(made / "model")]
    parts: list[str] = []
    for number, section in enumerate(json.loads((tmp_path / "list").read_text())):
        parts += ["--parts", str(tmp_path / str(number))]
        said = json.dumps({"embed": section | {"part": [float(one) for one in section["part"]]}})  # as Kubeflow hands it over
        assert cli.main(["embed", "--params", said, *given, "--out", parts[-1]]) == 0
    assert cli.main(["embed-join", "--params", settings, *parts, "--out", str(tmp_path / "joined")]) == 0
    assert artifact.read(tmp_path / "joined", "embeddings").fingerprint == artifact.read(whole, "embeddings").fingerprint
    assert cli.main(["embed-split", "--params", settings, "--parts", "0", "--out", str(tmp_path / "list")]) == 2
