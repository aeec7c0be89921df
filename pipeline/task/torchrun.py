"""A step in several processes on this machine, by PyTorch's own launcher (torchrun), in this process.

`torchrun` as a command turns every failure into exit code 1. Called as a function it says which rank ended how, and it hands
SIGTERM and SIGINT on to the ranks, which then have some seconds to save.
"""

import os
from collections.abc import Mapping, Sequence

from components.common.progress import say
from pipeline.task import permanent_failure, threads

SHUTDOWN = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
"""PyTorch's environment variable: seconds between the signal and SIGKILL."""
SHUTDOWN_S = "25"
"""Of the 30 s that Kubernetes gives a pod, 5 are left for the launcher to end in good order."""


def run_processes(argv: Sequence[str], count: int) -> int:
    """Run the step `argv` as `count` ranks of one job and return the exit code that the step itself would have had.

    Where ranks end differently, a permanent failure (settings, data, a loss that is NaN) counts before those of ranks that missed
    their peer.
    """
    if threads.set_threads(processes=count) is None:
        os.environ.setdefault(threads.OPENMP, str(max(1, threads.cores() // count)))
    os.environ.setdefault(SHUTDOWN, SHUTDOWN_S)
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    say(f"{argv[0]}: {count} processes")
    line = ["--standalone", "--nproc-per-node", str(count), "-m", "pipeline.cli", *argv]
    try:
        run(parse_args(line))  # type: ignore[no-untyped-call]
    except SignalException as error:
        return 128 + int(error.sigval)
    except ChildFailedError as error:
        rank, code = blamed({rank: failure.exitcode for rank, failure in error.failures.items()}, error.get_first_failure()[0])
        say(f"{argv[0]}: rank {rank} of {count} ended with exit code {code}; its last lines stand above")
        return code
    return 0


def blamed(codes: Mapping[int, int], first: int) -> tuple[int, int]:
    """The rank whose end is the job's, and its exit code as a shell gives it, from exit codes by rank and who was first."""
    rank = next((rank for rank, code in sorted(codes.items()) if code in permanent_failure.CODES), first)
    return rank, codes[rank] if codes[rank] > 0 else 128 - codes[rank]  # below 0: the signal that ended it
