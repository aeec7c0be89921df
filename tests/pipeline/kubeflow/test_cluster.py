"""The cluster file: what is refused, in one line, and that the shipped one and the docs agree with the schema."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from components.common.errors import SettingsError
from pipeline.kubeflow.cluster import Cluster, load
from pipeline.kubeflow.cluster_sections import STEP_NAMES
from pipeline.steps import STEPS

ROOT = Path(__file__).parents[3]


def written(tmp_path: Path, settings: Any) -> Path:
    file = tmp_path / "cluster.yaml"
    file.write_text(settings if isinstance(settings, str) else yaml.safe_dump(settings))
    return file


def test_the_shipped_file_is_read() -> None:
    cluster = load(ROOT / "pipeline" / "cluster.yaml")
    assert set(cluster.resources) <= set(STEP_NAMES) == {step.name for step in STEPS}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"images": "x"}, "unknown setting"),
        ({"gpu": {"count": -1}}, "gpu.count = -1"),
        ({"gpu": {"count": 1, "steps": ["training"]}}, "gpu.steps.0 = 'training'"),
        ({"resources": {"train": {"memory_limit": "lots"}}}, "memory_limit = 'lots'"),
        ({"resources": {"trian": {}}}, "resources.trian"),
        ({"security": {"run_as_user": 0}}, "run_as_user = 0"),
        ({"security": {"run_as_group": -1}}, "run_as_group = -1"),
        ({"retry": {"wait": "soon"}}, "retry.wait = 'soon'"),
        ({"retry": {"factor": 1.5}}, "retry.factor = 1.5"),
        ({"work": {"claim": "dier.work"}}, "work.claim = 'dier.work'"),
        ({"work": {"claim": "a" * 64}}, "work.claim"),
        ({"work": {"storage_class": "fast"}}, "needs work.scratch"),
        ({"volumes": [{"claim": "my.images", "mount_path": "/images"}]}, "volumes.0.claim = 'my.images'"),
        ({"pods": {"node_affinity": [{"key": "zone", "operator": "Near"}]}}, "operator = 'Near'"),
        ({"pods": {"node_affinity": [{"key": "zone", "operator": "In"}]}}, "zone: In takes some values"),
        ({"pods": {"node_affinity": [{"key": "gpu", "operator": "Exists", "values": ["a"]}]}}, "Exists takes no values"),
        ({"pods": {"node_affinity": [{"key": "cores", "operator": "Gt", "values": ["many"]}]}}, "Gt takes one whole number"),
        ({"pods": {"labels": {"team": "not one word"}}}, "pods.labels.team"),
        ({"pods": {"labels": {"a key": "x"}}}, "pods.labels.a key"),
        ({"pods": {"annotations": {"a/b/c": "x"}}}, "pods.annotations.a/b/c"),
        ({"pods": {"labels": {"pipeline/runid": "mine"}}}, "pipeline/runid is how Kubeflow and Argo know their pods"),
        ({"dataset": {"claim": "work"}}, "work is the name of a volume"),
        ({"work": {"claim": "shared-memory"}}, "shared-memory is the name of a volume"),
        ({"work": {"claim": "ca"}, "certificate_authority": {"config_map": "ca"}}, "ca names a claim and"),
        ({"time_limits": {"train": "3d"}}, "time_limits.train"),
        ({"image": "two words"}, "image = 'two words'"),
        ({"dataset": {"source": "importer"}}, "needs dataset.uri"),
        ({"dataset": {"source": "volume", "path": "/sets/x"}}, "dataset.fingerprint"),
        ({"dataset": {"source": "volume", "path": "/sets/x", "fingerprint": "a" * 64}}, "below no mount_path of volumes (none)"),
        (
            {"dataset": {"source": "importer", "uri": "s3://b/d", "claim": "sets"}},
            "importer there is no prepare",
        ),
        ({"dataset": {"claim": "dier"}, "work": {"claim": "dier"}}, "the claim dier is mounted twice"),
        ({"secrets": [{"name": "Not A Name", "env": {"k": "V"}}]}, "secrets.0.name"),
        ("- a\n- b\n", "must map names to settings"),
        ("a: [", "is not YAML"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, settings: Any, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(written(tmp_path, settings))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_missing_file_is_said() -> None:
    with pytest.raises(SettingsError, match="cannot read the cluster file nowhere"):
        load(Path("nowhere.yaml"))


def names(model: Any, prefix: str = "") -> list[str]:
    found = []
    for key, field in model.model_fields.items():
        inner = [part for part in (field.annotation, *getattr(field.annotation, "__args__", ())) if hasattr(part, "model_fields")]
        found += names(inner[0], f"{prefix}{key}.") if inner else [prefix + key]
    return found


def test_the_docs_explain_every_setting() -> None:
    text = (ROOT / "docs" / "kubeflow.md").read_text()
    missing = [name for name in names(Cluster) if f"`{name}`" not in text]
    assert not missing


def test_work_may_be_the_name_of_the_claim_that_stands_in_its_place() -> None:
    assert Cluster.model_validate({"work": {"claim": "work"}}).work.claim == "work"


STORE = {"claim": "shards", "mount_path": "/shards"}
READERS = ["prepare", "validate", "train", "embed", "probe", "report"]


@pytest.mark.parametrize(
    "settings",
    [
        {"volumes": [STORE | {"steps": READERS}]},
        {"dataset": {"claim": "sets"}, "volumes": [STORE | {"steps": READERS}]},
        {"dataset": {"source": "importer", "uri": "s3://bucket/dataset"}},  # whose own store counts
    ],
)
def test_a_folder_of_shards_that_every_step_mounts_is_taken(settings: dict[str, Any]) -> None:
    for store in (None, "s3://bucket/set", "/shards/set"):
        Cluster.model_validate(settings).check_store(store)


@pytest.mark.parametrize(
    ("settings", "store", "step"),
    [
        ({}, "/shards", "prepare"),
        ({"volumes": [STORE]}, "/shards", "validate"),
        ({"volumes": [STORE | {"steps": READERS[:-1]}]}, "/shards/set", "report"),
        ({"volumes": [STORE | {"steps": READERS}]}, "shards/set", "prepare"),
        ({"volumes": [STORE | {"steps": READERS}]}, "/state/shards", "prepare"),
        ({"dataset": {"claim": "sets"}, "work": {"claim": "work"}, "trainjob": {"nodes": 2}}, "/datasets/shards", "train"),
    ],
)
def test_a_folder_of_shards_that_a_step_would_not_see_is_refused(settings: dict[str, Any], store: str, step: str) -> None:
    with pytest.raises(SettingsError, match=f"data.store {store} is on no claim that {step} mounts .*; add a claim to volumes"):
        Cluster.model_validate(settings).check_store(store)
