"""The baselines that are probed beside DiER: their names, and what sentences, tables and legends call them.

Light on purpose: the settings' schema takes the names from here. What each one's features are stands in `representations.py`.
"""

from typing import Literal, NamedTuple

BaselineName = Literal["pixels", "pca", "untrained", "denoiser_given_v", "dier_trunk"]

DEFAULT: tuple[BaselineName, ...] = ("pixels", "pca", "untrained", "denoiser_given_v")
"""Those that are probed unless others are asked for: before a flat head stand many numbers, and a probe at every t takes long."""


class Baseline(NamedTuple):
    """`label` names it in a sentence, with {block} where it is probed block by block; `caveat` is what a comparison must add."""

    label: str
    caveat: str = ""


BASELINES: dict[str, Baseline] = {
    "pixels": Baseline("raw pixels"),
    "pca": Baseline("PCA of the pixels"),
    "untrained": Baseline("the untrained encoder"),
    "denoiser_given_v": Baseline(
        "the denoiser's block {block}, which is given v_t",
        "The denoiser's blocks are computed with v_t of the clean image, so they contain DiER's embedding: no test of the "
        "denoising autoencoder alone.",
    ),
    "dier_trunk": Baseline(
        "the encoder before its head",
        "The encoder before its head is DiER's own network, at the t that is best for it: no other method, and seldom of as many "
        "numbers as an embedding.",
    ),
}

SIDE_BY_SIDE, REDUCED, ALONE = "dier_k", "dier_k_pca", "dier_one_t"
"""With embed.k above 1: DiER at k timesteps side by side, which is then what is judged and served; beside it the same in as many
principal components as one embedding has numbers, and DiER at its best single t. What they are called is in VARIANTS."""
VARIANTS = {
    "dier": "DiER",
    SIDE_BY_SIDE: "DiER at several t side by side",
    REDUCED: "the same reduced to one embedding's size by PCA",
    ALONE: "DiER at its best single t",
}


def block(baseline: BaselineName, number: int) -> str:
    """The representation that is one block of a baseline."""
    return f"{baseline}_block{number}"


def baseline_of(representation: str) -> str:
    """The baseline that a representation belongs to: its name without the block."""
    return representation.partition("_block")[0]


def label(representation: str) -> str:
    """What a representation is called in a sentence."""
    baseline, _, number = representation.partition("_block")
    return VARIANTS[baseline] if baseline in VARIANTS else BASELINES[baseline].label.format(block=number)
