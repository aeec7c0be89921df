import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SHORT = [  # the same chain, in seconds: less of everything, and no bar that so short a training could miss
    "data.limit=400",
    "data.canvas=null",
    "data.copies=1",
    "model.patch_size=2",
    "model.depth=2",
    "model.width=32",
    "model.heads=2",
    "model.embed_dim=32",
    "model.denoiser_depth=2",
    "model.denoiser_width=null",
    "train.steps=60",
    "train.warmup_steps=10",
    "train.log_every=20",
    "train.checkpoint_every=30",
    "train.min_gap=0",
    "embed.timesteps=[0, 300, 999]",
    "probe.c_grid=[0.01, 0.1]",
    "probe.baseline_timesteps=[100]",
    "probe.bootstrap=200",
    "register.min_accuracy=0.2",
]


def environment(folder: Path) -> dict[str, str]:
    """A user's: without what this process was told, and with bytecode kept, as every step is a process."""
    apart = ("MLFLOW_", "DIER_", "DVC_", "PYTHONDONTWRITEBYTECODE")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(apart)}
    # one thread: the test runner already uses every core, and threads that wait for each other spin
    return kept | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": str(folder),
        "DVC_NO_ANALYTICS": "1",
        "OMP_NUM_THREADS": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
    }


class Checkout:
    """A copy of the tracked files in a git repository of its own, with short settings, as a user's clone would be.

    With MLflow's file too, empty: making it takes longer than the whole training.
    """

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder = folder
        tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
        for name in filter(None, tracked.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        (folder / "dvc.lock").unlink(missing_ok=True)
        shutil.copyfile(store, folder / "mlflow.db")
        self.set(*SHORT)
        self.run("git", "init", "-q")
        self.commit("start")

    def commit(self, message: str) -> None:
        """Commit everything."""
        self.run("git", "add", "-A")
        self.run("git", "-c", "user.name=test", "-c", "user.email=test@example.invalid", "commit", "-qm", message)

    def clone(self, folder: Path) -> "Checkout":
        """A clone of the last commit: what git has, and nothing of what DVC has."""
        other = object.__new__(type(self))
        other.folder = folder
        self.run("git", "clone", "-q", str(self.folder), str(folder))
        return other

    def set(self, *overrides: str) -> None:
        """Write settings into params.yaml, as a user would."""
        import yaml

        file = self.folder / "params.yaml"
        params = yaml.safe_load(file.read_text())
        for override in overrides:
            key, value = override.split("=", 1)
            section, name = key.split(".")
            params[section][name] = yaml.safe_load(value)
        file.write_text(yaml.safe_dump(params))

    def run(self, *words: str, code: int = 0, **variables: str) -> str:
        """Run a command here; its output. The command's own copy of the code is used, not the checkout under test."""
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=environment(self.folder) | {"PYTHONPATH": str(self.folder)} | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, migrated_store: Path) -> Callable[[str], Checkout]:
    return lambda name: Checkout(tmp_path_factory.mktemp(name), migrated_store)
