"""The kill matrix: trainings killed with SIGKILL, resumed, killed again; then compared bit for bit with an undisturbed one.

    python benchmarks/kill_matrix.py --kills 400 --plain 20       # the long version: four minutes
    python benchmarks/kill_matrix.py --kills 24 --plain 1         # the short one, which the tests run

Every other kill comes at a random moment, the others inside saving, at each phase of `PHASES` in turn. After some
kills one file of the newest checkpoint is truncated, flipped in one bit or removed as well, where there is an older one to fall
back to. A training is killed up to five times and then runs to its end. Its last checkpoints (weights, EMA, optimizer, step, curve)
must have the very bytes, and rates.csv the very steps, of the undisturbed training. One that goes on from before the last
checkpoint that was saved counts as lost.

So that a kill does not cost the import of PyTorch, most trainings are forks of this process, which has imported it, has one thread
and never computes; `--plain N` of the kills hit fresh interpreters, as does the undisturbed training. This is a test harness: it
puts a hook in the place of `model.training.checkpoint.phase`.
"""

import argparse
import collections
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

for library in ("OMP", "OPENBLAS", "MKL"):  # a process with threads cannot be forked safely
    os.environ[f"{library}_NUM_THREADS"] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch._dynamo  # noqa: E402  making an optimizer imports it, which takes longer than the training

from model.config import ModelConfig  # noqa: E402
from model.training import checkpoint  # noqa: E402
from model.training.callback import Callback  # noqa: E402
from model.training.options import TrainConfig  # noqa: E402
from model.training.trainer import Trainer  # noqa: E402

torch.set_num_threads(1)

STEPS, EVERY, KEEP = 48, 4, 2
MODEL = ModelConfig(depth=1, dim=16, heads=2, image_height=8, image_width=8, channels=1, patch_size=2, embed_dim=8)
GOES_ON = "train: going on from the checkpoint of step "
MOST_KILLS = 5
"""Of one training."""
DAMAGED = 0.3
"""Share of the kills after which the newest checkpoint is damaged as well."""


@dataclass(frozen=True)
class Plan:
    """When a training dies: as the `nth` save is at `phase`, or (phase "random") `seconds` after it starts, or not at all."""

    phase: str = "none"
    nth: int = 1
    seconds: float = 0.0


@dataclass
class Outcome:
    """How it ended (killed, finished, broken), where it began, the last step that it saved, and what it said."""

    end: str
    resumed: int = 0
    saved: int = 0
    said: list[str] = field(default_factory=list)


@dataclass
class Counts:
    """What is reported."""

    kills: collections.Counter[str] = field(default_factory=collections.Counter)
    plain: int = 0
    damaged: int = 0
    trainings: int = 0
    lost: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)


def train(work: Path, plan: Plan, seed: int, out: int) -> None:
    """The training that is killed; tells the file descriptor `out` where it begins and what it has saved."""

    def tell(line: str) -> None:
        os.write(out, f"{line}\n".encode())

    passed = 0

    def phase(name: str) -> None:
        nonlocal passed
        if name == "rename":
            tell(f"saved {newest(work)}")
        passed += name == plan.phase
        if name == plan.phase and passed == plan.nth:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint.phase = phase
    images = np.random.default_rng(0).integers(0, 256, (100, 8, 8, 1), dtype=np.uint8)
    config = TrainConfig(
        steps=STEPS,
        batch_size=8,
        lr=1e-3,
        warmup_steps=4,
        weight_decay=0.01,
        ema_decay=0.99,
        seed=seed,
        log_every=5,
        checkpoint_every=EVERY,
        checkpoint_minutes=0,
        keep_checkpoints=KEEP,
    )
    tell("ready")
    said = Callback()
    said.on_message = tell  # type: ignore[method-assign]
    trainer = Trainer(MODEL, config, images, work, torch.device("cpu"), [said], {"data": "random", "train.lr": 1e-3})
    trainer.run()
    (work / "curve.json").write_text(json.dumps(trainer.curve))  # with the columns in the order that the artifact takes from it


def attempt(work: Path, plan: Plan, *, plain: bool = False, seed: int = 0) -> Outcome:
    """Start the training in a process of its own, kill it as planned, wait for its end."""
    if plain:
        words = [sys.executable, __file__, "--child", str(work), plan.phase, str(plan.nth), str(seed)]
        process = subprocess.Popen(words, stdout=subprocess.PIPE)  # noqa: S603  this very file
        assert process.stdout is not None
        pid, told = process.pid, process.stdout.fileno()
    else:
        told, out = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(told)
                train(work, plan, seed, out)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        os.close(out)
    lines = os.read(told, 1 << 16)  # it is ready
    if plan.phase == "random":
        time.sleep(plan.seconds)
        os.kill(pid, signal.SIGKILL)
    while piece := os.read(told, 1 << 16):
        lines += piece
    status = os.waitpid(pid, 0)[1]
    if plain:
        process.stdout.close()
        process.returncode = status
    else:
        os.close(told)
    end = "killed" if status == signal.SIGKILL else "finished" if status == 0 else "broken"
    said = lines.decode().splitlines()
    begun = [int(line.removeprefix(GOES_ON)) for line in said if line.startswith(GOES_ON)]
    saved = [int(line.split()[1]) for line in said if line.startswith("saved ")]
    return Outcome(end, begun[0] if begun else 0, saved[-1] if saved else 0, said)


def newest(work: Path) -> int:
    """The step of the newest checkpoint, whole or not; 0 = none."""
    return max((int(path.name.removeprefix("step-")) for path in work.glob("step-*")), default=0)


def harm(work: Path, chance: random.Random) -> int:
    """Damage one file of the newest checkpoint; gives the step of the one before it, which is to be fallen back to."""
    steps = sorted(work.glob("step-*"))
    file = chance.choice(sorted(steps[-1].iterdir()))
    content = bytearray(file.read_bytes())
    kind = chance.choice(["truncated", "flipped", "removed"])
    if kind == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif kind == "flipped":
        content[chance.randrange(len(content) - 1)] ^= 1 << chance.randrange(8)  # but for the newline that ends a JSON file
        file.write_bytes(content)
    else:
        file.unlink()
    return int(steps[-2].name.removeprefix("step-"))


def contents(work: Path) -> dict[str, bytes]:
    """What must be equal in the end: every file of every checkpoint, the curve, and the steps of rates.csv."""
    files = {str(path.relative_to(work)): path.read_bytes() for path in sorted(work.rglob("*")) if path.is_file()}
    rates = files.get("rates.csv", b"").splitlines()
    return files | {"rates.csv": b"\n".join(line.split(b",")[0] for line in rates)}


def differing(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    """Names of files that differ or that only one has."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def live(work: Path, reference: dict[str, bytes], seconds: float, chance: random.Random, counts: Counts, plain: int) -> None:
    """One training: killed up to MOST_KILLS times, then let run to its end and compared."""
    at_least, name = 0, work.name
    for _ in range(chance.randint(1, MOST_KILLS)):
        total = counts.kills.total()
        phase = "random" if total % 2 else checkpoint.PHASES[total // 2 % len(checkpoint.PHASES)]
        moment = seconds * (1 - at_least / STEPS) * chance.random()
        fresh = counts.plain < plain
        outcome = attempt(work, Plan(phase, chance.randint(1, 3), moment), plain=fresh)
        counts.plain += fresh and outcome.end == "killed"
        check(outcome, at_least, name, counts)
        if outcome.end != "killed":
            break
        counts.kills[phase] += 1
        at_least = max(at_least, outcome.saved)
        if len(list(work.glob("step-*"))) > 1 and chance.random() < DAMAGED:
            at_least = harm(work, chance)
            counts.damaged += 1
    last = attempt(work, Plan())
    check(last, at_least, name, counts)
    if last.end != "finished":
        counts.different.append(f"{name}: did not end: {last.said}")
    counts.different += [f"{name}: {file}" for file in differing(contents(work), reference)]
    counts.trainings += 1


def check(outcome: Outcome, at_least: int, name: str, counts: Counts) -> None:
    """Count as lost what could not go on, or went on from before the last checkpoint that was saved."""
    fell_short = outcome.resumed < at_least and not (outcome.end == "killed" and outcome.said[-1] == "ready")  # died before it said
    if outcome.end == "broken" or fell_short:
        counts.lost.append(f"{name}: {outcome.end}, resumed at {outcome.resumed} where {at_least} was saved: {outcome.said}")


def matrix(kills: int, plain: int, seed: int, folder: Path) -> dict[str, object]:
    """Kill `kills` times; gives the figures."""
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "this process has threads and cannot be forked safely"
    start = time.monotonic()
    chance, counts = random.Random(seed), Counts()
    if attempt(folder / "reference", Plan(), plain=True).end != "finished":
        raise SystemExit("the undisturbed training did not finish")
    reference = contents(folder / "reference")
    began = time.monotonic()
    attempt(folder / "forked", Plan())
    seconds = time.monotonic() - began
    attempt(folder / "control", Plan(), seed=1)
    while counts.kills.total() < kills:
        live(folder / f"training-{counts.trainings:03d}", reference, seconds, chance, counts, plain)
    return {
        "kills": counts.kills.total(),
        "kills by phase": {phase: counts.kills[phase] for phase in ("random", *checkpoint.PHASES)},
        "of fresh interpreters": counts.plain,
        "newest checkpoint damaged as well": counts.damaged,
        "trainings": counts.trainings,
        "lost": counts.lost,
        "different": counts.different,
        "an undisturbed fork differs in": differing(contents(folder / "forked"), reference),
        "control, another seed, differs in": differing(contents(folder / "control"), reference),
        "seconds": round(time.monotonic() - start, 1),
    }


def main() -> int:
    """Run the matrix and print its figures as JSON; 0 when nothing was lost and nothing differs."""
    if sys.argv[1:2] == ["--child"]:
        work, phase, nth, seed = sys.argv[2:]
        train(Path(work), Plan(phase, int(nth)), int(seed), sys.stdout.fileno())
        return 0
    parser = argparse.ArgumentParser(description="Kill trainings, resume them, compare bit for bit.")
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--plain", type=int, default=10, help="kills of fresh interpreters rather than forks")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = matrix(args.kills, args.plain, args.seed, Path(folder))
    print(json.dumps(figures, indent=1))
    return 1 if figures["lost"] or figures["different"] or figures["an undisturbed fork differs in"] else 0


if __name__ == "__main__":
    sys.exit(main())
