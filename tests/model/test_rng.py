import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.rng import derangement, generator, sample, sample_order


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


@given(st.integers(0, 2**31), st.integers(2, 200), st.integers(1, 250))
def test_a_sample_is_ascending_without_repetition_and_nobody_is_its_own_partner(seed: int, count: int, limit: int) -> None:
    chosen = sample(seed, count, limit)
    assert len(chosen) == min(count, limit)
    assert list(chosen) == sorted(set(chosen.tolist()))
    assert 0 <= chosen[0] <= chosen[-1] < count
    partner = derangement(seed, count).numpy()
    assert sorted(partner) == list(range(count))
    assert not (partner == np.arange(count)).any()
