"""As many threads as the share of the cores that this process has: a container sees every core of its node, whatever it may use.

Called before PyTorch, NumPy or Arrow is imported, since each reads the environment once. Nothing of that is imported here.
"""

import math
import os
import re
from collections.abc import Iterator, MutableMapping
from pathlib import Path

REQUEST = "DIER_CPU_REQUEST"
"""Environment variable with what the pod asked for, a Kubernetes quantity such as 500m or 2."""
OPENMP = "OMP_NUM_THREADS"
"""What PyTorch, Arrow and scikit-learn read; a person who sets it has decided."""
ALSO = ("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Of the libraries below NumPy and SciPy."""
WAIT_POLICY = "OMP_WAIT_POLICY"
"""How an OpenMP thread waits for the others: by default it spins, which on shared cores takes the time that they need."""
CGROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def set_threads(environment: MutableMapping[str, str] = os.environ, processes: int = 1) -> int | None:
    """Set the number of threads of this process, one of so many that share the pod, unless the environment has one.

    Gives what was set; None where there is neither quota nor request: then the libraries count the cores, as they always do.
    """
    if OPENMP in environment:
        return None
    cores = share(environment)
    if cores is None:
        return None
    count = max(1, math.floor(cores / processes))
    for name in (OPENMP, *ALSO):
        environment.setdefault(name, str(count))
    environment.setdefault(WAIT_POLICY, "PASSIVE")
    return count


def share(environment: MutableMapping[str, str] = os.environ) -> float | None:
    """The cores that this process may use at a time: its quota, else what its pod asked for, and no more than it may run on."""
    limits = [limit for limit in (quota(), _request(environment.get(REQUEST, ""))) if limit is not None]
    return min(limits[0], cores()) if limits else None


def cores() -> int:
    """The cores that the system may run this process on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quota(root: Path = CGROUPS, own: Path = OWN) -> float | None:
    """The smallest quota, in cores, of this process's cgroup and those around it; None where there is none."""
    found = [limit for folder in _folders(root, own) if (limit := _quota_of(folder)) is not None]
    return min(found, default=None)


def _folders(root: Path, own: Path) -> Iterator[Path]:
    """The cgroups that may hold a quota, from this process's outwards; in a container the outermost one that is seen is its own."""
    try:
        lines = own.read_text("utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for base in [root] if not controllers else [root / "cpu", root / "cpu,cpuacct"]:
            inside = base / path.lstrip("/")
            while inside.is_relative_to(base):
                yield inside
                inside = inside.parent


def _quota_of(folder: Path) -> float | None:
    """Of one cgroup: `cpu.max` of version 2, or the two files of version 1. No quota is `max`, or -1."""
    try:
        if (folder / "cpu.max").is_file():
            limit, period = (folder / "cpu.max").read_text("utf-8").split()
        else:
            limit, period = ((folder / f"cpu.cfs_{name}_us").read_text("utf-8").strip() for name in ("quota", "period"))
        cores = int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
    return cores if cores > 0 else None


def _request(quantity: str) -> float | None:
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(m?)", quantity)
    cores = float(found[1]) / (1000 if found and found[2] else 1) if found else 0
    return cores or None
