"""How many threads a step has: the share of the cores, as each version of cgroups writes it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.task import threads
from pipeline.task.threads import quota, set_threads, share

ROOT = Path(__file__).parents[3]


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text + "\n")


def own(folder: Path, text: str) -> Path:
    file = folder / "self"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("said", "cores"), [("150000 100000", 1.5), ("max 100000", None), ("50000 100000", 0.5), ("nonsense", None), ("100000 0", None)]
)
def test_the_quota_of_version_2(tmp_path: Path, said: str, cores: float | None) -> None:
    group(tmp_path, cpu_max=said)
    assert quota(tmp_path, own(tmp_path, "0::/\n")) == cores


def test_the_smallest_quota_around_counts(tmp_path: Path) -> None:
    group(tmp_path / "pod", cpu_max="200000 100000")
    group(tmp_path / "pod" / "container", cpu_max="max 100000")
    assert quota(tmp_path, own(tmp_path, "0::/pod/container\n")) == 2


@pytest.mark.parametrize("mounted", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(("limit", "cores"), [("400000", 4), ("-1", None)])
def test_the_quota_of_version_1(tmp_path: Path, mounted: str, limit: str, cores: float | None) -> None:
    """In a container the file says the node's path, which is not there: what is mounted is the container's own group."""
    group(tmp_path / mounted, cpu_cfs_quota_us=limit, cpu_cfs_period_us="100000")
    text = f"12:memory:/docker/1234\n4:{mounted}:/docker/1234\n1:name=systemd:/\n0::/\n"
    assert quota(tmp_path, own(tmp_path, text)) == cores


def test_where_there_are_no_cgroups_there_is_no_quota(tmp_path: Path) -> None:
    assert quota(tmp_path, tmp_path / "missing") is None


def at(cores: float | None, monkeypatch: pytest.MonkeyPatch, of: int = 8) -> None:
    monkeypatch.setattr(threads, "quota", lambda: cores)
    monkeypatch.setattr(threads, "cores", lambda: of)


@pytest.mark.parametrize(
    ("quota", "request_", "processes", "expected"),
    [
        (2.0, "500m", 1, "2"),  # the quota is what may be used
        (None, "3", 1, "3"),
        (None, "500m", 1, "1"),
        (1.5, "", 1, "1"),  # two threads would be throttled for a quarter of the time
        (4.0, "", 2, "2"),
        (2.0, "", 8, "1"),
        (64.0, "", 1, "8"),  # no more than the system lets it run on
        (None, "100", 1, "8"),
    ],
)
def test_the_share_is_quota_then_request_then_affinity(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, request_: str, processes: int, expected: str
) -> None:
    at(quota, monkeypatch)
    environment = {threads.REQUEST: request_}
    assert set_threads(environment, processes) == int(expected)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        assert environment[name] == expected
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.parametrize("request_", ["", "0", "nonsense", "2Gi"])
def test_without_quota_and_request_nothing_is_set(monkeypatch: pytest.MonkeyPatch, request_: str) -> None:
    at(None, monkeypatch)
    environment = {threads.REQUEST: request_}
    assert share(environment) is None
    assert set_threads(environment) is None
    assert environment == {threads.REQUEST: request_}


def test_who_sets_a_number_has_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    at(1.0, monkeypatch)
    environment = {"OMP_NUM_THREADS": "7"}
    assert set_threads(environment) is None
    assert environment == {"OMP_NUM_THREADS": "7"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["prepare", "--params", "missing.yaml", "--out", "dataset"], "4"),
        (["task", "--executor-input", "{}", "--", "prepare"], "4"),
        (["task", "--executor-input", "{}", "--processes", "3", "--", "train"], "1"),
    ],
    ids=["a step", "a task", "a task in three processes"],
)
def test_every_step_sets_them_first_of_all(monkeypatch: pytest.MonkeyPatch, line: list[str], expected: str) -> None:
    at(4.0, monkeypatch)
    monkeypatch.setattr("os.umask", lambda _: 0)  # this process goes on
    for name in (threads.OPENMP, *threads.ALSO, threads.WAIT_POLICY):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    assert cli.main(line) == 2
    assert os.environ[threads.OPENMP] == expected


@pytest.mark.slow
def test_pytorch_arrow_and_scikit_learn_read_what_is_set() -> None:
    """In processes of their own: each reads the environment once, when it is imported."""
    code = """
from pipeline.task.threads import set_threads
print(set_threads())
import torch, pyarrow, threadpoolctl, sklearn.linear_model
print(torch.get_num_threads(), pyarrow.cpu_count(), *{pool["num_threads"] for pool in threadpoolctl.threadpool_info()})
"""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment |= {threads.REQUEST: "1500m", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"] * 4
