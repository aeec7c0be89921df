"""What decides that new images drift, and at which level each: alpha is for all of it, and every test gets an equal part.

By Bonferroni: of images that did not change no more than alpha are called drifting, whichever of the tests is mistaken and however
they go together. What only warns has no part in it.
"""

from bisect import bisect_left
from collections.abc import Mapping
from functools import partial

from components.common.errors import SettingsError
from components.monitoring.two_sample import PERMUTATIONS

DECIDING = ("embeddings", "blank_images", "constant_images")
LEAST_ALPHA = len(DECIDING) / (PERMUTATIONS + 1)
"""0.002: below it no p of the test in embedding space could reach its part."""


def check_alpha(alpha: float, given: str = "--alpha") -> None:
    """Raises SettingsError for an alpha that no test can be held to, NaN among them; `given` is what the message calls it."""
    if not LEAST_ALPHA <= alpha <= 1:
        raise SettingsError(f"{given} is {alpha:g}: it is the share of false alarms, from {LEAST_ALPHA:g} to 1, such as 0.01")


def part(alpha: float) -> float:
    """The level of each of the tests that decide."""
    return alpha / len(DECIDING)


def decide(p: Mapping[str, float], alpha: float) -> list[str]:
    """Those of DECIDING, by their `p`, that find drift; [] where none does."""
    return [name for name in DECIDING if p[name] <= part(alpha)]


def p_of_more(hits: int, of: int, known: int, of_known: int) -> float:
    """Fisher's exact test, one-sided: is a share of new images (`hits` of `of`) larger than that of others (`known` of `of_known`)?

    Where both are draws from one distribution, p <= level happens in at most that share of them at any sizes: in fewer, as counts
    are whole. A limit on the share itself has no such level: at 1 % of the images one in a batch of ten is too many.
    """
    from scipy.stats import hypergeom  # half a second

    return float(hypergeom.cdf(known, of + of_known, hits + known, of_known))  # so few of all hits among the known ones


def most(of: int, known: int, of_known: int, level: float) -> int:
    """The largest number of hits in `of` new images for which `p_of_more` is still above `level`."""
    p = partial(p_of_more, of=of, known=known, of_known=of_known)
    return bisect_left(range(1, of + 1), True, key=lambda hits: p(hits) <= level)  # p falls with hits
