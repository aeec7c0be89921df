"""How often images that did not change are called drifting, or warned of: no more than alpha says, at any size."""

from math import sqrt

import numpy as np
import pytest
from sklearn.datasets import load_digits

from components.common.errors import SettingsError
from components.monitoring.decision import LEAST_ALPHA, check_alpha, decide, most, p_of_more, part
from components.monitoring.pixels import shift
from components.monitoring.two_sample import PERMUTATIONS

DRAWS = 20_000
REFERENCE = 2000


def alarms(random: np.random.Generator, share: float, size: int, level: float, trained: float = 0.01) -> float:
    """How often a batch in which images are constant with probability `share` is more than chance, over references too."""
    known, hits = random.binomial(REFERENCE, trained, DRAWS), random.binomial(size, share, DRAWS)
    limits = {count: most(size, count, REFERENCE, level) for count in np.unique(known).tolist()}
    return float(np.mean([found > limits[count] for found, count in zip(hits, known.tolist(), strict=True)]))


@pytest.mark.parametrize("size", [1, 10, 30, 100])
@pytest.mark.parametrize("alpha", [0.01, 0.2])
def test_a_share_that_is_as_it_was_alarms_no_more_than_its_level(size: int, alpha: float) -> None:
    level = part(alpha)
    assert alarms(np.random.default_rng(0), 0.01, size, level) <= level + 3 * sqrt(level / DRAWS)


def test_a_share_that_grew_alarms() -> None:
    assert alarms(np.random.default_rng(0), 0.1, 100, part(0.01)) > 0.9
    assert alarms(np.random.default_rng(0), 0.5, 10, part(0.01)) > 0.9


def test_the_limit_is_the_last_count_that_is_above_the_level() -> None:
    assert [most(of, 0, 2000, 0.003) for of in (1, 6, 7, 100)] == [0, 0, 1, 1]
    assert p_of_more(1, 6, 0, 2000) == pytest.approx(6 / 2006)
    assert (most(10, 3, 3, 0.01), p_of_more(0, 5, 0, 9)) == (10, 1)  # where all are, none is too many


@pytest.mark.parametrize("size", [1, 4, 10, 30])
def test_brightness_as_it_was_is_beyond_chance_in_no_more_batches_than_alpha(size: int) -> None:
    means = load_digits().images.mean((1, 2)) * 16
    random = np.random.default_rng(size)
    batches = [shift(random.choice(means, size), random.choice(means, REFERENCE), 0.05) for _ in range(1000)]
    assert np.mean([apart > chance for apart, chance in batches]) < 0.05 + 3 * sqrt(0.05 / 1000)


def test_alpha_is_shared_and_each_part_can_be_reached() -> None:
    least = 1 / (PERMUTATIONS + 1)
    assert decide({"embeddings": least, "blank_images": 1, "constant_images": 0.5}, LEAST_ALPHA) == ["embeddings"]
    assert decide({"embeddings": 0.004, "blank_images": 0.004, "constant_images": 0.003}, 0.01) == ["constant_images"]
    assert decide({"embeddings": 5 * least, "blank_images": 1, "constant_images": 1}, 0.01) == ["embeddings"]
    for wrong in (float("nan"), 0.0001, 5):
        with pytest.raises(SettingsError, match=r"--alpha is .*: it is the share of false alarms, from 0\.002 to 1"):
            check_alpha(wrong)
