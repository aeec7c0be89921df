"""What deploy/compose.yaml says, without a container engine: whole by the specification, pinned, closed, and without secrets."""

import configparser
import re
import subprocess
from typing import Any

import compose_spec
import pytest
import yaml

from tests.deploy.compose_file import FOLDER, SECRETS, Missing, read

ROOT = FOLDER.parent


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = read(SECRETS)["services"]
    return found


def test_the_file_is_one_by_the_specification() -> None:
    compose_spec.PyCompose.from_yaml(yaml.safe_dump(read(SECRETS))).validate()
    wrong = read(SECRETS)
    wrong["services"]["mlflow"]["commnad"] = ["mlflow"]
    with pytest.raises(ValueError, match="commnad"):
        compose_spec.PyCompose.from_yaml(yaml.safe_dump(wrong))


@pytest.mark.parametrize("name", SECRETS)
def test_without_a_secret_nothing_starts(name: str) -> None:
    with pytest.raises(Missing, match=f"{name}: deploy/.env lacks it"):
        read({**SECRETS, name: ""})


def test_the_example_asks_for_every_secret_and_gives_none() -> None:
    lines = (FOLDER / "env.example").read_text("utf-8").splitlines()
    assert dict(line.split("=") for line in lines if line and not line.startswith("#")) == dict.fromkeys(SECRETS, "")
    ignored = subprocess.run(["git", "check-ignore", "deploy/.env"], cwd=ROOT, capture_output=True, text=True)
    assert ignored.stdout.strip() == "deploy/.env"


def test_images_are_pinned_and_the_server_is_the_client_s_release(services: dict[str, Any]) -> None:
    constraints = (ROOT / "constraints.txt").read_text("utf-8")
    for name, service in services.items():
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+[\w.-]*", service["image"]), name
    release = re.search(r"^mlflow==(.+)$", constraints, re.MULTILINE)
    assert release is not None
    assert services["mlflow"]["image"] == services["bucket"]["image"] == f"dier-mlflow:{release[1]}"
    build = services["mlflow"]["build"]
    recipe = (FOLDER / build["context"] / build["dockerfile"]).read_text("utf-8")
    assert re.search(r"^ARG BASE_IMAGE=\S+:\d+\.\d+\.\d+-slim-bookworm$", recipe, re.MULTILINE)
    installed = re.search(r"--constraint /constraints.txt (.+)$", recipe, re.MULTILINE)
    assert installed is not None
    for package in installed[1].split():
        assert re.search(rf"^{package}==", constraints, re.MULTILINE), package


def test_only_mlflow_is_published_and_to_this_machine_alone(services: dict[str, Any]) -> None:
    assert {name: service.get("ports", []) for name, service in services.items()} == {
        "database": [],
        "storage": [],
        "bucket": [],
        "mlflow": ["127.0.0.1:5000:5000"],
    }


def test_what_lasts_is_kept_and_watched(services: dict[str, Any]) -> None:
    lasting = {name for name, service in services.items() if service.get("restart") == "unless-stopped"}
    assert lasting == {name for name, service in services.items() if "healthcheck" in service} == services.keys() - {"bucket"}
    for name in ("database", "storage"):
        volume, _, inside = services[name]["volumes"][0].partition(":")
        assert volume == name
        assert inside.startswith("/")
    assert services["mlflow"]["depends_on"] == {
        "database": {"condition": "service_healthy"},
        "bucket": {"condition": "service_completed_successfully"},
    }


def test_passwords_stand_in_no_command_line_and_no_file(services: dict[str, Any]) -> None:
    for service in services.values():
        assert not any(secret in word for word in service.get("command", []) for secret in SECRETS.values())
    raw = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))["services"]
    secret = {key: value for each in raw.values() for key, value in each.get("environment", {}).items() if _is_secret(key)}
    assert len(secret) == 6
    assert all(re.fullmatch(r"\$\{\w+:\?deploy/\.env lacks it\}", value) for value in secret.values())
    auth = configparser.ConfigParser()
    auth.read(FOLDER / "auth.ini")
    assert "admin_password" not in auth["mlflow"]
    assert auth["mlflow"]["database_uri"] == _after("--backend-store-uri", services["mlflow"]["command"])


def _is_secret(name: str) -> bool:
    return any(word in name for word in ("PASSWORD", "SECRET", "ACCESS_KEY"))


def _after(option: str, command: list[str]) -> str:
    return command[command.index(option) + 1]
