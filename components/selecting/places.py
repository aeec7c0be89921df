"""Timesteps by their log-SNR: even steps in it are even steps of what is lost of an image, whatever the schedule."""

from collections.abc import Sequence

import numpy as np

from model.config import NUM_TIMESTEPS
from model.schedule import alpha_bars

POINTS = 12
"""Timesteps that a choice is made among, even in log-SNR."""
WIDEST = 10.0
"""Log-SNR beyond which nothing is sought: there an image is all but clean, or all but noise."""
SPACING = 2.5
"""Steps in log-SNR between timesteps side by side: those at t = 100 and 300 of the linear schedule are 2.6 apart."""


def levels(schedule: str) -> list[float]:
    """Log-SNR of every timestep, (NUM_TIMESTEPS,), falling."""
    alpha_bar = alpha_bars(schedule)
    found: list[float] = (alpha_bar / (1 - alpha_bar)).log().tolist()
    return found


def nearest(level: float, schedule: str, among: Sequence[int] = range(NUM_TIMESTEPS)) -> int:
    """The timestep whose log-SNR is nearest to `level`."""
    known = levels(schedule)
    return min(among, key=lambda t: abs(known[t] - level))


def ends(schedule: str) -> tuple[float, float]:
    """Lowest and highest log-SNR in which timesteps are sought."""
    known = levels(schedule)
    return max(known[-1], -WIDEST), min(known[0], WIDEST)


def grid(schedule: str, points: int = POINTS) -> list[int]:
    """So many timesteps from the cleanest to the noisiest, even in log-SNR."""
    low, high = ends(schedule)
    return list(dict.fromkeys(nearest(float(level), schedule) for level in np.linspace(high, low, points)))


def side_by_side(t: int, k: int, schedule: str, among: Sequence[int] = range(NUM_TIMESTEPS)) -> list[int]:
    """`t` and k - 1 timesteps about it, ascending: SPACING, twice SPACING ... away in log-SNR, to either side by turns.

    Where one side ends the other goes on. Of few timesteps `among` which to choose, the nearest that is left is taken each time.
    """
    known, (low, high) = levels(schedule), ends(schedule)
    steps = sorted(range(-2 * POINTS, 2 * POINTS + 1), key=lambda step: (abs(step), step))
    wanted = [known[t] + SPACING * step for step in steps if step and low <= known[t] + SPACING * step <= high]
    chosen, left = [t], [other for other in among if other != t]
    for level in wanted:
        if len(chosen) < k and left:
            chosen.append(nearest(level, schedule, left))
            left.remove(chosen[-1])
    return sorted(chosen)
