"""What the speed benchmarks count and compare; their figures stand in docs/performance.md."""

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks import contest, train_step
from tests.scenarios.conftest import ROOT, environment


@pytest.mark.slow
def test_the_bare_products_are_those_of_the_steps_linear_layers(tmp_path: Path) -> None:
    """12 D^2 a token and block for the blocks' four layers; the modulations see one row an image."""
    trainer = train_step.make_trainer(28, tmp_path, compiled=False)
    shapes = train_step.products_of(trainer)
    blocks = [
        (rows, wide, out) for rows, wide, out, _ in shapes if rows == 64 * 49 and min(wide, out) == 192 and max(wide, out) > 16
    ]
    assert sum(wide * out for _, wide, out in blocks) == 2 * 12 * 12 * 192**2
    assert len(shapes) == sum(isinstance(layer, torch.nn.Linear) for layer in trainer.model.modules())
    first = shapes[0]
    assert not first[3]  # nothing goes back into the images
    train_step.bare_products(shapes[:3], shared=True)()


def test_the_rival_has_our_sizes(tmp_path: Path) -> None:
    rival = pytest.importorskip("benchmarks.diffusers_dit", exc_type=ImportError, reason="needs diffusers: pip install dier[bench]")
    ours = train_step.make_trainer(28, tmp_path, compiled=False)
    theirs = rival.PeerTrainer(ours)
    counts = [sum(p.numel() for p in model.parameters()) for model in (ours.model, theirs.model)]
    assert counts[1] == pytest.approx(counts[0], rel=0.15)
    before = [p.detach().clone() for p in theirs.parameters]
    theirs._train_step()
    moved = [not torch.equal(old, new) for old, new in zip(before, theirs.parameters, strict=True)]
    assert sum(moved) > 0.9 * len(moved)


def test_contestants_take_turns_and_their_ratio_is_of_rates() -> None:
    quick, slow = (partial(partial, sum, range(count)) for count in (20_000, 100_000))  # of no module that imports PyTorch
    times = contest.take_turns({"quick": quick, "slow": slow}, rounds=5)
    assert {name: len(found) for name, found in times.items()} == {"quick": 5, "slow": 5}
    assert float(contest.ratio(times, "quick", "slow").split()[0]) > 1.5


@pytest.mark.slow
def test_the_benchmark_of_embed_runs() -> None:
    with tempfile.TemporaryDirectory() as folder:
        words = ["--rate-images", "20", "--rounds", "2", "--size", "demo", "--images", "100", "--threads", "1"]
        command = [sys.executable, "-m", "benchmarks.embed", *words]
        done = subprocess.run(command, cwd=ROOT, env=environment(Path(folder)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "embed / encoder" in done.stdout
    assert "100 images:" in done.stdout
