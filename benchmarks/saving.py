"""What saving costs the training loop, in a thread and in its place: python -m benchmarks.saving --threads 1

Rounds of so many steps each, in turns: without a checkpoint, with one that the loop waits for (as before there was the thread),
with one written in the thread. The first step of a round is followed by the save. A model of 23 million parameters, 0.37 GB.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.contest import load
from model.config import ModelConfig
from model.device import keep_freed_memory
from model.training.options import TrainConfig
from model.training.trainer import Trainer

WAYS = ("none", "waited for", "in a thread")


def make_trainer(folder: Path) -> Trainer:
    """On random grey images of 28x28, a batch of 16."""
    images = np.random.default_rng(0).integers(0, 256, (2000, 28, 28, 1), np.uint8)
    model = ModelConfig(6, 320, 5, 28, 28, 1, 4, 128)
    trainer = Trainer(model, TrainConfig(steps=10**6, batch_size=16), images, folder, torch.device("cpu"))
    trainer.model.train()
    return trainer


def steps(trainer: Trainer, way: str, number: int) -> tuple[float, float, float]:
    """So many steps, a checkpoint after the first one: seconds of all, of which saving held the loop up, and CPU seconds."""
    began, spent, held = time.monotonic(), time.process_time(), 0.0
    for step in range(number):
        trainer._train_step()
        trainer.step += 1
        trainer.saver.check()
        if step == 0 and way != "none":
            start = time.monotonic()
            trainer._save()
            if way == "waited for":
                trainer.saver.wait()
            held = time.monotonic() - start
    start = time.monotonic()
    trainer.saver.wait()  # what the steps were too few for
    held += time.monotonic() - start
    return time.monotonic() - began, held, time.process_time() - spent


def main() -> None:
    """Run the rounds and print medians as JSON."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--steps", type=int, default=12, help="a round")
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    keep_freed_memory()
    times: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as name:
        trainer = make_trainer(Path(name))
        with trainer.saver:
            for way in WAYS:  # the first time allocates
                steps(trainer, way, 2)
            for number in range(given.rounds):
                for way in WAYS if number % 2 else WAYS[::-1]:
                    times[way].append(steps(trainer, way, given.steps))
        sizes = sum(file.stat().st_size for file in max(Path(name).glob("step-*")).iterdir())
    figures = {
        way: dict(
            zip(
                ("seconds", "held by saving", "CPU seconds"),
                (round(statistics.median(c), 3) for c in zip(*rows, strict=True)),
                strict=True,
            )
        )
        for way, rows in times.items()
    }
    parameters = sum(parameter.numel() for parameter in trainer.parameters)
    about = {"parameters": parameters, "checkpoint MB": round(sizes / 1e6), "steps a round": given.steps, "rounds": given.rounds}
    print(json.dumps(about | figures, indent=1), load(), sep="\n")


if __name__ == "__main__":
    main()
