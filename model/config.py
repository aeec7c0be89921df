"""What a model is built from: the named sizes, and one plain, serialisable configuration."""

import json
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

    def __post_init__(self) -> None:
        if self.image_height % self.patch_size or self.image_width % self.patch_size:
            raise ConfigError(
                f"images of {self.image_height}x{self.image_width} do not divide into patches of {self.patch_size} "
                "(model.patch_size): choose a divisor, or resize with data.image_size"
            )
        if self.dim % self.heads or self.dim % 4:
            raise ConfigError(f"width {self.dim} must be a multiple of 4 and of the number of heads {self.heads}")
        known = {"pool": POOLS, "schedule": SCHEDULES, "prediction": PREDICTIONS, "modulation": MODULATIONS}
        for name, choices in known.items():
            if (value := getattr(self, name)) not in choices:
                raise ConfigError(f"unknown model.{name} {value!r}: use {' or '.join(choices)}")
        if self.modulation == "low_rank" and self.modulation_rank > largest_rank(self.dim):
            raise ConfigError(
                f"model.modulation_rank {self.modulation_rank} saves nothing at width {self.dim}: "
                f"use at most {largest_rank(self.dim)}, or model.modulation full"
            )

    def check_new(self) -> "ModelConfig":
        """Itself, for a model that is to be trained; one that was trained before is read all the same.

        Raises ConfigError for a flat head over more than FLAT_TOKENS tokens.
        """
        if self.pool == "flat" and self.tokens > FLAT_TOKENS:
            head = self.tokens * self.dim * self.embed_dim / 1e6
            raise ConfigError(
                f"model.pool flat with {self.tokens} tokens, more than {FLAT_TOKENS}: its head would have {head:.1f} million "
                "weights; use grid or attention, or a larger model.patch_size"
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
