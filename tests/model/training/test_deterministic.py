import os

import torch

from model.training.deterministic import WORKSPACE, deterministic


def state() -> tuple[object, ...]:
    cudnn = torch.backends.cudnn
    return torch.are_deterministic_algorithms_enabled(), cudnn.benchmark, cudnn.deterministic, os.environ.get(WORKSPACE)


def test_it_holds_inside_and_only_when_on(monkeypatch) -> None:
    monkeypatch.delenv(WORKSPACE, raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = state()
    with deterministic(False):
        assert state() == before
    with deterministic(True):
        assert state() == (True, False, True, ":4096:8")
    assert state() == before


def test_a_workspace_that_the_user_chose_stays(monkeypatch) -> None:
    monkeypatch.setenv(WORKSPACE, ":16:8")
    with deterministic(True):
        assert os.environ[WORKSPACE] == ":16:8"
    assert os.environ[WORKSPACE] == ":16:8"
