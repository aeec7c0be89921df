"""Every setting, its type, default, unit and meaning: the schema of `params.yaml`.

A step is handed the sections that `pipeline/steps.py` names for it, and so cannot depend on others; for DVC they stand in
`dvc.yaml`. Contradictions between fields are refused here, before any work.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, Field, GetCoreSchemaHandler, ValidationError, model_validator
from pydantic_core import CoreSchema, core_schema

from components.common.errors import SettingsError
from components.probing.baselines import DEFAULT as DEFAULT_BASELINES
from components.probing.baselines import BaselineName
from data.sources import DOWNLOADS, SOURCES
from data.store import is_place
from model.config import (
    CONDITIONS,
    ENCODERS,
    FLAT_TOKENS,
    MODULATIONS,
    NUM_TIMESTEPS,
    POOLS,
    PREDICTIONS,
    SCHEDULES,
    SIZES,
    STEMS,
    check_parts,
    largest_rank,
)
from model.training.fields import Float as Float
from model.training.fields import Int as Int
from model.training.fields import Section as Section
from model.training.fields import Share as Share
from model.training.options import TrainConfig

NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)
"""What PyYAML raises for text that it cannot read; ValueError for dates such as 2024-13-45, RecursionError for deep nesting."""
DIGITS_CANVAS = 16
"""Where a digit fills a quarter of its canvas, reading it takes more than its pixels."""
NEAR_DUPLICATE_DISTANCE = 0.08
"""Below this prepare keeps images on one side of a split, and validate counts them."""

Timestep = Annotated[Int, Field(ge=0, lt=NUM_TIMESTEPS)]


def _auto(value: Any) -> Any:
    """`auto` is kept as no timestep at all: a parameter of Kubeflow is a list or a text, never either."""
    return [] if value == "auto" else value


class OneOf:
    """`Annotated[str, OneOf(TABLE)]`: text that is one of the names in a table, which then stand nowhere else."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = list(names)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.literal_schema(self._names)


class DataSettings(Section):
    """Which images."""

    source: Annotated[str, OneOf(SOURCES)] = Field("digits", description="where the images come from")
    name: str = Field(
        "digits", description="name of the set; for medmnist its flag, for torchvision its class, such as FashionMNIST"
    )
    path: str = Field(DOWNLOADS, description="npz file, image folder, or folder of downloads; dvc repro sees when it changes")
    image_size: Annotated[Int, Field(ge=4, le=1024)] | None = Field(
        None, description="pixels a side after resizing; for medmnist picks the file (28, 64, 128, 224); null = as it is"
    )
    channels: Literal[1, 3] | None = Field(None, description="convert to grey (1) or colour (3); null = as it is")
    canvas: Annotated[Int, Field(ge=4, le=1024)] | Literal["auto"] | None = Field(
        None,
        description=f"pixels a side of a blank canvas on which each image is pasted at random places; auto = {DIGITS_CANVAS} for the bundled digits, none for other sets; null = none",
    )
    copies: Int = Field(1, ge=1, le=100, description="places on a canvas of its own that each image is pasted at, with data.canvas")
    limit: Annotated[Int, Field(ge=1)] | None = Field(
        None, description="images per split, the first ones, counted before data.copies; null = all"
    )
    val_fraction: Share = Field(0.2, description="share of train that becomes val where a set has none (stratified, seeded)")
    test_fraction: Share = Field(0.2, description="share that becomes test where a set has no official one (digits)")
    licence: str = Field("unknown", description="licence of npz and folder sets, recorded with the data")
    seed: Int = Field(0, ge=0, description="seed of the splits made here, and of the places on a canvas")
    group: str | None = Field(
        None,
        description=r"what stays on one side of a split made here: for folder a pattern over file names, such as patient(\d+); for npz the name of an array, such as train_groups; null = nothing",
    )
    near_duplicate_distance: Share = Field(
        NEAR_DUPLICATE_DISTANCE,
        description="and so do copies and near-duplicates, as validate.near_duplicate_distance measures them; 0 = do not look",
    )

    shard_mb: Annotated[Int, Field(ge=1, le=1024)] | None = Field(
        None, description="MB of pixels a shard (Parquet) for sets that outgrow a disk; null = one array a split"
    )
    store: str | None = Field(
        None,
        description="where shards lie: a folder that every machine has, or s3://bucket/prefix (AWS_* and AWS_ENDPOINT_URL apply); null = in the artifact",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "DataSettings":
        if self.store is not None and self.shard_mb is None:
            raise ValueError("data.store holds shards, and data.shard_mb is null: set it, 64 say, or set data.store to null")
        if self.store is not None and not is_place(self.store):
            raise ValueError(
                "data.store is a folder, or s3://bucket/prefix with no key in it: keys go into AWS_ACCESS_KEY_ID and so on"
            )
        if self.canvas is None and self.copies > 1:
            raise ValueError(
                f"data.copies {self.copies} without data.canvas would be the same images again: set a canvas, or copies to 1"
            )
        if isinstance(self.canvas, int) and self.image_size is not None and self.image_size >= self.canvas:
            raise ValueError(f"data.canvas {self.canvas} must be larger than data.image_size {self.image_size}: change one of them")
        if self.source in ("npz", "folder") and self.path == DOWNLOADS:
            raise ValueError(f"data.source {self.source} needs data.path: give the file or folder")
        if self.source == "medmnist" and self.image_size not in (None, 28, 64, 128, 224):
            raise ValueError(f"data.image_size {self.image_size} is no MedMNIST size: use 28, 64, 128 or 224")
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("data.val_fraction + data.test_fraction must be below 1: nothing would be left to train on")
        return self

    def pasted(self) -> tuple[int | None, int]:
        """Pixels a side of the canvas, None without one, and copies: with what `canvas: auto` is for this source."""
        on_its_own = DIGITS_CANVAS if self.source == "digits" else None
        canvas = on_its_own if self.canvas == "auto" else self.canvas
        return canvas, 1 if canvas is None else self.copies


class ValidateSettings(Section):
    """What the data must satisfy. Shares are of the images of a split unless said otherwise; each split is held to the limit."""

    max_blank_share: Share = Field(0.0, description="error above this share of blank images (every pixel 0)")
    max_constant_share: Share = Field(0.0, description="error above this share of constant images (one value, not 0)")
    saturated_pixel_share: Share = Field(0.9, description="an image counts as saturated above this share of values at 255")
    max_saturated_share: Share = Field(0.01, description="warning above this share of saturated images")
    max_duplicate_share: Share = Field(0.01, description="warning above this share of exact copies inside a split")
    max_leak_share: Share = Field(
        0.001, description="error above this share of val that stands byte for byte in train, or of test in train or val"
    )
    near_duplicate_distance: Share = Field(
        NEAR_DUPLICATE_DISTANCE,
        description="near-duplicates: less than this share of the contrast (sqrt(1 - r^2)) is left unexplained after alignment",
    )
    warn_near_duplicate_share: Share = Field(
        0.01, description="warning above this share of val with a near-duplicate in train, or of test with one in train or val"
    )
    max_near_duplicate_share: Share = Field(0.1, description="error above this share of the same")
    max_class_shift: Share = Field(
        0.1,
        description="warning above this total-variation distance of class shares, val or test to train (multi-label: of the worst label)",
    )
    max_pixel_shift: Float = Field(
        0.5,
        ge=0,
        description="warning above this shift of mean brightness or contrast, val or test to train, in train's standard deviations",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "ValidateSettings":
        warn, fail = self.warn_near_duplicate_share, self.max_near_duplicate_share
        if warn > fail:
            raise ValueError(
                f"validate.warn_near_duplicate_share {warn} is above validate.max_near_duplicate_share {fail}: it would never warn; lower it"
            )
        return self


class ModelSettings(Section):
    """The two networks."""

    size: Annotated[str, OneOf(SIZES)] = Field("demo", description="depth x width x heads of encoder and denoiser")
    depth: Annotated[Int, Field(ge=1, le=64)] | None = Field(None, description="blocks a network; null = what the size says")
    width: Annotated[Int, Field(ge=16)] | None = Field(None, description="width of a token; null = what the size says")
    heads: Annotated[Int, Field(ge=1)] | None = Field(None, description="attention heads; null = what the size says")
    encoder: Annotated[str, OneOf(ENCODERS)] = Field(
        "vit",
        description="vit, or resnet: four stages of a quarter, a half, the whole and the whole width, after a frozen whitening of the training images; t joins by FiLM",
    )
    stem: Annotated[str, OneOf(STEMS)] = Field(
        "patch", description="what a vit encoder's tokens come from: a matrix a patch, or 3x3 convolutions of stride 2 (conv)"
    )
    denoiser_depth: Annotated[Int, Field(ge=1, le=64)] | None = Field(
        None, description="blocks of the denoiser; null = as the encoder"
    )
    denoiser_width: Annotated[Int, Field(ge=16)] | None = Field(
        None, description="width of the denoiser's tokens, whose heads are as wide as the encoder's; null = as the encoder"
    )
    condition: Annotated[str, OneOf(CONDITIONS)] = Field(
        "shared",
        description="how v_t reaches the denoiser's blocks: joined with t, through as many numbers as the width, or modulating each block apart from t (block)",
    )
    condition_dim: Annotated[Int, Field(ge=1)] | None = Field(
        None, description="numbers that v_t goes through on its way into the denoiser: the rank of that map; null = none between"
    )
    patch_size: Int = Field(2, ge=1, description="pixels a side of a patch; the image size must be a multiple")
    embed_dim: Int = Field(128, ge=2, description="numbers in an embedding v_t")
    pool: Annotated[str, OneOf(POOLS)] = Field(
        "mean",
        description=f"what the head reads: the tokens' mean, all of them (flat, up to {FLAT_TOKENS}), means over a 2x2 grid, or an average with learned weights (attention)",
    )
    embed_norm: bool = Field(True, description="layer-normalise v_t (no scale, no shift)")
    encoder_time: bool = Field(True, description="condition the encoder on t; false is the ablation")
    modulation: Annotated[str, OneOf(MODULATIONS)] = Field(
        "full",
        description="where a block's shifts, scales and gates come from: full = a matrix a block (a third of all weights), single = one a network, low_rank = a thin one a block",
    )
    modulation_rank: Int = Field(64, ge=1, description="numbers in the bottleneck of modulation low_rank")
    schedule: Annotated[str, OneOf(SCHEDULES)] = Field(
        "linear", description="how noise grows with t; cosine spends fewer steps on almost nothing but noise"
    )
    prediction: Annotated[str, OneOf(("auto", *PREDICTIONS))] = Field(
        "x0",
        description="what the denoiser predicts: the noise (eps), v (a mix of noise and image), or the clean image; auto = x0 where a patch has more numbers than the width, else eps",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "ModelSettings":
        width = self.width or SIZES[self.size].dim
        width = min(width, self.denoiser_width or width)
        if problem := check_parts(self.encoder, self.stem, self.patch_size, self.condition_dim, self.embed_dim):
            raise ValueError(problem)
        if self.modulation == "low_rank" and self.modulation_rank > largest_rank(width):
            raise ValueError(
                f"model.modulation_rank {self.modulation_rank} saves nothing at width {width}: "
                f"use at most {largest_rank(width)}, or model.modulation full"
            )
        return self


class TrainSettings(TrainConfig):
    """How the model is trained."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto = cuda where there is one")
    compile: Literal["auto", "on", "off"] = Field(
        "auto",
        description="torch.compile of the blocks; auto = where a compiler is installed and the run is long enough to repay it",
    )
    fsdp: Literal["auto", "on", "off"] = Field(
        "auto",
        description="weights, gradients, optimizer state and average in shards over the processes (FSDP2); auto = on GPUs of whose memory they would take more than a quarter",
    )
    probe_every: Int = Field(
        0,
        ge=0,
        description="steps between evaluations of the embeddings on val (shuffled-v_t gap, small linear probe); 0 = none",
    )
    keep: Literal["last", "best_probe"] = Field(
        "last",
        description="weights that are exported: the last step's, or those of the evaluation (train.probe_every, and the last step) whose probe on val was best: labels choose then",
    )
    deterministic: bool = Field(
        False, description="on CUDA, the same bits from run to run, at some cost in speed; on the CPU float32 is so anyway"
    )
    min_gap: Float = Field(
        1.01,
        ge=0,
        description="dead encoder: shuffling v_t raises the loss less than this factor at every t, which is said at the end and recorded with the model; 0 = no check",
    )

    @model_validator(mode="after")
    def _probe_chooses(self) -> "TrainSettings":
        if self.keep == "best_probe" and not self.probe_every:
            raise ValueError(
                "train.keep best_probe chooses among the evaluations of train.probe_every, which is 0: set it, for example to 500"
            )
        return self


class EmbedSettings(Section):
    """Which embeddings are exported."""

    timesteps: Annotated[list[Timestep], BeforeValidator(_auto)] = Field(
        [0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 999],
        description="timesteps t, 0 .. 999; auto (or []) = embed.k of them, chosen by embed.select",
    )
    select: Literal["auto", "sweep", "golden", "halving", "amortised", "label_free"] = Field(
        "auto",
        description="how timesteps are chosen, on a few thousand images: by small probes on val at 12 t (sweep), at some of them (golden section or successive halving over log-SNR) or by one probe for all t (amortised); or without labels; auto = halving, and label_free where labels tell nothing apart",
    )
    auto_above: Int = Field(
        100_000,
        ge=0,
        description="to embed more images than this, timesteps are chosen as by auto, whatever list embed.timesteps has, which takes some percent of the time of embedding and probing them all at each; 0 = never",
    )
    k: Int = Field(
        1,
        ge=1,
        le=6,
        description="timesteps side by side as one embedding: with auto the best t and its neighbours 2.5 apart in log-SNR, else the best of embed.timesteps on val and the nearest to such",
    )
    splits: list[Literal["train", "val", "test"]] = Field(["train", "val", "test"], min_length=1, description="splits to embed")
    dtype: Literal["float16", "float32"] = Field("float32", description="number format on disk")
    batch_size: Int = Field(500, ge=1, description="images at a time")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto = cuda where there is one")
    precision: Literal["float32", "bf16"] = Field("float32", description="bf16 = autocast with float32 weights")
    compile: Literal["auto", "on", "off"] = Field(
        "auto",
        description="torch.compile of the blocks; auto = where a compiler is installed and a timestep is long enough to repay it",
    )
    part: list[Int] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="[k, n] = every n-th file of images from the k-th on (0 <= k < n), for dier embed-join; null = all",
    )

    def chooses(self, images: int) -> bool:
        """Whether embed chooses the timesteps where it embeds so many images: as asked, or as there are too many for a list."""
        return not self.timesteps or 0 < self.auto_above < images

    @model_validator(mode="after")
    def _consistent(self) -> "EmbedSettings":
        if self.part is not None and not 0 <= self.part[0] < self.part[1]:
            raise ValueError(f"embed.part {self.part} is no [k, n] with 0 <= k < n: the parts of 4 are [0, 4] to [3, 4]")
        if self.timesteps and self.k > len(self.timesteps):
            raise ValueError(f"embed.k {self.k} is more than the {len(self.timesteps)} embed.timesteps: lower it, or name more")
        for name in ("timesteps", "splits"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ValueError(f"embed.{name} {values} names one twice: remove it")
        return self


class ProbeSettings(Section):
    """The linear probe. t, C and PCA's components are chosen on val; test is read once."""

    c_grid: list[Annotated[Float, Field(gt=0)]] = Field(
        [0.01, 0.1, 1.0, 10.0], min_length=1, description="inverse L2 strengths tried on val"
    )
    max_iter: Int = Field(300, ge=1, description="iterations of L-BFGS at most")
    train_limit: Annotated[Int, Field(ge=10)] | None = Field(
        None, description="training images that probes are fitted on (seeded choice); null = all, of more than 100,000 so many"
    )
    baselines: list[BaselineName] = Field(list(DEFAULT_BASELINES), description="representations probed beside DiER")
    baseline_timesteps: list[Timestep] = Field(
        [0, 10, 20, 50, 100, 300, 500], min_length=1, description="timesteps at which the denoiser's layers are probed"
    )
    denoiser_blocks: list[Annotated[Int, Field(ge=0)]] | None = Field(
        None, description="denoiser blocks probed, from 0; null = up to three, evenly spaced"
    )
    bootstrap: Int = Field(2000, ge=100, description="resamples behind each 95 % interval")
    reference: Int = Field(
        2000,
        ge=0,
        le=20_000,
        description="training images whose embeddings go into a registered version, for dier monitor to compare new ones with; 0 = none",
    )
    seed: Int = Field(0, ge=0, description="seed of the bootstrap, of the halves of val and of the choice of training images")


class RegisterSettings(Section):
    """The registry and its gate."""

    name: str = Field("dier", min_length=1, pattern=r"^[A-Za-z0-9_.-]+$", description="registered model name")
    policy: Literal["manual", "auto"] = Field(
        "manual", description="auto moves champion when the gate passes; manual sets candidate"
    )
    min_accuracy: Share = Field(0.8, description="lowest test accuracy that passes the gate")
    min_kept: Share = Field(
        0.05,
        description="where labels tell nothing apart: lowest share of its nearest training images that a test image keeps under mild views, its 95 % interval has to lie above",
    )
    min_rank: Float = Field(
        2.0, ge=1, description="and lowest effective rank of the test embeddings: a collapsed encoder gives 1, or little more"
    )
    margin: Share = Field(
        0.03,
        description="test accuracy (without labels: share of neighbours kept) that a new version may lose to the champion: the 95 % interval of the paired difference has to lie above -margin",
    )
    sample: Literal["auto", "images", "embeddings"] = Field(
        "auto",
        description="what of some test images a version carries, for dier verify: images and embeddings, or embeddings alone; auto = images too where the licence of the data is known",
    )
    experiment: str = Field("dier", min_length=1, description="MLflow experiment")
    model_registry: str | None = Field(
        None,
        pattern=r"^https?://[^\s@?#]+$",
        description="URL of Kubeflow's Model Registry, where what the gate lets pass is registered as well; null = in MLflow alone",
    )

    @model_validator(mode="after")
    def _not_a_record(self) -> "RegisterSettings":
        if self.name.endswith(".promotions"):
            raise ValueError(
                f"register.name {self.name} is where the promotions of {self.name.removesuffix('.promotions')} are recorded: "
                "choose a name that does not end in .promotions"
            )
        return self


class Settings(Section):
    """The whole of `params.yaml`."""

    data: DataSettings = DataSettings()
    validate_: ValidateSettings = Field(ValidateSettings(), alias="validate")
    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    embed: EmbedSettings = EmbedSettings()
    probe: ProbeSettings = ProbeSettings()
    register_: RegisterSettings = Field(RegisterSettings(), alias="register")

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        canvas, patch = self.data.pasted()[0], self.model.patch_size
        key, size = ("data.image_size", self.data.image_size) if canvas is None else ("data.canvas", canvas)
        if size is not None and size % patch:
            raise ValueError(f"{key} {size} is not a multiple of model.patch_size {patch}: change one of them")
        if size is not None and self.model.encoder == "vit" and self.model.pool == "flat" and (size // patch) ** 2 > FLAT_TOKENS:
            raise ValueError(
                f"model.pool flat takes up to {FLAT_TOKENS} tokens, and {key} {size} in patches of {patch} "
                f"(model.patch_size) has {(size // patch) ** 2}: use grid or attention, or larger patches"
            )
        return self

    def section(self, name: str) -> Section:
        """The section `name` as it stands in params.yaml (two of them clash with pydantic's own names)."""
        found: Section = getattr(self, name + "_" if name in ("validate", "register") else name)
        return found


SECTIONS = tuple(field.alias or name for name, field in Settings.model_fields.items())


def load(source: Path | str, overrides: list[str] | None = None) -> Settings:
    """Read a params file, or JSON text of sections as Kubeflow hands it over, and apply `section.key=value` overrides.

    Raises SettingsError with one line.
    """
    path = "--params" if str(source).startswith("{") else source
    raw = parse_yaml(str(source), "--params") if path == "--params" else read_yaml(Path(source), "params")
    if not isinstance(raw, dict) or not all(isinstance(v, dict) for v in raw.values()):
        raise SettingsError(f"{path} must map sections ({', '.join(SECTIONS)}) to settings; see dier params")
    for text in overrides or []:
        override(raw, text)
    return parse(raw, str(path))


def read_yaml(file: Path, what: str) -> Any:
    """What a YAML file holds; `what` is its name to people and its option. Raises SettingsError with one line."""
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read the {what} file {file}: {error}; give one with --{what}") from error
    return parse_yaml(text, str(file))


def parse_yaml(text: str, where: str) -> Any:
    """What YAML text holds; `where` it stands is for people. Raises SettingsError with one line."""
    try:
        return yaml.safe_load(text)
    except NOT_YAML as error:
        raise SettingsError(f"{where} is not YAML: {why_not_yaml(error)}; mend it") from error


def why_not_yaml(error: Exception) -> str:
    """One of `NOT_YAML` in a few words."""
    return "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())


def parse(raw: dict[str, Any], where: str) -> Settings:
    """Check a mapping of sections. Raises SettingsError naming the first offending key, its value and the cure."""
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        raise SettingsError(f"{where}: {first_problem(error, 'dier params lists every one')}") from error


def first_problem(error: ValidationError, where_to_look: str) -> str:
    """The first of pydantic's findings in one line: the key, its value, what is wrong."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = f"unknown setting; {where_to_look}"
    shown = re.sub(r"(?<=://)[^/\s]*@", "[...]@", repr(first["input"]))  # an address may hold a password
    value = "" if isinstance(first["input"], (dict, BaseModel)) else f" = {shown}"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{key + value + ': ' if key else ''}{message}{more}"


def override(raw: dict[str, Any], text: str, option: str = "--set") -> None:
    """Apply one `section.key=value` to a mapping of sections, in place. Raises SettingsError naming `option`."""
    key, equals, value = text.partition("=")
    section, dot, name = key.strip().partition(".")
    if not (equals and dot and name):
        raise SettingsError(f"{option} {text!r} is not section.key=value, for example train.steps=500")
    try:
        parsed = yaml.safe_load(value)
    except NOT_YAML as error:
        if not _takes_text(section, name):
            raise SettingsError(f"{option} {text!r}: the value is not YAML; quote it") from error
        parsed = value.strip()
    if not isinstance(parsed, str) and _takes_text(section, name, parsed):
        parsed = value.strip()  # on, off, yes, 2024-01-01: what YAML takes for something else is meant as it stands
    raw.setdefault(section, {})[name] = parsed


def _takes_text(section: str, name: str, instead: Any = "") -> bool:
    """Whether the setting is text by its type, and does not allow `instead` (null, which some may be) as it is."""
    fields = {field.alias or key: field.annotation for key, field in Settings.model_fields.items()}
    known = getattr(fields.get(section), "model_fields", {})
    annotation = known[name].annotation if name in known else None
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    if instead is None and NoneType in kinds:
        return False
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    return str in kinds or any(isinstance(choice, str) for choice in choices)
