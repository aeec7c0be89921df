from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from components.common.errors import SettingsError
from components.common.settings import SECTIONS, Settings, load, override, parse
from data.sources import SOURCES
from model.config import CONDITIONS, ENCODERS, MODULATIONS, POOLS, PREDICTIONS, SCHEDULES, SIZES, STEMS

ROOT = Path(__file__).parents[3]
DEEP = "[" * 5000 + "]" * 5000


def test_params_yaml_is_a_preset_and_holds_every_setting() -> None:
    """So that DVC, which tracks what stands in the file, sees every setting there is."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    defaults = Settings()
    for name in SECTIONS:
        assert set(raw[name]) == set(type(defaults.section(name)).model_fields), name
    assert load(ROOT / "params.yaml") == load(ROOT / "pipeline" / "presets" / "scattered-digits.yaml")


@pytest.mark.parametrize("preset", sorted((ROOT / "pipeline" / "presets").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_preset_says_what_differs_and_no_more(preset: Path) -> None:
    settings, defaults = load(preset), Settings()
    for name, section in yaml.safe_load(preset.read_text()).items():
        for key in section:
            assert getattr(settings.section(name), key) != getattr(defaults.section(name), key), f"{name}.{key}"


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ({"train": {"stepz": 5}}, ["train.stepz", "unknown setting", "dier params"]),
        ({"training": {}}, ["training", "unknown setting"]),
        ({"train": {"steps": "many"}}, ["train.steps", "'many'"]),
        ({"train": {"steps": 1.5}}, ["train.steps", "1.5"]),
        ({"train": {"steps": True}}, ["train.steps", "True"]),
        ({"train": {"lr": -1}}, ["train.lr", "-1"]),
        ({"train": {"steps": 10}}, ["train.warmup_steps 200", "train.steps 10"]),
        ({"train": {"keep": "best_probe"}}, ["train.keep best_probe", "train.probe_every", "0"]),
        ({"train": {"mask_ratio": 0.95}}, ["train.mask_ratio", "0.95", "0.9"]),
        ({"train": {"condition_dropout": 1}}, ["train.condition_dropout", "less than 1"]),
        ({"train": {"views": "flip"}}, ["train.views", "'flip'", "crop_flip"]),
        ({"train": {"views": True}}, ["train.views", "True"]),
        ({"train": {"identity_share": 0.2}}, ["train.identity_share 0.2", "train.views off", "set train.views"]),
        ({"train": {"variance_covariance": -1}}, ["train.variance_covariance", "-1"]),
        ({"train": {"loss_weight": "snr"}}, ["train.loss_weight", "'snr'", "min_snr"]),
        ({"model": {"schedule": "sigmoid"}}, ["model.schedule", "'sigmoid'", "cosine"]),
        ({"model": {"prediction": "score"}}, ["model.prediction", "'score'", "x0"]),
        ({"model": {"size": "huge"}}, ["model.size", "'huge'", "tiny"]),
        ({"data": {"image_size": 10}, "model": {"patch_size": 4}}, ["data.image_size 10", "model.patch_size 4"]),
        ({"data": {"image_size": 28}, "model": {"pool": "flat"}}, ["model.pool flat", "64 tokens", "196"]),
        ({"data": {"image_size": 8, "canvas": 14}, "model": {"patch_size": 4}}, ["data.canvas 14", "model.patch_size 4"]),
        ({"data": {"canvas": 32}, "model": {"pool": "flat"}}, ["model.pool flat", "data.canvas 32", "256"]),
        ({"data": {"image_size": 28, "canvas": 28}}, ["data.canvas 28", "data.image_size 28", "larger"]),
        ({"data": {"copies": 6}}, ["data.copies 6", "data.canvas"]),
        ({"model": {"width": 32, "modulation": "low_rank"}}, ["model.modulation_rank 64", "at most 27"]),
        ({"model": {"denoiser_width": 32, "modulation": "low_rank"}}, ["model.modulation_rank 64", "at most 27"]),
        ({"model": {"encoder": "unet"}}, ["model.encoder", "'unet'", "resnet"]),
        ({"model": {"encoder": "resnet", "stem": "conv"}}, ["model.stem conv", "model.encoder vit", "use patch"]),
        ({"model": {"stem": "conv", "patch_size": 1}}, ["model.stem conv", "model.patch_size is 1", "at least 2"]),
        ({"model": {"condition_dim": 129}}, ["model.condition_dim 129", "128 numbers", "model.embed_dim"]),
        ({"model": {"condition": "both"}}, ["model.condition", "'both'", "block"]),
        ({"embed": {"timesteps": [0, 1000]}}, ["embed.timesteps", "1000"]),
        ({"embed": {"timesteps": "some"}}, ["embed.timesteps", "'some'"]),
        ({"embed": {"timesteps": [0, 5], "k": 3}}, ["embed.k 3", "2 embed.timesteps"]),
        ({"embed": {"select": "random"}}, ["embed.select", "'random'", "golden"]),
        ({"embed": {"timesteps": [5, 5]}}, ["embed.timesteps", "twice"]),
        ({"data": {"source": "npz"}}, ["data.source npz", "data.path"]),
        ({"data": {"source": "medmnist", "image_size": 32}}, ["32", "28, 64, 128 or 224"]),
        ({"probe": {"c_grid": [0]}}, ["probe.c_grid", "0"]),
        ({"register": {"name": "dier.promotions"}}, ["register.name dier.promotions", "the promotions of dier are recorded"]),
        ({"register": {"policy": "maybe"}}, ["register.policy", "'maybe'", "manual"]),
    ],
)
def test_bad_settings_are_refused_in_one_line_that_names_them(raw: dict, named: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(raw, "params.yaml")
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in ["params.yaml", *named]), message


@pytest.mark.parametrize(
    ("key", "table"),
    [
        ("data.source", SOURCES),
        ("model.size", SIZES),
        ("model.pool", POOLS),
        ("model.modulation", MODULATIONS),
        ("model.encoder", ENCODERS),
        ("model.stem", STEMS),
        ("model.condition", CONDITIONS),
        ("model.schedule", SCHEDULES),
        ("model.prediction", ("auto", *PREDICTIONS)),
    ],
)
def test_choices_are_those_of_the_table_that_the_code_looks_them_up_in(key: str, table: Iterable[str]) -> None:
    section, name = key.split(".")
    schema = type(Settings().section(section)).model_json_schema()
    assert schema["properties"][name]["enum"] == list(table)


def test_a_resnets_flat_head_reads_its_last_map_and_not_the_patches() -> None:
    assert parse({"data": {"image_size": 28}, "model": {"pool": "flat", "encoder": "resnet"}}, "params.yaml").model.pool == "flat"


def test_overrides_are_typed(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("train: {steps: 500}\n")
    overrides = ["train.steps=700", "train.lr=1e-4", "embed.timesteps=[0, 50]", "data.limit=null", "data.name=x=y"]
    settings = load(tmp_path / "p.yaml", overrides)
    assert (settings.train.steps, settings.train.lr, settings.embed.timesteps) == (700, 1e-4, [0, 50])
    assert (settings.data.limit, settings.data.name) == (None, "x=y")


def test_off_is_a_word_though_yaml_reads_it_as_a_truth_value(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("train: {views: off}\n")
    assert load(tmp_path / "p.yaml").train.views == "off"
    assert load(tmp_path / "p.yaml", ["train.views=crop"]).train.views == "crop"


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("train.compile=on", "on"),
        ("train.compile=off", "off"),
        ("train.views=off", "off"),
        ("data.name=yes", "yes"),
        ("data.name=null", "null"),
        ("data.name=007", "007"),
        ("data.name='quoted'", "quoted"),
        ("data.licence=2024-01-01", "2024-01-01"),
        ("data.licence=[CC BY", "[CC BY"),
        ("data.group=null", None),
        ("data.group=on", "on"),
        ("data.image_size=null", None),
        ("data.channels=3", 3),
        ("train.steps=500", 500),
        ("train.deterministic=on", True),
        ("embed.timesteps=[0, 5]", [0, 5]),
    ],
)
def test_the_type_of_a_setting_says_how_a_value_is_read(tmp_path: Path, override: str, value: object) -> None:
    """Not YAML, for which on, off, yes and null are no text."""
    (tmp_path / "p.yaml").write_text("{}\n")
    section, _, name = override.partition("=")[0].partition(".")
    assert getattr(load(tmp_path / "p.yaml", [override]).section(section), name) == value


@given(
    st.sampled_from(["data.name", "data.path", "data.licence", "data.group"]),
    st.text(st.characters(codec="ascii", exclude_categories=["C"])),
)
def test_a_setting_that_is_text_takes_every_text(key: str, text: str) -> None:
    """As it stands, but for the spaces around it, and for what YAML reads as text as well: quotes, comments."""
    raw: dict = {}
    override(raw, f"{key}={text}")
    section, _, name = key.partition(".")
    value = raw[section][name]
    assert isinstance(value, str) or (value is None and key == "data.group")
    if text and all(char.isalnum() for char in text) and value is not None:
        assert value == text


@pytest.mark.parametrize("choice", ["auto", "on", "off"])
def test_every_choice_can_be_given_as_it_is_listed(choice: str) -> None:
    raw: dict = {}
    override(raw, f"train.compile={choice}", "--param")
    assert parse(raw, "--param").train.compile == choice


@pytest.mark.parametrize(
    "override",
    ["train.steps", "steps=5", "=5", "train.=5", "train.steps=[", "train.nope=1", f"train.steps={DEEP}", "train.steps=2024-13-45"],
    ids=lambda text: text[:20],
)
def test_bad_overrides_are_refused(tmp_path: Path, override: str) -> None:
    (tmp_path / "p.yaml").write_text("train: {steps: 500}\n")
    with pytest.raises(SettingsError):
        load(tmp_path / "p.yaml", [override])


@pytest.mark.parametrize(
    "text",
    [
        *("", "[1, 2]", "train: 5", "a: [", "train: {steps: !!python/object/apply:os.getcwd []}", "\x00"),
        *(f"train: {DEEP}", f'{{"train": {DEEP}}}', "train: {steps: 2024-13-45}"),
    ],
    ids=lambda text: text[:20],
)
def test_files_that_are_no_params_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(tmp_path / "p.yaml")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read the params file"):
        load(tmp_path / "none.yaml")


@given(st.integers(1, 10**6))
def test_a_whole_number_may_arrive_as_a_float(steps: int) -> None:
    """Kubeflow hands every number of a JSON parameter over as a float."""
    assert parse({"train": {"steps": float(steps), "warmup_steps": 0.0}}, "x").train.steps == steps


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=True)
    | st.text(max_size=8)
    | st.lists(st.integers(), max_size=3)
)


@given(st.sampled_from(SECTIONS), st.data())
def test_any_value_is_taken_or_refused_never_a_crash(section: str, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(type(Settings().section(section)).model_fields)))
    try:
        parse({section: {key: data.draw(scalars)}}, "x")
    except SettingsError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(("path", "recorded"), [("/home/ada/scans.npz", "scans.npz"), ("~/deep/folder/", "folder")])
def test_what_an_artifact_keeps_of_the_settings_names_no_place(path: str, recorded: str) -> None:
    data = Settings.model_validate({"data": {"path": path, "seed": 3}}).data
    assert data.record() == data.model_dump() | {"path": recorded}
