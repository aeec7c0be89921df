"""embed beside the bare encoder, and its memory: python -m benchmarks.embed [--images 50000 500000]

Rate: `components.embed.run` (checksums of its inputs, images from a mapped file, Parquet, fsync, manifest) and the encoder's
forward passes alone over the same images, already tensors, in turns; bar: 90 %. The encoder runs with a t for every image too:
what computing the conditioning once saves. Memory: the highest resident set of a process of its own that embeds so many images.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.contest import load, rate, ratio, take_turns
from components import embed
from components.common import artifact
from components.common.settings import EmbedSettings
from data.format import DatasetInfo, write_info
from model.config import SIZES, ModelConfig
from model.device import keep_freed_memory
from model.dier import DiER
from model.images import to_tensor
from model.weights import load_model, save_model

BATCH = 500
T = 300


def make_inputs(folder: Path, images: int, side: int, size: str, patch: int, channels: int = 1) -> tuple[Path, Path]:
    """A dataset artifact of random images, all in `test`, and an untrained model for it."""
    generator = np.random.default_rng(0)
    with artifact.create(folder / "dataset", "dataset", {}) as made:
        for split, count in {"train": 1, "val": 1, "test": images}.items():
            (made / split).mkdir()
            mapped = np.lib.format.open_memmap(made / split / "images.npy", "w+", np.uint8, (count, side, side, channels))
            for start in range(0, count, 10_000):
                mapped[start : start + 10_000] = generator.integers(0, 256, mapped[start : start + 10_000].shape, np.uint8)
            np.save(made / split / "labels.npy", generator.integers(0, 10, count))
        counts = {"train": 1, "val": 1, "test": images}
        write_info(
            made, DatasetInfo("random", "npz", "none", "multi-class", list("0123456789"), [side, side, channels], counts, [])
        )
    depth, dim, heads = SIZES[size]
    network = DiER(ModelConfig(depth, dim, heads, side, side, channels, patch, 128))
    with artifact.create(folder / "model", "model", {}) as made:
        save_model(made, network, network.state_dict())
    return folder / "dataset", folder / "model"


def embed_once(folder: Path) -> None:
    """What is measured."""
    settings = EmbedSettings(timesteps=[T], splits=["test"], batch_size=BATCH)
    embed.run(settings, folder / "dataset", folder / "model", folder / "embeddings")


def whole_step(folder: Path, threads: int) -> Callable[[], None]:
    """embed as `dier embed` runs it."""
    torch.set_num_threads(threads)
    return partial(embed_once, folder)


def bare_encoder(folder: Path, threads: int, one_t: bool) -> Callable[[], None]:
    """The encoder's forward passes over the same images; `one_t`: with one t for all, not one an image."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    network = load_model(folder / "model")
    x = to_tensor(np.load(folder / "dataset" / "test" / "images.npy"))
    t = torch.full((1 if one_t else BATCH,), T)

    @torch.inference_mode()
    def forward() -> None:
        for start in range(0, len(x), BATCH):
            part = x[start : start + BATCH]
            network.encoder(part, t[: len(part)])

    return forward


def compare(images: int, rounds: int, size: str, threads: int) -> None:
    """Print embed's rate as a share of the bare encoder's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder, images, 28, size, 4)
        contestants = {
            "embed": partial(whole_step, folder, threads),
            "encoder": partial(bare_encoder, folder, threads, True),
            "t an image": partial(bare_encoder, folder, threads, False),
        }
        times = take_turns(contestants, rounds)
    print(f"{images} images of 28x28, patch 4, {size}, {threads} threads, {rounds} rounds, {load()}")
    for name in contestants:
        print(f"  {name:10s} {rate(times, name, images)} images a second")
    for clock, title in enumerate(("wall clock", "processor time")):
        print(f"  by {title}: embed / encoder {ratio(times, 'embed', 'encoder', clock)}", end="")
        print(f", encoder with one t / a t an image {ratio(times, 'encoder', 't an image', clock)}")


def peak(images: int) -> tuple[float, float]:
    """Highest resident set in MiB of a process that embeds so many 8x8 images, and seconds."""
    with tempfile.TemporaryDirectory() as name:
        make_inputs(Path(name), images, 8, "demo", 4)
        command = [sys.executable, "-m", "benchmarks.embed", "--in-process", name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
        kib, seconds = json.loads(done.stdout.splitlines()[-1])
    return kib / 1024, seconds


def main() -> None:
    """Measure rate and memory."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--images", type=int, nargs="*", default=[50_000, 500_000], help="numbers of images for the memory")
    arguments.add_argument("--rate-images", type=int, default=4_000)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--size", choices=SIZES, default="tiny")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--in-process", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.in_process:
        torch.set_num_threads(given.threads)
        embed_once(given.in_process)
        # getrusage's own figure starts at the parent's; the kernel's high-water mark of this memory does not
        kib = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text("utf-8"))
        assert kib
        print(json.dumps([int(kib[1]), time.process_time()]))
        return
    compare(given.rate_images, given.rounds, given.size, given.threads)
    for images in given.images:
        mib, seconds = peak(images)
        print(f"  {images:7d} images: {mib:.0f} MiB at most, {seconds:.0f} s of processor time")


if __name__ == "__main__":
    main()
