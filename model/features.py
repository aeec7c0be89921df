"""What is read out of a trained model: embeddings, what is before the head, the denoiser's layers, images, the shuffled-v_t gap."""

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .dier import DiER
from .images import Images, scaled, to_images, to_tensor
from .objective import clean
from .rng import derangement, generator, sample
from .schedule import add_noise, log_snr

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
GAP_IMAGES = 500
"""Images behind a shuffled-v_t gap at most."""
IN_FLIGHT = 3
"""Batches on their way at a time on CUDA: one whose embeddings are fetched, one that computes, one that is read."""
NOISE_IMAGES = 500
"""Images whose noise for the denoiser's layers is one draw."""


def _batches(images: Images, size: int, device: torch.device | str) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(images), size):
        yield start, to_tensor(images[start : start + size], device)


def _same_t(x: Tensor, t: int) -> Tensor:
    return torch.full((len(x),), t, device=x.device)


def _noise_like(x: Tensor, seed: int, *what: str | int) -> Tensor:
    return torch.randn(x.shape, generator=generator(seed, *what)).to(x.device)


def _noise_of(numbers: Ints, of: int, shape: torch.Size, seed: int, t: int) -> Tensor:
    """Noise (N, C, H, W) of images by their numbers in a set of `of` images, drawn for NOISE_IMAGES successive ones at a time."""
    noise = torch.empty(len(numbers), *shape)
    for first in np.unique(numbers // NOISE_IMAGES) * NOISE_IMAGES:
        drawn = torch.randn((min(NOISE_IMAGES, of - first), *shape), generator=generator(seed, "layers", t, int(first)))
        here = slice(*np.searchsorted(numbers, [first, first + NOISE_IMAGES]))
        noise[here] = drawn[torch.from_numpy(numbers[here] - first)]
    return noise


@torch.inference_mode()
def embed(model: DiER, images: Images, t: int, *, batch_size: int = 500, device: torch.device | str = "cpu") -> Floats:
    """The embeddings v_t of images (N, H, W, C) uint8 at one timestep: (N, embed_dim) float32. The model must be on `device`."""
    out, done = np.empty((len(images), model.config.embed_dim), np.float32), 0
    for (v,) in embed_batches(model, images, [t], batch_size=batch_size, device=device):
        out[done : done + len(v)] = v
        done += len(v)
    return out


@torch.inference_mode()
def embed_batches(
    model: DiER,
    images: Images,
    timesteps: Sequence[int],
    *,
    batch_size: int,
    device: torch.device | str = "cpu",
    precision: Literal["float32", "bf16"] = "float32",
    one_shape: bool = False,
    in_flight: int | None = None,
) -> Iterator[Floats]:
    """Yield v_t of successive batches of images (N, H, W, C) uint8 at each timestep: (T, n, embed_dim) float32.

    Each image is read and copied once for all timesteps. On CUDA the host never waits for the batch that it has just begun: the
    next ones are read into pinned memory, and copied on a stream of their own, while that one computes, and what it gives comes
    back into pinned memory; it is fetched `in_flight` batches later (None = IN_FLIGHT). No thread is needed, as CUDA's work runs
    beside the host anyway. On a CPU streams and events do nothing, and the same lines are a plain loop over batches.
    `one_shape` fills the last batch up, so that compiled blocks see one number of images.
    """
    device = torch.device(device)
    size = batch_size if one_shape else min(batch_size, len(images))
    number = in_flight or (IN_FLIGHT if device.type == "cuda" else 1)
    shape = (len(timesteps), size, model.config.embed_dim)
    slots = deque(_Slot((size, *images.shape[1:]), shape, device) for _ in range(number))
    # one row each: what depends on t alone is computed once a batch, not once an image
    at = [torch.tensor([t], device=device) for t in timesteps]
    bf16 = torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
    for start in range(0, len(images), batch_size):
        slots.rotate(-1)
        slot = slots[-1]  # the one that was begun first
        if slot.images:
            yield slot.fetch()
        x = slot.begin(images[start : start + batch_size], one_shape)
        with bf16:
            slot.finish([model.encoder(x, t).float() for t in at])
    for slot in slots:
        if slot.images:
            yield slot.fetch()


class _Slot:
    """Where a batch on its way is: memory on the host, pinned for CUDA, and on the device; a CPU has one memory for both."""

    def __init__(self, pixels: tuple[int, ...], v: tuple[int, ...], device: torch.device) -> None:
        """For images `pixels` (B, H, W, C) and embeddings `v` (T, B, embed_dim)."""
        library, pinned = torch.get_device_module(device), device.type == "cuda"
        self._pixels = torch.zeros(pixels, dtype=torch.uint8, pin_memory=pinned)
        self._on_device = self._pixels.to(device)
        self._v = torch.empty(v, pin_memory=pinned)
        self._library, self._compute = library, library.current_stream(device)
        self._copies, self._done = library.Stream(device), library.Event()
        self.images = 0
        """Images of the batch that is on its way here."""

    def begin(self, images: Images, whole: bool) -> Tensor:
        """Copy images (n, H, W, C) to the device: (n, C, H, W) in [-1, 1], or of the `whole` memory (B, C, H, W)."""
        self.images = len(images)
        here = slice(0, len(images))
        self._pixels.numpy()[here] = images
        with self._library.stream(self._copies):
            self._on_device[here].copy_(self._pixels[here], non_blocking=True)
        self._compute.wait_stream(self._copies)
        return scaled(self._on_device if whole else self._on_device[here])

    def finish(self, v: Sequence[Tensor]) -> None:
        """Let embeddings (B or n, embed_dim) of each timestep come back, when they are computed."""
        for place, one in zip(self._v, v, strict=True):
            place[: self.images].copy_(one[: self.images], non_blocking=True)
        self._done.record(self._compute)

    def fetch(self) -> Floats:
        """Wait for the batch that is on its way here, and give its embeddings (T, n, embed_dim)."""
        self._done.synchronize()
        v, self.images = self._v[:, : self.images].numpy().copy(), 0
        return v


@torch.inference_mode()
def trunk(model: DiER, images: Images, t: int, *, batch_size: int = 500, device: torch.device | str = "cpu") -> Floats:
    """What the encoder's head is given of images (N, H, W, C) uint8 at one timestep, its pooled tokens: (N, D') float32.

    D' is the width with a mean-pooled head, as many times that as there are tokens or cells with others. The head is shaped by what
    the denoiser wants to be told; what stands before it may say more about an image (Guillotine, arXiv 2206.13378).
    """
    read: list[Tensor] = []
    handle = model.encoder.head.register_forward_pre_hook(lambda _, given: read.append(given[0].float().cpu()))
    try:
        for _, x in _batches(images, batch_size, device):
            model.encoder(x, torch.tensor([t], device=device))
    finally:
        handle.remove()
    found: Floats = torch.cat(read).numpy()
    return found


@torch.inference_mode()
def denoiser_layers(
    model: DiER,
    images: Images,
    t: int,
    *,
    seed: int,
    numbers: Ints | None = None,
    of: int | None = None,
    batch_size: int = NOISE_IMAGES,
    device: torch.device | str = "cpu",
) -> list[Floats]:
    """Mean-pooled output of each denoiser block on x_t, (N, dim) float32 each: features the DDAE way.

    `numbers` (N,) ascending says which images of a set of `of` images these are, left out: all of it. The noise of an image depends
    on its number in the set, whichever others are given with it.
    """
    numbers, of = np.arange(len(images)) if numbers is None else numbers, len(images) if of is None else of
    depth, dim, _ = model.config.denoiser
    out = [np.empty((len(images), dim), np.float32) for _ in range(depth)]
    for start, x in _batches(images, batch_size, device):
        times = _same_t(x, t)
        noise = _noise_of(numbers[start : start + len(x)], of, x.shape[1:], seed, t).to(device)
        x_t = add_noise(x, noise, model.alpha_bar[times])
        for layer, mean in zip(out, model.denoiser.layer_means(x_t, times, model.encoder(x, times)), strict=True):
            layer[start : start + len(x)] = mean.float().cpu().numpy()
    return out


@torch.inference_mode()
def denoise(
    model: DiER, images: Images, t: int, *, seed: int, shuffle: bool = False, device: torch.device | str = "cpu"
) -> tuple[Images, Images]:
    """x_t and the x0 that the prediction implies, both (N, H, W, C) uint8; `shuffle` gives each image another's v_t."""
    x = to_tensor(images, device)
    times = _same_t(x, t)
    noise = _noise_like(x, seed, "denoise", t)
    v = model.encoder(x, times)
    x_t = add_noise(x, noise, model.alpha_bar[times])
    predicted = model.denoiser(x_t, times, v.roll(1, 0) if shuffle else v)
    return to_images(x_t), to_images(clean(model.config.prediction, x_t, predicted, model.alpha_bar[times]))


@torch.inference_mode()
def shuffled_gap(
    model: DiER,
    images: Images,
    timesteps: Sequence[int],
    *,
    seed: int,
    limit: int = GAP_IMAGES,
    batch_size: int = 250,
    device: torch.device | str = "cpu",
) -> list[dict[str, float]]:
    """Is v_t used? Per t the loss with v_t, the loss with each image given another's v_t, and their ratio. No label is read.

    images (N, H, W, C) uint8; of more than `limit` a random choice over all. The other image is a random one of these: files are
    often sorted by class, and a swap between neighbours would change little.
    """
    chosen = images[sample(seed, len(images), limit)]
    partner = derangement(seed, len(chosen)).to(device)
    rows = []
    for t in timesteps:
        own = shuffled = 0.0
        v = torch.from_numpy(embed(model, chosen, t, batch_size=batch_size, device=device)).to(device)  # (N, E)
        for start, x in _batches(chosen, batch_size, device):
            times, noise, here = _same_t(x, t), _noise_like(x, seed, "gap", t, start), slice(start, start + len(x))
            own += model.denoising_loss(x, times, noise, v[here]).sum().item()
            shuffled += model.denoising_loss(x, times, noise, v[partner[here]]).sum().item()
        n = len(chosen)
        level = log_snr(t, model.config.schedule)
        rows.append({"t": t, "log_snr": level, "loss": own / n, "loss_shuffled": shuffled / n, "ratio": shuffled / own})
    return rows
