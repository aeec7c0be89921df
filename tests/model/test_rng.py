import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model import rng
from model.rng import CHUNK, SAMPLE_SHARDS, Draws, derangement, generator, sample, sample_order, sample_rows
from model.training.distributed import Processes


@given(st.integers(0, 2**31), st.integers(1, 200), st.integers(1, 40), st.integers(1, 12))
def test_batches_are_pieces_of_shuffled_epochs_whatever_their_size(seed: int, count: int, size: int, batches: int) -> None:
    pieces = np.concatenate([sample_order(seed, count, k * size, size) for k in range(batches)])
    np.testing.assert_array_equal(pieces, sample_order(seed, count, 0, size * batches))
    for epoch in range(len(pieces) // count):
        np.testing.assert_array_equal(np.sort(pieces[epoch * count : (epoch + 1) * count]), np.arange(count))


def test_purpose_and_seed_both_matter() -> None:
    def draw(*what: object) -> float:
        return torch.rand(1, generator=generator(*what)).item()

    assert draw(0, "noise", 1) == draw(0, "noise", 1)
    assert len({draw(0, "noise", 1), draw(0, "noise", 2), draw(1, "noise", 1), draw(0, "t", 1), draw(0, "noise", 11)}) == 5


def drawn(step: int, places: slice, seed: int = 0) -> list[torch.Tensor]:
    draws = Draws(seed, step, places, torch.device("cpu"))
    return [draws.normal("noise", 2, 3), draws.uniform("views", 4), draws.integers("t", 1000)]


@given(st.integers(0, 100), st.integers(0, 90), st.integers(1, 90))
def test_what_a_place_gets_depends_neither_on_the_number_of_processes_nor_on_the_batch_size(step: int, start: int, n: int) -> None:
    for part, whole in zip(drawn(step, slice(start, start + n)), drawn(step, slice(0, 200)), strict=True):
        assert torch.equal(part, whole[start : start + n])


def test_draws_have_their_distributions_and_differ_between_steps_chunks_and_seeds() -> None:
    normal, uniform, integers = drawn(0, slice(0, 20_000))
    assert (normal.mean().item(), normal.std().item()) == (pytest.approx(0, abs=0.01), pytest.approx(1, abs=0.01))
    assert (uniform.min() >= 0).all()
    assert (uniform.max() < 1).all()
    assert uniform.mean().item() == pytest.approx(0.5, abs=0.01)
    assert (integers.min(), integers.max()) == (0, 999)
    assert integers.float().mean().item() == pytest.approx(499.5, abs=10)
    others = [drawn(0, slice(CHUNK, 2 * CHUNK)), drawn(1, slice(0, CHUNK)), drawn(0, slice(0, CHUNK), seed=1)]
    assert len({part[0].numpy().tobytes() for part in (*others, drawn(0, slice(0, CHUNK)))}) == 4


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_a_process_draws_its_share_and_no_more_than_the_rest_of_two_chunks(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks: list[tuple[object, ...]] = []
    monkeypatch.setattr(rng, "seed_of", lambda *what: chunks.append(what) or hash(what))
    for rank in range(count):
        Draws(0, 3, Processes(rank, count).share(1024), torch.device("cpu")).normal("noise", 1)
    assert len(chunks) == len(set(chunks)) == 1024 // CHUNK  # all processes together, none twice
    chunks.clear()
    Draws(0, 3, slice(CHUNK - 1, CHUNK + 1), torch.device("cpu")).normal("noise", 1)
    assert len(chunks) == 2


@given(st.integers(0, 2**31), st.integers(2, 200), st.integers(1, 250))
def test_a_sample_is_ascending_without_repetition_and_nobody_is_its_own_partner(seed: int, count: int, limit: int) -> None:
    chosen = sample(seed, count, limit)
    assert len(chosen) == min(count, limit)
    assert list(chosen) == sorted(set(chosen.tolist()))
    assert 0 <= chosen[0] <= chosen[-1] < count
    partner = derangement(seed, count).numpy()
    assert sorted(partner) == list(range(count))
    assert not (partner == np.arange(count)).any()


def test_a_few_images_of_many_shards_are_taken_from_eight_of_them() -> None:
    shards = [slice(start, start + 10) for start in range(0, 1000, 10)]
    chosen = sample_rows(0, 1000, shards, 50)
    assert len(chosen) == len(set(chosen.tolist())) == 50
    assert (np.diff(chosen) > 0).all()
    assert len(set((chosen // 10).tolist())) == SAMPLE_SHARDS
    assert len(set((sample_rows(0, 1000, shards, 300, most=32) // 10).tolist())) == 32
    for few in (None, shards[:1], shards[:SAMPLE_SHARDS]):  # all are read anyway
        np.testing.assert_array_equal(sample_rows(0, 80, few, 20), sample(0, 80, 20))
