"""Pods as processes of this machine: the task's own command line, with the container's paths replaced by their folders here."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.standin.pod import Ended, Pod

STEP_S = 0.05


class ProcessPods:
    """Runs a step where no engine is needed. As root it takes the pod's user, so that permissions count as on a cluster.

    It starts in the folder `where` of the pod, if the pod has that: what a library puts beside itself is then found by later steps.
    """

    def __init__(self, env: Mapping[str, str] | None = None, *, as_user: bool = True, where: str = "/tmp") -> None:
        self.env, self.where = dict(env or {}), where
        self.as_user = as_user and os.geteuid() == 0 and shutil.which("setpriv") is not None
        self.pods: list[Pod] = []

    def __call__(self, pod: Pod) -> Ended:
        self.pods.append(pod)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        home = pod.local("/tmp")
        env = {"PATH": path, "HOME": str(home), "TMPDIR": str(home), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **self.env}
        env |= {name: mapped(value, pod) for name, value in pod.env.items()}
        user, group = pod.owner
        # the project may lie where only root can look: the step may look there, and write nowhere that its user may not
        look = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--inh-caps=+dac_read_search"]
        who = [*look, "--ambient-caps=+dac_read_search", "--"] if self.as_user else []
        log = home / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*who, *(mapped(word, pod) for word in pod.command)],
                cwd=pod.local(self.where) if any(volume.path == self.where for volume in pod.volumes) else home,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                umask=pod.umask,
                start_new_session=True,
            )
            late = self._wait(process, pod)
        code = process.returncode if process.returncode >= 0 else 128 - process.returncode
        return Ended(code, log.read_text("utf-8", errors="replace"), deadline=late)

    def _wait(self, process: "subprocess.Popen[bytes]", pod: Pod) -> bool:
        """Until it ends, or is ended; whether its time was up. Nothing is said to the step: what ends is the launcher above it."""
        end = None if pod.deadline is None else time.monotonic() + pod.deadline
        while process.poll() is None:
            late = end is not None and time.monotonic() > end
            if pod.stop.is_set() or late:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return late
            time.sleep(STEP_S)
        return False


def mapped(text: str, pod: Pod) -> str:
    """A text with every path of a volume replaced by its folder here."""
    places = {volume.path.rstrip("/"): str(volume.host) for volume in pod.volumes if volume.host is not None}
    longest_first = sorted(places, key=len, reverse=True)
    pattern = rf"(?<![\w.:-])({'|'.join(re.escape(path) for path in longest_first)})(?=/|$|[\"'\s,}}])"
    return re.sub(pattern, lambda found: places[found[1]], text)
