"""Sharded training (FSDP2): the decision, parity with the plain one, checkpoints across, no deadlock where the average is read."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.dier import DiER
from model.memory import parameters
from model.training.fsdp import SHARE, STATE_BYTES, choose_fsdp, device_memory
from tests.model.conftest import small_model
from tests.model.training.test_distributed import codes, curve, harness

TIMEOUT = 30
"""Seconds for a collective operation: what waits for one that others do not take part in fails then."""
MODELS = {"precision": "bf16", "checkpoint_activations": True}
TRAININGS: dict[str, dict[str, Any]] = {
    "plain": {"processes": 2},
    "sharded": {"processes": 2, "sharded": True},
    "three": {"processes": 3, "sharded": True, "varied": True, "micro": 3},  # of 6, 7 and 7 images
    "three plain": {"processes": 3, "varied": True, "micro": 3},
    "bf16": {"processes": 2, "sharded": True, "changes": MODELS},
    "bf16 plain": {"processes": 2, "changes": MODELS},
    "resnet": {"processes": 3, "sharded": True, "varied": True, "model": {"encoder": "resnet", "pool": "grid"}},
    "resnet plain": {"processes": 3, "varied": True, "model": {"encoder": "resnet", "pool": "grid"}},
    "by block": {"processes": 2, "sharded": True, "model": {"condition": "block", "condition_dim": 4}},
    "by block plain": {"processes": 2, "model": {"condition": "block", "condition_dim": 4}},
    "evaluated": {"processes": 2, "sharded": True, "evaluate": [1, 3, 4, 8]},
    "died": {"processes": 2, "sharded": True, "die": [1, 5]},
    "died evaluating": {"processes": 2, "sharded": True, "evaluate": [3], "fail": 3},
    "stopped": {"processes": 2, "sharded": True, "stop": 2, "seconds": {"each": 0.1}, "agree_s": 0.1},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a folder for each of TRAININGS."""
    folder = tmp_path_factory.mktemp("sharded")
    done = harness(folder, {name: {"timeout": TIMEOUT} | asked for name, asked in TRAININGS.items()})
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def weights(folder: Path) -> dict[str, np.ndarray]:
    return dict(np.load(folder / "weights.npz"))


def assert_alike(one: Path, other: Path, rtol: float = 2e-5, atol: float = 1e-6) -> None:
    np.testing.assert_allclose(curve(one), curve(other), rtol=rtol, atol=atol)
    for name, weight in weights(one).items():  # Adam makes steps of rounding errors where a gradient is zero
        np.testing.assert_allclose(weight, weights(other)[name], rtol=1e-3, atol=2e-4, err_msg=name)


@pytest.mark.slow
def test_a_sharded_training_is_the_plain_one(runs: Path) -> None:
    assert codes(runs, "sharded") == codes(runs, "plain") == [0, 0]
    assert_alike(runs / "sharded", runs / "plain")


@pytest.mark.slow
def test_uneven_shards_micro_batches_and_what_varies(runs: Path) -> None:
    """Three processes do not divide any width; 20 images a batch neither."""
    assert_alike(runs / "three", runs / "three plain", rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet", "by block"])
def test_a_frozen_whitening_and_conditions_in_the_blocks(runs: Path, name: str) -> None:
    assert_alike(runs / name, runs / f"{name} plain", rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_bf16_with_checkpointed_activations(runs: Path) -> None:
    """The losses: a key's bias, which has no gradient but rounding errors, is another each time."""
    np.testing.assert_allclose(curve(runs / "bf16"), curve(runs / "bf16 plain"), rtol=1e-3, atol=1e-4)
    assert codes(runs, "bf16") == [0, 0]


@pytest.mark.slow
def test_each_process_holds_its_share_alone(runs: Path) -> None:
    """Of weights, gradients, moments and average: 20 bytes a parameter over the processes, where each holds them all else."""
    all_of_it = STATE_BYTES * parameters(small_model())
    held = {name: [json.loads(file.read_text()) for file in sorted((runs / name).glob("held-*.json"))] for name in TRAININGS}
    assert held["plain"] == [all_of_it, all_of_it]
    assert sum(held["sharded"]) == sum(held["three"]) == all_of_it
    assert max(held["sharded"]) < 0.51 * all_of_it
    assert max(held["three"]) < 0.36 * all_of_it


@pytest.mark.slow
def test_checkpoints_have_the_same_form_and_a_training_goes_on_across(runs: Path, tmp_path: Path) -> None:
    """From a sharded one with 1, 2 and 3 processes, sharded or not, and from a plain one sharded."""
    (file,) = (runs / "plain" / "work").glob("step-000000004/optimizer.safetensors")
    (other,) = (runs / "sharded" / "work").glob("step-000000004/optimizer.safetensors")
    assert file.stat().st_size == other.stat().st_size
    across: dict[str, dict[str, Any]] = {
        "sharded, then alone": {"processes": 1},
        "sharded, then three sharded": {"processes": 3, "sharded": True},
        "sharded, then plain": {"processes": 2},
        "plain, then sharded": {"processes": 2, "sharded": True},
    }
    for name in across:
        work = tmp_path / name / "work"
        shutil.copytree(runs / name.split(",")[0] / "work", work)
        shutil.rmtree(work / "step-000000008")
    done = harness(tmp_path, {name: {"timeout": TIMEOUT} | asked for name, asked in across.items()})
    assert done.returncode == 0, done.stderr[-3000:]
    for name in across:
        assert codes(tmp_path, name) == [0] * across[name]["processes"]
        assert_alike(tmp_path / name, runs / "plain")


@pytest.mark.slow
def test_a_finished_training_gives_its_weights_again(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "sharded" / "work", tmp_path / "sharded" / "work")
    done = harness(tmp_path, {"sharded": TRAININGS["sharded"]})
    assert done.returncode == 0, done.stderr[-3000:]
    for name, weight in weights(tmp_path / "sharded").items():
        np.testing.assert_array_equal(weight, weights(runs / "sharded")[name])


@pytest.mark.slow
def test_the_average_is_gathered_whenever_the_first_process_asks_and_changes_nothing(runs: Path) -> None:
    assert codes(runs, "evaluated") == [0, 0]
    assert curve(runs / "evaluated").tolist() == curve(runs / "sharded").tolist()
    evaluated = json.loads((runs / "evaluated" / "evaluated.json").read_text())
    assert list(evaluated) == ["1", "3", "4", "8"]
    assert all(losses[0] == losses[1] for losses in evaluated.values())  # asked twice a step
    assert len({losses[0] for losses in evaluated.values()}) == 4


@pytest.mark.slow
def test_a_death_amid_a_step_or_an_evaluation_ends_all(runs: Path) -> None:
    assert codes(runs, "died") == [1, 7]
    assert [path.name for path in (runs / "died" / "work").glob("step-*")] == ["step-000000004"]
    assert codes(runs, "died evaluating") == [1, 1]


@pytest.mark.slow
def test_a_wish_to_stop_is_granted_and_saved(runs: Path) -> None:
    assert codes(runs, "stopped") == [0, 0]
    assert max(path.name for path in (runs / "stopped" / "work").glob("step-*")) in ("step-000000002", "step-000000003")


@pytest.mark.parametrize(
    ("wanted", "processes", "memory", "expected"),
    [
        ("auto", 8, 80e9, False),  # 0.9 billion parameters: 18 GB
        ("auto", 8, 71e9, True),
        ("auto", 8, 24e9, True),
        ("auto", 1, 24e9, False),
        ("auto", 8, None, False),
        ("on", 8, None, True),
        ("on", 1, None, False),
        ("off", 8, 24e9, False),
    ],
)
def test_sharding_begins_where_the_state_is_a_quarter_of_a_gpu(
    wanted: str, processes: int, memory: float | None, expected: bool
) -> None:
    sharded, line = choose_fsdp(wanted, processes, 900_000_000, None if memory is None else int(memory))
    assert sharded is expected
    assert line.startswith("18 GB of weights, gradients and optimizer state are ")
    assert "\n" not in line


@pytest.mark.parametrize("memory", [1e6, 1e9])
def test_the_size_from_which_on_is_a_parameter_sharp(memory: float) -> None:
    most = int(SHARE * memory / STATE_BYTES)
    assert not choose_fsdp("auto", 2, most, int(memory))[0]
    assert choose_fsdp("auto", 2, most + 1, int(memory))[0]


def test_parameters_are_counted_without_a_model(images: np.ndarray) -> None:
    config = small_model(pool="flat", embed_norm=False)
    assert parameters(config) == sum(parameter.numel() for parameter in DiER(config).parameters())
    assert device_memory(torch.device("cpu")) is None
