"""`dier verify`: a version on a machine that has the registry alone, and what it says when anything was changed."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file, save_file

from components import register
from components.common import artifact
from components.embedding import sample
from components.inference.registered_model import RegisteredModel
from components.registry import package, versions
from components.registry.verify import COARSE, EXACT, ROUNDED, TIE, _classes, _embeddings, verify
from components.tracking.client import connect
from data.format import open_dataset
from model.atomic import read_manifest, seal
from model.config import ModelConfig
from model.dier import DiER
from model.features import embed_batches
from pipeline.cli import main
from tests.components.registry_artifacts import Inputs, make, settings
from tests.components.report_inputs import Paths

pytestmark = pytest.mark.slow
VERSION = "glyphs/1"


@pytest.fixture(scope="module")
def registry(migrated_store: Path, to_register: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a store in which the digits are glyphs/1 (with images) and embeddings/1 (without); the test works elsewhere."""
    folder = tmp_path_factory.mktemp("registry")
    shutil.copyfile(migrated_store, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patched.delenv("MLFLOW_RUN_ID", raising=False)
        patched.chdir(folder)
        register.run(settings(min_accuracy=0), **to_register.paths(), out=folder / "out")
        register.run(settings(min_accuracy=0, name="embeddings", sample="embeddings"), **to_register.paths(), out=folder / "out")
        (folder / "elsewhere").mkdir()
        patched.chdir(folder / "elsewhere")
        yield folder


def folder_of(name: str) -> Path:
    """Where the store keeps the files of a version 1."""
    return Path(versions.location(connect(), name, 1).removeprefix("file://"))


@pytest.fixture
def files(registry: Path) -> Iterator[Path]:
    """The files of glyphs/1, to change: they are put back."""
    folder, kept = folder_of("glyphs"), registry / "kept"
    shutil.copytree(folder, kept)
    yield folder
    shutil.rmtree(folder)
    kept.rename(folder)


def test_it_needs_nothing_but_the_registry(registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not list(Path.cwd().iterdir())
    assert main(["verify", VERSION]) == 0
    shown = capsys.readouterr().out
    assert "32 of 60 test images, carried by the version" in shown
    assert "32 of 32 predictions are those of the test" in shown
    assert "DIFFERS" not in shown
    assert shown.splitlines()[-1] == "verified"
    assert main(["verify", "glyphs@candidate", "--files-only", "--json"]) == 0
    assert '"verified": true' in capsys.readouterr().out


CHANGES = {
    "a weight": ("artifacts/files/model.safetensors was changed", lambda to: flip(to / "artifacts/files/model.safetensors")),
    "the card": ("artifacts/files/card.md was changed", lambda to: flip(to / "artifacts/files/card.md")),
    "its code": ("served_model.py was changed", lambda to: append(to / "served_model.py", "open('ran', 'w')\n")),
    "a file more": ("code/evil.py was added", lambda to: append(to / "code" / "evil.py", "open('ran', 'w')\n")),
    "a file less": (
        "artifacts/files/sample.safetensors is missing",
        lambda to: (to / "artifacts/files/sample.safetensors").unlink(),
    ),
    "the manifest": ("manifest.json is not the one of the tag dier.files", lambda to: append(to / "manifest.json", " ")),
    "no manifest": ("it has no manifest.json", lambda to: (to / "manifest.json").unlink()),
}


def flip(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def append(file: Path, text: str) -> None:
    with file.open("a") as opened:
        opened.write(text)


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_is_named_and_nothing_of_it_runs(files: Path, change: str, capsys: pytest.CaptureFixture[str]) -> None:
    line, apply = CHANGES[change]
    apply(files)
    assert main(["verify", VERSION]) == 3
    shown = capsys.readouterr()
    assert line in shown.out
    assert "not recomputed" in shown.out
    assert shown.out.splitlines()[-1] == "NOT verified"
    assert "glyphs version 1 is not what was registered: files: " in shown.err
    assert not (Path.cwd() / "ran").exists()


@pytest.mark.parametrize("tag", ["model", "probe", "dataset", "embeddings", "verdict_artifact", "digest", "accuracy", "t"])
def test_a_changed_tag_is_seen(registry: Path, tag: str) -> None:
    client, name = connect(), f"dier.{tag}"
    before = client.get_model_version("glyphs", "1").tags[name]
    changed = {"accuracy": f"{float(before) + 0.01:.4f}" if tag == "accuracy" else "", "t": "301"}.get(tag, "0" * 64)
    client.set_model_version_tag("glyphs", "1", name, changed)
    try:
        problem = str(verify(VERSION, artifacts=Path("none"), files_only=True).problem)
    finally:
        client.set_model_version_tag("glyphs", "1", name, before)
    assert f"{name} is {changed} where" in problem if tag in ("accuracy", "t") else f"the tags {name} were changed" in problem


def test_another_report_is_said_and_no_problem(registry: Path) -> None:
    client = connect()
    before = client.get_model_version("glyphs", "1").tags[versions.REPORT_TAG]
    client.set_model_version_tag("glyphs", "1", versions.REPORT_TAG, "0" * 64)
    try:
        found = verify(VERSION, artifacts=Path("none"), files_only=True)
    finally:
        client.set_model_version_tag("glyphs", "1", versions.REPORT_TAG, before)
    assert found.problem is None
    assert "another report was registered since" in str(found)


def sealed_anew(files: Path) -> None:
    """As whoever may write files and tags could do: what was changed is what the manifest says."""
    made_from = read_manifest(files).content["made_from"]
    (files / artifact.MANIFEST).unlink()
    seal(files, kind=package.KIND, made_from=made_from)
    connect().set_model_version_tag("glyphs", "1", versions.FILES_TAG, artifact.sha256(files / artifact.MANIFEST))


def other_embeddings(taken: sample.Sample) -> sample.Sample:
    embedding = taken.embedding.copy()
    embedding[7] *= 1.01
    return replace(taken, embedding=embedding)


def other_images(taken: sample.Sample) -> sample.Sample:
    assert taken.images is not None
    images = taken.images.copy()
    images[7, 0, 0] ^= 1
    return replace(taken, images=images)


@pytest.mark.parametrize("change", ["embeddings", "images", "classes"])
def test_whole_files_that_do_not_compute_what_was_computed_are_seen(
    files: Path, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = connect().get_model_version("glyphs", "1").tags[versions.FILES_TAG]
    inside = files / package.FILES_FOLDER
    taken = sample.read(inside / sample.SAMPLE)
    if change == "classes":
        classifier = load_file(inside / package.CLASSIFIER)
        save_file({**classifier, "bias": classifier["bias"] + 100 * (np.arange(10) == 3)}, inside / package.CLASSIFIER)
    else:
        sample.write(inside / sample.SAMPLE, (other_embeddings if change == "embeddings" else other_images)(taken))
    sealed_anew(files)
    try:
        assert main(["verify", VERSION]) == 3
    finally:
        connect().set_model_version_tag("glyphs", "1", versions.FILES_TAG, before)
    shown = capsys.readouterr()
    told = {
        "embeddings": f"(allowed {EXACT:g}), test image {taken.index[7]}",
        "images": f"test images {taken.index[7]} are not those that were embedded",
        "classes": "of 32 predictions are those of the test",
    }
    assert [line.split()[1] for line in shown.out.splitlines() if line.startswith("DIFFERS")] == [change]
    assert shown.out.count("ok       files") == 1
    assert told[change] in shown.err


def test_of_several_labels_each_must_be_what_the_test_said(tmp_path: Path) -> None:
    guess = np.array([[1, 0], [0, 0], [1, 1]], np.uint8)
    pq.write_table(pa.table({"label": guess.tolist(), "dier": guess.tolist()}), tmp_path / package.PREDICTIONS)
    (tmp_path / package.SERVING).write_text('{"multi_label": true}')
    model = RegisteredModel(None, tmp_path, None, None, {}, None)  # type: ignore[arg-type]
    taken = sample.Sample(np.array([0, 2]), np.zeros((2, 4), np.float32), None, {})
    for second, passed in ((0.9, True), (0.5 - TIE / 2, True), (0.4, False)):
        found = _classes(model, taken, np.array([[0.8, 0.1], [0.7, second]], np.float32))
        assert (found.passed, found.found) == (passed, f"{1 + passed} of 2 predictions are those of the test")


def test_without_images_the_dataset_is_found_by_its_fingerprint(
    registry: Path, digits: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    carried = sample.read(folder_of("embeddings") / package.FILES_FOLDER / sample.SAMPLE)
    assert carried.images is None
    assert main(["verify", "embeddings/1"]) == 2
    assert "carries no images (register.sample), and artifacts/dataset is not the dataset" in capsys.readouterr().err
    assert main(["verify", "embeddings/1", "--artifacts", str(digits["dataset"].parent)]) == 0
    assert f"32 of 60 test images, from {digits['dataset']}" in capsys.readouterr().out
    with artifact.create(tmp_path / "dataset", "dataset", {}):
        pass
    assert main(["verify", "embeddings/1", "--artifacts", str(tmp_path)]) == 2
    assert main(["verify", "embeddings/1", "--files-only"]) == 0

    shutil.copytree(digits["dataset"], tmp_path / "damaged" / "dataset")
    flip(tmp_path / "damaged" / "dataset" / "test" / "images.npy")
    capsys.readouterr()
    assert main(["verify", "embeddings/1", "--artifacts", str(tmp_path / "damaged")]) == 3
    assert "damaged artifact" in (said := capsys.readouterr().err)  # here, which is no fault of the version
    assert "is not what was registered" not in said


def test_embeddings_of_another_t_are_not_taken_for_those(digits: Paths) -> None:
    dataset, embedded = open_dataset(digits["dataset"]), artifact.read(digits["embeddings"], "embeddings")
    at = {t: sample.take(dataset, embedded, [t]) for t in (0, 300, 999)}
    assert all(at.values())
    same = _embeddings(at[300], at[300].embedding.copy(), "here")
    assert (same.passed, "0.0e+00" in same.found) == (True, True)
    for t in (0, 999):
        other = _embeddings(at[300], at[t].embedding, "here")
        assert not other.passed
        apart = np.linalg.norm(at[t].embedding - at[300].embedding, axis=1) / np.linalg.norm(at[300].embedding, axis=1)
        assert apart.max() > COARSE > EXACT
    blurred = replace(at[300], facts=at[300].facts | {"precision": "bf16"})
    near = at[300].embedding * (1 + COARSE / 2)
    assert (_embeddings(blurred, near, "").passed, _embeddings(at[300], near, "").passed) == (True, False)
    assert not _embeddings(at[300], np.full_like(near, np.nan), "").passed


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(4, 64, 4, 16, 16, 1, 4, 64),
        ModelConfig(12, 64, 4, 16, 16, 1, 4, 64),
        ModelConfig(4, 16, 2, 16, 16, 1, 4, 12, encoder="resnet"),
    ],
    ids=["vit of 4", "vit of 12", "resnet"],
)
def test_what_rounding_does_stays_well_within_what_is_allowed(config: ModelConfig) -> None:
    model, cpu = DiER(config), torch.device("cpu")
    images = np.random.default_rng(0).integers(0, 256, (32, 16, 16, 1), dtype=np.uint8)

    def embedded(batch_size: int, precision: str) -> np.ndarray:
        batches = embed_batches(model, images, [300], batch_size=batch_size, device=cpu, precision=precision)
        return np.concatenate([np.asarray(v)[0] for v in batches])

    exact = embedded(32, "float32")
    found = {"batches of 1": embedded(1, "float32"), "float16": exact.astype(np.float16), "bf16": embedded(32, "bf16")}
    apart = {name: (np.linalg.norm(v - exact, axis=1) / np.linalg.norm(exact, axis=1)).max() for name, v in found.items()}
    print(apart)  # pytest -s: the figures of docs/lineage.md
    assert apart["batches of 1"] < EXACT / 100
    assert apart["float16"] < ROUNDED / 5
    assert apart["bf16"] < COARSE / 2


def test_a_sample_knows_its_images(digits: Paths) -> None:
    dataset, embedded = open_dataset(digits["dataset"]), artifact.read(digits["embeddings"], "embeddings")
    taken = sample.take(dataset, embedded, [300])
    assert taken is not None
    assert taken.without_images().filled(dataset).changed_images() == []
    assert taken.images is not None
    taken.images[3] ^= 1
    assert taken.changed_images() == [int(taken.index[3])]


def test_a_version_of_before_there_were_digests_is_no_use(registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    client = connect()
    source = client.get_model_version("glyphs", "1").source
    client.create_registered_model("old")
    client.create_model_version("old", source)
    assert main(["verify", "old/1"]) == 2
    assert "carries no digests" in capsys.readouterr().err


def test_a_report_without_a_sample_is_registered_all_the_same(store: str, tmp_path: Path) -> None:
    inputs = make(tmp_path)
    register.run(settings(), **inputs.paths(), out=tmp_path / "out")
    register.run(settings(name="scans"), **make(tmp_path / "2", labelled=False).paths(), out=tmp_path / "out")
    assert verify("scans/1", artifacts=Path("artifacts"), files_only=True).problem is None  # without labels: neighbours kept
    assert verify(VERSION, artifacts=Path("artifacts"), files_only=True).problem is None
    assert main(["verify", VERSION]) == 2
