"""What the tests of TrainJobs share: a Kubernetes API that the real client talks to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.kubeflow import retry
from tests.pipeline.trainjob import kubernetes_standin as standin
from tests.pipeline.trainjob.kubernetes_standin import StandIn


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The stand-in, and a kubeconfig for it."""
    with standin.serve() as running:
        file = tmp_path / "kubeconfig"
        file.write_text(standin.kubeconfig(running.url))
        # the client reads KUBECONFIG once, when it is imported
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(file))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        monkeypatch.setattr(retry, "POLL_S", 0.01)
        yield running
