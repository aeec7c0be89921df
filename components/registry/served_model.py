"""What a registered model runs: images in, embeddings and class probabilities out (of unlabelled images embeddings alone).

MLflow copies this file into the model and executes it on loading ("models from code": nothing is pickled). It may import
nothing of this repository: the model carries the package `model` as code, under a name of its own that stands in serving.json.
"""

import importlib
import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.pyfunc.model import PythonModel
from safetensors.numpy import load_file


def output_sizes(config: dict[str, Any], serving: dict[str, Any]) -> dict[str, int]:
    """Numbers an image of each output of `predict`, all float32, by config.json and serving.json; the signature is made of them."""
    sizes = {"embedding": config["embed_dim"] * len(serving["timesteps"]), "probabilities": len(serving["class_names"])}
    return {name: size for name, size in sizes.items() if size}


class AtTimesteps(torch.nn.Module):
    """An encoder whose timesteps are fixed: images (N, C, H, W) float32 in [-1, 1] to v_t (N, D), of several t side by side.

    A probe is fitted at one t, and v_t means something else at another, so whoever goes on from an embedding has no use for t.
    """

    timesteps: torch.Tensor

    def __init__(self, encoder: torch.nn.Module, timesteps: list[int]) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("timesteps", torch.tensor(timesteps), persistent=False)

    def scale(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, H, W, C) uint8 to what `forward` takes."""
        return images.permute(0, 3, 1, 2).float() / 127.5 - 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embed."""
        return torch.cat([self.encoder(x, t) for t in torch.split(self.timesteps, 1)], dim=1)


class ServedModel(PythonModel):  # type: ignore[misc, unused-ignore]
    """images (N, H, W, C) uint8 -> {"embedding": (N, D) float32, "probabilities": (N, K) float32}, for any N.

    Without "probabilities" where serving.json names no class.
    """

    def load_context(self, context: Any) -> None:
        """Read the weights, the classifier and `serving.json`."""
        folder = Path(context.artifacts["files"])
        serving = json.loads((folder / "serving.json").read_text("utf-8"))
        package = serving["package"]
        self._embed = importlib.import_module(f"{package}.features").embed
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = importlib.import_module(f"{package}.weights").load_model(folder).to(self._device)
        self._classifier = load_file(folder / "classifier.safetensors") if serving["class_names"] else None
        self._timesteps, self._multi_label = [int(t) for t in serving["timesteps"]], bool(serving["multi_label"])
        self._encoder = AtTimesteps(self._model.encoder, self._timesteps).to(self._device)

    @property
    def encoder(self) -> "AtTimesteps":
        """The encoder as a plain module: images (N, C, H, W) in [-1, 1] to "embedding" (N, D), on the device of the weights.

        They are the weights that `predict` uses: to train it, `copy.deepcopy` it first.
        """
        return self._encoder

    # MLflow reads the hint of model_input: any other than the bare class makes it warn on every load.
    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> dict[str, Any]:  # type: ignore[type-arg, unused-ignore]
        """Embeddings v_t at the timestep chosen on validation, or at several side by side (embed.k), D = k embed_dim, and the
        probability of each class (of each label: multi-label)."""
        images = np.ascontiguousarray(np.asarray(model_input, np.uint8))
        embedding = np.concatenate([self._embed(self._model, images, t, device=self._device) for t in self._timesteps], axis=1)
        if self._classifier is None:
            return {"embedding": embedding}
        logits = embedding.astype(np.float64) @ self._classifier["weight"].T + self._classifier["bias"]
        probabilities = _sigmoid(logits) if self._multi_label else _softmax(logits)
        return {"embedding": embedding, "probabilities": probabilities.astype(np.float32)}


def _softmax(logits: Any) -> Any:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def _sigmoid(logits: Any) -> Any:
    return np.exp(-np.logaddexp(0.0, -logits))  # no overflow for large negative logits


mlflow.models.set_model(ServedModel())
