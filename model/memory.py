"""What training needs of a device's memory, counted from shapes: weights and what goes with them, and what a sample adds.

Counted are the tensors that autograd keeps for the backward pass when PyTorch runs the model op by op, with attention by a fused
kernel (flash, memory-efficient), which keeps queries, keys, values, result and one float32 a row, and no T x T matrix. Not counted:
what an operation needs while it runs, the allocator's losses, the CUDA context, and what torch.compile saves or adds.
`benchmarks/memory.py` compares the count with a trace.
"""

import math
from itertools import pairwise

from .config import ModelConfig, Size
from .pooling import GRID
from .stems import WINDOW, stem_channels

FLOAT32, BF16 = 4, 2
"""Bytes a number."""
FREQUENCIES = 256
"""Of the timestep's sinusoids."""


def parameters(config: ModelConfig) -> int:
    """Trained numbers of encoder and denoiser."""
    return _encoder_parameters(config) + _denoiser_parameters(config)


def _encoder_parameters(config: ModelConfig) -> int:
    d, e = config.dim, config.embed_dim
    timestep, pool = FREQUENCIES * d + d + d**2 + d, 2 * d**2 + 3 * d if config.pool == "attention" else 0
    ends = timestep + 2 * d + pool + pooled(config) * e + e
    if config.encoder == "resnet":
        return ends + _resnet_parameters(config)
    stem = config.patch_dim * d + d
    if config.stem == "conv":
        channels = stem_channels(config)
        stem = sum(9 * before * after + 2 * after for before, after in channels) + channels[-1][1] * d + d
    return ends + stem + _vit_parameters(config, Size(config.depth, d, config.heads))


def _denoiser_parameters(config: ModelConfig) -> int:
    size, e, p = config.denoiser, config.embed_dim, config.patch_dim
    d, rank = size.dim, config.condition_dim
    timestep, narrow = FREQUENCIES * d + d + d**2 + d, 0 if rank is None else e * rank
    given = (rank or e) + 1  # and a bias
    condition = size.depth * given * 4 * d if config.condition == "block" else given * d
    return _vit_parameters(config, size) + (p * d + d) + timestep + narrow + condition + (2 * d**2 + 2 * d) + (d * p + p)


def _vit_parameters(config: ModelConfig, size: Size) -> int:
    """Of a network's blocks: attention 4 D^2, perceptron 8 D^2, their biases, modulation."""
    d = size.dim
    modulation = {"full": 6 * d**2 + 6 * d, "single": 6 * d, "low_rank": 7 * config.modulation_rank * d + 6 * d}
    shared = 6 * d**2 + 6 * d if config.modulation == "single" else 0
    return shared + size.depth * (12 * d**2 + 9 * d + modulation[config.modulation])


def _resnet_parameters(config: ModelConfig) -> int:
    """Of whitening, narrowing and blocks: two norms, two convolutions, FiLM, a shortcut where the width changes."""
    numbers, first = WINDOW**2 * config.channels, config.resnet_widths[0]
    total = numbers**2 + numbers + 2 * numbers * first + first
    for before, after in _resnet_blocks(config):
        shortcut = before * after if before != after else 0
        total += 2 * before + 9 * before * after + 2 * after + 2 * after * (config.dim + 1) + 9 * after**2 + shortcut
    return total


def _resnet_blocks(config: ModelConfig) -> list[tuple[int, int]]:
    """Channels before and after each block."""
    each = [width for width in config.resnet_widths for _ in range(config.resnet_blocks)]
    return list(pairwise([config.resnet_widths[0], *each]))


def state_bytes(config: ModelConfig, precision: str = "float32") -> int:
    """Bytes that stay whatever the batch: weights, gradients, AdamW's two moments and the average (EMA), 4 each: 20 a parameter.

    Under bf16 autocast the step holds a copy of the weights in bf16 as well: 22.
    """
    return (20 + (BF16 if precision == "bf16" else 0)) * parameters(config)


def activation_bytes(config: ModelConfig, precision: str = "float32", *, checkpointing: bool = False) -> int:
    """Bytes that a sample of the batch adds, at their highest.

    With `checkpointing` a block keeps its input alone and computes the rest again, one block at a time.
    """
    blocks = _blocks(config, precision)
    if checkpointing:
        held = sum(kept for _, kept in blocks) + recomputed_bytes(config, precision)
    else:
        held = sum(block for block, _ in blocks)
    return held + _ends(config, precision)


def recomputed_bytes(config: ModelConfig, precision: str = "float32") -> int:
    """Bytes a sample that the largest block holds beside its input while it is computed again."""
    return max(block - kept for block, kept in _blocks(config, precision))


def largest_batch(config: ModelConfig, memory: float, precision: str = "float32", *, checkpointing: bool = False) -> int:
    """Samples that `memory` bytes hold, a tenth of them left free for what is not counted; 0 = the state alone is too large."""
    room = 0.9 * memory - state_bytes(config, precision)
    return max(0, int(room / activation_bytes(config, precision, checkpointing=checkpointing)))


def in_words(config: ModelConfig, precision: str, samples: int, *, checkpointing: bool = False, shards: int = 1) -> str:
    """What training takes on a device that is given `samples` at a time and one of `shards` of the state, in one line."""
    state, adds = state_bytes(config, precision) / shards, activation_bytes(config, precision, checkpointing=checkpointing)
    return (
        f"memory by arithmetic: {state / 1e9:.2f} GB for weights, gradients, moments and average, {adds / 1e6:.1f} MB a sample: "
        f"{(state + samples * adds) / 1e9:.2f} GB with {samples} at a time"
    )


def pooled(config: ModelConfig) -> int:
    """Numbers that the encoder's head reads."""
    cells = {"flat": math.prod(config.last_map), "grid": math.prod(min(GRID, side) for side in config.last_map)}
    return cells.get(config.pool, 1) * config.dim


def _blocks(config: ModelConfig, precision: str) -> list[tuple[int, int]]:
    """Bytes a sample of each block of both networks: what it keeps, and of that its input."""
    tokens = FLOAT32 * config.tokens
    denoiser = config.denoiser
    found = [(_block(config, denoiser, precision, config.condition == "block"), tokens * denoiser.dim)] * denoiser.depth
    if config.encoder == "vit":
        size = Size(config.depth, config.dim, config.heads)
        return [(_block(config, size, precision), tokens * size.dim)] * size.depth + found
    half = BF16 if precision == "bf16" else FLOAT32
    maps = [math.prod(sides) for sides in config.resnet_maps for _ in range(config.resnet_blocks)]
    for pixels, (before, after) in zip(maps, _resnet_blocks(config), strict=True):
        # what each norm, GELU and convolution reads, FiLM's scale, the norms' means and deviations
        numbers = 3 * before * pixels + 4 * after * pixels + after + 2 * (math.gcd(8, before) + math.gcd(8, after))
        found.append((half * numbers, half * before * pixels))
    return found


def _block(config: ModelConfig, size: Size, precision: str, by_block: bool = False) -> int:
    """Of one block: what products read and give is `half` under autocast; the residual stream, norms and sums are float32."""
    half = BF16 if precision == "bf16" else FLOAT32
    t, d = config.tokens, size.dim
    stream = 4 * FLOAT32 * t * d  # the inputs of both norms, and what these give
    attention = 6 * half * t * d  # its input, q, k, v, what is mixed, what comes out
    perceptron = 10 * half * t * d  # its input, 4 before and 4 after GELU, what comes out
    rows = (size.heads + 4) * FLOAT32 * t  # attention's log-sum-exp, both norms' mean and deviation
    of_image = FLOAT32 if config.modulation == "single" else half  # a float32 table is added there
    modulation = 8 * of_image * d  # 6 numbers a channel, of which two scales are kept plus 1 as well
    if by_block:
        modulation += 6 * FLOAT32 * d  # v_t's 4, and again two scales
    bottleneck = half * config.modulation_rank if config.modulation == "low_rank" else 0
    return stream + attention + perceptron + rows + modulation + bottleneck


def _ends(config: ModelConfig, precision: str) -> int:
    """Of both networks, what stands before and after the blocks, and of the loss."""
    half = BF16 if precision == "bf16" else FLOAT32
    t, d = config.tokens, config.denoiser.dim
    places = math.prod(config.last_map)
    patches = half * t * config.patch_dim + _stem(config, half)
    conditions = half * (2 * FREQUENCIES + 4 * (d + config.dim)) + 3 * FLOAT32 * (d + config.embed_dim)  # layers, SiLU; v's norm
    rows = 2 * FLOAT32 * (t + places)
    last = FLOAT32 * (2 * t * d + places * config.dim) + rows + half * t * d  # both last norms; the denoiser's head
    wide = places * config.dim
    seen = {"attention": 3 * wide, "flat": wide}.get(config.pool, pooled(config))  # by the encoder's head; attention: input, k, v
    loss = 2 * FLOAT32 * t * config.patch_dim  # what is predicted and what was wanted
    return patches + conditions + last + FLOAT32 * seen + loss


def _stem(config: ModelConfig, half: int) -> int:
    """Of the encoder, what makes tokens or the first map of pixels, and a ResNet's maps before they are halved."""
    if config.encoder == "resnet":
        whitened = 2 * WINDOW**2 * config.channels * math.prod(config.resnet_maps[0])  # nothing before that is trained
        maps = zip(config.resnet_maps, config.resnet_widths, config.resnet_halvings[1:], strict=False)
        return half * (whitened + sum(math.prod(sides) * width for sides, width, times in maps if times))
    if config.stem == "patch":
        return half * config.tokens * config.patch_dim
    pixels, numbers = config.image_height * config.image_width, 0
    for before, after in stem_channels(config):
        numbers += before * pixels + 2 * after * (pixels // 4)  # the convolution's input, the norm's and GELU's
        pixels //= 4
    return half * (numbers + stem_channels(config)[-1][1] * max(pixels, config.tokens))
