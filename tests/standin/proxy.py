"""Which addresses a Go program asks a proxy for: the launcher shares the step's environment, and so its proxy."""

import ipaddress
from collections.abc import Mapping

METADATA = "metadata-grpc-service.kubeflow.svc.cluster.local"  # KFP 2.17.0 backend/src/v2/metadata/env.go:16
API = "ml-pipeline.kubeflow.svc.cluster.local"  # KFP 2.17.0 backend/src/v2/config/env.go:216
STORE = "seaweedfs.kubeflow"  # KFP 2.17.0 backend/src/v2/objectstore/config.go:29
KUBERNETES = "10.96.0.1"
"""The API server as a pod finds it, KUBERNETES_SERVICE_HOST: an address, not a name."""


def proxied(host: str, port: int, env: Mapping[str, str], *, scheme: str) -> str | None:
    """The proxy for an address; None where it is asked directly.

    golang.org/x/net/http/httpproxy proxy.go: upper case counts before lower case; gRPC asks as for https.
    """
    proxy = env.get(f"{scheme.upper()}_PROXY") or env.get(f"{scheme}_proxy")
    exempt = env.get("NO_PROXY") or env.get("no_proxy") or ""
    return None if not proxy or _exempt(host, port, exempt) else proxy


def _exempt(host: str, port: int, exempt: str) -> bool:
    """Loopback always; `a.b` and what is below it; `.a.b` only what is below it; addresses and networks; `*`."""
    if host == "localhost" or host.startswith("127."):
        return True
    for entry in (one.strip().lower() for one in exempt.split(",")):
        if not entry:
            continue
        if entry == "*":
            return True
        name, _, wanted = entry.partition(":") if entry.count(":") == 1 else (entry, "", "")
        if wanted and wanted != str(port):
            continue
        try:
            network = ipaddress.ip_network(name, strict=False)
            if _address(host) is not None and _address(host) in network:
                return True
            continue
        except ValueError:
            pass
        name = name.removeprefix("*")
        if (host == name and not name.startswith(".")) or host.endswith(name if name.startswith(".") else f".{name}"):
            return True
    return False


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
