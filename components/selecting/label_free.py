"""Scores of timesteps that need no label, for a trained model on some images: which t are worth embedding?

What v_t tells the denoiser is measured in nats: by the I-MMSE relation an error in the noise is worth half its square a unit of
log-SNR (Guo et al. 2005; arXiv 2509.20609), so the gap between the denoiser without v_t and with it, summed over pixels, is the
information about x0 that v_t adds at that noise level.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from components.selecting import scores
from model.dier import DiER
from model.features import embed
from model.images import Images, to_images, to_tensor
from model.rng import derangement, generator, sample
from model.schedule import log_snr

IMAGES, VIEWED, DENOISED = 2000, 500, 1000
"""Images at most that are embedded, of which views are embedded too, and that are denoised with v_t and without."""
VIEWS = 4
SHIFT, SCALE, TURN, LIGHT = 0.06, 0.08, 0.12, 0.1
"""How mild a view is, at most: shifted by this share of the side, larger or smaller by this share, turned by so many radians, and
lighter or darker by this share. No mirror: digits and text do not bear one."""
SCORES = ("gap_nats", "invariance", "lidar", "calinski_harabasz", "rankme")
AVERAGED = ("gap_nats", "rankme")
"""Of these, the ones whose ranks are averaged. Views alone mislead: past the t where the gap closes v_t is not trained, and may be
steady because it says little. With all five, digits scattered over 16 x 16 pixels were given t = 801, 7.7 points of test accuracy
below the sweep's. These two were picked among 31 subsets on three sets of digits, the very ones they look well on: no evidence yet
for other images (experiments/choosing.py makes the comparison)."""
BATCH = 250


@torch.inference_mode()
def label_free(
    model: DiER, images: Images, timesteps: Sequence[int], seed: int, *, condition_dropout: bool = False
) -> list[dict[str, float]]:
    """One row a timestep: "t", "log_snr", each of SCORES (higher = better), and "score", 0 .. 1, its mean rank in AVERAGED.

    images (N, H, W, C) uint8, of which at most IMAGES are taken at random; the model may be on any device. `condition_dropout` says
    whether it was trained with some v_t withheld (train.condition_dropout): then "without v_t" is zeros in its place, else, as the
    denoiser does not know what to do without, another image's v_t, which misleads it and makes the gap larger at a clean t.
    """
    chosen = images[sample(seed, len(images), IMAGES)]
    seen = views(chosen[sample(seed, len(chosen), VIEWED)], seed)  # (VIEWS, n, H, W, C)
    device, shape = model.alpha_bar.device, seen.shape[:2]
    rows = []
    for t in timesteps:
        v = embed(model, chosen, t, device=device)  # (N, D)
        of_views = embed(model, seen.reshape(-1, *seen.shape[2:]), t, device=device).reshape(*shape, -1)  # (VIEWS, n, D)
        found = {
            "gap_nats": gap_nats(model, chosen[:DENOISED], v[:DENOISED], t, seed, withheld=condition_dropout),
            "invariance": scores.invariance(of_views),
            "lidar": scores.lidar(of_views),
            "calinski_harabasz": scores.calinski_harabasz(v, seed),
            "rankme": scores.rankme(v),
        }
        rows.append({"t": t, "log_snr": log_snr(t, model.config.schedule)} | found)
    together = scores.rank_average({name: [row[name] for row in rows] for name in AVERAGED})
    return [row | {"score": score} for row, score in zip(rows, together, strict=True)]


@torch.inference_mode()
def gap_nats(model: DiER, images: Images, v: npt.NDArray[np.float32], t: int, seed: int, *, withheld: bool) -> float:
    """Nats a unit of log-SNR that v (N, D) tells the denoiser of an image at t: half the squared error in eps that it saves.

    It may be below zero. Without v is zeros where they were `withheld` in training, else another image's, as `shuffled_gap` does.
    """
    device = model.alpha_bar.device
    own = torch.from_numpy(v).to(device)
    other = torch.zeros_like(own) if withheld else own[derangement(seed, len(own)).to(device)]
    saved = 0.0
    for start in range(0, len(images), BATCH):
        x, here = to_tensor(images[start : start + BATCH], device), slice(start, start + BATCH)
        times = torch.full((len(x),), t, device=device)
        noise = torch.randn(x.shape, generator=generator(seed, "gap", t, start)).to(device)
        without, given = (model.denoising_loss(x, times, noise, one[here]) for one in (other, own))
        saved += float((without - given).sum())
    pixels = model.config.image_height * model.config.image_width * model.config.channels
    snr = float(model.alpha_bar[t] / (1 - model.alpha_bar[t]))
    in_noise = {"eps": 1.0, "x0": snr, "v": snr / (snr + 1)}[model.config.prediction]  # model/objective.py
    return 0.5 * pixels * in_noise * saved / len(images)


def views(images: Images, seed: int) -> Images:
    """VIEWS mild views of each image (N, H, W, C): (VIEWS, N, H, W, C) uint8, drawn from the seed alone."""
    x = to_tensor(images)
    found = []
    for number in range(VIEWS):
        drawn = torch.rand(len(x), 5, generator=generator(seed, "view", number)) * 2 - 1  # (N, 5) in [-1, 1)
        angle, size = TURN * drawn[:, 0], 1 + SCALE * drawn[:, 1]
        across, down = 2 * SHIFT * drawn[:, 2], 2 * SHIFT * drawn[:, 3]  # the side is 2, from -1 to 1
        cos, sin = size * angle.cos(), size * angle.sin()
        where = torch.stack([cos, -sin, across, sin, cos, down], dim=1).view(-1, 2, 3)
        grid = F.affine_grid(where, list(x.shape), align_corners=False)  # (N, H, W, 2)
        moved = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
        light = (1 + LIGHT * drawn[:, 4]).view(-1, 1, 1, 1)
        found.append(to_images((moved + 1) * light - 1))  # black stays black
    return np.stack(found)
