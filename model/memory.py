"""What training needs of a device's memory, counted from shapes: weights and what goes with them, and what a sample adds.

Counted are the tensors that autograd keeps for the backward pass when PyTorch runs the model op by op, with attention by a fused
kernel (flash, memory-efficient), which keeps queries, keys, values, result and one float32 a row, and no T x T matrix. Not counted:
what an operation needs while it runs, the allocator's losses, the CUDA context, and what torch.compile saves or adds.
`benchmarks/memory.py` compares the count with a trace.
"""

from .config import ModelConfig
from .pooling import GRID

FLOAT32, BF16 = 4, 2
"""Bytes a number."""
FREQUENCIES = 256
"""Of the timestep's sinusoids."""


def parameters(config: ModelConfig) -> int:
    """Trained numbers of encoder and denoiser."""
    d, e, p = config.dim, config.embed_dim, config.patch_dim
    modulation = {"full": 6 * d**2 + 6 * d, "single": 6 * d, "low_rank": 7 * config.modulation_rank * d + 6 * d}
    blocks = config.depth * (12 * d**2 + 9 * d + modulation[config.modulation])  # attention 4 D^2, perceptron 8 D^2, their biases
    shared = 6 * d**2 + 6 * d if config.modulation == "single" else 0
    network = (p * d + d) + (FREQUENCIES * d + d + d**2 + d) + shared + blocks
    pool = 2 * d**2 + 3 * d if config.pool == "attention" else 0
    encoder = 2 * d + pool + pooled(config) * e + e
    denoiser = (e * d + d) + (2 * d**2 + 2 * d) + (d * p + p)
    return 2 * network + encoder + denoiser


def state_bytes(config: ModelConfig, precision: str = "float32") -> int:
    """Bytes that stay whatever the batch: weights, gradients, AdamW's two moments and the average (EMA), 4 each: 20 a parameter.

    Under bf16 autocast the step holds a copy of the weights in bf16 as well: 22.
    """
    return (20 + (BF16 if precision == "bf16" else 0)) * parameters(config)


def activation_bytes(config: ModelConfig, precision: str = "float32", *, checkpointing: bool = False) -> int:
    """Bytes that a sample of the batch adds, at their highest.

    With `checkpointing` a block keeps its input alone and computes the rest again, one block at a time.
    """
    block, kept = _block(config, precision), config.tokens * config.dim * FLOAT32
    blocks = 2 * config.depth * kept + (block - kept) if checkpointing else 2 * config.depth * block
    return blocks + _ends(config, precision)


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
    cells = {"flat": config.tokens, "grid": min(GRID, config.grid[0]) * min(GRID, config.grid[1])}
    return cells.get(config.pool, 1) * config.dim


def _block(config: ModelConfig, precision: str) -> int:
    """Of one block: what products read and give is `half` under autocast; the residual stream, norms and sums are float32."""
    half = BF16 if precision == "bf16" else FLOAT32
    t, d = config.tokens, config.dim
    stream = 4 * FLOAT32 * t * d  # the inputs of both norms, and what these give
    attention = 6 * half * t * d  # its input, q, k, v, what is mixed, what comes out
    perceptron = 10 * half * t * d  # its input, 4 before and 4 after GELU, what comes out
    rows = (config.heads + 4) * FLOAT32 * t  # attention's log-sum-exp, both norms' mean and deviation
    of_image = FLOAT32 if config.modulation == "single" else half  # a float32 table is added there
    modulation = 8 * of_image * d  # 6 numbers a channel, of which two scales are kept plus 1 as well
    bottleneck = half * config.modulation_rank if config.modulation == "low_rank" else 0
    return stream + attention + perceptron + rows + modulation + bottleneck


def _ends(config: ModelConfig, precision: str) -> int:
    """Of both networks, what stands before and after the blocks, and of the loss."""
    half = BF16 if precision == "bf16" else FLOAT32
    t, d = config.tokens, config.dim
    patches = 2 * half * t * config.patch_dim
    conditions = 2 * half * (FREQUENCIES + 4 * d) + FLOAT32 * (3 * d + 3 * config.embed_dim)  # layers, SiLU; v and its norm
    last = (3 * FLOAT32 + half) * t * d + 4 * FLOAT32 * t  # both last norms; the denoiser's head
    seen = {"attention": 3 * t * d, "flat": t * d}.get(config.pool, pooled(config))  # by the encoder's head; attention: input, k, v
    loss = 2 * FLOAT32 * t * config.patch_dim  # what is predicted and what was wanted
    return patches + conditions + last + FLOAT32 * seen + loss
