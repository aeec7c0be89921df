"""Test harness, run by torchrun or forked: train on digits in as many processes as there are; write down what each drew and got.

usage: train_in_processes.py FOLDER [--stop STEP] [--die RANK:STEP] [--micro N] [--varied]
"""

import argparse
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from model.errors import Stopped
from model.training.distributed import joined
from model.training.options import TrainConfig, Watch
from model.training.trainer import Trainer
from tests.model.conftest import small_model, train_config

STEPS = 8


def one_of(rank: int, count: int, port: int, words: list[str]) -> None:
    """What torchrun does for a process that it starts."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    main(words)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stop", type=int, default=0)
    parser.add_argument("--die", default="")
    parser.add_argument("--micro", type=int)
    parser.add_argument("--varied", action="store_true", help="with views, masked tokens, withheld embeddings and weighted losses")
    asked = parser.parse_args(words)
    images = (load_digits().images[:300] * 255 / 16).round().astype(np.uint8)[..., None]
    with joined(torch.device("cpu")) as processes:
        trainer = make(images, asked, processes)
        drawn: list[dict[str, object]] = []

        def after(step: int) -> None:
            if asked.die == f"{processes.rank}:{step}":
                os._exit(7)

        def stop() -> int:
            return 15 if asked.stop and trainer.step >= asked.stop else 0

        trainer.watch = Watch(step=after, stop=stop)
        for step in range(STEPS):
            x0, t, noise = trainer.batch(step)
            drawn += [
                {"step": step, "image": digest(image), "t": int(time), "noise": digest(one)}
                for image, time, one in zip(x0, t, noise, strict=True)
            ]
        (asked.folder / f"drawn-{processes.count}-{processes.rank}.json").write_text(json.dumps(drawn))
        try:
            trainer.run()
        except Stopped:
            return
        if processes.first:
            np.savez(asked.folder / f"weights-{processes.count}.npz", **{k: v.numpy() for k, v in trainer.ema_weights().items()})
            (asked.folder / f"curve-{processes.count}.json").write_text(json.dumps(trainer.curve))


def make(images: np.ndarray, asked: argparse.Namespace, processes: object) -> Trainer:
    varied = {"views": "crop_flip", "mask_ratio": 0.5, "condition_dropout": 0.3, "loss_weight": "min_snr"} if asked.varied else {}
    config: TrainConfig = train_config(
        steps=STEPS, log_every=1, checkpoint_every=4, batch_size=20, micro_batch=asked.micro, **varied
    )
    return Trainer(small_model(), config, images, asked.folder / "work", torch.device("cpu"), processes=processes)  # type: ignore[arg-type]


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()[:16]


if __name__ == "__main__":
    main()
