"""Running checkpoints: whole or absent, checked when read, the newest kept, damage told."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from model.errors import CheckpointError
from model.training import checkpoint
from model.training.checkpoint import PARTS, PHASES, RunningCheckpoint, finished, load_optimizer, newest, optimizer_tensors, save

FILES = [f"{part}.safetensors" for part in PARTS] + ["state.json", "run_configuration.json", "manifest.json"]


def running_at(step: int) -> RunningCheckpoint:
    random = torch.Generator().manual_seed(step)
    tensors = {part: {"a": torch.randn(3, 5, generator=random), "b": torch.tensor(float(step))} for part in PARTS}
    return RunningCheckpoint(step, tensors, {"curve": [{"step": step, "loss": 0.1 + step}]}, {"train.lr": 0.1})


def read(folder: Path) -> tuple[RunningCheckpoint | None, list[str]]:
    said: list[str] = []
    return newest(folder, {"train.lr": 0.1}, 2, said.append), said


def same(a: RunningCheckpoint | None, b: RunningCheckpoint) -> bool:
    return (
        a is not None
        and (a.step, a.state, a.run_configuration) == (b.step, b.state, b.run_configuration)
        and all(torch.equal(a.tensors[part][name], b.tensors[part][name]) for part in PARTS for name in ("a", "b"))
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    assert read(folder) == (None, [])
    save(folder, running_at(7), keep=2)
    found, said = read(folder)
    assert same(found, running_at(7))
    assert said == []
    assert names(folder / "step-000000007") == sorted(FILES)


def test_a_fresh_start_beside_other_trainings_names_the_most_alike(tmp_path: Path) -> None:
    others = {"near": {"train.lr": 0.2}, "far": {"train.lr": 0.3, "dataset": "d" * 64}, "own": {"train.lr": 0.1}}
    for name, configuration in others.items():
        (tmp_path / name).mkdir()
        for step in (1, 2):
            save(tmp_path / name, dataclasses.replace(running_at(step), run_configuration=configuration), keep=2)
    (tmp_path / "new").mkdir()
    near = tmp_path / "near" / "step-000000002"
    assert read(tmp_path / "new") == (None, [f"train: starting at step 0: {near} is of another training: train.lr was 0.2, is 0.1"])


def test_each_phase_is_passed_once_and_the_manifest_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[str] = []
    inside: dict[str, list[str]] = {}

    def phase(name: str) -> None:
        passed.append(name)
        beside = tmp_path / ".step-000000007.partial"
        inside[name] = names(beside) if beside.exists() else []

    monkeypatch.setattr(checkpoint, "phase", phase)
    save(tmp_path, running_at(7), keep=2)
    assert tuple(passed) == PHASES
    assert inside["state"] == sorted(set(FILES) - {"manifest.json"})
    assert inside["manifest"] == sorted(FILES)


class KilledError(BaseException):
    """A stand-in for death at a phase: nothing after it runs, and nothing is cleaned up."""


@pytest.mark.parametrize("at", PHASES)
def test_death_at_any_phase_leaves_a_whole_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    for step in (1, 2):
        save(tmp_path, running_at(step), keep=2)

    def phase(name: str) -> None:
        if name == at:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "phase", phase)
        with pytest.raises(KilledError):
            save(tmp_path, running_at(3), keep=2)
    found, said = read(tmp_path)
    assert same(found, running_at(3 if at in ("rename", "prune") else 2))
    assert said == []
    last = ["step-000000002", "step-000000003"] if at in ("rename", "prune") else ["step-000000001", "step-000000002"]
    assert [name for name in names(tmp_path) if name.startswith("step-")] == last
    with checkpoint.hold(tmp_path):  # the next training clears away what was half done
        save(tmp_path, running_at(3), keep=2)
    assert names(tmp_path) == [".lock", "step-000000002", "step-000000003"]


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("harm", [truncated, emptied, flipped, Path.unlink], ids=["truncated", "emptied", "flipped", "removed"])
def test_a_damaged_newest_falls_back_one_loudly(tmp_path: Path, file: str, harm: Callable[[Path], None]) -> None:
    for step in (1, 2):
        save(tmp_path, running_at(step), keep=2)
    harm(tmp_path / "step-000000002" / file)
    found, said = read(tmp_path)
    assert same(found, running_at(1))
    assert len(said) == 1
    assert "\n" not in said[0]
    assert "damaged: the checkpoint step-000000002 (" in said[0]
    assert "using step-000000001 instead" in said[0]
    assert file in said[0] or (harm, file) == (flipped, "manifest.json")  # that one names the file that it no longer fits


@pytest.mark.slow
def test_every_flipped_bit_of_a_manifest_is_found_or_harmless(tmp_path: Path) -> None:
    """A manifest has no checksum of its own: what it says is held against the files."""
    for step in (1, 2):
        save(tmp_path, running_at(step), keep=2)
    manifest = tmp_path / "step-000000002" / "manifest.json"
    whole = manifest.read_bytes()
    fell_back = 0
    for place in range(len(whole)):
        manifest.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        found, said = read(tmp_path)
        fell_back += bool(said)
        assert same(found, running_at(1 if said else 2))
    assert fell_back > len(whole) / 2


def test_a_checkpoint_under_another_steps_name_is_damaged(tmp_path: Path) -> None:
    for step in (1, 2):
        save(tmp_path, running_at(step), keep=2)
    (tmp_path / "step-000000001").rename(tmp_path / "step-000000009")
    found, said = read(tmp_path)
    assert same(found, running_at(2))
    assert "step-000000009 (it is of step 1)" in said[0]


def test_when_all_are_damaged_nothing_starts_anew(tmp_path: Path) -> None:
    for step in (1, 2):
        save(tmp_path, running_at(step), keep=2)
        truncated(tmp_path / f"step-00000000{step}" / "weights.safetensors")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path)
    line = str(caught.value)
    assert str(tmp_path) in line
    assert "step-000000001 (weights.safetensors does not match" in line
    assert "step-000000002 (weights.safetensors does not match" in line
    assert "\n" not in line
    assert before == {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}


def test_after_a_fall_back_the_damaged_one_makes_room(tmp_path: Path) -> None:
    for step in (1, 2):
        save(tmp_path, running_at(step), keep=2)
    save(tmp_path, running_at(8), keep=3)
    truncated(tmp_path / "step-000000008" / "ema.safetensors")
    save(tmp_path, running_at(3), keep=2)  # training went on from 2
    assert names(tmp_path) == ["step-000000002", "step-000000003"]
    truncated(tmp_path / "step-000000003" / "ema.safetensors")
    save(tmp_path, running_at(3), keep=2)  # and comes by a damaged one's step
    assert same(read(tmp_path)[0], running_at(3))


def test_a_save_that_the_disk_refuses_names_step_place_and_reason(tmp_path: Path) -> None:
    save(tmp_path, running_at(1), keep=2)
    (tmp_path / ".step-000000002.partial").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"cannot write the checkpoint of step 2 in .*: File exists; check that folder"):
        save(tmp_path, running_at(2), keep=2)
    assert same(read(tmp_path)[0], running_at(1))


def test_an_empty_folder_is_held_and_made_with_its_parents(tmp_path: Path) -> None:
    with checkpoint.hold(tmp_path / "a" / "b"):
        assert names(tmp_path / "a" / "b") == [".lock"]
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "a").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"cannot write checkpoints in .*File exists"), checkpoint.hold(tmp_path / "a" / "b"):
        pass


def test_a_training_is_finished_when_its_newest_checkpoint_is_whole_and_of_the_last_step(tmp_path: Path) -> None:
    def save_at(step: int) -> None:
        save(tmp_path, dataclasses.replace(running_at(step), state={"steps": 8}), keep=2)

    assert not finished(tmp_path)
    save_at(4)
    assert not finished(tmp_path)
    save_at(8)
    assert finished(tmp_path)
    truncated(tmp_path / "step-000000008" / "ema.safetensors")
    assert not finished(tmp_path)


@pytest.mark.slow
def test_the_optimizers_state_survives_the_disk() -> None:
    layers = [torch.nn.Linear(3, 2) for _ in range(2)]
    first, second = (torch.optim.AdamW(layer.parameters(), lr=0.1) for layer in layers)
    layers[0](torch.ones(1, 3)).sum().backward()
    first.step()
    load_optimizer(second, optimizer_tensors(first))
    assert all(torch.equal(value, optimizer_tensors(second)[key]) for key, value in optimizer_tensors(first).items())
