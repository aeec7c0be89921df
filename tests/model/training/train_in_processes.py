"""Test harness: trainings on digits in several processes each; what each process drew and got is written down.

    train_in_processes.py FOLDER '{"NAME": {"processes": 2, "stop": 3, ...}, ...}'

Runs the trainings one after another, each in a folder of its name. The processes are forks of this one, which has imported PyTorch
once for all and never computes. Started by torchrun it is one process of the single training that is named.
"""

import gc
import hashlib
import json
import os
import socket
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # making an optimizer imports it, which takes longer than a training
from sklearn.datasets import load_digits

from model.errors import Stopped
from model.images import to_tensor
from model.training import distributed, trainer
from model.training.distributed import Processes, joined
from model.training.fsdp import local
from model.training.trainer import Trainer
from tests.model.conftest import Hooks, small_model, train_config

STEPS = 8
VARIED = {"views": "crop_flip", "mask_ratio": 0.5, "condition_dropout": 0.3, "loss_weight": "min_snr", "variance_covariance": 0.5}


class Dying(Trainer):
    """Dies in a step (`die` is rank, step), as by SIGKILL: nothing is said and nothing cleaned up."""

    die: tuple[int, int] | None = None

    def _train_step(self) -> None:
        if self.die is not None and (self.processes.rank, self.step) == tuple(self.die):
            os._exit(7)
        super()._train_step()


def train(folder: Path, asked: dict[str, Any]) -> None:
    """One process of one training. Gives way to `stop`: the step from which the last process wants to stop."""
    distributed.COLLECTIVE_TIMEOUT = timedelta(seconds=asked.get("timeout", 60))
    trainer.AGREE_S = asked.get("agree_s", trainer.AGREE_S)
    with joined(torch.device("cpu")) as processes:
        training = make(folder, asked, processes)

        def wait(training: Trainer) -> None:
            time.sleep(asked.get("seconds", {}).get(str(training.step), asked.get("seconds", {}).get("each", 0)))

        def stop() -> int:
            return 15 if "stop" in asked and processes.rank == processes.count - 1 and training.step >= asked["stop"] else 0

        evaluated: dict[int, list[float]] = {}

        def evaluate(training: Trainer) -> None:
            """The first process alone, at some of the steps only, as an evaluation does it."""
            if training.step == asked.get("fail"):
                raise RuntimeError
            if training.step in asked.get("evaluate", []):
                x0 = to_tensor(training.images[:4])
                given = x0, torch.tensor([10, 100, 500, 900]), torch.ones_like(x0)
                with torch.no_grad():
                    evaluated[training.step] = [training.ema_model()(*given).sum().item() for _ in range(2)]

        training.callbacks += [Hooks(wait, stop=stop), Hooks(evaluate)]
        drawn = []
        for step in range(STEPS):
            x0, t, noise = training.batch(step)
            drawn += [
                {"step": step, "image": digest(image), "t": int(time), "noise": digest(one)}
                for image, time, one in zip(x0, t, noise, strict=True)
            ]
        (folder / f"drawn-{processes.rank}.json").write_text(json.dumps(drawn))
        try:
            training.run()
        except Stopped:
            return
        (folder / f"held-{processes.rank}.json").write_text(json.dumps(held(training)))
        if processes.first:
            (folder / "evaluated.json").write_text(json.dumps(evaluated))
            np.savez(folder / "weights.npz", **{name: value.numpy() for name, value in training.ema_weights().items()})
            (folder / "curve.json").write_text(json.dumps(training.curve))


def make(folder: Path, asked: dict[str, Any], processes: Processes) -> Trainer:
    varied = VARIED if asked.get("varied") else {}
    config = train_config(
        steps=asked.get("steps", STEPS),
        log_every=1,
        checkpoint_every=4,
        batch_size=20,
        micro_batch=asked.get("micro"),
        **varied | asked.get("changes", {}),
    )
    images = (load_digits().images[:300] * 255 / 16).round().astype(np.uint8)[..., None]
    model = small_model(**asked.get("model", {}))
    choices = {"compiled": asked.get("compiled", False), "fsdp": asked.get("sharded", False)}
    made = Dying(model, config, images, folder / "work", torch.device("cpu"), [], processes=processes, **choices)
    made.die = asked.get("die")
    return made


def held(training: Trainer) -> int:
    """Bytes of weights, gradients, moments and average in this process."""
    moments = [state[name] for state in training.optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    gradients = [parameter.grad for parameter in training.parameters if parameter.grad is not None]
    return sum(part.nbytes for part in local([*training.parameters, *gradients, *moments, *training.ema]))


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()[:16]


def fork(folder: Path, asked: dict[str, Any]) -> list[int]:
    """Run one training in as many forks as it asks for; gives their exit codes."""
    with socket.create_server(("127.0.0.1", 0)) as opened:
        port = opened.getsockname()[1]
    children = []
    for rank in range(asked["processes"]):
        pid = os.fork()
        if pid == 0:
            os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(asked["processes"])}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            try:
                train(folder, asked)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        children.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]


def main() -> None:
    folder, trainings = Path(sys.argv[1]), json.loads(sys.argv[2])
    gc.freeze()  # else a fork's first full collection copies all that PyTorch's import made: a second on a busy machine
    for name, asked in trainings.items():
        (folder / name).mkdir(exist_ok=True)
        if "RANK" in os.environ:
            train(folder / name, asked)
        else:
            (folder / name / "codes.json").write_text(json.dumps(fork(folder / name, asked)))


if __name__ == "__main__":
    main()
