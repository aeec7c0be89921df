"""How much memory a process has used at most."""

import resource
import sys
from pathlib import Path

import torch


def peak_memory(device: torch.device) -> dict[str, float]:
    """Peaks in MiB since the process began: its resident set, and on CUDA what PyTorch has allocated on the device."""
    found = {"peak_memory_mib": _resident_peak()}
    if device.type == "cuda":
        found["cuda_peak_memory_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
    return found


def _resident_peak() -> float:
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage also remembers the peak of the program that started this one
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)
