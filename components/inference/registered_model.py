"""A registered model, loaded by the name that a person gives it: from the registry, or from a folder that was downloaded from it.

What runs is the code that the version carries, not this repository's: loading a model executes it, so the registry, or whoever
gave the folder, is trusted. Nothing is unpickled.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from components.common.artifact import sha256
from components.common.errors import SettingsError
from components.registry import package, versions
from components.tracking.client import connect, one_line_errors, redact, set_environment

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel
    from torch import nn

MLMODEL = "MLmodel"
"""The file that tells a folder of MLflow's from any other."""
SCHEME = "models:/"


@dataclass(frozen=True)
class RegisteredModel:
    """A model that was loaded."""

    pyfunc: "PyFuncModel"
    files: Path
    """Its files, a copy that lasts as long as this object: config.json, model.safetensors, serving.json, ..."""
    name: str | None
    """None for a folder, which does not say whose version it is."""
    version: int | None
    tags: Mapping[str, str]
    """Of the version; none for a folder."""
    holder: "TemporaryDirectory[str]"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the images that it takes."""
        config = self._json("config.json")
        return config["image_height"], config["image_width"], config["channels"]

    @property
    def timesteps(self) -> list[int]:
        """The timesteps of an embedding, whose parts stand side by side; nearly always one."""
        return [int(t) for t in self._json("serving.json")["timesteps"]]

    @property
    def class_names(self) -> list[str]:
        """[] where it predicts no class."""
        return list(self._json("serving.json")["class_names"])

    @property
    def multi_label(self) -> bool:
        """Whether each class is a yes or no of its own."""
        return bool(self._json("serving.json")["multi_label"])

    @property
    def weights(self) -> str:
        """Hex sha256 of the weights, which a folder has too."""
        return sha256(self.files / "model.safetensors")

    @property
    def shown(self) -> str:
        """What to call it in a message."""
        return f"{self.name} version {self.version}" if self.name else "the model"

    def predict(self, images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
        """Images (N, H, W, C) to "embedding" (N, D) and, where there are classes, "probabilities" (N, K)."""
        return cast(dict[str, npt.NDArray[np.float32]], self.pyfunc.predict(images))

    def encoder(self) -> "nn.Module":
        """The encoder at `timesteps`: images (N, C, H, W) in [-1, 1] to (N, D). Raises SettingsError for a version without one."""
        python_model = self.pyfunc.unwrap_python_model()  # type: ignore[no-untyped-call, unused-ignore]
        found = getattr(python_model, "encoder", None)
        if found is None:
            raise SettingsError(f"{self.shown} was registered by an earlier dier and hands out no encoder: register it again")
        encoder: nn.Module = found
        return encoder

    def record(self) -> dict[str, Any]:
        """What a file says of the model behind its numbers: the same bytes whenever and wherever it is made."""
        return {
            "model": self.name,
            "version": self.version,
            "digest": self.tags.get(versions.DIGEST_TAG),
            "weights": self.weights,
            "t": self.timesteps,
            "image_shape": list(self.shape),
            "class_names": self.class_names,
        }

    def _json(self, name: str) -> Any:
        return json.loads((self.files / name).read_text("utf-8"))


def load(model: str) -> RegisteredModel:
    """Load NAME (its champion), NAME@ALIAS, NAME/VERSION, `models:/...`, or a folder that holds an MLmodel.

    Raises SettingsError for what does not exist or dier did not register, TrackingError where MLflow cannot be used.
    """
    holder = TemporaryDirectory(prefix="dier-model-")  # MLflow itself would leave what it downloads behind
    if (Path(model) / MLMODEL).is_file():
        set_environment()
        return _load(str(Path(model).absolute()), holder)
    if Path(model).is_dir():
        raise SettingsError(
            f"{model} is a folder without {MLMODEL}: give a registered model (NAME@champion), or what "
            f"mlflow artifacts download --artifact-uri {SCHEME}NAME/N --dst-path DIR wrote"
        )
    client = connect(must_exist=True)
    if model.startswith(SCHEME) and not versions.NAMED.fullmatch(model):
        return _load(model, holder)  # models:/m-..., a logged model; MLflow says what is wrong with any other
    with one_line_errors():
        found = versions.find(client, model)  # by number from here on, so that what is loaded is what is recorded
        number = int(found.version)
        return _load(f"{SCHEME}{found.name}/{number}", holder, found.name, number, found.tags)


def _load(
    uri: str,
    holder: "TemporaryDirectory[str]",
    name: str | None = None,
    version: int | None = None,
    tags: Mapping[str, str] = MappingProxyType({}),
) -> RegisteredModel:
    import mlflow

    with one_line_errors():
        folder = Path(mlflow.artifacts.download_artifacts(uri, dst_path=holder.name))
    files = folder / package.FILES_FOLDER
    if not (files / "serving.json").is_file():
        missing = f"there is no {package.FILES_FOLDER}/serving.json"
        raise SettingsError(f"{redact(uri)} was not registered by dier, or its files are gone: {missing}")
    with one_line_errors():
        pyfunc = mlflow.pyfunc.load_model(str(folder))
    return RegisteredModel(pyfunc, files, name, version, tags, holder)
