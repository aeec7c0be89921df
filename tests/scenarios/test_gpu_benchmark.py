"""benchmarks/gpu.py as far as a machine without a GPU can tell: what it counts, and the form of what it prints."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import flops, gpu, gpu_tables
from model.config import SIZES, ModelConfig
from tests.scenarios.conftest import ROOT, environment


def run(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks.gpu", *words]
    where = environment(folder) | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=where, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "pixels", "patch"), [("tiny", 28, 4), ("base", 224, 16), ("large", 64, 4)])
def test_flops_are_six_a_weight_and_token_and_attentions(size: str, pixels: int, patch: int) -> None:
    """In both networks 12 D^2 weights a block see every token, as do those of the patches; the modulations' see an image once."""
    depth, dim, heads = SIZES[size]
    config = ModelConfig(depth, dim, heads, pixels, pixels, 3, patch, 128)
    tokens, patches = config.tokens, config.patch_dim
    blocks = 6 * 12 * dim**2 * tokens + 12 * tokens**2 * dim  # 6 x weights x tokens, and Q K^T and A V, each 2 x 3 T^2 D
    once = 6 * 6 * dim**2  # a block's modulation, which sees one row an image
    outside = 6 * patches * dim * tokens * 3  # patches in of both, out of one
    expected = 2 * depth * (blocks + once) + outside
    assert flops.training_flops(config) == pytest.approx(expected, rel=0.01)


def test_peaks_are_found_by_the_names_that_drivers_give() -> None:
    names = {
        "NVIDIA H100 80GB HBM3": 989,
        "NVIDIA H100 PCIe": 756,
        "NVIDIA A100-SXM4-80GB": 312,
        "NVIDIA A10": 125,
        "NVIDIA L4": 121,
    }
    assert {name: flops.peak_flops(name, "bf16") for name in names} == {name: peak * 1e12 for name, peak in names.items()}
    assert flops.peak_flops("NVIDIA L40S", "tf32") == 183e12
    assert flops.peak_flops("Tesla T4", "bf16") is None  # it has no bf16
    assert flops.peak_flops("NVIDIA GeForce GTX 1080", "float32") is None


def test_scaling_is_told_as_a_share_of_the_rate_of_one() -> None:
    weak = [{"processes": n, "batch": 16 * n, "images_per_second": rate} for n, rate in ((1, 100.0), (2, 150.0))]
    strong = [{"processes": 1, "batch": 16, "images_per_second": 100.0}, {"processes": 2, "batch": 16, "error": "out of memory"}]
    last = gpu_tables.scaling(weak, strong).splitlines()[-1]
    assert last == "| 2 | 32 | 150.0 | 75% | 16 | out of memory |  |"


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_first_line_says_so(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [gpu.NO_GPU]


@pytest.mark.slow
def test_the_form_of_what_is_printed(tmp_path: Path) -> None:
    """All parts, at a size that the CPU does in no time, with two processes."""
    words = ["--batch-size", "4", "--steps", "2", "--warmup", "1", "--peak-tflops", "1", "--json", "found.json"]
    done = run(tmp_path, "--device", "cpu", *words)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert lines[0] == gpu.CPU
    assert {line.split(":")[0] for line in lines[1:7]} == {"- device", "- PyTorch", "- Python", "- system", "- commit", "- command"}
    titles = [line.split(":")[0] for line in lines if line.startswith("## ")]
    assert titles == ["## Training", "## Embedding, the whole step", "## Scaling", "## Profile of a training step"]
    for text in done.stdout.split("\n\n"):  # every table is one
        if text.startswith("|"):
            assert len({row.replace("\\|", "").count("|") for row in text.splitlines()}) == 1, text
    found = json.loads((tmp_path / "found.json").read_text())
    assert "failed" not in done.stdout
    assert [row["processes"] for row in found["scaling"]["weak"]] == [1, 2]
    assert [row["batch"] for row in found["scaling"]["weak"]] == [4, 8]
    assert [row["batch"] for row in found["scaling"]["strong"]] == [4, 4]
    assert all(row["images_per_second"] > 0 for row in found["train"] + found["embed"] + found["scaling"]["strong"])
    assert "| aten::addmm |" in done.stdout
    assert "traceEvents" in json.loads((tmp_path / "trace.json").read_text())
