"""Activation checkpointing: the same gradients, and fewer bytes kept for the backward pass."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model.dier import DiER
from model.images import to_tensor
from tests.model.conftest import make_trainer, small_model


def gradients_and_bytes(images: np.ndarray, *, checkpointed: bool, depth: int) -> tuple[list[torch.Tensor], int]:
    """Of one forward and backward pass: gradients, and the bytes of what was saved for the latter, weights aside."""
    model = DiER(small_model(depth=depth))
    if checkpointed:
        model.checkpoint_activations()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    x0 = to_tensor(images[:16])
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(x0, torch.arange(16) * 60, torch.ones_like(x0), ids_keep=torch.arange(8).expand(16, -1))
    saved = sum(kept.values())  # of the forward pass: what is computed again in the backward pass is held a block at a time
    loss.sum().backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None], saved


def test_gradients_are_the_same_bits_and_what_a_block_saves_is_its_input(images: np.ndarray) -> None:
    plain, much = gradients_and_bytes(images, checkpointed=False, depth=4)
    again, little = gradients_and_bytes(images, checkpointed=True, depth=4)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    assert little < much / 4
    deeper = gradients_and_bytes(images, checkpointed=True, depth=5)[1]
    tokens = 16 * 8 + 16 * 16  # of the encoder's block, half of them masked, and of the denoiser's
    assert deeper - little == tokens * 32 * 4  # (tokens, width) float32


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_training_is_the_same_with_it(images: np.ndarray, tmp_path: Path, precision: str) -> None:
    runs = [
        make_trainer(images, tmp_path / str(on), precision=precision, micro_batch=5, checkpoint_activations=on)
        for on in (True, False)
    ]
    for run in runs:
        run.run()
    assert runs[0].curve == runs[1].curve
    assert all(torch.equal(a, b) for a, b in zip(runs[0].ema, runs[1].ema, strict=True))
