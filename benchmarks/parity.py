"""bf16 beside float32 on the CPU: python -m benchmarks.parity [fashionmnist.npz] [--steps 1000 --seeds 0 1 2]

Per seed two trainings that differ in `train.precision` alone: the losses over the last tenth of the steps. Then one model, the
float32 training's, read twice, plainly and under bf16 autocast: per t the least cosine of an image's two embeddings (as they are,
and less the mean of all, which says more: embeddings of a young model are nearly alike), the loss, and the accuracy on val of a
linear probe fitted on each; and of the bf16 training's model read in bf16. Without a file the images are scikit-learn's digits; a
file is an npz in MedMNIST's layout (docs/data.md), of which test is never read.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits

from components.probing.classifier import fit_grid
from model.config import ModelConfig
from model.dier import DiER
from model.features import embed
from model.images import to_tensor
from model.rng import generator
from model.training.options import TrainConfig
from model.training.trainer import Trainer

TIMESTEPS = (0, 100, 300, 600, 999)
C_GRID = (0.01, 0.03, 0.1, 0.3)
PRECISIONS = ("float32", "bf16")


class Part(NamedTuple):
    """images (N, H, W, C) uint8, labels (N,)."""

    images: np.ndarray
    labels: np.ndarray


def read(file: Path | None, limit: int) -> tuple[Part, Part]:
    """Train and val, `limit` images of each at most."""
    if file is None:
        digits = load_digits()
        order = np.random.default_rng(0).permutation(len(digits.target))
        images, labels = (digits.images[order] * 255 / 16).round().astype(np.uint8)[..., None], digits.target[order]
        return Part(images[:1200][:limit], labels[:1200][:limit]), Part(images[1200:][:limit], labels[1200:][:limit])
    with np.load(file, allow_pickle=False) as content:
        found = [(content[f"{name}_images"][:limit], content[f"{name}_labels"][:limit]) for name in ("train", "val")]
    train, val = (Part(images.reshape(*images.shape[:3], -1), labels[:, 0]) for images, labels in found)
    return train, val


def trained(images: np.ndarray, precision: str, seed: int, steps: int, batch: int) -> tuple[DiER, float]:
    """The averaged model of a short training, and its mean loss over the last tenth of the steps."""
    _, side, _, channels = images.shape
    config = ModelConfig(2, 96, 3, side, side, channels, side // 4, 128, init_seed=seed)
    train = TrainConfig(
        steps=steps,
        batch_size=batch,
        warmup_steps=min(200, steps // 5),
        seed=seed,
        precision=precision,
        log_every=-(-steps // 10),
        keep_checkpoints=1,
    )
    with tempfile.TemporaryDirectory() as work:
        trainer = Trainer(config, train, images, Path(work) / "training", torch.device("cpu"))
        trainer.run()
        return trainer.ema_model(), trainer.curve[-1]["loss"]


def read_out(model: DiER, part: Part, t: int, precision: str) -> np.ndarray:
    """The embeddings (N, E) float32 at t."""
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        return embed(model, part.images, t)


@torch.inference_mode()
def loss_at(model: DiER, images: np.ndarray, t: int, precision: str) -> float:
    """The mean loss at t over images, each with noise of its own."""
    x0 = to_tensor(images)
    noise = torch.randn(x0.shape, generator=generator(0, "parity", t))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        return model(x0, torch.full((len(x0),), t), noise).mean().item()


def probe(train: np.ndarray, val: np.ndarray, parts: tuple[Part, Part]) -> float:
    """The best accuracy over C, %, on the validation images that are reported: alike for all."""
    fits = fit_grid(train, parts[0].labels, 10, C_GRID, 300)
    return 100 * max(float((fitted.scores(val).argmax(1) == parts[1].labels).mean()) for _, fitted in fits)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Row by row, (N,)."""
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def compare(parts: tuple[Part, Part], seed: int, steps: int, batch: int) -> list[dict[str, Any]]:
    """A row a timestep."""
    models, last = zip(*(trained(parts[0].images, precision, seed, steps, batch) for precision in PRECISIONS), strict=True)
    rows = []
    for t in TIMESTEPS:
        plain, half = ([read_out(models[0], part, t, precision) for part in parts] for precision in PRECISIONS)
        wholly = [read_out(models[1], part, t, "bf16") for part in parts]
        cosine = cosines(plain[1], half[1])
        centred = cosines(*(found[1] - plain[0].mean(0) for found in (plain, half)))
        losses = [loss_at(models[0], parts[1].images[:500], t, precision) for precision in PRECISIONS]
        rows.append(
            {
                "seed": seed,
                "t": t,
                "cosine": float(cosine.min()),
                "centred": float(centred.min()),
                "loss": losses[0],
                "loss_ratio": losses[1] / losses[0],
                "probe": [probe(*found, parts) for found in (plain, half, wholly)],
                "last_losses": last,
            }
        )
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="bf16 beside float32 on the CPU.")
    parser.add_argument("file", nargs="?", type=Path, help="npz in MedMNIST's layout; left out = digits")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--limit", type=int, default=5000, help="images of train and of val")
    given = parser.parse_args()
    parts = read(given.file, given.limit)
    found: list[dict[str, Any]] = []
    for number, seed in enumerate(given.seeds, 1):
        found += compare(parts, seed, given.steps, given.batch_size)
        print(f"{number} of {len(given.seeds)} seeds", file=sys.stderr, flush=True)
    ends = {row["seed"]: row["last_losses"] for row in found}
    print("loss of the last tenth, float32 and bf16 training: " + "; ".join(f"{a:.4f}, {b:.4f}" for a, b in ends.values()))
    read_ways = "float32 | model float32, read in bf16 | trained and read in bf16"
    print(f"| t | least cosine | of centred | loss | bf16 / float32 | probe, %: {read_ways} |")
    print("|---" * 8 + "|")
    for t in TIMESTEPS:
        rows = [row for row in found if row["t"] == t]
        loss, ratio = (np.mean([row[name] for row in rows]) for name in ("loss", "loss_ratio"))
        cosine, centred = (min(row[name] for row in rows) for name in ("cosine", "centred"))
        accuracies = " | ".join(f"{value:.1f}" for value in np.mean([row["probe"] for row in rows], axis=0))
        print(f"| {t} | {cosine:.5f} | {centred:.3f} | {loss:.4f} | {ratio:.4f} | {accuracies} |")


if __name__ == "__main__":
    main()
