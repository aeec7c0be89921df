"""deploy/compose.yaml as a compose command reads it, and its parts started here, without containers."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from tests.components.registry.test_registry_servers import answers

FOLDER = Path(__file__).parents[2] / "deploy"
SECRETS = {
    "POSTGRES_PASSWORD": "secret of the database",
    "S3_ACCESS_KEY": "access",
    "S3_SECRET_KEY": "secret of the store",
    "MLFLOW_ADMIN_PASSWORD": "secret of the admin",
    "MLFLOW_SECRET_KEY": "secret of the pages",
}
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<word>[^}]*))?\}")


class Missing(Exception):
    """A variable that the file asks for is empty or not there."""


def read(variables: dict[str, str]) -> dict[str, Any]:
    """The file with these variables put in, by the rules of the Compose specification that it uses."""

    def value(found: re.Match[str]) -> str:
        given = variables.get(found["name"], "")
        if not given and found["kind"] == "?":
            raise Missing(f"{found['name']}: {found['word']}")
        return given or (found["word"] if found["kind"] == "-" else "")

    def put_in(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: put_in(each) for key, each in node.items()}
        if isinstance(node, list):
            return [put_in(each) for each in node]
        return VARIABLE.sub(value, node) if isinstance(node, str) else node

    return put_in(yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8")))  # type: ignore[no-any-return]


class Mlflow:
    """The server of the file's service `mlflow`: its command line and environment, but for addresses on this machine.

    The rest of this process's environment does not reach it, so that what the file forgets is missing here too.
    """

    def __init__(self, port: int, database: dict[str, str], store: str, log: Path) -> None:
        service = read(SECRETS)["services"]["mlflow"]
        moved = {"0.0.0.0": "127.0.0.1", "5000": str(port)}
        program, *rest = [moved.get(word, word) for word in service["command"]]
        assert program == "mlflow"
        self._command = [sys.executable, "-m", "mlflow", *rest]
        elsewhere = {**database, "MLFLOW_S3_ENDPOINT_URL": store, "MLFLOW_AUTH_CONFIG_PATH": str(FOLDER / "auth.ini")}
        assert elsewhere.keys() <= service["environment"].keys()
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = {**service["environment"], **elsewhere, "PATH": path, "HOME": str(log.parent)}
        self.uri, self._log = f"http://127.0.0.1:{port}", log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """In a process group of its own; returns when it answers."""
        with self._log.open("a") as out:
            self._process = subprocess.Popen(
                self._command, env=self._environment, cwd=self._log.parent, stdout=out, stderr=out, start_new_session=True
            )
        deadline = time.monotonic() + 150
        while not answers(f"{self.uri}/health"):
            assert self._process.poll() is None, self._log.read_text()[-2000:]
            assert time.monotonic() < deadline, self._log.read_text()[-2000:]
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL to every process of it."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def make_bucket(store: str) -> None:
    """Run what the service `bucket` runs."""
    service = read(SECRETS)["services"]["bucket"]
    program, *rest = service["command"]
    assert program == "python"
    subprocess.run([sys.executable, *rest], env={**service["environment"], "MLFLOW_S3_ENDPOINT_URL": store}, check=True)
