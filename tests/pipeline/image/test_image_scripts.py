"""How the image is built, as far as that needs no engine: the scripts, real pip, indexes on loopback, a stand-in for docker."""

import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCKER = """#!/usr/bin/env bash
# A stand-in for docker: writes down how it was called, and has the networks that NETWORKS names.
echo "$@" >> "$CALLS"
case "$1" in
  network) printf '%s\\n' $NETWORKS ;;
  image) echo 1000000 ;;
esac
"""


@pytest.mark.parametrize("script", ["build.sh", "install.sh"])
def test_the_scripts_parse(script: str) -> None:
    shell = "bash" if script == "build.sh" else "sh"
    subprocess.run([shell, "-n", ROOT / "pipeline" / "image" / script], check=True)


@pytest.mark.parametrize(
    ("environment", "network"),
    [
        ({"NETWORKS": "bridge host none"}, None),
        ({"NETWORKS": "podman"}, None),
        ({"NETWORKS": "host none"}, "host"),  # dockerd --bridge=none: "network bridge not found"
        ({"NETWORKS": "bridge host none", "PIP_EXTRA_INDEX_URL": "file:///tmp/simple"}, "host"),
        ({"NETWORKS": "host none", "NETWORK": "mine"}, "mine"),
    ],
)
def test_the_build_gets_a_network_that_the_engine_has(tmp_path: Path, environment: dict[str, str], network: str | None) -> None:
    (tmp_path / "pipeline" / "image").mkdir(parents=True)
    shutil.copy(ROOT / "pipeline" / "image" / "build.sh", tmp_path / "pipeline" / "image")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    docker = tmp_path / "docker"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    calls = tmp_path / "calls"
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    settings = {"BUILDER": str(docker), "CALLS": str(calls), "PYTHON": "true", "TORCH_INDEX_URL": "http://mirror"}
    subprocess.run([tmp_path / "pipeline" / "image" / "build.sh"], env=plain | settings | environment, check=True)
    [build] = [call for call in calls.read_text().splitlines() if call.startswith("build ")]
    assert (build.split("--network ")[1].split()[0] if "--network " in build else None) == network
    assert "--build-arg TORCH_INDEX_URL=http://mirror" in build


class Index:
    """A package index on loopback; `asked` lists the packages that it was asked for, as often as it was."""

    def __init__(self, folder: Path, broken: bool = False) -> None:
        self.folder, self.asked = folder, (asked := [])
        folder.mkdir()

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.endswith("/"):
                    asked.append(self.path.strip("/"))
                self.send_error(503) if broken else super().do_GET()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    def add(self, name: str, version: str) -> None:
        """A wheel without code."""
        (self.folder / name).mkdir()
        info = f"{name}-{version}.dist-info"
        with zipfile.ZipFile(self.folder / name / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def main_index(tmp_path: Path) -> Iterator[Index]:
    index = Index(tmp_path / "main")
    for name, version in {"torch": "2.0", "torchvision": "0.2", "numpy": "1.0"}.items():
        index.add(name, version)
    yield index
    index.server.shutdown()


def install(folder: Path, flavour: str, main: Index, torch: Index) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run the script with real pip into an empty environment; what it said, and what is installed."""
    (folder / "pyproject.toml").write_text('[project]\ndependencies = ["numpy", "torch>=1", "torchvision"]\n')
    (folder / "constraints.txt").write_text("numpy==1.0\ntorch==2.0\ntorchvision==0.2\n")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    pip = {"PIP": f"{sys.executable} -m pip --python {folder / 'venv'}", "PIP_CONFIG_FILE": os.devnull}
    pip |= {"PIP_INDEX_URL": main.url, "PIP_EXTRA_INDEX_URL": main.url, "TORCH_INDEX_URL": torch.url, "PIP_NO_CACHE_DIR": "1"}
    pip |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "no_proxy": "127.0.0.1"}
    line = ["sh", ROOT / "pipeline" / "image" / "install.sh", flavour]
    done = subprocess.run(line, cwd=folder, env=plain | pip, capture_output=True, text=True, check=False)
    return done, {place.name.removesuffix(".dist-info") for place in (folder / "venv").rglob("*.dist-info")}


@pytest.mark.slow
def test_pytorchs_index_is_asked_for_pytorch_alone(tmp_path: Path, main_index: Index) -> None:
    torch = Index(tmp_path / "torch")
    torch.add("torch", "2.0+cpu")
    torch.add("torchvision", "0.2+cpu")
    done, installed = install(tmp_path, "cpu", main_index, torch)
    assert done.returncode == 0, done.stderr
    assert installed == {"torch-2.0+cpu", "torchvision-0.2+cpu", "numpy-1.0"}
    assert sorted(torch.asked) == ["torch", "torchvision"]
    assert set(main_index.asked) == {"numpy"}


@pytest.mark.slow
def test_an_index_that_fails_ends_the_build_at_once_with_a_line(tmp_path: Path, main_index: Index) -> None:
    torch = Index(tmp_path / "torch", broken=True)
    done, installed = install(tmp_path, "cpu", main_index, torch)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"FLAVOUR=cpu: cannot get torch and torchvision from {torch.url}; name a mirror with TORCH_INDEX_URL, or use FLAVOUR=cuda"
    )
    assert torch.asked == ["torch"] * 2  # once, and one retry
    assert not main_index.asked
    assert not installed


def test_cuda_is_pytorch_as_the_main_index_has_it(tmp_path: Path, main_index: Index) -> None:
    torch = Index(tmp_path / "torch", broken=True)
    done, installed = install(tmp_path, "cuda", main_index, torch)
    assert done.returncode == 0, done.stderr
    assert installed == {"torch-2.0", "torchvision-0.2", "numpy-1.0"}
    assert not torch.asked
