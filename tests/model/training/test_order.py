"""Which images a step draws, of one file and of many."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.rng import sample_order
from model.training.distributed import Processes
from model.training.order import Lanes, make_order


def shards_of(sizes: list[int]) -> list[slice]:
    ends = np.cumsum(sizes).tolist()
    return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]


SIXTEEN = shards_of([200] * 16)


@pytest.mark.parametrize("shards", [None, [slice(0, 300)]])
def test_of_one_file_the_order_is_the_shuffle_of_all_images(shards: list[slice] | None) -> None:
    order = make_order(7, 300, shards, 16, 8)
    for step in (0, 3, 40):
        expected = np.sort(sample_order(7, 300, step * 16, 16))
        np.testing.assert_array_equal(order.rows(step, slice(0, 16)), expected)
        np.testing.assert_array_equal(order.rows(step, slice(4, 8)), expected[4:8])
        assert order.shards(step, slice(0, 16)) is None


@given(
    st.lists(st.integers(1, 30), min_size=2, max_size=20),
    st.integers(2, 40),
    st.integers(1, 20),
    st.integers(1, 9),
    st.integers(0, 60),
)
def test_samples_do_not_depend_on_the_number_of_processes(
    sizes: list[int], batch: int, at_once: int, count: int, step: int
) -> None:
    order = make_order(0, sum(sizes), shards_of(sizes), batch, at_once)
    whole = order.rows(step, slice(0, batch))
    parts = [
        make_order(0, sum(sizes), shards_of(sizes), batch, at_once).rows(step, Processes(r, count).share(batch))
        for r in range(count)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert len(whole) == batch


@given(st.lists(st.integers(1, 30), min_size=2, max_size=20), st.integers(2, 40), st.integers(1, 20), st.integers(1, 12))
def test_each_lane_draws_every_image_of_its_epochs_once(sizes: list[int], batch: int, at_once: int, steps: int) -> None:
    """Of all lanes together an epoch is every image once."""
    order = Lanes(0, shards_of(sizes), batch, at_once)
    for epoch in range(3):
        dealt = [order._dealt(lane, epoch) for lane in range(order.count)]
        assert sorted(np.concatenate(dealt)) == list(range(len(sizes)))
        for lane, shards in enumerate(dealt):
            start = sum(sum(sizes[s] for s in order._dealt(lane, before)) for before in range(epoch))
            number = sum(sizes[s] for s in shards)
            drawn = np.concatenate(
                [order._images(lane, e, g, slice(o, o + n)) for e, g, o, n in order._pieces(lane, start, number)]
            )
            expected = np.concatenate([np.arange(sum(sizes[:s]), sum(sizes[: s + 1])) for s in shards])
            np.testing.assert_array_equal(np.sort(drawn), np.sort(expected))


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_processes_whose_number_divides_the_lanes_read_disjoint_shards(count: int) -> None:
    order = Lanes(0, SIXTEEN, 64, 8)
    assert order.count == 8
    steps = 50  # of 8 places a lane: the first epoch
    read = []
    for rank in range(count):
        places = Processes(rank, count).share(64)
        read.append({shard.start for step in range(steps) for shard in order.shards(step, places)})
    assert Counter(start for one in read for start in one) == Counter(shard.start for shard in SIXTEEN)
    assert {len(one) for one in read} == {16 // count}


@pytest.mark.parametrize(
    ("at_once", "batch", "lanes", "most"), [(1, 64, 1, 1), (3, 64, 2, 2), (8, 64, 8, 8), (16, 64, 8, 16), (8, 5, 4, 8)]
)
def test_no_more_shards_are_open_than_was_allowed(at_once: int, batch: int, lanes: int, most: int) -> None:
    order = Lanes(0, SIXTEEN, batch, at_once)
    assert order.count == lanes
    open_ = [{shard.start for shard in order.shards(step, slice(0, batch))} for step in range(100)]
    assert max(map(len, open_)) <= 2 * most  # in a step that ends one group and begins the next
    assert sorted(map(len, open_))[50] <= most
    for step in range(100):
        rows = order.rows(step, slice(0, batch))
        assert {shard.start for shard in SIXTEEN for row in rows if shard.start <= row < shard.stop} <= open_[step]


def test_the_order_is_shuffled_over_shards_and_within_them_and_the_seed_matters() -> None:
    firsts = [Lanes(seed, SIXTEEN, 64, 8)._dealt(0, epoch).tolist() for seed in (0, 1) for epoch in (0, 8)]
    assert len({tuple(one) for one in firsts}) == 4
    inside = Lanes(0, SIXTEEN, 64, 8)._images(0, 0, 0, slice(0, 13))
    assert np.sort(inside).tolist() != inside.tolist()


def test_over_many_epochs_every_image_is_drawn_about_as_often() -> None:
    order = Lanes(0, shards_of([10] * 9 + [3]), 16, 8)
    drawn = np.bincount(np.concatenate([order.rows(step, slice(0, 16)) for step in range(93 * 100 // 16)]), minlength=93)
    assert drawn.min() > 60
    assert drawn.max() < 160
