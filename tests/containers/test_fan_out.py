"""The pipeline whose embed is a task a timestep, really run in containers, beside the one whose embed is one task.

compiled as shipped      ── run-local ── embeddings ─┐
                                                     ├─ equal fingerprints
compiled with fan_out    ── run-local ── embeddings ─┘
"""

import subprocess
from pathlib import Path

import pytest
import yaml

from components.common import artifact
from tests.containers.conftest import ROOT
from tests.containers.test_run_local import DIER, fingerprints, ran, run_local

pytestmark = pytest.mark.engine

SHORT = (
    "data.limit=300",
    "model.depth=1",
    "train.steps=20",
    "train.warmup_steps=5",
    "train.log_every=10",
    "train.min_gap=0",
    "embed.timesteps=[300,0,999]",
    "probe.c_grid=[0.1]",
    "probe.bootstrap=100",
    "probe.baseline_timesteps=[100]",
    "probe.max_iter=50",
    "register.min_accuracy=0",
)
PARAMS = [word for setting in SHORT for word in ("--param", setting)]


@pytest.fixture(scope="module")
def fan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline compiled from the shipped cluster file with fan-out switched on."""
    folder = tmp_path_factory.mktemp("compiled")
    settings = yaml.safe_load((ROOT / "pipeline" / "cluster.yaml").read_text())
    settings["embed"]["fan_out"] = True
    (folder / "cluster.yaml").write_text(yaml.safe_dump(settings))
    words = [str(DIER), "compile", "--allow-tag", "--cluster", str(folder / "cluster.yaml"), "--out", str(folder / "fan.yaml")]
    subprocess.run(words, cwd=ROOT, check=True)
    return folder / "fan.yaml"


def test_one_task_a_timestep_makes_the_embeddings_that_one_task_makes(image: str, fan: Path, tmp_path: Path) -> None:
    one, many = tmp_path / "one", tmp_path / "many"
    run_local(one, image, *PARAMS)
    run_local(many, image, "--pipeline", str(fan), *PARAMS)
    assert fingerprints(many / "artifacts") == fingerprints(one / "artifacts")
    assert "embed" in ran(one)
    loops = {name for name in ran(many) if name.startswith("for-loop")}
    assert len(loops) == 3
    assert ran(many) == ran(one) - {"embed"} | {"embed-split", "embed-join"} | loops
    whole = artifact.read(many / "artifacts" / "embeddings", "embeddings").json("embeddings.json")
    assert whole["timesteps"] == [300, 0, 999]

    # one timestep more: it alone is embedded
    more = [word.replace("999]", "999,500]") for word in PARAMS]
    run_local(many, image, "--pipeline", str(fan), *more)
    assert len([name for name in ran(many) if name.startswith("for-loop")]) == 1
    assert {"embed-split", "embed-join", "probe"} < ran(many)
    assert "train" not in ran(many)


def test_an_embed_that_fails_fails_the_run_and_nothing_is_joined(image: str, fan: Path, tmp_path: Path) -> None:
    """A device that is not there: the embeds fail, whatever the engine says of them."""
    said = run_local(tmp_path / "root", image, "--pipeline", str(fan), *PARAMS, "--param", "embed.device=cuda", code=2)
    assert "no whole artifact of: embeddings, probe, report, registration" in said
    assert not ran(tmp_path / "root") & {"probe", "report", "register"}
