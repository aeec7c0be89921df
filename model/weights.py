"""The exported model on disk: safetensors and JSON; nothing is pickled."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .config import ModelConfig
from .dier import DiER
from .errors import ConfigError


def save_model(folder: Path, model: DiER, weights: dict[str, Tensor]) -> None:
    """Write `config.json` and `model.safetensors` (the given weights, EMA ones say) into an existing folder."""
    model.config.save(folder / "config.json")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")


def load_model(folder: Path) -> DiER:
    """Read a model onto the CPU, in evaluation mode. Raises ConfigError where the files do not fit together."""
    model = DiER(ModelConfig.load(folder / "config.json"))
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ConfigError(f"cannot load {folder / 'model.safetensors'}: {error}; train the model again") from error
    return model.eval()
