"""`dier serve-manifest`: the champion as KServe takes it, and what KServe could not read is refused with what to do."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from components import register
from components.common.errors import SettingsError
from components.registry import versions
from components.registry.serving import serve_manifest, service_name
from pipeline import cli
from tests.components.registry.inference_service_schema import check
from tests.components.registry_artifacts import make, settings

STORED = "s3://bucket/1/models/m-1/artifacts"
NOTHING: dict[str, Any] = {"namespace": None, "image": None, "service_account": None, "artifacts_destination": None}


@pytest.fixture
def registered(store: str, tmp_path: Path) -> str:
    """A champion named glyphs. Its files lie in a folder, as in every store of one machine."""
    register.run(settings(policy="auto"), **make(tmp_path).paths(), out=tmp_path / "out")
    return "glyphs"


def stored_at(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same version as it would be with an artifact store at `uri`."""
    monkeypatch.setattr(versions, "location", lambda client, name, version: uri)


@pytest.mark.slow
def test_the_champion_becomes_a_manifest_that_kserve_takes(
    registered: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stored_at(STORED, monkeypatch)
    check(yaml.safe_load(serve_manifest(registered, **NOTHING)))
    words = ["--namespace", "me", "--image", "registry.example/serve@sha256:1", "--service-account", "reader"]
    assert cli.main(["serve-manifest", f"{registered}@champion", *words]) == 0
    text = capsys.readouterr().out
    manifest = yaml.safe_load(text)
    check(manifest)
    metadata, predictor = manifest["metadata"], manifest["spec"]["predictor"]
    assert (metadata["name"], metadata["namespace"], predictor["serviceAccountName"]) == ("glyphs", "me", "reader")
    assert metadata["annotations"]["dier.dev/version"] == "1"
    assert metadata["annotations"]["dier.dev/alias"] == "champion"
    assert predictor["model"]["storageUri"] == STORED
    assert predictor["model"]["image"] == "registry.example/serve@sha256:1"
    head = text.splitlines()[0]
    assert head.startswith("# glyphs@champion: version 1.")
    for needed in ("mlflow==", "torch==", "numpy==", "safetensors=="):
        assert needed in head

    stored_at("mlflow-artifacts:/1/models/m-1/artifacts", monkeypatch)
    proxied = serve_manifest(registered, **{**NOTHING, "artifacts_destination": "s3://bucket/mlflow/"})
    assert yaml.safe_load(proxied)["spec"]["predictor"]["model"]["storageUri"] == "s3://bucket/mlflow/1/models/m-1/artifacts"
    with pytest.raises(SettingsError, match="give --artifacts-destination URI"):
        serve_manifest(registered, **NOTHING)


@pytest.mark.slow
def test_what_lies_on_one_machine_and_what_is_not_there_are_refused(registered: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words, says in (
        ([registered], "which KServe's pods cannot read: keep MLflow's artifacts in an object store (s3://, gs://, hdfs://"),
        ([f"{registered}@candidate"], "glyphs has no alias candidate (there are: champion (version 1))"),
        (["nobody"], "no registered model 'nobody'"),
    ):
        assert cli.main(["serve-manifest", *words]) == 2
        assert says in capsys.readouterr().err


def test_names_become_names_of_kubernetes() -> None:
    assert service_name("My_Model.v2") == "my-model-v2"
    assert service_name("a" * 49 + "--b") == "a" * 49
    with pytest.raises(SettingsError, match="must begin with a letter"):
        service_name("2nd")


@pytest.mark.parametrize(
    "change",
    [{"storageURI": "s3://x"}, {"storageUri": "mlflow-artifacts:/1"}, {"modelFormat": {}}, {"protocolVersion": "v3"}],
)
def test_the_schema_refuses_what_kserve_refuses(change: dict[str, Any]) -> None:
    model = {"modelFormat": {"name": "mlflow"}, "storageUri": STORED} | change
    manifest = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": {"name": "a"}}
    with pytest.raises(jsonschema.ValidationError):
        check(manifest | {"spec": {"predictor": {"model": model}}})
