"""Choosing t with labels: searches over curves whose best t is known, and small probes on embeddings that know their class."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from components.selecting import small_probe
from components.selecting.labelled import SEARCHES, best
from components.selecting.places import ends, grid, levels, nearest, side_by_side
from components.selecting.small_probe import PENALTIES, SmallProbe


def peak_at(level: float, schedule: str = "linear"):
    known = levels(schedule)
    return lambda t, size: -abs(known[t] - level)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_grid_is_even_in_log_snr_between_the_ends(schedule: str) -> None:
    found, known = grid(schedule), levels(schedule)
    assert (len(found), found) == (12, sorted(found))
    low, high = ends(schedule)
    steps = -np.diff([known[t] for t in found])
    assert steps.max() < 1.6 * (high - low) / 11  # whole timesteps are far apart where an image is clean
    assert (known[found[0]], known[found[-1]]) == (pytest.approx(high, abs=0.5), pytest.approx(low, abs=0.5))


def test_timesteps_side_by_side_lie_about_the_best() -> None:
    known = levels("linear")
    found = side_by_side(300, 3, "linear")
    assert found[1] == 300
    assert np.diff([known[t] for t in found]) == pytest.approx([-2.5, -2.5], abs=0.02)
    assert side_by_side(300, 1, "linear") == [300]
    assert side_by_side(0, 3, "linear") == [0, nearest(known[0] - 2.5, "linear"), nearest(known[0] - 5, "linear")]
    assert side_by_side(0, 3, "linear", [0, 100, 200, 999]) == [0, 100, 200]
    assert side_by_side(999, 3, "linear", [0, 100, 999]) == [0, 100, 999]
    assert all(len(set(side_by_side(t, 6, schedule))) == 6 for t in range(0, 1000, 37) for schedule in ("linear", "cosine"))


@pytest.mark.parametrize("select", list(SEARCHES))
@pytest.mark.parametrize("level", [-7.0, -1.0, 2.1, 6.0])
def test_every_search_ends_near_the_only_peak(select: str, level: float) -> None:
    tried = list(SEARCHES[select](peak_at(level), grid("linear"), "linear"))
    assert abs(levels("linear")[best(tried)] - level) < 1.5


def test_what_a_search_costs() -> None:
    """In probes on all images: of 12 t a sweep takes 12, halving 12/4 + 6/2 + 3, golden section 2 and one a step."""
    cost = {name: sum(one.size for one in search(peak_at(2.1), grid("linear"), "linear")) for name, search in SEARCHES.items()}
    steps = math.ceil(math.log(1.5 / 19.3) / math.log(0.618))
    assert cost == {"sweep": 12, "halving": 9, "golden": pytest.approx(steps + 1, abs=1)}


class Made(SmallProbe):
    """Embeddings that tell the class by how near t is to 300; the image is its label and a number that tells nothing."""

    def _embed(self, images: np.ndarray, t: int) -> np.ndarray:
        self.encoded += len(images)
        known = levels("linear")
        signal = math.exp(-abs(known[t] - known[300]))
        rng = np.random.default_rng([t, len(images)])
        return (signal * np.eye(4, 8)[images[:, 0]] + 0.5 * rng.normal(size=(len(images), 8))).astype(np.float32)


@pytest.fixture
def probe() -> Made:
    rng = np.random.default_rng(0)
    parts = []
    for count in (600, 400):
        labels = rng.integers(4, size=count)
        parts.append((np.stack([labels, labels], axis=1), labels))
    model = SimpleNamespace(config=SimpleNamespace(schedule="linear", embed_dim=8))
    return Made(model, *parts, classes=4, metric="accuracy")


def test_small_probes_see_where_the_class_is_told(probe: Made) -> None:
    values = {t: probe.value(t, 1.0) for t in (0, 300, 999)}
    assert values[300] > 0.7
    assert max(values[0], values[999]) < 0.4
    assert (probe.encoded, probe.probes) == (3 * 1000, 3 * len(PENALTIES))


def test_more_of_the_images_cost_only_what_is_new(probe: Made) -> None:
    probe.value(300, 0.5)
    assert probe.encoded == 500
    probe.value(300, 1.0)
    assert probe.encoded == 1000


def test_one_amortised_probe_gives_the_whole_curve(probe: Made) -> None:
    timesteps = grid("linear")
    values = probe.amortised(timesteps, 0)
    assert abs(levels("linear")[timesteps[int(np.argmax(values))]] - levels("linear")[300]) < 2
    assert max(values) > values[0] + 0.2
    assert (probe.encoded, probe.probes) == (small_probe.DRAWS * 600 + 12 * 400, len(PENALTIES))


def test_labels_of_several_kinds_at_once(probe: Made) -> None:
    """(N, L) labels by AUC: each label is told by a number of its own."""
    probe.train, probe.val = ((images, np.eye(4, dtype=np.int64)[labels]) for images, labels in (probe.train, probe.val))
    probe.classes, probe.metric = 0, "auc"
    assert probe.value(300, 1.0) > 0.9 > probe.value(999, 1.0)
