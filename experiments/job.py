"""One training of the contest and all that is measured of it, in one process and one thread."""

import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from experiments.contestant import Budget, Features, Trained
from experiments.evaluate import Evaluation, Record
from experiments.methods import METHODS
from experiments.plan import Job, matching
from experiments.sets import load

LOOK_VARIANTS = 2
"""Of a reading, at a look: embedding 10,000 images at each t would take as long as the training."""


def run_job(job: Job, folder: Path, test: bool) -> list[Record]:
    """A line a reading; of a trial one, of val alone. Raises ValueError for a set or a reading that is not there."""
    torch.set_num_threads(1)
    with threadpool_limits(1):  # of BLAS and OpenMP, in the probes too
        return _trained(job, folder, test)


def _trained(job: Job, folder: Path, test: bool) -> list[Record]:
    evaluation = _evaluation(job.where, folder, test and job.kind == "run", job.sizes)
    images = evaluation.images
    looks = _Looks(job, evaluation)
    trained = METHODS[job.method](
        images.images["train"],
        images.labels["train"] if job.labels else None,
        budget=Budget(job.steps, job.batch_size, job.looks),
        seed=job.seed,
        setting={"family": images.family, **job.setting},
        look=looks if job.looks else None,
    )
    began = time.process_time()
    patterns = "|".join(f"(?:{pattern})" for _, pattern in job.patterns)
    val = evaluation.choose({name: trained.features[name] for name in matching(patterns, trained.features)})
    shared = _shared(job, trained)
    if job.kind == "trial":
        best = _best(job.patterns[0][1], val)
        return [shared | {"trial": job.trial, "val": val[best], "variant": best, "variants": val}]
    shared |= {
        "test_images": len(images.labels["test"]),
        "copies": images.copies,
        "occupancy": float(images.images["train"].any(axis=3).mean()),
    }
    records = [
        shared
        | {"reading": reading, "looks": [] if number else looks.found}
        | _measured(pattern, trained.features, val, evaluation)
        for number, (reading, pattern) in enumerate(job.patterns)
    ]
    if job.curve:
        records[0]["curve"] = evaluation.curve({name: f for name, f in trained.features.items() if timestep(name) is not None})
    for record in records:
        record["evaluation_seconds"] = time.process_time() - began
    return records


def timestep(variant: str) -> int | None:
    """t of "t=100"; None of any other variant."""
    t = variant.removeprefix("t=")
    return int(t) if t != variant and t.isdigit() else None


class _Looks:
    """What val says while a training goes on, of the first reading: the best of a few of its variants, evenly spaced."""

    def __init__(self, job: Job, evaluation: Evaluation) -> None:
        self._pattern, self._evaluation = job.patterns[0][1], evaluation
        self.found: list[Record] = []

    def __call__(self, step: int, variants: Mapping[str, Features]) -> None:
        names = matching(self._pattern, variants)
        some = {names[i] for i in np.linspace(0, len(names) - 1, LOOK_VARIANTS).round().astype(int)}
        val = self._evaluation.choose({name: variants[name] for name in names if name in some})
        best = next(iter(val))
        self.found.append({"step": step, "val": val[best], "variant": best})


def _measured(pattern: str, features: Mapping[str, Features], val: Mapping[str, float], evaluation: Evaluation) -> Record:
    best = _best(pattern, val)
    found = {name: val[name] for name in matching(pattern, features)}
    return {"variant": best, "variants": found, **evaluation.score(features[best])}


def _best(pattern: str, val: Mapping[str, float]) -> str:
    """The variant of a reading that is best on val, where val is in that order."""
    return matching(pattern, val)[0]


def _shared(job: Job, trained: Trained) -> Record:
    asked = {"job": job.fingerprint, "row": job.row, "set": job.where, "seed": job.seed, "setting": job.setting}
    cost = {"steps": trained.steps, "flops": trained.flops, "cpu_seconds": trained.cpu_seconds, "parameters": trained.parameters}
    return asked | cost


@lru_cache(maxsize=1)
def _evaluation(where: str, folder: Path, test: bool, sizes: tuple[str, ...]) -> Evaluation:
    """Of the set of the last job: what does not depend on the features is computed once."""
    return Evaluation(load(where, folder), test=test, sizes=sizes)
