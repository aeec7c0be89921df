"""The number formats of a training's matrix products: `train.precision`."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def products(precision: str, device: torch.device) -> Iterator[None]:
    """While inside, what float32 matrix products are computed in: TF32 (`tf32`, on CUDA), else float32. Put back after.

    TF32 has bf16's 8 bits of exponent and 10 of mantissa instead of 23; sums stay float32. On a CPU `tf32` is float32: what
    the same switch does there differs from one CPU to the next. bf16 is `autocast`'s; what that leaves in float32 stays float32.
    https://docs.pytorch.org/docs/stable/notes/cuda.html#tf32-on-ampere
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" and device.type == "cuda" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Around a forward pass: with bf16 the matrix products are computed in that, from float32 weights."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def note(precision: str, device: torch.device) -> str | None:
    """What to know of the precision on this device, in one line; None where there is nothing."""
    if precision == "tf32" and device.type == "cpu":
        return "train.precision tf32 is float32 on a CPU: only a GPU has TF32"
    return None
