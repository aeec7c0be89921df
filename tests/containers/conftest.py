"""Tests in real containers: on the engine that DOCKER_HOST names, with the image that `make image` built. Skipped without them."""

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
IMAGE = os.environ.get("DIER_TEST_IMAGE", f"dier:{VERSION}")
USER = 10001


@pytest.fixture(scope="session")
def engine() -> Any:
    if not os.environ.get("DOCKER_HOST"):
        pytest.skip("no container engine: DOCKER_HOST is not set")
    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        pytest.skip(f"no container engine answers at {os.environ['DOCKER_HOST']}: {error}")
    return client


@pytest.fixture(scope="session")
def image(engine: Any) -> str:
    try:
        engine.images.get(IMAGE)
    except docker.errors.ImageNotFound:
        pytest.skip(f"the engine has no image {IMAGE}: make image builds it")
    return IMAGE


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(engine: Any, image: str, tmp_path: Path) -> Run:
    """Run a command line of the image as a strict cluster would; gives exit code and output. `tmp_path` is /state."""
    tmp_path.chmod(0o777)

    def contained(*words: str, user: int = USER, entrypoint: list[str] | None = None, **more: Any) -> tuple[int, str]:
        settings: dict[str, Any] = {
            "user": f"{user}:{user}",
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "network_mode": "none",
            "tmpfs": {"/tmp": "mode=1777"},
            "volumes": {str(tmp_path): {"bind": "/state", "mode": "rw"}},
        }
        container = engine.containers.create(image, list(words), entrypoint=entrypoint, **(settings | more))
        try:
            container.start()
            code = container.wait(timeout=300)["StatusCode"]
            return code, container.logs().decode()
        finally:
            container.remove(force=True)

    return contained
