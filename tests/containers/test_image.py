"""The image: what it is made of, and that it works as the strictest cluster would run it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from components.common import artifact
from tests.containers.conftest import USER, VERSION, Run

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def config(engine: Any, image: str) -> dict[str, Any]:
    return engine.images.get(image).attrs["Config"]


def test_it_starts_dier_as_a_number_and_through_no_shell(config: dict[str, Any]) -> None:
    assert config["Entrypoint"] == ["dier"]
    assert config["User"] == "10001:10001"
    assert config["WorkingDir"] == "/state"


def test_labels_say_what_it_was_built_from(config: dict[str, Any], run: Run) -> None:
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == VERSION
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", labels["org.opencontainers.image.revision"])
    assert f"DIER_GIT_COMMIT={labels['org.opencontainers.image.revision']}" in config["Env"]
    # podman's cache has given labels of an older commit than the code's
    assert run("/opt/dier/built-from", entrypoint=["cat"]) == (0, f"{VERSION} {labels['org.opencontainers.image.revision']}\n")


def test_it_holds_no_credentials_and_no_address_of_an_index(engine: Any, image: str, config: dict[str, Any], run: Run) -> None:
    said = json.dumps(config) + json.dumps(engine.images.get(image).history())
    assert not re.search(r"://[^/\s\"]*@|(?i:password|secret|token)=|PIP_|127\.0\.0\.1", said)
    code, output = run(
        "import pathlib; print([str(p) for p in pathlib.Path('/').rglob('*') if p.name in {'pip.conf', '.netrc', '.pypirc', '.env'}"
        " and not str(p).startswith(('/proc', '/sys'))])",
        entrypoint=["python", "-c"],
    )
    assert (code, output.strip()) == (0, "[]")


@pytest.mark.parametrize("user", [USER, 4321])
def test_a_step_works_on_a_read_only_root_without_capabilities_for_any_user(run: Run, tmp_path: Path, user: int) -> None:
    code, output = run("prepare", "--params", "{}", "--out", "/state/dataset", user=user)
    assert code == 0, output
    made = artifact.read(tmp_path / "dataset", "dataset")
    assert (tmp_path / "dataset").stat().st_uid == user
    assert made.json("dataset.json")["name"] == "digits"


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"nano_cpus": 10**9}, "1 1"),
        ({"environment": {"DIER_CPU_REQUEST": "500m"}}, "1 1"),
        ({"nano_cpus": 10**9, "environment": {"OMP_NUM_THREADS": "2"}}, "None 2"),
    ],
    ids=["a quota", "a request", "set by a person"],
)
def test_pytorch_has_as_many_threads_as_the_container_has_cores(run: Run, limits: dict[str, Any], expected: str) -> None:
    script = "from pipeline.task.threads import set_threads; n = set_threads(); import torch; print(n, torch.get_num_threads())"
    assert run(script, entrypoint=["python", "-c"], **limits) == (0, expected + "\n")


def test_nothing_outside_the_mounts_can_be_written(run: Run) -> None:
    code, output = run("prepare", "--params", "{}", "--out", "/opt/dier/dataset")
    assert code == 1
    assert "Read-only file system" in output


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--help"], 0, "Usage: dier"),
        (["prepare", "--params", '{"data": {"sorce": 1}}', "--out", "/state/x"], 2, "--params: data.sorce = 1: unknown setting"),
        (["validate", "--params", "{}", "--dataset", "/state/none", "--out", "/state/x"], 3, "no dataset artifact at /state/none"),
    ],
)
def test_exit_codes_and_messages_come_through(run: Run, words: list[str], code: int, says: str) -> None:
    found, output = run(*words)
    assert found == code
    assert says in output


def test_the_bill_of_materials_lists_what_is_installed(run: Run) -> None:
    code, output = run("/opt/dier/sbom.cdx.json", entrypoint=["cat"])
    assert code == 0
    bill = json.loads(output)
    assert bill["bomFormat"] == "CycloneDX"
    listed = {re.sub(r"[-_.]+", "-", part["name"]).lower(): part["version"] for part in bill["components"]}
    script = "import json; from importlib.metadata import distributions as d; print(json.dumps({p.name: p.version for p in d()}))"
    code, output = run(script, entrypoint=["python", "-c"])
    assert code == 0, output
    installed = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in json.loads(output).items()}
    assert installed.pop("dier") == VERSION
    assert {name: listed.get(name) for name in installed} == installed
    assert "torch" in listed
