"""What a process says of where it runs: the commit that its working folder stands at."""

import subprocess
from pathlib import Path

import pytest

from components.tracking.environment import git_tags


def test_provenance_of_a_working_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*command: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        return subprocess.run(["git", *identity, *command], cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    (tmp_path / "params.yaml").write_text("a: 1\n")
    (tmp_path / "dvc.lock").write_text("b: 1\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    (tmp_path / "dvc.lock").write_text("b: 2\n")  # DVC rewrites it while it reproduces
    tags = git_tags(tmp_path)
    assert tags == {
        "dier.git_commit": git("rev-parse", "HEAD"),
        "dier.git_dirty": "false",
    }
    (tmp_path / "params.yaml").write_text("a: 2\n")
    assert git_tags(tmp_path)["dier.git_dirty"] == "true"
    monkeypatch.setenv("PATH", "")
    assert git_tags(tmp_path)["dier.git_commit"] == git_tags(tmp_path)["dier.git_dirty"] == "unknown"
    monkeypatch.setenv("DIER_GIT_COMMIT", "1234abc")  # what the image says where there is no repository
    assert git_tags(tmp_path) == {"dier.git_commit": "1234abc", "dier.git_dirty": "unknown"}
    monkeypatch.setenv("DIER_GIT_COMMIT", "1234abc-dirty")  # as pipeline/image/build.sh calls it
    assert git_tags(tmp_path) == {"dier.git_commit": "1234abc", "dier.git_dirty": "true"}
