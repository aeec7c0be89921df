"""Metadata as Kubeflow's launcher takes it: any JSON goes through, and images without labels through the real steps."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format, struct_pb2
from hypothesis import example, given
from hypothesis import strategies as st
from kfp.pipeline_spec import pipeline_spec_pb2

from components.common import artifact
from pipeline.task import executor, ui_metadata
from tests.pipeline.task.test_task import executor_input, run, told

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def stored(value: struct_pb2.Value) -> Any:
    """A value as it gets into the metadata store: the launcher's rule, and no null further inside, which readers stumble over.

    kubeflow/pipelines 2.17.0, backend/src/v2/metadata/converter.go:130-163, StructValueToMLMDValue.
    """
    kind = value.WhichOneof("kind")
    assert kind in ("string_value", "number_value", "bool_value", "list_value", "struct_value"), f"unsupported value type {kind}"
    if kind == "list_value":
        return {"list": [stored(inner) for inner in value.list_value.values]}
    if kind == "struct_value":
        return {"struct": {key: stored(inner) for key, inner in value.struct_value.fields.items()}}
    return getattr(value, kind)


def as_the_launcher_stores(executor_output: Path) -> dict[str, dict[str, Any]]:
    """Metadata by artifact: read as strictly as Go's parser of protobuf JSON, then the launcher's rule."""
    text = executor_output.read_text("utf-8")
    json.dumps(json.loads(text), ensure_ascii=False).encode("utf-8")  # raises for half of a surrogate pair
    parsed = json_format.Parse(text, pipeline_spec_pb2.ExecutorOutput())
    return {
        name: {key: stored(value) for key, value in listed.artifacts[0].metadata.fields.items()}
        for name, listed in parsed.artifacts.items()
    }


def has_value(value: Any) -> bool:
    return not (value is None or (isinstance(value, int | float) and not abs(value) <= sys.float_info.max))


@pytest.mark.slow
@given(st.dictionaries(st.text(), ANY_JSON))
@example({"a": [{"b": float("nan"), "c": 1}], "d": {"e": None}, "f": [None], "g": 10**400, "h": "\ud800", "i": {}, "j": []})
def test_whatever_an_artifact_holds_can_be_stored(tmp_path_factory: pytest.TempPathFactory, metadata: dict[str, Any]) -> None:
    told = executor_input(tmp_path_factory.getbasetemp() / "any-json", "prepare")
    out = Path(told["outputs"]["outputFile"])
    out.parent.mkdir(parents=True, exist_ok=True)
    executor.write(told, {"dataset": metadata})
    assert set(as_the_launcher_stores(out)["dataset"]) == {key for key, value in metadata.items() if has_value(value)}


def test_what_holds_a_value_stays_as_it_is() -> None:
    plain = {"a": [{"b": 1, "c": [True, "x"]}], "d": {"e": {}}, "f": [], "g": 0, "h": "", "i": False, "j": 0.5}
    assert ui_metadata.storable(plain) == plain
    assert ui_metadata.storable({"a": [{"b": float("nan"), "c": None, "d": 1}], "e": None, "f": float("inf")}) == {"a": [{"d": 1}]}


def test_an_executor_input_without_names_is_answered(tmp_path: Path) -> None:
    """Kubeflow below 2.15 names no artifact in it."""
    given = executor_input(tmp_path, "prepare")
    (tmp_path / "prepare").mkdir()
    del given["outputs"]["artifacts"]["dataset"]["artifacts"][0]["name"]
    executor.write(given, {"dataset": {"a": 1}})
    assert told(tmp_path, "prepare") == {"dataset": {"a": 1}}


@pytest.mark.slow
def test_images_without_labels_go_through_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without labels there is no accuracy: the pages show what can be known, and numbers without an interval are no nulls."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert run(tmp_path, "prepare") == 0
    one_class(tmp_path / "prepare" / "dataset")
    for step in ("validate", "train", "embed", "probe", "report"):
        assert run(tmp_path, step) == 0, step
    for step in ("validate", "train", "embed", "probe", "report"):
        as_the_launcher_stores(tmp_path / step / "executor_output.json")
    shown = told(tmp_path, "probe")
    numbers = {"effective_rank", "neighbours_kept", "neighbours_kept_lower", "neighbours_kept_upper", "spread", "t"}
    assert set(shown["probe_metrics"]) - {"neighbours_kept_by_pixels"} == numbers
    assert shown["confusion"] == {}
    assert "no accuracy" in shown["probe_results"]["conclusions"][0]
    assert "no labels; at t =" in (tmp_path / "probe" / "conclusions").read_text()
    assert "<img" in (tmp_path / "probe" / "timestep_curve").read_text()


def one_class(dataset: Path) -> None:
    """The dataset artifact again, with one class for all images."""
    kept = {file.relative_to(dataset): file.read_bytes() for file in dataset.rglob("*") if file.is_file()}
    del kept[Path(artifact.MANIFEST)]
    with artifact.create(dataset, "dataset", {}) as folder:
        for name, data in kept.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
        for labels in folder.rglob("labels.npy"):
            np.save(labels, np.zeros_like(np.load(labels)))
        info = json.loads((folder / "dataset.json").read_text()) | {"class_names": ["unlabelled"]}
        artifact.write_json(folder / "dataset.json", info)
