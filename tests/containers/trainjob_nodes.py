"""Nodes of a TrainJob as containers, for the Kubernetes stand-in: what the Trainer's pods are told, in a network of their own.

All nodes share the loopback of one container that does nothing, which knows the names of all of them: that works on an engine
without a bridge, and nothing outside can reach it.
"""

import threading
from pathlib import Path
from typing import Any

from tests.pipeline.trainjob.jobset_life import Node


class Container:
    """One that runs."""

    def __init__(self, container: Any) -> None:
        self.container = container
        container.start()
        self.said = ""

    def wait(self) -> int:
        """Its exit code; the container is gone afterwards."""
        code = int(self.container.wait(timeout=600)["StatusCode"])
        self.said = self.container.logs().decode()
        self.container.remove(force=True)
        return code

    def kill(self) -> None:
        """As a lost node does: nobody is told."""
        import docker

        try:
            self.container.kill("SIGKILL")
        except docker.errors.APIError:  # it had ended by itself
            return

    def log(self) -> str:
        """What it printed."""
        return self.said or str(self.container.logs().decode())


class Nodes:
    """Starts the containers; `claims` are folders of this machine by the name of the claim."""

    def __init__(self, engine: Any, claims: dict[str, Path]) -> None:
        self.engine, self.claims = engine, claims
        self.started: list[Node] = []
        self._network: Any = None
        self._lock = threading.Lock()

    def __call__(self, node: Node) -> Container:
        """The `runner` of the stand-in."""
        with self._lock:
            self._network = self._network or self._loopback(node)
        self.started.append(node)
        security = node.spec["securityContext"]
        return Container(
            self.engine.containers.create(
                node.image,
                node.args,
                entrypoint=node.command,
                environment=node.env | {"OMP_NUM_THREADS": "1"},
                network_mode=f"container:{self._network.id}",
                user=f"{security['runAsUser']}:{security['runAsGroup']}",
                volumes=self._mounts(node),
                tmpfs={"/tmp": "mode=1777"},
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
            )
        )

    def _loopback(self, node: Node) -> Any:
        hosts = dict.fromkeys(node.hosts, "127.0.0.1")
        return self.engine.containers.run(
            node.image, ["infinity"], entrypoint=["sleep"], network_mode="none", extra_hosts=hosts, detach=True
        )

    def remove(self) -> None:
        """Nothing stays on the engine."""
        if self._network is not None:
            self._network.remove(force=True)

    def _mounts(self, node: Node) -> dict[str, dict[str, str]]:
        """Claims; memory as a folder (/dev/shm) every container has by itself."""
        found = {}
        for volume, path, sub_path in node.mounts:
            if "persistentVolumeClaim" in volume:
                folder = self.claims[volume["persistentVolumeClaim"]["claimName"]] / sub_path
                found[str(folder)] = {"bind": path, "mode": "rw"}
        return found
