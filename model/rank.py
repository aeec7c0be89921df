"""How much of v_t is used: in how many directions it varies over images, and in how many the denoiser can tell that it does.

What lies in the null space of the denoiser's linear maps of v_t (`Denoiser.conditions`) gets no gradient, so that a v_t of 1,024
numbers under a denoiser of width 128 is one of rank 128. No label is read.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .dier import DiER
from .features import embed
from .images import Images
from .schedule import log_snr

IMAGES = 2000
"""Images behind a rank at most; of fewer than there are numbers in v_t it says more of the images."""
TIMESTEPS = (0, 100, 300, 600, 900)
SMALL = 0.01
"""A singular value below this share of the largest one does not count for the numerical rank."""


@torch.inference_mode()
def ranks(
    model: DiER, images: Images, timesteps: Sequence[int] = TIMESTEPS, *, device: torch.device | str = "cpu"
) -> dict[str, Any]:
    """Of images (N, H, W, C) uint8, N above 1: `map`, the ranks of the denoiser's map of v_t, and `v`, a row a timestep.

    A row has t, its log-SNR, the ranks of v_t about its mean over the images, and as `used` those of what the map makes of it.
    """
    read = model.denoiser.conditions().float().cpu()  # (rows, embed_dim)
    rows = []
    for t in timesteps:
        v = torch.from_numpy(embed(model, images, t, device=device))  # (N, embed_dim)
        v = v - v.mean(0)
        rows.append({"t": t, "log_snr": log_snr(t, model.config.schedule), **both(v), "used": both(v @ read.T)})
    return {"map": both(read), "v": rows}


def both(matrix: Tensor) -> dict[str, float]:
    """The ranks of a matrix: `numerical`, singular values above SMALL of the largest, and `effective`, in [1, smaller side].

    The effective one is e to the entropy of the singular values as shares of their sum (Roy & Vetterli 2007; RankMe, arXiv
    2210.02885): n for n equal ones. Of zeros both are 0.
    """
    values = torch.linalg.svdvals(matrix.double())
    if not values[0]:
        return {"numerical": 0, "effective": 0.0}
    shares = values / values.sum()
    return {"numerical": int((values > SMALL * values[0]).sum()), "effective": torch.special.entr(shares).sum().exp().item()}


def in_words(found: Mapping[str, Any], embed_dim: int) -> str:
    """The row of the largest used rank, in one line."""
    row = max(found["v"], key=lambda row: row["used"]["effective"])
    return (
        f"of {embed_dim} numbers in v_t the denoiser reads {found['map']['numerical']} directions; at t = {row['t']} v_t varies in "
        f"about {row['effective']:.0f} (effective rank), {row['used']['effective']:.0f} of what is read"
    )
