"""Floating-point operations of a training, and how many of them devices can do: what MFU is made of.

Model FLOPs are those of the matrix products, attention's included, in a forward pass, times three (backward twice as many), as in
PaLM (arXiv 2204.02311, appendix B): 6 a weight and token, and 12 a block, token, token that it sees and channel. What checkpointing
computes again does not count.
"""

import re

import torch
from torch.utils.flop_counter import FlopCounterMode

from model.config import ModelConfig
from model.dier import DiER

# TFLOP/s without sparsity as NVIDIA's data sheets have them: bf16 and TF32 on tensor cores with float32 sums, float32 on the other
# cores. The first name that a device's contains counts; boards of one name at lower power reach less.
PEAKS: dict[str, dict[str, float]] = {
    r"H100 PCIe": {"bf16": 756, "tf32": 378, "float32": 51},
    r"H100 NVL": {"bf16": 835, "tf32": 417, "float32": 60},
    r"(GH200|H200|H100)": {"bf16": 989, "tf32": 494, "float32": 67},
    r"A100": {"bf16": 312, "tf32": 156, "float32": 19.5},
    r"A30\b": {"bf16": 165, "tf32": 82, "float32": 10.3},
    r"A10\b": {"bf16": 125, "tf32": 62.5, "float32": 31.2},
    r"A40\b": {"bf16": 149.7, "tf32": 74.8, "float32": 37.4},
    r"L40S": {"bf16": 362, "tf32": 183, "float32": 91.6},
    r"L4\b": {"bf16": 121, "tf32": 60, "float32": 30.3},
    r"V100": {"float32": 15.7},
    r"\bT4\b": {"float32": 8.1},
}


def training_flops(config: ModelConfig) -> float:
    """Of one image in one step, forward and backward, through both networks; counted on tensors without data."""
    batch = 2  # one would be mistaken for a condition that all images share
    with torch.device("meta"):
        model = DiER(config)
        x = torch.empty(batch, config.channels, config.image_height, config.image_width)
        t = torch.zeros(batch, dtype=torch.int64)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(x, t, x)
    return 3.0 * float(counter.get_total_flops()) / batch


def peak_flops(device: str, precision: str) -> float | None:
    """FLOP/s of a device by its name; None where the table does not have it, or the device not the precision."""
    for name, peaks in PEAKS.items():
        if re.search(name, device):
            return peaks[precision] * 1e12 if precision in peaks else None
    return None
