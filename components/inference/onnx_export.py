"""`dier export-onnx`: a registered model as one ONNX file, pixels in and embeddings and probabilities out, to run without Python.

What `predict` does is in the graph whole: scaling of uint8 pixels, the encoder, the classifier. So nobody has to write the scaling
again, the commonest way to get other numbers. t is no input: the classifier is fitted at the timestep that was chosen, and with t
fixed all that hangs on it alone is folded into constants.
"""

import copy
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

from components.common.errors import SettingsError
from components.common.progress import say
from components.inference.output import whole_file
from components.inference.registered_model import RegisteredModel, load

TOLERANCE = 1e-4
"""Of embeddings and probabilities, against PyTorch."""
CHECKED = (1, 64)
"""Images at a time that the file is checked with."""
OPSET = 20
"""The first one with GELU as an operator."""
METADATA = "dier"
"""The key of the file's metadata that holds `RegisteredModel.record` as JSON."""
INPUT, EMBEDDING, PROBABILITIES = "images", "embedding", "probabilities"


class OtherNumbers(Exception):
    """The file does not give what the model gives."""


def export_onnx(model: str, out: Path) -> None:
    """Write `model` as ONNX, checked under onnxruntime against PyTorch with 1 and 64 images.

    Raises SettingsError for a model that is not there and packages that are not installed, OtherNumbers where they differ by more
    than TOLERANCE: then no file is written.
    """
    _check_packages()
    loaded = load(model)
    whole = WholeModel.of(loaded)
    with whole_file(out) as beside:
        write(whole, loaded.shape, loaded.record(), beside)
        furthest = max(difference(whole, loaded.shape, beside, number) for number in CHECKED)
        if not furthest <= TOLERANCE:
            raise OtherNumbers(
                f"under onnxruntime {loaded.shown} is {furthest:.1e} away from PyTorch's numbers, more than {TOLERANCE:.0e}: "
                "use it in Python, or tell dier's authors which model.encoder, stem and pool it has"
            )
    say(f"{out}: {loaded.shown} at t = {', '.join(map(str, loaded.timesteps))}; within {furthest:.1e} of PyTorch")


class WholeModel(nn.Module):
    """images (N, H, W, C) uint8 to the outputs of `predict`: embedding (N, D), and where there are classes probabilities (N, K)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, encoder: nn.Module, classifier: dict[str, Any] | None, multi_label: bool) -> None:
        super().__init__()
        self.encoder, self.classified, self.multi_label = encoder, classifier is not None, multi_label
        for name, values in (classifier or {}).items():
            self.register_buffer(name, torch.from_numpy(values).double())

    @classmethod
    def of(cls, model: RegisteredModel) -> "WholeModel":
        """Of a registered model, a copy on the CPU."""
        classifier = load_file(model.files / "classifier.safetensors") if model.class_names else None
        return cls(copy.deepcopy(model.encoder()).cpu(), classifier, model.multi_label).eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """As `predict`, logits in double precision like there: weights of a probe may be large."""
        embedding = self.encoder(self.encoder.scale(images))  # type: ignore[operator]
        if not self.classified:
            return (embedding,)
        logits = embedding.double() @ self.weight.T + self.bias
        return embedding, (logits.sigmoid() if self.multi_label else logits.softmax(1)).float()


def write(whole: WholeModel, shape: tuple[int, int, int], record: dict[str, Any], file: Path) -> None:
    """Write the network for images of `shape`, with `record` in the file's metadata."""
    with _quiet():
        program = torch.onnx.export(
            whole,
            (torch.zeros(2, *shape, dtype=torch.uint8),),  # two: a single image would fix the number at one
            input_names=[INPUT],
            output_names=[EMBEDDING, PROBABILITIES] if whole.classified else [EMBEDDING],
            dynamic_shapes={INPUT: {0: torch.export.Dim("N")}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props[METADATA] = json.dumps(record, sort_keys=True, ensure_ascii=False)
    program.save(file, external_data=False)


def difference(whole: WholeModel, shape: tuple[int, int, int], file: Path, number: int) -> float:
    """The largest difference of any output over `number` images of noise, which are unlike each other in every pixel."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(number).integers(0, 256, (number, *shape), np.uint8)
    with torch.inference_mode():
        expected = whole(torch.from_numpy(images))
    found = session.run(None, {INPUT: images})
    return max(float(np.abs(a - b.numpy()).max()) for a, b in zip(found, expected, strict=True))


def _check_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise SettingsError(f"export to ONNX needs the package {error.name}: pip install -e '.[onnx]'") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter's optimizer says of each operator that it leaves as it is."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
