"""Seeds and images: what scipy gives in the cases that it knows, closed forms, and how often the intervals hold the truth."""

import math

import numpy as np
import pytest
from scipy import stats

from experiments.statistics import accuracy, bootstrap, holm, paired, pooled, two_level


def crossed(rng: np.random.Generator, seeds: int, images: int, a: float, b: float, e: float) -> np.ndarray:
    """D_si = a_s + b_i + e_si, of mean 0."""
    parts = a * rng.normal(size=(seeds, 1)), b * rng.normal(size=(1, images)), e * rng.normal(size=(seeds, images))
    return sum(parts)


def test_where_images_agree_it_is_the_t_test_over_seeds() -> None:
    by_seed = np.array([0.011, 0.018, 0.002, 0.013, 0.009])
    effect = two_level(np.repeat(by_seed[:, None], 40, axis=1))
    theirs = stats.ttest_1samp(by_seed, 0.0)
    assert effect.df == pytest.approx(4)
    assert effect.p == pytest.approx(theirs.pvalue)
    assert effect.interval() == pytest.approx(tuple(theirs.confidence_interval(0.95)))


def test_where_seeds_agree_it_is_the_t_test_over_images() -> None:
    by_image = np.random.default_rng(0).normal(0.1, 1.0, 300)
    effect = two_level(np.repeat(by_image[None], 5, axis=0))
    theirs = stats.ttest_1samp(by_image, 0.0)
    assert effect.p == pytest.approx(theirs.pvalue)
    assert effect.interval() == pytest.approx(tuple(theirs.confidence_interval(0.95)))


def test_one_method_and_no_seeds_is_mcnemar_like() -> None:
    """The paired difference of right and wrong: variance (b + c) / N^2 - (b - c)^2 / N^3, with N - 1 for N once."""
    n, b, c = 500, 60, 35
    ours = np.array([True] * b + [False] * c + [True] * (n - b - c))
    theirs = np.array([False] * b + [True] * c + [True] * (n - b - c))
    effect = paired({0: ours}, {0: theirs}, seedless=(True, True))
    assert effect is not None
    assert effect.value == pytest.approx((b - c) / n)
    assert effect.se**2 == pytest.approx(((b + c) / n - ((b - c) / n) ** 2) / (n - 1))
    assert effect.result
    assert effect.seeds == 0


def test_the_variance_is_the_crossed_anovas_and_at_most_one_residual_share_more() -> None:
    """(MS_seed + MS_image - MS_residual) / SN is unbiased; ours is that plus MS_residual / SN."""
    rng = np.random.default_rng(1)
    seeds, images = 5, 400
    x = crossed(rng, seeds, images, 0.02, 0.4, 0.5)
    rows, columns, mean = x.mean(1, keepdims=True), x.mean(0, keepdims=True), x.mean()
    ms_seed = images * ((rows - mean) ** 2).sum() / (seeds - 1)
    ms_image = seeds * ((columns - mean) ** 2).sum() / (images - 1)
    ms_rest = ((x - rows - columns + mean) ** 2).sum() / (seeds - 1) / (images - 1)
    unbiased = (ms_seed + ms_image - ms_rest) / (seeds * images)
    assert two_level(x).se ** 2 == pytest.approx(unbiased + ms_rest / (seeds * images))


def test_the_bootstrap_has_the_variance_that_owen_gives() -> None:
    """A / S + B / N + about 3 E / SN of the sample's own parts; seeds alone and images alone are exact."""
    rng = np.random.default_rng(2)
    seeds_only = np.repeat(rng.normal(size=(5, 1)), 200, axis=1)
    assert bootstrap(seeds_only, 4000).std() == pytest.approx(math.sqrt(seeds_only[:, 0].var(ddof=1) / 5), rel=0.05)
    images_only = np.repeat(rng.normal(size=(1, 200)), 5, axis=0)
    assert bootstrap(images_only, 4000).std() == pytest.approx(images_only[0].std() / math.sqrt(200), rel=0.05)
    mixed = crossed(rng, 5, 400, 0.0, 0.0, 1.0)
    assert bootstrap(mixed, 4000).var() == pytest.approx(3 / 2000, rel=0.25)


@pytest.mark.slow
@pytest.mark.parametrize(("a", "b", "e"), [(0.0, 0.4, 0.44), (0.01, 0.4, 0.44), (0.03, 0.4, 0.44), (0.02, 0.0, 0.44)])
def test_the_interval_holds_the_truth_as_often_as_it_says(a: float, b: float, e: float) -> None:
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(400):
        low, high = two_level(crossed(rng, 5, 1000, a, b, e)).interval()
        held += low <= 0 <= high
    assert held / 400 >= 0.95 - 2.5 * math.sqrt(0.95 * 0.05 / 400)


@pytest.mark.slow
def test_two_seeds_that_happen_to_agree_are_not_taken_for_sure() -> None:
    """Satterthwaite's degrees of freedom alone would hold the truth in 90 % of these."""
    rng = np.random.default_rng(8)
    held = 0
    for _ in range(400):
        low, high = two_level(crossed(rng, 2, 300, 0.04, 0.2, 0.24)).interval()
        held += low <= 0 <= high
    assert held / 400 > 0.94


def test_ignoring_seeds_would_not_hold_the_truth() -> None:
    """The check above can fail: an interval over the images of five pooled seeds is far too narrow where seeds differ."""
    rng = np.random.default_rng(4)
    held = 0
    for _ in range(100):
        x = crossed(rng, 5, 500, 0.05, 0.0, 0.4)
        held += abs(x.mean()) <= 1.96 * x.std() / math.sqrt(x.size)
    assert held < 70


def test_the_pooled_spread_is_the_error_of_an_analysis_of_variance() -> None:
    """For two rows of one spread it is Student's t-test of two samples, where images add nothing."""
    ours, theirs = np.array([0.52, 0.55, 0.51, 0.53]), np.array([0.48, 0.50, 0.49, 0.50])
    rows = [{seed: np.full(50, value) for seed, value in enumerate(row)} for row in (ours, theirs)]
    spread = pooled(rows)
    assert spread is not None
    assert spread.df == 6
    difference = paired(*rows)
    assert difference is not None
    assert difference.with_spread(spread, 2).p == pytest.approx(stats.ttest_ind(ours, theirs).pvalue)
    assert pooled([{0: np.ones(4)}, {1: np.zeros(4)}]) is None


@pytest.mark.slow
def test_an_interval_by_the_pooled_spread_holds_the_truth_and_is_narrower() -> None:
    rng = np.random.default_rng(9)
    held, widths = 0, []
    for _ in range(400):
        rows = [dict(enumerate(crossed(rng, 3, 500, 0.04, 0.2, 0.24))) for _ in range(8)]
        spread, difference = pooled(rows), paired(rows[0], rows[1])
        assert spread is not None
        assert difference is not None
        (low, high), alone = difference.with_spread(spread, 2).interval(), difference.interval()
        held += low <= 0 <= high
        widths.append((high - low) / (alone[1] - alone[0]))
    assert held / 400 >= 0.95 - 2.5 * math.sqrt(0.95 * 0.05 / 400)
    assert np.median(widths) < 0.8


def test_tost_agrees_with_two_one_sided_t_tests() -> None:
    by_seed = np.array([0.001, -0.002, 0.003, 0.0, 0.0015])
    effect = two_level(np.repeat(by_seed[:, None], 30, axis=1))
    lower = stats.ttest_1samp(by_seed, -0.005, alternative="greater").pvalue
    upper = stats.ttest_1samp(by_seed, 0.005, alternative="less").pvalue
    assert effect.p_equal(0.005) == pytest.approx(max(lower, upper))
    low, high = effect.interval(0.9)
    assert (effect.p_equal(0.005) <= 0.05) == (low >= -0.005 and high <= 0.005)


def test_far_apart_is_never_equal_and_no_spread_is_sure() -> None:
    assert two_level(np.full((5, 10), 0.25)).p_equal(0.005) == 1.0
    assert two_level(np.full((5, 10), 0.25)).p == 0.0
    assert two_level(np.zeros((5, 10))).p == 1.0
    assert two_level(np.zeros((5, 10))).p_equal(0.005) == 0.0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])


def test_holm_counts_what_is_not_measured() -> None:
    adjusted = holm([0.01, math.nan, math.nan])
    assert adjusted[0] == pytest.approx(0.03)
    assert math.isnan(adjusted[1])
    assert math.isnan(adjusted[2])


def test_seeds_are_paired_and_those_of_one_alone_left_out() -> None:
    rng = np.random.default_rng(5)
    ours = {seed: rng.random(50) < 0.8 for seed in (0, 1, 2)}
    theirs = {seed: rng.random(50) < 0.6 for seed in (1, 2, 3)}
    effect = paired(ours, theirs)
    assert effect is not None
    assert effect.seeds == 2
    assert effect.value == pytest.approx(np.mean([ours[s].mean() - theirs[s].mean() for s in (1, 2)]))
    assert paired({0: ours[0]}, {1: theirs[1]}) is None
    assert paired({}, theirs, seedless=(True, False)) is None


def test_what_needs_no_seed_is_compared_with_every_seed() -> None:
    rng = np.random.default_rng(6)
    ours = {seed: rng.random(60) < 0.8 for seed in range(3)}
    pixels = {0: rng.random(60) < 0.5}
    effect = paired(ours, pixels, seedless=(False, True))
    assert effect is not None
    assert effect.seeds == 3
    assert effect.value == pytest.approx(np.mean([ours[s].mean() for s in range(3)]) - pixels[0].mean())


def test_one_seed_is_no_result() -> None:
    effect = accuracy({0: np.arange(10) < 7})
    assert effect.value == pytest.approx(0.7)
    assert not effect.result
    assert math.isnan(effect.p)
    assert math.isnan(effect.p_equal(0.005))
    low, high = effect.interval()
    assert low < 0.7 < high


def test_the_bootstraps_interval_is_the_same_each_time_and_near_students() -> None:
    x = crossed(np.random.default_rng(7), 5, 400, 0.0, 1.0, 0.3)
    assert two_level(x).percentiles() == two_level(x.copy()).percentiles()
    assert two_level(x).percentiles() == pytest.approx(two_level(x).interval(), abs=0.02)


def test_a_single_image_gives_no_interval() -> None:
    with pytest.raises(ValueError, match="1 image"):
        two_level(np.ones((3, 1)))
