"""What a process runs on and with, as a tag: of the run that trained, of the version that registered."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

ENVIRONMENT_TAG = "dier.environment"
"""Of a run, and of a version: `environment` as JSON. Never in an artifact, which must not differ from machine to machine."""
IMAGE = "DIER_IMAGE"
"""Environment variable with the container image, by digest where whoever started the container knows it."""
UNKNOWN = "unknown"
PACKAGES = ("dier", "torch", "numpy", "mlflow", "safetensors", "scikit-learn")


def environment() -> dict[str, str]:
    """Container image, Python, system, processor, GPU, and the packages that make the numbers. No host name, user or path."""
    found = {
        "image": os.environ.get(IMAGE) or UNKNOWN,
        "python": platform.python_version(),
        "system": " ".join((platform.system(), *platform.libc_ver())).strip(),
        "machine": platform.machine(),
        "gpu": _gpu(),
    }
    return found | {package: _installed(package) for package in PACKAGES}


def _gpu() -> str:
    """Its name, or none. PyTorch is not imported for it: where it is not there nothing ran on a GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return "none"
    return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return UNKNOWN
