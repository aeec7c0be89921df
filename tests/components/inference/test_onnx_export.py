"""`dier export-onnx`: what the file gives under onnxruntime is what predict gives; and the encoder that it is made of."""

import copy
import json
from pathlib import Path

import mlflow
import numpy as np
import onnxruntime
import pytest
import torch

from components.inference import onnx_export
from components.registry.served_model import AtTimesteps
from model.config import ModelConfig
from model.dier import DiER
from pipeline.cli import main
from tests.components.registry_artifacts import CLASSES


def export(model: Path, out: Path) -> onnxruntime.InferenceSession:
    assert main(["export-onnx", "--model", str(model), "--out", str(out)]) == 0
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(out), options)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shape"), [("glyphs", (8, 8, 1)), ("resnet", (16, 12, 3)), ("tags", (8, 8, 1))])
def test_the_file_gives_what_predict_gives_for_any_number_of_images(
    folders: Path, tmp_path: Path, name: str, shape: tuple[int, int, int]
) -> None:
    session = export(folders / name, tmp_path / "out.onnx")
    model = mlflow.pyfunc.load_model(str(folders / name))
    for number in (1, 64, 7):
        images = np.random.default_rng(number).integers(0, 256, (number, *shape), np.uint8)
        found = dict(zip([out.name for out in session.get_outputs()], session.run(None, {"images": images}), strict=True))
        expected = model.predict(images)
        assert found.keys() == expected.keys() == {"embedding", "probabilities"}
        for key, values in expected.items():
            assert found[key].dtype == np.float32
            np.testing.assert_allclose(found[key], values, atol=1e-4, rtol=0)
    told = json.loads(session.get_modelmeta().custom_metadata_map["dier"])
    assert (told["t"], told["class_names"], told["image_shape"]) == ([300], CLASSES, list(shape))


@pytest.mark.slow
@pytest.mark.parametrize(
    "parts",
    [
        {"stem": "conv", "pool": "grid", "modulation": "single"},
        {"pool": "attention", "modulation": "low_rank", "modulation_rank": 4, "embed_norm": False},
        {"encoder": "resnet", "pool": "flat"},
    ],
    ids=lambda parts: "-".join(map(str, parts.values())),
)
def test_every_part_of_an_encoder_is_exported(tmp_path: Path, parts: dict[str, object]) -> None:
    """Not freshly initialised: then t, and a query that is zero, would change nothing."""
    shape = (16, 12, 3)
    sizes = {"depth": 4, "dim": 16, "heads": 2, "image_height": 16, "image_width": 12, "channels": 3, "patch_size": 4}
    network = DiER(ModelConfig(**sizes, embed_dim=12, **parts))  # type: ignore[arg-type]
    with torch.no_grad():
        for weights in network.encoder.parameters():
            weights += 0.1 * torch.randn(weights.shape, generator=torch.Generator().manual_seed(0))
    whole = onnx_export.WholeModel(AtTimesteps(network.encoder, [100, 700]), None, False).eval()
    onnx_export.write(whole, shape, {}, tmp_path / "out.onnx")
    assert max(onnx_export.difference(whole, shape, tmp_path / "out.onnx", number) for number in (1, 64)) < 1e-4
    alone = onnx_export.WholeModel(AtTimesteps(network.encoder, [100, 100]), None, False).eval()
    assert onnx_export.difference(alone, shape, tmp_path / "out.onnx", 1) > 1e-2  # it can tell, and t is in the file


@pytest.mark.slow
def test_without_classes_there_are_embeddings_alone(folders: Path, tmp_path: Path) -> None:
    session = export(folders / "unlabelled", tmp_path / "out.onnx")
    assert [out.name for out in session.get_outputs()] == ["embedding"]


@pytest.mark.slow
def test_a_file_that_gives_other_numbers_is_not_kept(
    glyphs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnx_export, "TOLERANCE", 1e-12)
    assert main(["export-onnx", "--model", glyphs, "--out", str(tmp_path / "out.onnx")]) == 1
    assert "more than 1e-12" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shape"), [("glyphs", (8, 8, 1)), ("resnet", (16, 12, 3))])
def test_the_encoder_is_a_plain_module_that_gives_the_embedding_and_can_be_trained(
    folders: Path, name: str, shape: tuple[int, int, int]
) -> None:
    model = mlflow.pyfunc.load_model(str(folders / name))
    images = np.random.default_rng(0).integers(0, 256, (5, *shape), np.uint8)
    expected = model.predict(images)["embedding"]
    encoder = model.unwrap_python_model().encoder
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    torch.testing.assert_close(x, encoder.scale(torch.from_numpy(images)))
    with torch.no_grad():
        np.testing.assert_allclose(encoder(x).numpy(), expected, atol=1e-5)
    mine = copy.deepcopy(encoder).train()
    trained = [p for p in mine.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in trained]
    optimizer = torch.optim.AdamW(trained, 1e-2)
    mine(x).pow(2)[:, 0].sum().backward()
    optimizer.step()
    assert all(p.grad is not None for p in trained)
    assert any(not torch.equal(p, q) for p, q in zip(trained, before, strict=True))
    np.testing.assert_array_equal(model.predict(images)["embedding"], expected)  # the copy's weights are its own
