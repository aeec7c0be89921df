"""Number formats: which one is set while training, that it is put back, and how far bf16 is from float32."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model.training.precision import note, products
from tests.model.conftest import Hooks, make_trainer


@pytest.mark.parametrize(
    ("precision", "device", "inside"),
    [("float32", "cuda", "highest"), ("tf32", "cuda", "high"), ("bf16", "cuda", "highest"), ("tf32", "cpu", "highest")],
)
def test_products_are_set_and_put_back(precision: str, device: str, inside: str) -> None:
    torch.set_float32_matmul_precision("medium")
    try:
        with products(precision, torch.device(device)):
            assert torch.get_float32_matmul_precision() == inside
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_training_has_its_products_whatever_was_set_before(images: np.ndarray, tmp_path: Path) -> None:
    seen: set[str] = set()
    torch.set_float32_matmul_precision("medium")
    try:
        make_trainer(images, tmp_path, Hooks(lambda trainer: seen.add(torch.get_float32_matmul_precision()))).run()
    finally:
        torch.set_float32_matmul_precision("highest")
    assert seen == {"highest"}


def test_on_a_cpu_tf32_is_float32_and_that_is_said(images: np.ndarray, tmp_path: Path) -> None:
    runs = [make_trainer(images, tmp_path / precision, precision=precision) for precision in ("tf32", "float32")]
    for run in runs:
        run.run()
    assert all(torch.equal(a, b) for a, b in zip(runs[0].ema, runs[1].ema, strict=True))
    assert "float32 on a CPU" in str(note("tf32", torch.device("cpu")))
    assert note("tf32", torch.device("cuda")) is note("float32", torch.device("cpu")) is None


@pytest.mark.slow
def test_bf16_follows_float32(images: np.ndarray, tmp_path: Path) -> None:
    """The losses of a short training agree to a hundredth: bf16 keeps 8 bits, and errors of single products average out."""
    runs = [make_trainer(images, tmp_path / one, precision=one, steps=40, log_every=10) for one in ("float32", "bf16")]
    for run in runs:
        run.run()
    exact, rough = ([point["loss"] for point in run.curve] for run in runs)
    assert rough == pytest.approx(exact, rel=1e-2)
    assert rough != exact
