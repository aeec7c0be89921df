"""What else a namespace holds: claims, Secrets, ConfigMaps; and the volumes of a pod as folders of this machine."""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from tests.standin.errors import PodStuck
from tests.standin.pod import Pod, Volume


@dataclass
class Cluster:
    """The namespace; `folder` holds claims and pods' scratch volumes."""

    folder: Path
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    config_maps: dict[str, dict[str, str]] = field(default_factory=dict)
    claims: dict[str, Path] = field(default_factory=dict)
    chown: bool = True
    """Whether scratch and what the launcher makes belongs to the pod's user: only root can give files away."""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.chown = self.chown and os.geteuid() == 0

    def claim(self, name: str, owner: tuple[int, int] = (0, 0), mode: int = 0o755) -> Path:
        """A fresh volume: root:root 0755, as most storage classes make it."""
        folder = self.folder / "claims" / name
        folder.mkdir(parents=True)
        folder.chmod(mode)
        if os.geteuid() == 0:
            os.chown(folder, *owner)
        self.claims[name] = folder
        return folder

    def mount(self, pod: Pod) -> None:
        """Give every volume of a pod its folder. Raises PodStuck."""
        for volume in pod.volumes:
            volume.host = self._folder(pod, volume)

    def unmount(self, pod: Pod) -> None:
        shutil.rmtree(self.folder / "pods" / pod.name, ignore_errors=True)

    def value(self, kind: str, name: str, key: str, optional: bool) -> str | None:
        """A key of a Secret or ConfigMap, as environment. Raises PodStuck: the kubelet waits for it."""
        held = (self.secrets if kind == "secret" else self.config_maps).get(name)
        if held is not None and key in held:
            return held[key]
        if optional:
            return None
        missing = f'{kind} "{name}" not found' if held is None else f"couldn't find key {key} in {kind} {name}"
        raise PodStuck(f"CreateContainerConfigError: {missing}")

    def _folder(self, pod: Pod, volume: Volume) -> Path:
        if volume.kind in ("claim", "workspace"):
            if volume.source not in self.claims:
                raise PodStuck(f'Unschedulable: persistentvolumeclaim "{volume.source}" not found')
            folder = self.claims[volume.source] / volume.sub_path
            if not folder.exists():  # the kubelet makes a sub path, as root: Kubernetes 1.34 pkg/volume/util/subpath, 0750
                folder.mkdir(parents=True, mode=0o750)
            return folder
        folder = self.folder / "pods" / pod.name / volume.name
        folder.mkdir(parents=True, exist_ok=True)
        if volume.kind in ("secret", "configMap"):
            held = (self.secrets if volume.kind == "secret" else self.config_maps).get(volume.source)
            if held is None and not volume.optional:
                raise PodStuck(f'FailedMount: MountVolume.SetUp failed: {volume.kind.lower()} "{volume.source}" not found')
            for key, value in (held or {}).items():
                (folder / key).write_text(value)
                (folder / key).chmod(0o644)
        # an emptyDir is everybody's: Kubernetes 1.34 pkg/volume/emptydir/empty_dir.go, 0777; an ephemeral volume is a fresh claim
        folder.chmod(0o755 if volume.kind == "ephemeral" else 0o777)
        return folder
