"""Training and embedding on GPUs: python -m benchmarks.gpu [--json FILE] [--parts train embed scaling profile]

train: images a second, MFU (benchmarks/flops.py), and peak memory beside what model/memory.py counts, by model size, pixels,
precision, eager and compiled. embed: images a second of the whole step. scaling: 1 to 8 processes with torchrun, the batch of a
process the same (weak) or that of all (strong). profile: the kernels that take the most time, and a trace for chrome://tracing.

Each figure comes from processes of its own. What does not fit is tried again with half the batch. Random images and initial
weights, which cost what others do. Without a GPU nothing is measured; `--device cpu` runs tiny sizes, to see that all this works.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import torch

from benchmarks import gpu_tables
from benchmarks.gpu_worker import OUT_OF_MEMORY, Work, embed_options
from components.common.settings import EmbedSettings
from model.config import SIZES
from model.training.options import TrainConfig

ROOT = Path(__file__).parents[1]
PATCH = {28: 4, 64: 4, 224: 16}
"""Pixels a side of a patch, by those of an image: 49, 256 and 196 tokens."""
PARTS = ("train", "embed", "scaling", "profile")
PRECISIONS: tuple[str, ...] = get_args(TrainConfig.model_fields["precision"].annotation)
DEFAULTS: dict[str, dict[str, Any]] = {
    "cuda": {
        "sizes": ["small", "base", "large"],
        "pixels": [28, 64, 224],
        "precision": list(PRECISIONS),
        "blocks": ["eager", "compiled"],
        "processes": [1, 2, 4, 8],
        "batch_size": 256,
        "steps": 30,
        "warmup": 10,
    },
    "cpu": {
        "sizes": ["demo"],
        "pixels": [28],
        "precision": ["float32"],
        "blocks": ["eager"],
        "processes": [1, 2],
        "batch_size": 16,
        "steps": 4,
        "warmup": 2,
    },
}
NO_GPU = "No GPU: PyTorch sees no CUDA device, so nothing was measured. --device cpu runs tiny sizes, to see that this works."
CPU = "No GPU: this ran on the CPU, to see that the program works. None of these are GPU figures."


def header(device: str) -> dict[str, str]:
    """What was measured on, with what."""
    git = shutil.which("git") or "git"
    commit = subprocess.run([git, "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True)  # noqa: S603
    found = {"device": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"}
    if device == "cuda":
        one, count = torch.cuda.get_device_properties(0), torch.cuda.device_count()
        memory, capability = f"{one.total_memory / 2**30:.1f} GiB each", f"compute capability {one.major}.{one.minor}"
        found["device"] = f"{one.name} x {count}, {memory}, {capability}"
        found["CUDA"] = f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, driver {_driver()}"
    return found | {
        "PyTorch": torch.__version__,
        "Python": platform.python_version(),
        "system": platform.platform(),
        "commit": commit.stdout.strip() or "unknown",
        "command": "python -m benchmarks.gpu " + " ".join(sys.argv[1:]),
    }


def measure(work: Work, processes: int = 1) -> dict[str, Any]:
    """Run a worker, or several; one that needs too much memory again with half the batch. Gives its row."""
    words = [json.dumps(asdict(work))]
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    if work.device == "cpu":
        environment.setdefault("OMP_NUM_THREADS", "1")  # as torchrun has it: processes compare by their number alone
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        command = [sys.executable, *start, "-m", "benchmarks.gpu_worker", *words, str(out)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
        row = json.loads(out.read_text("utf-8")) if out.is_file() else asdict(work)
    if row.get("error") == OUT_OF_MEMORY and work.batch >= 2 * max(2, processes):
        return measure(replace(work, batch=work.batch // 2), processes)
    if done.returncode and "error" not in row:
        said = [line for line in done.stderr.strip().splitlines() if "Error" in line] or ["no word"]
        row["error"] = f"failed: {said[-1][:200]}"
    print(f"  {work.kind} {work.size} {work.pixels} {work.precision} x {processes}: {_short(row)}", file=sys.stderr, flush=True)
    return row | {"processes": processes}


def works(args: argparse.Namespace, kind: str) -> Iterator[Work]:
    """Every combination that was asked for."""
    for size, pixels, precision, blocks in product(args.sizes, args.pixels, args.precision, args.blocks):
        compiled = blocks == "compiled"
        yield Work(kind, size, pixels, PATCH[pixels], args.batch_size, precision, compiled, args.device, args.steps, args.warmup)


def embed_has(work: Work) -> bool:
    """Whether embed has these settings: it knows no TF32, say."""
    return all(
        name in EmbedSettings.model_fields and value in get_args(EmbedSettings.model_fields[name].annotation)
        for name, value in embed_options(work).items()
    )


def scale(args: argparse.Namespace) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Weak and strong scaling of the last combination, on as many processes as there are devices."""
    work = list(works(args, "train"))[-1]
    counts = [n for n in args.processes if args.device == "cpu" or n <= torch.cuda.device_count()]
    alone = measure(work, counts[0])
    work = replace(work, batch=alone["batch"])
    weak = [alone] + [measure(replace(work, batch=work.batch * n // counts[0]), n) for n in counts[1:]]
    return weak, [alone] + [measure(work, n) for n in counts[1:]]


def report(args: argparse.Namespace) -> dict[str, Any]:
    """Measure and print, a table at a time."""
    found: dict[str, Any] = {"header": header(args.device)}
    for name, value in found["header"].items():
        print(f"- {name}: {value}")
    device = found["header"]["device"] if args.device == "cuda" else ""
    if "train" in args.parts:
        found["train"] = [measure(work) for work in works(args, "train")]
        print(f"\n## Training\n\n{gpu_tables.training(found['train'], device, args.peak_tflops)}", flush=True)
    if "embed" in args.parts:
        found["embed"] = [measure(work) for work in works(args, "embed") if embed_has(work)]
        print(f"\n## Embedding, the whole step\n\n{gpu_tables.embedding(found['embed'])}", flush=True)
    if "scaling" in args.parts:
        weak, strong = scale(args)
        found["scaling"] = {"weak": weak, "strong": strong}
        title = f"Scaling: {weak[0]['size']}, {weak[0]['pixels']} pixels, {weak[0]['precision']}"
        print(f"\n## {title}\n\n{gpu_tables.scaling(weak, strong)}", flush=True)
    if "profile" in args.parts:
        found["profile"] = measure(replace(list(works(args, "train"))[-1], trace=str(args.trace.absolute())))
        print(f"\n## Profile of a training step\n\n{gpu_tables.profile(found['profile'])}\n\nTrace: {args.trace}", flush=True)
    return found


def _driver() -> str:
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return "unknown"
    asked = [smi, "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or "unknown"  # noqa: S603


def _short(row: dict[str, Any]) -> str:
    return str(row["error"]) if "error" in row else f"{row['images_per_second']:.1f} images/s"


def main() -> int:
    """Measure what was asked for; 1 where there is no GPU for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--sizes", nargs="+", choices=SIZES)
    parser.add_argument("--pixels", nargs="+", type=int, choices=PATCH)
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS)
    parser.add_argument("--blocks", nargs="+", choices=["eager", "compiled"])
    parser.add_argument("--processes", nargs="+", type=int, help="for scaling, ascending; those beyond the devices are left out")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--steps", type=int, help="measured steps")
    parser.add_argument("--warmup", type=int, help="steps before these, compilation included")
    parser.add_argument("--peak-tflops", type=float, help="of the device, for MFU, where the table of benchmarks/flops.py lacks it")
    parser.add_argument("--trace", type=Path, default=Path("trace.json"), help="file for the profile's trace")
    parser.add_argument("--json", type=Path, help="file for everything that was measured")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        print(NO_GPU)
        return 1
    if args.device == "cpu":
        print(CPU)
    for name, value in DEFAULTS[args.device].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    found = report(args)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
