import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from model.device import keep_freed_memory
from model.dier import DiER
from model.errors import ConfigError
from model.images import to_tensor
from model.training.compiling import LEAST_WORK, choose_compile, encoding_work, training_work
from tests.model.conftest import make_trainer, small_model
from tests.model.training.test_trainer import StoppedError, check_resumes, same, stop_at

CPU = torch.device("cpu")
compiler = pytest.mark.skipif(not choose_compile("auto", CPU, LEAST_WORK)[0], reason="no C++ compiler, or no Python headers")


def test_without_a_compiler_auto_is_off_and_says_so_and_on_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    compiled, why = choose_compile("auto", CPU, 10 * LEAST_WORK)
    assert not compiled
    assert "no compiler (g++)" in why
    assert "docs/performance.md" in why
    assert "not measured" in choose_compile("auto", torch.device("cuda"), 0)[1]
    with pytest.raises(ConfigError, match=r"train\.compile = 'on'.*use auto or off"):
        choose_compile("on", CPU, 0)
    assert choose_compile("off", CPU, 10 * LEAST_WORK) == (False, "train.compile is off")


@compiler
def test_auto_compiles_a_long_run_and_leaves_a_short_one() -> None:
    assert choose_compile("auto", CPU, 1.1 * LEAST_WORK)[0]
    assert not choose_compile("auto", CPU, 0.9 * LEAST_WORK)[0]
    assert choose_compile("on", CPU, 0)[0]


def test_the_work_of_a_training_is_six_operations_a_weight_a_token() -> None:
    """A block's four matrices have 12 D^2 weights; each takes 2 operations a token forward, 4 backward, in two networks."""
    config = small_model()
    weights = 2 * config.depth * 12 * config.dim**2
    assert training_work(config, 100) == 6 * weights * config.tokens * 100
    denoiser = 12 * 16**2  # in one block of width 16
    small = small_model(denoiser_depth=1, denoiser_dim=16)
    assert training_work(small, 100) == 6 * (weights / 2 + denoiser) * config.tokens * 100
    assert encoding_work(small_model(encoder="resnet"), 100) == 0  # it has no blocks that are compiled


def test_keeping_memory_does_no_harm() -> None:
    keep_freed_memory()
    assert torch.ones(10_000_000).sum().item() == 10_000_000


@compiler
@pytest.mark.slow
def test_a_varying_number_of_tokens_is_compiled_once(images: np.ndarray) -> None:
    """Masked and whole images in turns; a single token alone is a case of its own, for its broadcasts."""

    def compilations(varying_tokens: bool) -> list[int]:
        torch._dynamo.reset()
        counters["stats"].clear()
        model, plain = (DiER(small_model()) for _ in range(2))
        model.compile_blocks(varying_tokens=varying_tokens)
        x0 = to_tensor(images[:4])
        t = torch.tensor([1, 10, 100, 900])
        found = []
        for kept in (16, 8, 5, 16, 12, 1, 7, 1):
            given = x0, t, torch.ones_like(x0), None, torch.arange(16).flip(0)[:kept].expand(4, -1)
            model(*given).sum().backward()
            plain(*given).sum().backward()
            found.append(counters["stats"]["unique_graphs"])
        for mine, other in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=1e-4)
        return found

    assert compilations(varying_tokens=True) == [1, 1, 1, 1, 1, 2, 2, 2]
    assert compilations(varying_tokens=False) == [1, 2, 3, 3, 4, 5, 6, 6]


@compiler
@pytest.mark.slow
def test_a_compiled_run_with_masked_tokens_and_checkpointed_activations_resumes_bit_for_bit(
    images: np.ndarray, tmp_path: Path
) -> None:
    changes = {"compiled": True, "mask_ratio": 0.5, "checkpoint_activations": True}
    check_resumes(images, tmp_path, **changes)


@compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    "form",
    [{"condition": "block", "condition_dim": 4, "denoiser_dim": 16}, {"encoder": "resnet", "pool": "grid"}, {"stem": "conv"}],
)
def test_other_forms_compile_to_the_same_losses(form: dict, images: np.ndarray) -> None:
    model, plain = (DiER(small_model(**form)) for _ in range(2))
    model.compile_blocks(varying_tokens=True)
    x0 = to_tensor(images[:4])
    given = x0, torch.tensor([1, 10, 100, 900]), torch.ones_like(x0), None, torch.arange(8).expand(4, -1)
    torch.testing.assert_close(model(*given), plain(*given), rtol=1e-3, atol=1e-4)


@compiler
@pytest.mark.slow
def test_a_compiled_run_repeats_resumes_and_stays_close_to_the_plain_one(images: np.ndarray, tmp_path: Path) -> None:
    """Bit for bit between compiled runs, one of which was stopped; close to the eager run, which adds in another order."""
    assert shutil.which("g++")
    whole, eager = (make_trainer(images, tmp_path / str(compiled), compiled=compiled) for compiled in (True, False))
    for run in (whole, eager):
        run.run()
    with pytest.raises(StoppedError):
        make_trainer(images, tmp_path / "work", stop_at(7), compiled=True).run()
    resumed = make_trainer(images, tmp_path / "work", compiled=True)
    resumed.run()
    assert same(whole, resumed)
    for mine, plain in zip(whole.ema, eager.ema, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-2, atol=1e-3)
    assert [point["loss"] for point in whole.curve] == pytest.approx([point["loss"] for point in eager.curve], rel=1e-3)
