"""dvc repro on real images, as a user runs it.

prepare -> validate -> train -> embed -> probe -> report -> register
"""

import json
import re
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from components.common import artifact
from pipeline.steps import STEPS
from tests.scenarios.conftest import Checkout

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def done(checkout: Callable[[str], Checkout]) -> Checkout:
    """A checkout in which the whole chain has run once."""
    made = checkout("first")
    made.run("dvc", "repro")
    return made


def stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", output)


def lock(made: Checkout) -> dict:
    return yaml.safe_load((made.folder / "dvc.lock").read_text())["stages"]


def test_every_artifact_is_whole(done: Checkout) -> None:
    for step in STEPS:
        artifact.read(done.folder / "artifacts" / step.output, step.output)


def test_no_artifact_names_a_place_or_a_host(done: Checkout) -> None:
    needle = str(done.folder).encode()
    for file in (done.folder / "artifacts").rglob("*"):
        assert not file.is_file() or needle not in file.read_bytes(), file


def test_the_summary_answers_the_questions(done: Checkout) -> None:
    text = done.run("dier", "summary")
    for part in [
        "digits: DiER at t =",
        "val accuracy",
        "pixels",
        "untrained",
        "gate",
        "registered    dier version 1",
        "report.html",
        "next",
    ]:
        assert part in text


def registered(done: Checkout) -> dict:
    return artifact.read(done.folder / "artifacts" / "registration", "registration").json("registration.json")


def test_a_second_run_runs_nothing_but_register_which_finds_its_version_there(done: Checkout) -> None:
    before, version = lock(done), registered(done)
    assert stages_run(done.run("dvc", "repro")) == ["register"]
    assert (lock(done), registered(done)) == (before, version)


def test_a_registry_that_is_gone_gets_the_version_again(done: Checkout) -> None:
    """DVC cannot see that, nor another tracking server (tests/components/test_register.py has one)."""
    before, version = lock(done), registered(done)
    (done.folder / "mlflow.db").unlink()
    assert stages_run(done.run("dvc", "repro")) == ["register"]
    again = registered(done)
    assert again["run_id"] != version["run_id"]
    assert (again["version"], again["digest"], again["aliases"]) == (1, version["digest"], ["candidate"])
    assert lock(done) == before


def test_a_probe_setting_does_not_retrain_and_going_back_restores(done: Checkout) -> None:
    before = lock(done)
    done.set("probe.c_grid=[0.001]")
    assert stages_run(done.run("dvc", "repro")) == ["probe", "report", "register"]
    done.set("probe.c_grid=[0.01, 0.1]")
    assert stages_run(done.run("dvc", "repro")) == ["register"]
    assert lock(done) == before


def test_what_dvc_stored_comes_back_whole(done: Checkout) -> None:
    """Everything in an artifact is in DVC's cache: a name that .dvcignore knows elsewhere (docs) must not be left out.

    A registration tells of one registry: it isn't stored, but asked for again.
    """
    import shutil

    shutil.rmtree(done.folder / "artifacts")
    done.run("dvc", "checkout")
    assert {file.name for file in (done.folder / "artifacts").iterdir()} == {step.output for step in STEPS} - {"registration"}
    assert stages_run(done.run("dvc", "repro")) == ["register"]
    test_every_artifact_is_whole(done)


def test_two_clones_give_identical_hashes(done: Checkout, checkout: Callable[[str], Checkout]) -> None:
    other = checkout("second")
    other.run("dvc", "repro")
    assert lock(other) == lock(done)


def test_a_damaged_artifact_between_two_steps_stops_the_next_one(done: Checkout, tmp_path: Path) -> None:
    import shutil

    model = tmp_path / "model"
    shutil.copytree(done.folder / "artifacts" / "model", model)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    arguments = ["--params", "params.yaml", "--dataset", "artifacts/dataset", "--model", str(model), "--out", str(tmp_path / "out")]
    said = done.run("dier", "embed", *arguments, code=3).strip().splitlines()
    assert "model.safetensors does not match its sha256" in said[-1]
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_an_experiment_can_be_run_shown_and_compared(done: Checkout) -> None:
    done.commit("a run")
    done.run("dvc", "exp", "run", "-S", "probe.c_grid=[0.001]", "-n", "stricter")  # as above: nothing needs to run again
    shown = json.loads(done.run("dvc", "exp", "show", "--json"))
    assert "stricter" in json.dumps(shown)
    difference = json.loads(done.run("dvc", "metrics", "diff", "--json", "HEAD", "stricter"))
    changed = difference["artifacts/probe/metrics.json"]
    assert changed["test.accuracy.value"]["old"] != changed["test.accuracy.value"]["new"]


def test_plots_open_without_a_network(done: Checkout) -> None:
    done.run("python", "-m", "tools.plots_page", ".dvc/plots.html")
    done.run("dvc", "plots", "show", "--out", "plots")
    page = (done.folder / "plots" / "index.html").read_text()
    assert "window.vegaEmbed=" in page.replace(" ", "")  # Vega itself, not only the calls of it
    assert len(page) > 500_000
    assert not re.findall(r"<(?:script|link)[^>]+(?:src|href)=.https?://", page)
    assert "linear-probe accuracy over log-SNR" in page


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of an S3 server on this machine (moto's, in memory), with the bucket `dier`."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    urllib.request.urlopen(urllib.request.Request(f"{url}/dier", method="PUT")).close()
    yield url
    server.stop()


@pytest.fixture(scope="module")
def with_raw_images(done: Checkout) -> Checkout:
    """The finished run, with the file behind data.path tracked as well."""
    (done.folder / "real-data" / "raw.npz").write_bytes(b"stands for the images behind data.path")
    done.run("dvc", "add", "-q", "real-data/raw.npz")
    assert stages_run(done.run("dvc", "repro", "report")) == ["prepare"]
    return done


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_fresh_clone_pulls_what_was_pushed_and_runs_nothing(
    with_raw_images: Checkout, s3: str, kind: str, tmp_path: Path
) -> None:
    """Images, weights, embeddings, metrics and report come from the remote, byte for byte; nothing is made again."""
    made, key = with_raw_images, {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    made.run(
        "dvc", "remote", "add", "--force", "--default", "store", "s3://dier/store" if kind == "s3" else str(tmp_path / "store")
    )
    if kind == "s3":
        made.run("dvc", "remote", "modify", "store", "endpointurl", s3)
    made.commit("a run to share")
    made.run("dvc", "push", **key)

    clone = made.clone(tmp_path / "clone")
    assert not (clone.folder / "artifacts").exists()
    clone.run("dvc", "pull", **key)
    assert "Data and pipelines are up to date" in clone.run("dvc", "repro", "report")
    for step in STEPS[:-1]:
        here, there = (artifact.read(folder / "artifacts" / step.output, step.output) for folder in (clone.folder, made.folder))
        assert here.fingerprint == there.fingerprint
    assert (clone.folder / "real-data" / "raw.npz").read_bytes().startswith(b"stands for")
