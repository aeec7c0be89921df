"""What training takes of a device's memory, by size, image and modulation: python -m benchmarks.memory [--trace]

Arithmetic (`model/memory.py`), no measurement: nothing here has seen a GPU. The largest batches leave a tenth of the memory free
for what is not counted. `--trace` compares: a forward pass runs on fake tensors (meta tensors that pretend to be on a CPU,
so that autocast and the choice of the attention kernel happen as there; nothing is allocated), and what autograd keeps is summed
storage by storage. What a sample adds is the difference between a batch of 3 and one of 2.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from model.blocks import Recomputed
from model.config import MODULATIONS, SIZES, ModelConfig
from model.dier import DiER
from model.memory import activation_bytes, largest_batch, parameters, recomputed_bytes, state_bytes

IMAGES = {28: 4, 64: 4, 224: 16}
"""Pixels a side, and of a patch: 49, 256 and 196 tokens."""
CHANNELS, EMBED_DIM, POOL = 3, 512, "grid"
WAYS = {"float32": ("float32", False), "bf16": ("bf16", False), "bf16, checkpointing": ("bf16", True)}
"""Precision, and whether each block is recomputed."""
CARDS = (24e9, 80e9)


def config_of(size: str, side: int, modulation: str) -> ModelConfig:
    """A model of that size for images of side x side x CHANNELS."""
    depth, dim, heads = SIZES[size]
    return ModelConfig(
        depth, dim, heads, side, side, CHANNELS, IMAGES[side], EMBED_DIM, pool=POOL, modulation=modulation, prediction="x0"
    )


def traced(config: ModelConfig, precision: str, *, checkpointing: bool = False, real: bool = False) -> tuple[int, int]:
    """Bytes that autograd keeps: of a sample, and of none (copies of the weights). `real` = of true tensors on the CPU."""
    with contextlib.nullcontext() if real else FakeTensorMode():
        model = DiER(config)
        if checkpointing:
            for block in model.modules():
                if isinstance(block, Recomputed):
                    block.forward = _recomputed(block.forward)  # type: ignore[method-assign]
        two, three = (_kept(model, precision, batch) for batch in (2, 3))
    return three - two, 3 * two - 2 * three


def _recomputed(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *given: checkpoint(forward, *given, use_reentrant=False)


def _kept(model: DiER, precision: str, batch: int) -> int:
    """Bytes of the storages that one forward pass keeps, without weights and buffers."""
    config, kept = model.config, {}
    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = (storage.nbytes(), tensor)  # held, so that no other takes its address
        return tensor

    x0, noise = torch.zeros(2, batch, config.channels, config.image_height, config.image_width)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = model(x0.clone(), torch.zeros(batch, dtype=torch.int64), noise.clone())
        del loss
    return sum(size for size, _ in kept.values())


def counts() -> Iterator[str]:
    """Parameters by size and modulation, line by line."""
    yield f"| size (depth x width) | {', '.join(MODULATIONS)}: parameters, M | of full in its blocks' modulations |"
    yield "|---" * 3 + "|"
    for size, (depth, dim, _) in SIZES.items():
        found = [parameters(config_of(size, 28, modulation)) for modulation in MODULATIONS]
        share = 2 * depth * (6 * dim**2 + 6 * dim) / found[0]
        yield f"| {size} ({depth} x {dim}) | {', '.join(f'{count / 1e6:.1f}' for count in found)} | {share:.1%} |"


def rows(sizes: list[str], trace: bool) -> Iterator[str]:
    """The table, line by line."""
    yield (
        "| size | pixels (patch, tokens) | modulation | parameters, M | state, GB: float32 (bf16) | MB a sample: "
        + ", ".join(WAYS)
        + " | batch in 24 GB | batch in 80 GB |"
        + (" traced / counted |" if trace else "")
    )
    yield "|---" * (8 + trace) + "|"
    for size in sizes:
        for side in IMAGES:
            for modulation in MODULATIONS[:2]:
                config = config_of(size, side, modulation)
                state = [state_bytes(config, precision) / 1e9 for precision in ("float32", "bf16")]
                ways = [(precision, again) for precision, again in WAYS.values()]
                adds = [activation_bytes(config, precision, checkpointing=again) / 1e6 for precision, again in ways]
                batches = [[largest_batch(config, card, p, checkpointing=again) for p, again in ways] for card in CARDS]
                line = f"| {size} | {side} ({IMAGES[side]}, {config.tokens}) | {modulation} | {parameters(config) / 1e6:.1f} "
                line += f"| {state[0]:.2f} ({state[1]:.2f}) | {', '.join(f'{mb:.1f}' for mb in adds)} "
                line += "".join(f"| {', '.join(map(str, found))} " for found in batches) + "|"
                yield line + (f" {compared(config)} |" if trace else "")


def compared(config: ModelConfig) -> str:
    """Traced over counted, a way each; what is recomputed at the peak is no part of a trace."""
    return ", ".join(f"{ratio(config, precision, checkpointing=again):.3f}" for precision, again in WAYS.values())


def ratio(config: ModelConfig, precision: str, *, checkpointing: bool = False) -> float:
    """Bytes a sample, traced over counted. With checkpointing the peak holds one block more than a forward pass keeps."""
    counted = activation_bytes(config, precision, checkpointing=checkpointing)
    found, _ = traced(config, precision, checkpointing=checkpointing)
    if checkpointing:
        found += recomputed_bytes(config, precision)
    return found / counted


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Memory of training, by arithmetic.")
    parser.add_argument("--sizes", nargs="+", default=["small", "base", "large"], choices=list(SIZES))
    parser.add_argument("--trace", action="store_true", help="compare with a trace on fake tensors; takes a minute")
    given = parser.parse_args()
    print("Arithmetic, not a measurement (model/memory.py says what is counted).")
    for row in (*counts(), ""):
        print(row)
    for row in rows(given.sizes, given.trace):
        print(row, flush=True)


if __name__ == "__main__":
    main()
