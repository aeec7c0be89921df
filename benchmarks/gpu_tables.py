"""The results of benchmarks/gpu.py as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.flops import peak_flops, training_flops
from benchmarks.gpu_worker import Work

Row = Mapping[str, Any]
"""What a worker wrote, with the number of `processes`, or an `error` in the place of figures."""


def training(rows: Sequence[Row], device: str, peak_tflops: float | None) -> str:
    """Images a second, MFU, memory measured and counted."""
    lines = _head("size pixels tokens batch precision blocks", "images/s", "ms a step", "MFU", "peak memory, MiB", "counted, MiB")
    for row in rows:
        if "error" in row:
            lines.append(f"{_setup(row)} {row['error']} | | | | |")
            continue
        rate, counted = row["images_per_second"], counted_memory(row)
        figures = [f"{rate:.1f}", f"{1000 * row['seconds_a_step']:.2f}", _mfu(row, device, peak_tflops)]
        figures += [f"{_memory(row):.0f}", "-" if counted is None else f"{counted:.0f}"]
        lines.append(f"{_setup(row)} {' | '.join(figures)} |")
    return "\n".join(lines)


def embedding(rows: Sequence[Row]) -> str:
    """Images a second and memory."""
    lines = _head("size pixels tokens batch precision blocks", "images/s", "peak memory, MiB")
    for row in rows:
        figures = f"{row['error']} |" if "error" in row else f"{row['images_per_second']:.1f} | {_memory(row):.0f}"
        lines.append(f"{_setup(row)} {figures} |")
    return "\n".join(lines)


def scaling(weak: Sequence[Row], strong: Sequence[Row]) -> str:
    """Images a second by number of processes, and the share of so many times the rate of one."""
    lines = ["| processes | weak: batch | images/s | efficiency | strong: batch | images/s | efficiency |", "|" + "---:|" * 7]
    for ours, theirs in zip(weak, strong, strict=True):
        cells = [str(ours["processes"])]
        for row, first in ((ours, weak[0]), (theirs, strong[0])):
            cells.append(str(row["batch"]))
            if "error" in row or "error" in first:
                cells += [row.get("error", "-"), ""]
            else:
                speedup = row["images_per_second"] / first["images_per_second"]
                cells += [f"{row['images_per_second']:.1f}", f"{speedup / row['processes']:.0%}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def profile(row: Row) -> str:
    """The kernels (on a CPU operations) that take the most time of their own."""
    if "error" in row:
        return str(row["error"])
    lines = ["| kernel | calls a step | ms a step | share |", "|---|---:|---:|---:|"]
    for kernel in row["kernels"]:
        name = kernel["name"].replace("|", "\\|")
        name = name if len(name) <= 90 else f"{name[:87]}..."
        lines.append(f"| {name} | {kernel['calls']:.1f} | {kernel['milliseconds']:.3f} | {kernel['share']:.1%} |")
    return "\n".join(lines)


def counted_memory(row: Row) -> float | None:
    """MiB by the closed form of model/memory.py for one process; None where this version has none."""
    try:
        from model.memory import activation_bytes, state_bytes
    except ImportError:
        return None
    config = work_of(row).model()
    precision = "bf16" if row["precision"] == "bf16" else "float32"
    here = row["batch"] // row["processes"]
    return float(state_bytes(config, precision) + here * activation_bytes(config, precision)) / 2**20


def work_of(row: Row) -> Work:
    """What was measured."""
    return Work(**{name: row[name] for name in Work.__dataclass_fields__})


def _head(setup: str, *figures: str) -> list[str]:
    titles = [*setup.split(), *figures]
    return [f"| {' | '.join(titles)} |", "|---" * len(setup.split()) + "|---:" * len(figures) + "|"]


def _setup(row: Row) -> str:
    tokens = (row["pixels"] // row["patch"]) ** 2
    blocks = "compiled" if row["compiled"] else "eager"
    return f"| {row['size']} | {row['pixels']} | {tokens} | {row['batch']} | {row['precision']} | {blocks} |"


def _mfu(row: Row, device: str, peak_tflops: float | None) -> str:
    """The share of what the device can do that the model's own operations are."""
    peak = peak_tflops * 1e12 if peak_tflops else peak_flops(device, row["precision"])
    if peak is None:
        return "-"
    done = training_flops(work_of(row).model()) * row["images_per_second"] / row["processes"]
    return f"{done / peak:.1%}"


def _memory(row: Row) -> float:
    """On a GPU what PyTorch allocated there; on a CPU the resident set, with the interpreter and its libraries."""
    return float(row.get("cuda_peak_memory_mib", row["peak_memory_mib"]))
