"""What the compiled pipeline asks of Kubernetes for a task, as the driver makes a pod's parts of it."""

from typing import Any

from tests.standin.errors import DriverError, Unsupported
from tests.standin.metadata import Metadata
from tests.standin.pod import Volume
from tests.standin.resolve import NullParameterError, Task, parameter
from tests.standin.values import Value

KNOWN = {
    "secretAsVolume",
    "secretAsEnv",
    "pvcMount",
    "nodeSelector",
    "podMetadata",
    "imagePullSecret",
    "imagePullPolicy",
    "configMapAsVolume",
    "configMapAsEnv",
    "activeDeadlineSeconds",
    "fieldPathAsEnv",
    "tolerations",
    "genericEphemeralVolume",
    "nodeAffinity",
    "emptyDirMounts",
    "securityContext",
}
"""KFP 2.17.0 backend/src/v2/driver/k8s.go:131. `podAffinity` and `enabledSharedMemory` parse, and then nothing reads them."""


class Platform:
    """One task's part of the second document, resolved."""

    def __init__(self, asked: dict[str, Any], task: Task, metadata: Metadata) -> None:
        if unread := set(asked) - KNOWN:
            raise Unsupported(f"the driver of 2.17.0 does not read {', '.join(sorted(unread))} of the platform specification")
        self._asked, self._task, self._metadata = asked, task, metadata

    def claims(self) -> list[Volume]:
        """KFP 2.17.0 backend/src/v2/driver/k8s.go:1111: a volume is named as its claim is."""
        found = []
        for mount in self._asked.get("pvcMount", []):
            name = self._name(mount, "pvcNameParameter", {"componentInputParameter", "taskOutputParameter"}, "constant")
            if not name or not mount.get("mountPath"):
                raise DriverError("failed to extract volume mount info: failed to mount volume, missing mountpath or pvc name")
            found.append(Volume(name, mount["mountPath"], "claim", name, mount.get("subPath", "")))
        return found

    def volumes(self) -> list[Volume]:
        """All of them. KFP 2.17.0 backend/src/v2/driver/k8s.go:302, 396, 546, 590."""
        found = self.claims()
        for kind, word in (("secret", "secretAsVolume"), ("configMap", "configMapAsVolume")):
            for mount in self._asked.get(word, []):
                name = self._name(mount, f"{kind}NameParameter", set(), f"{kind}Name")
                found.append(Volume(name, mount["mountPath"], kind, name, optional=mount.get("optional", False)))
        for mount in self._asked.get("genericEphemeralVolume", []):
            found.append(Volume(mount["volumeName"], mount["mountPath"], "ephemeral", size_limit=mount.get("size", "")))
        for mount in self._asked.get("emptyDirMounts", []):
            medium, limit = mount.get("medium", ""), mount.get("sizeLimit", "")
            found.append(Volume(mount["volumeName"], mount["mountPath"], "emptyDir", medium=medium, size_limit=limit))
        return found

    def env(self) -> list[dict[str, Any]]:
        """Environment that Kubernetes fills in. KFP 2.17.0 backend/src/v2/driver/k8s.go:347, 443, 520."""
        found = []
        for kind, word, keys in (("secret", "secretAsEnv", "secretKey"), ("configMap", "configMapAsEnv", "configMapKey")):
            for source in self._asked.get(word, []):
                name = self._name(source, f"{kind}NameParameter", set(), f"{kind}Name")
                for pair in source.get("keyToEnv", []):
                    ref = {"kind": kind, "name": name, "key": pair[keys], "optional": source.get("optional", False)}
                    found.append({"name": pair["envVar"], "ref": ref})
        for source in self._asked.get("fieldPathAsEnv", []):
            found.append({"name": source["name"], "fieldPath": source["fieldPath"]})
        return found

    def security(self) -> dict[str, Any]:
        """KFP 2.17.0 backend/src/v2/driver/k8s.go:749: each of the three alone; what is left out is left to the image."""
        given = self._asked.get("securityContext", {})
        # protobuf's JSON has 64-bit numbers as texts
        return {key: value if isinstance(value, bool) else int(value) for key, value in given.items()}

    def metadata(self) -> tuple[dict[str, str], dict[str, str]]:
        """Labels and annotations. KFP 2.17.0 backend/src/v2/compiler/argocompiler/container.go:744."""
        given = self._asked.get("podMetadata", {})
        return dict(given.get("labels", {})), dict(given.get("annotations", {}))

    def rest(self) -> dict[str, Any]:
        """What only a scheduler or a kubelet reads."""
        policy = self._asked.get("imagePullPolicy", "")
        if policy not in ("", "Always", "Never", "IfNotPresent"):  # KFP 2.17.0 backend/src/v2/driver/k8s.go:187
            raise DriverError(f"unsupported value: {policy}. ImagePullPolicy should be one of 'Always', 'Never' or 'IfNotPresent'")
        words = ("nodeSelector", "tolerations", "nodeAffinity", "imagePullSecret", "imagePullPolicy")
        return {word: self._asked[word] for word in words if word in self._asked}

    def deadline(self) -> float | None:
        """KFP 2.17.0 backend/src/v2/driver/k8s.go:540: of each try, from its start."""
        given = int(self._asked.get("activeDeadlineSeconds", 0))
        return float(given) if given > 0 else None

    def _name(self, given: dict[str, Any], word: str, deprecated: set[str], constant: str) -> str:
        """KFP 2.17.0 backend/src/v2/driver/resolve.go:501: not empty, and a text."""
        source = given.get(word) or next(({key: given[key]} for key in deprecated if given.get(key)), None)
        try:
            value: Value = parameter(self._task, source, self._metadata) if source else given.get(constant, "")
        except NullParameterError as error:
            raise DriverError(str(error)) from error
        if not isinstance(value, str) or not value:
            raise DriverError(f"resolving input parameter. Expected a non-empty string, got {value!r}")
        return value
