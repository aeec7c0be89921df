"""Memory of training counted from shapes against traces of what autograd keeps: on fake tensors, and on true ones for a few."""

import pytest
import torch

from benchmarks.memory import IMAGES, WAYS, config_of, counts, ratio, rows, traced
from model.config import MODULATIONS, POOLS, SIZES, ModelConfig
from model.dier import DiER
from model.memory import activation_bytes, in_words, largest_batch, parameters, state_bytes

FORMS: list[dict[str, object]] = [
    {"encoder": "resnet"},
    {"stem": "conv"},
    {"condition_dim": 8},
    {"condition": "block"},
    {"condition": "block", "condition_dim": 8, "denoiser_depth": 1, "denoiser_dim": 64},
]
"""Encoders, conditions and sizes of the denoiser beside the default ones."""


def config(size: str = "demo", side: int = 28, patch: int = 4, **changes: object) -> ModelConfig:
    depth, dim, heads = SIZES[size]
    return ModelConfig(min(depth, 3), dim, heads, side, side, 3, patch, 128, **changes)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("modulation", MODULATIONS)
def test_the_count_of_parameters_is_exact(modulation: str, pool: str) -> None:
    for side, patch in ((8, 2), (28, 7), (4, 4)):
        shape = config(side=side, patch=patch, modulation=modulation, pool=pool)
        assert parameters(shape) == sum(p.numel() for p in DiER(shape).parameters())
    for other in FORMS:
        shape = config(pool=pool, modulation=modulation, modulation_rank=32, **other)
        assert parameters(shape) == sum(p.numel() for p in DiER(shape).parameters()), other
    assert (state_bytes(shape), state_bytes(shape, "bf16")) == (20 * parameters(shape), 22 * parameters(shape))


@pytest.mark.slow
def test_large_can_be_built_without_memory_and_has_as_many_parameters_as_are_counted() -> None:
    for modulation in MODULATIONS:
        with torch.device("meta"):
            model = DiER(config_of("large", 224, modulation))
        assert parameters(model.config) == sum(p.numel() for p in model.parameters())


@pytest.mark.slow
def test_a_trace_on_fake_tensors_equals_one_on_true_ones_and_the_count() -> None:
    shape = config(side=8, patch=2)
    for precision in ("float32", "bf16"):
        assert traced(shape, precision) == traced(shape, precision, real=True)
        assert ratio(shape, precision) == pytest.approx(1, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("modulation", "pool"), [("full", "mean"), ("single", "grid"), ("low_rank", "attention"), ("full", "flat")]
)
def test_what_a_sample_adds_is_what_autograd_keeps(modulation: str, pool: str, way: str) -> None:
    precision, checkpointing = WAYS[way]
    for side, patch in ((8, 2), (64, 8)):
        shape = config("tiny", side, patch, modulation=modulation, pool=pool)
        assert ratio(shape, precision, checkpointing=checkpointing) == pytest.approx(1, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("form", range(len(FORMS)))
def test_other_forms_keep_what_is_counted(form: int) -> None:
    for precision, checkpointing in WAYS.values():
        for side, patch in ((28, 7), (64, 8)):
            shape = config("tiny", side, patch, **FORMS[form])
            assert ratio(shape, precision, checkpointing=checkpointing) == pytest.approx(1, abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("side", IMAGES)
@pytest.mark.parametrize("modulation", MODULATIONS[:2])
def test_the_tables_models_are_within_a_tenth(side: int, modulation: str) -> None:
    for way in WAYS.values():
        assert ratio(config_of("base", side, modulation), way[0], checkpointing=way[1]) == pytest.approx(1, abs=0.1)


@pytest.mark.slow
def test_small_on_the_cpu_keeps_what_its_trace_says() -> None:
    shape = config_of("small", 28, "full")
    for precision in ("float32", "bf16"):
        sample, weights = traced(shape, precision, real=True)
        assert (sample, weights) == traced(shape, precision)
        assert activation_bytes(shape, precision) == pytest.approx(sample, rel=0.1)
        copies = state_bytes(shape, precision) - state_bytes(shape)
        assert weights == pytest.approx(copies, rel=0.1, abs=1e5)


def test_the_largest_batch_fills_nine_tenths_and_is_none_where_the_state_does_not_fit() -> None:
    shape = config()
    batch = largest_batch(shape, 1e9)
    adds = activation_bytes(shape)
    assert 0.9e9 - adds < state_bytes(shape) + batch * adds <= 0.9e9
    assert largest_batch(shape, state_bytes(shape)) == 0
    assert largest_batch(shape, 1e9, "bf16", checkpointing=True) > largest_batch(shape, 1e9, "bf16") > batch


def test_train_says_it_in_a_line() -> None:
    shape = config()
    total = (state_bytes(shape, "bf16") + 64 * activation_bytes(shape, "bf16")) / 1e9
    assert in_words(shape, "bf16", 64).endswith(f"MB a sample: {total:.2f} GB with 64 at a time")


def test_the_table_has_a_row_for_every_image_and_modulation() -> None:
    header, line, *body = rows(["small"], trace=False)
    assert len(body) == 2 * len(IMAGES)
    assert {text.count("|") for text in (header, line, *body)} == {10 - 1}
    assert len(list(counts())) == 2 + len(SIZES)
