"""What a model is built from: the named sizes, and one plain, serialisable configuration."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from .errors import ConfigError

NUM_TIMESTEPS = 1000
"""Length T of the diffusion: a timestep t is in [0, NUM_TIMESTEPS)."""
POOLS = ("mean", "flat", "grid", "attention")
"""What the encoder's head reads of its tokens: `model.pooling`."""
FLAT_TOKENS = 64
"""With `flat` at most: from 196 tokens of 768 numbers to 512 a head has 77 million weights, near the 85 of all 12 blocks."""
MODULATIONS = ("full", "single", "low_rank")
"""Where a block's shifts, scales and gates come from: `model.modulation`."""
SCHEDULES = ("linear", "cosine")
"""How the noise grows with t: `model.schedule`."""
PREDICTIONS = ("eps", "v", "x0")
"""What the denoiser predicts: `model.objective`."""
ENCODERS = ("vit", "resnet")
"""What the encoder is: `model.encoder`, and `model.resnet` for the latter."""
STEMS = ("patch", "conv")
"""What makes tokens of pixels in a ViT encoder: `model.stems`."""
CONDITIONS = ("shared", "block")
"""How v_t reaches the denoiser's blocks: `model.denoiser`."""
LAST_MAP = 4
"""Pixels a side of a ResNet's last map, about; 7 of images of 224, as in the ResNets of ImageNet."""
HALVED = (1, 2, 0, 3, 0)
"""The stages of a ResNet before which its map is halved, in the order in which larger images need it."""


class Size(NamedTuple):
    """Depth, width and heads, the same for encoder and denoiser."""

    depth: int
    dim: int
    heads: int


# DiT's names (arXiv 2212.09748, table 1); tiny is ViT-Ti's width at DiT-S's depth, demo fits 8x8 images on a CPU.
SIZES = {
    "demo": Size(2, 96, 3),
    "tiny": Size(12, 192, 3),
    "small": Size(12, 384, 6),
    "base": Size(12, 768, 12),
    "large": Size(24, 1024, 16),
}


def largest_rank(dim: int) -> int:
    """With `low_rank` at most: 7 r D weights a block, where `full` has 6 D^2."""
    return (6 * dim - 1) // 7


def check_parts(encoder: str, stem: str, patch_size: int, condition_dim: int | None, embed_dim: int) -> str | None:
    """What is wrong with these settings of `model` beside each other, in one line; None = nothing."""
    if stem == "conv" and encoder != "vit":
        return f"model.stem conv is for model.encoder vit, and that is {encoder}, which begins with convolutions anyway: use patch"
    if stem == "conv" and patch_size < 2:
        return f"model.stem conv needs patches to shrink, and model.patch_size is {patch_size}: use at least 2, or model.stem patch"
    if condition_dim is not None and condition_dim > embed_dim:
        return (
            f"model.condition_dim {condition_dim} is above the {embed_dim} numbers of v_t (model.embed_dim): use fewer, "
            "or null for none between"
        )
    return None


@dataclass(frozen=True)
class ModelConfig:
    """Everything that fixes the networks' shapes and their initial weights.

    Raises ConfigError where the pieces do not fit together.
    """

    depth: int
    dim: int
    heads: int
    image_height: int
    image_width: int
    channels: int
    patch_size: int
    embed_dim: int
    pool: str = "mean"
    embed_norm: bool = True
    encoder_time: bool = True
    init_seed: int = 0
    schedule: str = "linear"
    prediction: str = "eps"
    modulation: str = "full"
    modulation_rank: int = 64
    encoder: str = "vit"
    stem: str = "patch"
    condition: str = "shared"
    condition_dim: int | None = None
    denoiser_depth: int | None = None
    denoiser_dim: int | None = None

    def __post_init__(self) -> None:
        if self.image_height % self.patch_size or self.image_width % self.patch_size:
            raise ConfigError(
                f"images of {self.image_height}x{self.image_width} do not divide into patches of {self.patch_size} "
                "(model.patch_size): choose a divisor, or resize with data.image_size"
            )
        if self.dim % self.heads or self.dim % 4:
            raise ConfigError(f"width {self.dim} must be a multiple of 4 and of the number of heads {self.heads}")
        head = self.dim // self.heads
        if self.denoiser_dim is not None and (self.denoiser_dim % head or self.denoiser_dim % 4):
            raise ConfigError(
                f"model.denoiser_width {self.denoiser_dim} must be a multiple of 4 and of the {head} numbers of an attention head "
                f"(width {self.dim} / {self.heads} heads)"
            )
        known = {"pool": POOLS, "schedule": SCHEDULES, "prediction": PREDICTIONS, "modulation": MODULATIONS}
        known |= {"encoder": ENCODERS, "stem": STEMS, "condition": CONDITIONS}
        for name, choices in known.items():
            if (value := getattr(self, name)) not in choices:
                raise ConfigError(f"unknown model.{name} {value!r}: use {' or '.join(choices)}")
        narrowest = min(self.dim, self.denoiser.dim)
        if self.modulation == "low_rank" and self.modulation_rank > largest_rank(narrowest):
            raise ConfigError(
                f"model.modulation_rank {self.modulation_rank} saves nothing at width {narrowest}: "
                f"use at most {largest_rank(narrowest)}, or model.modulation full"
            )
        if problem := check_parts(self.encoder, self.stem, self.patch_size, self.condition_dim, self.embed_dim):
            raise ConfigError(problem)

    def check_new(self) -> "ModelConfig":
        """Itself, for a model that is to be trained; one that was trained before is read all the same.

        Raises ConfigError for a flat head over more than FLAT_TOKENS tokens.
        """
        tokens = math.prod(self.last_map)
        if self.pool == "flat" and tokens > FLAT_TOKENS:
            head = tokens * self.dim * self.embed_dim / 1e6
            raise ConfigError(
                f"model.pool flat with {tokens} tokens, more than {FLAT_TOKENS}: its head would have {head:.1f} million "
                "weights; use grid or attention" + (", or a larger model.patch_size" if self.encoder == "vit" else "")
            )
        return self

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        return self.image_height // self.patch_size, self.image_width // self.patch_size

    @property
    def tokens(self) -> int:
        """Number of patches."""
        return self.grid[0] * self.grid[1]

    @property
    def patch_dim(self) -> int:
        """Numbers in one patch."""
        return self.channels * self.patch_size**2

    @property
    def denoiser(self) -> Size:
        """The denoiser's size: the encoder's but for what is said; heads are as wide as the encoder's."""
        dim = self.denoiser_dim or self.dim
        return Size(self.denoiser_depth or self.depth, dim, dim * self.heads // self.dim)

    @property
    def last_map(self) -> tuple[int, int]:
        """Places down and across that the encoder's head reads: the patches, or the pixels of a ResNet's last map."""
        return self.grid if self.encoder == "vit" else self.resnet_maps[-1]

    @property
    def resnet_halvings(self) -> tuple[int, ...]:
        """How often the map of a ResNet encoder is halved before each of its stages."""
        times = round(math.log2(min(self.image_height, self.image_width) / LAST_MAP))
        before = HALVED[: max(0, times)]
        return tuple(before.count(stage) for stage in range(len(self.resnet_widths)))

    @property
    def resnet_maps(self) -> list[tuple[int, int]]:
        """Pixels down and across in each stage of a ResNet encoder: 16, 8, 4, 4 a side of images of 32."""
        height, width, maps = self.image_height, self.image_width, []
        for times in self.resnet_halvings:
            for _ in range(times):
                height, width = -(-height // 2), -(-width // 2)
            maps.append((height, width))
        return maps

    @property
    def resnet_widths(self) -> tuple[int, ...]:
        """Channels of each stage of a ResNet encoder: 32, 64, 128, 128 at width 128."""
        return self.dim // 4, self.dim // 2, self.dim, self.dim

    @property
    def resnet_blocks(self) -> int:
        """Blocks in each stage of a ResNet encoder: so many that they are about as many as a ViT has."""
        return max(1, self.depth // len(self.resnet_widths))

    def save(self, file: Path) -> None:
        """Write as JSON."""
        file.write_text(json.dumps(asdict(self), indent=1, sort_keys=True) + "\n", "utf-8")

    @staticmethod
    def load(file: Path) -> "ModelConfig":
        """Read what `save` wrote; what an older model does not name has its default. Raises ConfigError where it does not parse."""
        try:
            return ModelConfig(**json.loads(file.read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"cannot read the model's configuration {file}: {error}; train the model again") from error
