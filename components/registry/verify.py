"""`dier verify`: is a version what was registered, and does it still compute what it computed then?

It is downloaded, every file is held to the manifest, the manifest to the version's tag; only then is its code run, on some test
images, and what comes out compared with the embeddings and predictions that were exported when it was probed. The images come with
the version, or from the dataset where that is at hand. Whoever may write both the files and the tags of a registry can deceive it.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from components.common import artifact
from components.common.artifact import MANIFEST
from components.common.errors import ArtifactError, SettingsError
from components.embedding import sample
from components.embedding.sample import Sample
from components.inference.registered_model import RegisteredModel, load
from components.registry import package, versions
from components.registry.champions import predictions
from components.registry.class_figures import labels_and_guesses
from components.registry.lineage import TAGS
from components.tracking.client import connect, one_line_errors
from data.format import open_dataset
from model.atomic import read_manifest

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

EXACT, ROUNDED, COARSE = 1e-3, 5e-3, 3e-2
"""How far an embedding may be from the exported one, as a share of its length: in float32 on CPUs (7e-7 between batch sizes); with
float16 on disk (4e-4), or a GPU on either side, whose convolutions may use TF32; with bfloat16 (6e-3 to 1.4e-2). Another t of a
hardly trained model was 4e-2 away."""
T_TAG = "dier.t"
TIE = 0.01
"""Two classes, or yes and no, whose probabilities are as close as this may change places."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: whether it is as registered, and what was found."""

    what: str
    passed: bool
    found: str


@dataclass(frozen=True)
class Verified:
    """What was checked of a version."""

    model: str
    version: int
    checks: list[Check]

    @property
    def problem(self) -> str | None:
        """What differs, in a sentence; None where nothing does."""
        wrong = [f"{check.what}: {check.found}" for check in self.checks if not check.passed]
        return f"{self.model} version {self.version} is not what was registered: {'; '.join(wrong)}" if wrong else None

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {"model": self.model, "version": self.version, "verified": self.problem is None} | {
            "checks": [asdict(check) for check in self.checks]
        }

    def __str__(self) -> str:
        shown = [f"{'ok' if check.passed else 'DIFFERS':<8} {check.what:<12} {check.found}" for check in self.checks]
        end = "verified" if self.problem is None else "NOT verified"
        return "\n".join([f"{self.model} version {self.version}", *shown, end])


def verify(asked: str, *, artifacts: Path, files_only: bool = False) -> Verified:
    """Check the version NAME@ALIAS or NAME/VERSION; what differs stands in the answer.

    `artifacts` is looked at for the dataset (and embeddings) where the version carries no images (no sample). Raises SettingsError
    where there is nothing to compare with: no digests, or no images (unless `files_only`).
    """
    client = connect(must_exist=True)
    with one_line_errors(), TemporaryDirectory(prefix="dier-verify-") as temporary:
        version = versions.find(client, asked)
        folder = _download(version, Path(temporary))
        checks = [_files(version, folder), _record(version, folder)]
        if checks[0].passed:
            checks.append(_figures(version, folder / package.FILES_FOLDER))
        if not files_only:
            if all(check.passed for check in checks):
                checks += _recomputed(version, folder, artifacts)
            else:
                checks.append(Check("embeddings", False, "not recomputed: of a version that differs nothing is run"))
    return Verified(version.name, int(version.version), checks)


def _download(version: "ModelVersion", into: Path) -> Path:
    """All files of a version. Raises SettingsError where it says nothing of what they should be."""
    import mlflow

    if versions.FILES_TAG not in version.tags:
        raise SettingsError(
            f"{version.name} version {version.version} carries no digests (an earlier dier, or none, registered it): nothing to "
            "check it by; delete it and register it again"
        )
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{version.name}/{version.version}", dst_path=str(into)))
    (folder / package.WRITTEN_ON_DOWNLOAD).unlink(missing_ok=True)
    return folder


def _files(version: "ModelVersion", folder: Path) -> Check:
    try:
        manifest = read_manifest(folder)
    except ValueError as error:
        return Check("files", False, f"the version's folder: {error}")
    if manifest.digest != version.tags[versions.FILES_TAG]:
        return Check("files", False, f"{MANIFEST} is not the one of the tag {versions.FILES_TAG}")
    there = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    del there[MANIFEST]
    wrong = [f"{name} is missing" for name in sorted(manifest.files.keys() - there.keys())]
    wrong += [f"{name} was added" for name in sorted(there.keys() - manifest.files.keys())]
    wrong += [
        f"{name} was changed"
        for name, (_, digest) in sorted(manifest.files.items())
        if name in there and artifact.sha256(there[name]) != digest
    ]
    return Check(
        "files", not wrong, ", ".join(wrong) or f"{len(there)} files have the sha256 of the manifest, and it that of the tag"
    )


def _record(version: "ModelVersion", folder: Path) -> Check:
    """Whether the tags that name the artifacts are those that the version was made with.

    The report's may be another: that of the last that was registered with this model and probe.
    """
    tags = version.tags
    try:
        made_from = read_manifest(folder).content["made_from"]
        digest = artifact.digest({"model": made_from["model"], "probe": made_from["probe"]})
        told = {tag: made_from[kind] for kind, tag in TAGS.items() if kind in made_from} | {versions.DIGEST_TAG: digest}
    except (ValueError, KeyError, TypeError):
        return Check("record", False, f"{MANIFEST} names no model and probe")
    wrong = [name for name, value in told.items() if tags.get(name) != value]
    newer = "; another report was registered since" if versions.REPORT_TAG in wrong else ""
    if changed := [name for name in wrong if name != versions.REPORT_TAG]:
        return Check("record", False, f"the tags {', '.join(changed)} were changed")
    names = f"model {made_from['model'][:12]}, probe {made_from['probe'][:12]} and what they were made from"
    return Check("record", True, f"{names} are those of the tags{newer}")


def _figures(version: "ModelVersion", files: Path) -> Check:
    """Whether the tags with the test figure, by which champions are ranked, and t are what the files say."""
    classes = (files / package.PREDICTIONS).is_file()
    tag, other = (versions.ACCURACY_TAG, versions.KEPT_TAG) if classes else (versions.KEPT_TAG, versions.ACCURACY_TAG)
    figure = float(predictions(files / (package.PREDICTIONS if classes else package.NEIGHBOURS)).correct.mean())
    timesteps = json.loads((files / package.SERVING).read_text("utf-8"))["timesteps"]
    tags = version.tags
    wrong = [f"{tag} is {tags.get(tag)} where {figure:.4f} was measured"] if not _is_figure(tags.get(tag), figure) else []
    wrong += [f"{other} is {tags[other]} where there is none"] if other in tags else []
    if tags.get(T_TAG) not in [str(t) for t in timesteps]:
        wrong.append(f"{T_TAG} is {tags.get(T_TAG)} where t is {', '.join(map(str, timesteps))}")
    return Check("figures", not wrong, "; ".join(wrong) or f"{tag} {tags[tag]} and {T_TAG} {tags[T_TAG]} are those of the files")


def _is_figure(told: str | None, figure: float) -> bool:
    """Whether a tag gives this share of 1, which it does to four digits."""
    try:
        return abs(float(told or "nan") - figure) <= 1e-4
    except ValueError:
        return False


def _recomputed(version: "ModelVersion", folder: Path, artifacts: Path) -> Iterator[Check]:
    model = load(str(folder))
    taken, whence = _sample(version, folder / package.FILES_FOLDER, model.timesteps, artifacts)
    if changed := taken.changed_images():
        yield Check("images", False, f"test images {', '.join(map(str, changed[:5]))} are not those that were embedded")
        return
    assert taken.images is not None
    found = model.predict(taken.images)
    yield _embeddings(taken, found["embedding"], whence)
    if model.class_names:
        yield _classes(model, taken, found["probabilities"])


def _sample(version: "ModelVersion", files: Path, timesteps: list[int], artifacts: Path) -> tuple[Sample, str]:
    """Test images with their embeddings, and where the images come from, in words."""
    name, file = f"{version.name} version {version.version}", files / sample.SAMPLE
    if file.is_file():
        taken = sample.read(file)
        if taken.images is not None:
            return taken, "carried by the version"
        dataset = _wanted(artifacts, "dataset", version, f"{name} carries no images (register.sample)")
        return taken.filled(open_dataset(dataset.path)), f"from {dataset.path}"
    dataset = _wanted(artifacts, "dataset", version, f"{name} carries no sample")
    embedded = _wanted(artifacts, "embeddings", version, f"{name} carries no sample")
    made = sample.take(open_dataset(dataset.path), embedded, timesteps)
    if made is None:
        raise SettingsError(
            f"{embedded.path} has no embeddings of test at t = {timesteps}: give --files-only to check the files alone"
        )
    return made, f"from {dataset.path}"


def _wanted(artifacts: Path, kind: str, version: "ModelVersion", why: str) -> artifact.Artifact:
    """The artifact of this kind that the version was made from, whole.

    Raises SettingsError where it is not under `artifacts`, ArtifactError where it is and was damaged: here, not in the version.
    """
    wanted = version.tags.get(f"dier.{kind}", "unknown")
    try:
        found = artifact.read(artifacts / kind, kind, check=False)
    except ArtifactError:
        found = None
    if found is None or found.fingerprint != wanted:
        there = "there is none" if found is None else f"that is {found.fingerprint[:12]}"
        raise SettingsError(
            f"{why}, and {artifacts / kind} is not the {kind} {wanted[:12]} ({there}): give --artifacts DIR with it, or "
            "--files-only"
        )
    return artifact.read(artifacts / kind, kind)


def _embeddings(taken: Sample, embedding: npt.NDArray[np.float32], whence: str) -> Check:
    import torch

    facts = taken.facts
    coarse = facts["precision"] != "float32"
    rounded = facts["dtype"] != "float32" or facts["device"] != "cpu" or torch.cuda.is_available()
    allowed = COARSE if coarse else ROUNDED if rounded else EXACT
    of = f"{len(taken.index)} of {facts['of']} test images, {whence}"
    if embedding.shape != taken.embedding.shape:
        return Check("embeddings", False, f"{of}: {embedding.shape[1]} numbers each, {taken.embedding.shape[1]} were exported")
    length = np.maximum(np.linalg.norm(taken.embedding, axis=1), 1e-12)
    apart = np.linalg.norm(embedding - taken.embedding, axis=1) / length
    worst = int(apart.argmax())
    far = f"at most {apart[worst]:.1e} of its length from the exported one (allowed {allowed:g})"
    passed = bool(np.isfinite(apart).all() and apart[worst] <= allowed)
    return Check("embeddings", passed, f"{of}: {far}" + ("" if passed else f", test image {taken.index[worst]}"))


def _classes(model: RegisteredModel, taken: Sample, probabilities: npt.NDArray[np.float32]) -> Check:
    """Whether the probe says of these images what it said when it was tested."""
    _, guess = labels_and_guesses(model.files / package.PREDICTIONS)
    told = guess[taken.index]
    if model.multi_label:
        differs = ((probabilities > 0.5) != (told == 1)) & (np.abs(probabilities - 0.5) > TIE)
        wrong = differs.any(axis=1)
    else:
        of_told = probabilities[np.arange(len(told)), told]
        wrong = (probabilities.argmax(axis=1) != told) & (probabilities.max(axis=1) - of_told > TIE)
    right = int((~wrong).sum())
    return Check("classes", not wrong.any(), f"{right} of {len(told)} predictions are those of the test")
