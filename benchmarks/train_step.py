"""The training step beside diffusers' DiT and the matrix products alone: python -m benchmarks.train_step --side 28 --threads 2

One run, in turns: (a) our step as the Trainer runs it, compiled and eager: images fetched from a mapped file, noise, forward,
backward, clipping, AdamW, EMA;
(b) the same sizes built from diffusers' DiTTransformer2DModel, with the same batches, loss, clipping, fused AdamW and EMA;
(b kept) that with our handling of freed memory as well;
(c) what the step's linear layers are as bare matrix products: for each layer x W^T, dY W (where x needs a gradient) and dY^T x,
of the step's own shapes, each layer with operands of its own, in the step's order; (c hot) the same with one set of operands a
shape, which then stays in the cache. Bars: a / c at least 0.90, a / b at least 1.15.

--also adds public ways of PyTorch to make (a) faster, each a contestant of its own: `bf16` (train.precision, where the CPU has
products in bfloat16), `whole` (torch.compile of both networks at once, not block by block), `autotune` (inductor tries its own C++
products beside the library's), `medium` (torch.set_float32_matmul_precision: float32 products by bfloat16 ones).

With --threads 1 the ratios of processor time say the most on a busy machine; with two, the wall clock's.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.contest import Steps, load, rate, ratio, take_turns
from model.config import SIZES, ModelConfig
from model.device import keep_freed_memory
from model.training.options import TrainConfig
from model.training.trainer import Trainer

BATCH = 64
EMBED_DIM = 256


def make_trainer(side: int, folder: Path, compiled: bool, precision: Literal["float32", "bf16"] = "float32") -> Trainer:
    """Our trainer on random images (grey at 28 pixels, colour at 32) in a mapped file, as `dier train` opens them."""
    channels = 1 if side == 28 else 3
    file = folder / "images.npy"
    if not file.exists():
        np.save(file, np.random.default_rng(0).integers(0, 256, (20_000, side, side, channels), np.uint8))
    size = SIZES["tiny"]
    model = ModelConfig(size.depth, size.dim, size.heads, side, side, channels, 4, EMBED_DIM)
    config = TrainConfig(steps=10**6, batch_size=BATCH, lr=1e-3, warmup_steps=100, lr_decay="constant", precision=precision)
    trainer = Trainer(model, config, np.load(file, mmap_mode="r"), folder, torch.device("cpu"), compiled=compiled)
    trainer.model.train()
    return trainer


def our_step(side: int, threads: int, folder: Path, compiled: bool) -> Callable[[], None]:
    """A step of our training, set up as `dier train` does it."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    return step_of(make_trainer(side, folder, compiled))


def bf16_step(side: int, threads: int, folder: Path) -> Callable[[], None]:
    """Our step in bfloat16."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    return step_of(make_trainer(side, folder, compiled=True, precision="bf16"))


def whole_step(side: int, threads: int, folder: Path) -> Callable[[], None]:
    """Our step, both networks compiled as one graph."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    trainer = make_trainer(side, folder, compiled=False)
    trainer.network = torch.compile(trainer.model, dynamic=False)
    return step_of(trainer)


def autotune_step(side: int, threads: int, folder: Path) -> Callable[[], None]:
    """Our step, inductor's C++ products tried beside the library's."""
    from torch._inductor import config

    config.max_autotune, config.max_autotune_gemm_backends = True, "CPP,ATEN"
    return our_step(side, threads, folder, compiled=True)


def medium_step(side: int, threads: int, folder: Path) -> Callable[[], None]:
    """Our step, its float32 products by bfloat16 ones."""
    torch.set_float32_matmul_precision("medium")
    return our_step(side, threads, folder, compiled=True)


ALSO = {"bf16": bf16_step, "whole": whole_step, "autotune": autotune_step, "medium": medium_step}


def diffusers_step(side: int, threads: int, folder: Path, kept: bool) -> Callable[[], None]:
    """A step of diffusers' DiT; `kept`: with our handling of freed memory."""
    torch.set_num_threads(threads)
    from benchmarks.diffusers_dit import PeerTrainer  # the one that needs diffusers

    if kept:
        keep_freed_memory()
    return step_of(PeerTrainer(make_trainer(side, folder, compiled=False)))


def products(side: int, threads: int, folder: Path, shared: bool) -> Callable[[], None]:
    """The products of a step."""
    torch.set_num_threads(threads)
    return bare_products(products_of(make_trainer(side, folder, compiled=False)), shared)


def step_of(trainer: Steps) -> Callable[[], None]:
    """One step of training."""

    def step() -> None:
        trainer._train_step()
        trainer.step += 1

    return step


def products_of(trainer: Trainer) -> list[tuple[int, int, int, bool]]:
    """(rows, in, out, whether x needs a gradient) of each linear layer, in the order of the forward pass."""
    seen: list[tuple[int, int, int, bool]] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.Linear)
        x = inputs[0]
        seen.append((x.numel() // x.shape[-1], layer.in_features, layer.out_features, x.requires_grad))

    layers = [layer for layer in trainer.model.modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    trainer.model(*trainer.batch(0))
    for hook in hooks:
        hook.remove()
    return seen


def bare_products(shapes: list[tuple[int, int, int, bool]], shared: bool) -> Callable[[], None]:
    """All of a step's products into memory of their own; `shared`: one set of operands a shape."""
    sets: dict[object, tuple[Tensor, ...]] = {}
    layers = []
    for number, (rows, wide, out, needs) in enumerate(shapes):
        x, w, y = torch.randn(rows, wide), torch.randn(out, wide), torch.randn(rows, out)
        made = (x, w, y, torch.empty_like(x), torch.empty_like(w), torch.empty_like(y))
        layers.append((sets.setdefault((rows, wide, out) if shared else number, made), needs))

    def run() -> None:
        for (x, w, _, _, _, out), _ in layers:
            torch.mm(x, w.t(), out=out)
        for (x, w, y, to_x, to_w, _), needs in reversed(layers):
            if needs:
                torch.mm(y, w, out=to_x)
            torch.mm(y.t(), x, out=to_w)

    return run


def main() -> None:
    """Run the contest and print the ratios."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--side", type=int, choices=(28, 32), default=28, help="pixels a side; patches are of 4")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=15)
    arguments.add_argument("--also", choices=ALSO, nargs="+", default=[], help="other ways of making our step faster")
    arguments.add_argument("--leave-out", nargs="+", default=[], help="contestants that are not wanted, such as 'b kept'")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        common = (given.side, given.threads, Path(name))
        shapes = products_of(make_trainer(given.side, Path(name), compiled=False))
        contestants = {
            "a": partial(our_step, *common, True),
            "a eager": partial(our_step, *common, False),
            "b": partial(diffusers_step, *common, False),
            "b kept": partial(diffusers_step, *common, True),
            "c": partial(products, *common, False),
            "c hot": partial(products, *common, True),
        } | {f"a {name}": partial(ALSO[name], *common) for name in given.also}
        contestants = {name: made for name, made in contestants.items() if name not in given.leave_out}
        times = take_turns(contestants, given.rounds)
    work = sum(2 * rows * wide * out * (3 if needs else 2) for rows, wide, out, needs in shapes)
    print(f"{given.side}x{given.side} patch 4, batch {BATCH}, {given.threads} threads, {given.rounds} rounds, {load()}")
    print(f"{len(shapes)} linear layers, {work / 1e9:.0f} GFLOP of products a step; images a second, median (best):")
    for name in contestants:
        print(f"  {name:8s} {rate(times, name, BATCH)}")
    for clock, title in enumerate(("wall clock", "processor time")):
        print(f"ratios by {title}, median (middle half):")
        for name in [name for name in contestants if name.startswith("a")]:
            others = [other for other in contestants if other[0] != "a" or (other == "a" != name)]
            print(f"  {name:10s}" + "".join(f"  / {other} {ratio(times, name, other, clock)}" for other in others))


if __name__ == "__main__":
    main()
