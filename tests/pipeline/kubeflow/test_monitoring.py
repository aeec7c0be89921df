"""The pipeline that watches new images: compiled strictly, and run by a schedule, against a stand-in server."""

from pathlib import Path

import pytest
import yaml

from components.common.errors import SettingsError
from pipeline.kubeflow import compiled_file
from pipeline.kubeflow.cluster import Cluster
from pipeline.kubeflow.monitoring import build
from pipeline.kubeflow.pipeline import yaml_of
from tests.pipeline.conftest import Command
from tests.pipeline.kubeflow.kfp_standin import StandIn

CLUSTER = Cluster.model_validate(
    {
        "volumes": [{"claim": "new-images", "mount_path": "/new"}],
        "secrets": [{"name": "dier-mlflow", "env": {"uri": "MLFLOW_TRACKING_URI"}, "steps": ["register"]}],
    }
)


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    file = tmp_path / "monitor.yaml"
    file.write_text(yaml_of(build(CLUSTER, "dier@champion", "/new", 0.01)))
    return file


def test_it_is_the_command_and_a_gate_that_never_take_cached_results(compiled: Path) -> None:
    package = compiled_file.read(compiled)  # strict: an unknown field is an error
    assert (package.name, sorted(package.steps)) == ("dier-monitor", ["drift-gate", "monitor"])
    assert package.defaults == {"model": "dier@champion", "images": "/new", "alpha": 0.01, "fit": False, "skip_bad": True}
    executors = package.spec["deploymentSpec"]["executors"]
    watch, gate = (executors[f"exec-{name}"]["container"] for name in ("monitor", "drift-gate"))
    assert watch["command"] == ["dier", "monitor"]
    assert watch["args"][:2] == ["--report-only", "--alpha"]
    assert watch["args"][-8:] == [
        *("--switch", "fit", "{{$.inputs.parameters['fit']}}"),
        *("--switch", "skip-bad", "{{$.inputs.parameters['skip_bad']}}"),
        *("{{$.inputs.parameters['model']}}", "{{$.inputs.parameters['images']}}"),
    ]
    assert [*gate["command"], *gate["args"]] == ["dier", "gate", "--monitoring", "{{$.inputs.artifacts['monitoring'].path}}"]
    assert not any(task.get("cachingOptions") for task in package.spec["root"]["dag"]["tasks"].values())


def test_its_pod_sees_the_new_images_and_mlflow(compiled: Path) -> None:
    pod = compiled_file.read(compiled).platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-monitor"]
    assert [(one["mountPath"], one["pvcNameParameter"]["runtimeValue"]["constant"]) for one in pod["pvcMount"]] == [
        ("/new", "new-images")
    ]
    assert [one["keyToEnv"][0]["envVar"] for one in pod["secretAsEnv"]] == ["MLFLOW_TRACKING_URI"]


def test_a_schedule_runs_it(dier: Command, server: StandIn, compiled: Path) -> None:
    where = ["--host", server.url, "--pipeline", str(compiled), "--pipeline-name", "dier-monitor", "--allow-tag"]
    given = ["--param", "images=/new/today", "--param", "alpha=0.05", "--param", "fit=true", "--param", "skip_bad=false"]
    assert dier("schedule", "watch", "--cron", "0 6 * * *", *where, *given).code == 0
    [made] = server.recurring
    sent = server.only("POST /recurringruns").json
    assert made["display_name"] == "watch"
    assert sent["trigger"] == {"cron_schedule": {"cron": "0 0 6 * * *"}}
    assert sent["runtime_config"]["parameters"] == {"images": "/new/today", "alpha": 0.05, "fit": True, "skip_bad": False}


@pytest.mark.parametrize("wrong", ["train.steps=5", "images", "alpha=much", "alpha=nan", "alpha=5", "alpha=0.0001", "fit=yes"])
def test_what_its_pod_would_refuse_is_refused(compiled: Path, wrong: str) -> None:
    with pytest.raises(SettingsError, match="--param"):
        compiled_file.arguments(compiled_file.read(compiled), [wrong])


def test_compiling_writes_it(dier: Command, tmp_path: Path) -> None:
    out = tmp_path / "out.yaml"
    assert dier("compile-monitor", "--images", "/new", "--allow-tag", "--out", str(out)).code == 0
    spec = next(yaml.safe_load_all(out.read_text()))
    assert spec["root"]["inputDefinitions"]["parameters"]["images"]["defaultValue"] == "/new"
