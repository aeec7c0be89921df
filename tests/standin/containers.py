"""Pods as containers of the engine that DOCKER_HOST names, with nothing but what the pod says."""

import threading
from typing import Any

from tests.standin.pod import Ended, Pod

LAUNCH = 'umask 0; "$@" & trap "exit 143" TERM; wait $!'
"""The launcher as the step meets it: above it in the container, with its umask, gone at SIGTERM and the step with it."""
STEP_S = 0.2
GRACE_S = 30


class ContainerPods:
    """Runs pods in containers; `image` stands in for the one that the pod names. `network` is the engine's."""

    def __init__(self, image: str | None = None, *, network: str = "none") -> None:
        self.image, self.network = image, network
        self.pods: list[Pod] = []
        self._lock = threading.Lock()

    def __call__(self, pod: Pod) -> Ended:
        import docker

        with self._lock:
            self.pods.append(pod)
        client = docker.from_env(timeout=600)
        container = client.containers.create(self.image or pod.image, pod.command, **self._settings(pod))
        try:
            container.start()
            late = self._wait(container, pod)
            state = container.attrs["State"]
            log = container.logs().decode("utf-8", errors="replace")
            return Ended(int(state["ExitCode"]), log, oom=bool(state.get("OOMKilled")), deadline=late)
        finally:
            container.remove(force=True)
            client.close()

    def _settings(self, pod: Pod) -> dict[str, Any]:
        import docker

        mounts, tmpfs = [], {}
        for volume in pod.volumes:
            if volume.medium == "Memory":
                tmpfs[volume.path] = "mode=1777"
            else:
                read_only = volume.kind in ("secret", "configMap")
                mounts.append(docker.types.Mount(volume.path, str(volume.host), type="bind", read_only=read_only))
        settings: dict[str, Any] = {
            "entrypoint": ["/bin/sh", "-c", LAUNCH, "launcher"],
            "environment": pod.env,
            "mounts": mounts,
            "tmpfs": tmpfs,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "network_mode": self.network,
            "labels": {"standin": pod.run_id},
        }
        if pod.user is not None:
            settings["user"] = str(pod.user) if pod.group is None else f"{pod.user}:{pod.group}"
        return settings

    def _wait(self, container: Any, pod: Pod) -> bool:
        """Until it ends or is told to; whether its time was up. SIGTERM reaches the launcher alone."""
        spent, told = 0.0, False
        while True:
            container.reload()
            if container.attrs["State"]["Status"] in ("exited", "dead"):
                return told and not pod.stop.is_set()
            late = pod.deadline is not None and spent > pod.deadline
            if (pod.stop.is_set() or late) and not told:
                container.kill("SIGTERM")
                told = True
            pod.stop.wait(STEP_S) if not told else threading.Event().wait(STEP_S)
            spent += STEP_S
