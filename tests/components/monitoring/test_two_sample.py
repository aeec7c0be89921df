"""The test between two samples: exact where they are alike, and awake where they are not."""

import numpy as np
import pytest
from scipy.stats import kstest

from components.monitoring.two_sample import NEIGHBOUR, Neighbours, compare


def draw(random: np.random.Generator, n: int, shift: float = 0.0) -> np.ndarray:
    return (random.normal(size=(n, 8)) ** 3 + shift).astype(np.float32)  # far from normal


def test_p_is_uniform_where_both_are_of_one_distribution() -> None:
    random = np.random.default_rng(0)
    p = [compare(draw(random, 15), draw(random, 40), seed=n, permutations=99).p for n in range(200)]
    assert kstest(p, "uniform").pvalue > 0.01
    assert np.mean(np.array(p) <= 0.1) < 0.16  # three standard errors


@pytest.mark.parametrize("kind", ["shifted", "wider", "coordinates that go together"])
def test_what_differs_is_found(kind: str) -> None:
    random = np.random.default_rng(1)
    new, old = random.normal(size=(150, 8)), random.normal(size=(300, 8))
    if kind == "shifted":
        new[:, 0] += 1
    elif kind == "wider":
        new *= 1.5
    else:
        new[:, 1:4] = new[:, :1]  # each coordinate by itself is as before
    assert compare(new.astype(np.float32), old.astype(np.float32)).p == 1 / 1500


def test_the_same_question_has_the_same_answer() -> None:
    random = np.random.default_rng(2)
    new, old = draw(random, 30), draw(random, 50)
    assert compare(new, old) == compare(new, old)


def test_the_smallest_samples_have_a_p() -> None:
    old = draw(np.random.default_rng(3), 2)
    assert 0 < compare(old[:1], old).p <= 1
    assert compare(np.zeros((3, 4), np.float32), np.zeros((5, 4), np.float32)).p == 1


def test_an_image_far_from_all_is_beyond_the_limit() -> None:
    random = np.random.default_rng(4)
    reference = random.normal(size=(500, 4)).astype(np.float32)
    neighbours = Neighbours(reference)
    assert (neighbours.own > neighbours.limit).mean() == pytest.approx(0.01, abs=0.003)
    near, far = neighbours.distances(np.array([[0] * 4, [9] * 4], np.float32))
    assert near < neighbours.limit < far
    by_hand = np.sort(np.linalg.norm(reference - 9, axis=1))[NEIGHBOUR - 1]
    assert far == pytest.approx(by_hand, rel=1e-4)


def test_a_reference_that_tells_nothing_apart_is_refused() -> None:
    with pytest.raises(ValueError, match="too few to have a 5th neighbour"):
        Neighbours(np.zeros((5, 4), np.float32))
    alike = np.random.default_rng(5).normal(size=(1, 4)).repeat(50, 0).astype(np.float32)
    for collapsed in (np.zeros((50, 4), np.float32), alike, alike + 1e-6 * draw(np.random.default_rng(6), 50)[:, :4]):
        with pytest.raises(ValueError, match="the encoder has collapsed"):
            Neighbours(collapsed)
    alike[3] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        Neighbours(alike)
