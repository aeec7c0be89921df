"""The same bits from run to run on CUDA as well."""

import contextlib
import os
from collections.abc import Iterator

import torch

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextlib.contextmanager
def deterministic(on: bool) -> Iterator[None]:
    """While inside, and only if `on`: PyTorch's deterministic algorithms, cuDNN without its trials. Everything is put back after.

    Enter it before the first work on CUDA, since cuBLAS reads its setting when it starts. On the CPU results do not change.
    https://docs.pytorch.org/docs/stable/notes/randomness.html
    """
    if not on:
        yield
        return
    cudnn = torch.backends.cudnn
    workspace = os.environ.get(WORKSPACE)
    algorithms, warn_only = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, chosen = cudnn.benchmark, cudnn.deterministic
    os.environ.setdefault(WORKSPACE, ":4096:8")
    torch.use_deterministic_algorithms(True)
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = benchmark, chosen
        torch.use_deterministic_algorithms(algorithms, warn_only=warn_only)
        if workspace is None:
            os.environ.pop(WORKSPACE, None)
