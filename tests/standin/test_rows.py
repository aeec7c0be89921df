"""What broke on Kubeflow's own servers (docs/tried-on-kubeflow.md), row by row: each wanted behaviour, on the stand-in.

The pipeline is what `dier compile` makes. Steps are played where only what they are given matters, else they really run.
"""

import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from components.common.errors import SettingsError
from pipeline.steps import BY_NAME
from tests.pipeline.kubeflow import kfp_standin
from tests.standin.backend import Backend, body_of
from tests.standin.clock import Clock, StoppedClock
from tests.standin.dier import COLLAPSE, failed, log, messages, ready, short, text
from tests.standin.pod import Ended, Pod
from tests.standin.processes import ProcessPods
from tests.standin.scripted import Script, ScriptedPods, make_outputs, wait_for_stop, work
from tests.standin.store import local_path

CLAIM = "dier-work"
Played = Callable[..., tuple[Backend, ScriptedPods]]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a step as another user")


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """A folder that other users can look into: pytest's own are for one user alone."""
    folder = Path(tempfile.mkdtemp(prefix="standin-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def played(open_folder: Path, request: pytest.FixtureRequest) -> Played:
    """An installation whose steps are played, but for those that are given as something else."""

    def made(scripts: dict[str, Script] | None = None, clock: Clock | None = None, **more: Any) -> tuple[Backend, ScriptedPods]:
        pods, folder = ScriptedPods(scripts), open_folder / re.sub(r"\W+", "-", request.node.name)
        return ready(Backend(folder, pods, clock=clock or StoppedClock(), **more)), pods

    return made


@pytest.fixture(scope="module")
def real(open_folder: Path) -> tuple[Backend, ProcessPods, str]:
    """An installation whose steps really run, and a run there that went well."""
    pods = ProcessPods(where="/mlflow")  # where MLflow then keeps its files, as its paths are this machine's
    backend = ready(Backend(open_folder / "real", pods), "sqlite:////mlflow/mlflow.db")
    backend.cluster.claim("mlflow", (10001, 10001), 0o775)
    run = backend.run(REAL(), short(), timeout=600)
    assert run["state"] == "SUCCEEDED", failed(backend, run)
    return backend, pods, run["run_id"]


def REAL(**changes: Any) -> str:  # noqa: N802
    return text(volumes=[{"claim": "mlflow", "mount_path": "/mlflow", "steps": ["train", "register"]}], **changes)


# row 1: placeholders of a run inside a command


@pytest.mark.parametrize(
    "changes", [{}, {"work": {"claim": CLAIM}}, {"embed": {"fan_out": True}}], ids=["plain", "claim", "fan-out"]
)
def test_row_1_no_placeholder_reaches_a_step_and_every_step_knows_its_run(played: Played, changes: dict[str, Any]) -> None:
    backend, pods = played({"embed-split": _two_sections})
    backend.cluster.claim(CLAIM)
    run = backend.run(text(**changes))
    assert run["state"] == "SUCCEEDED", messages(backend, run)
    assert not [word for pod in pods.pods for word in pod.command if "{{$" in word]
    assert {pod.env.get("DIER_RUN_ID") for pod in pods.pods} == {run["run_id"]}


def test_row_1_the_runs_id_is_not_in_the_caches_key(played: Played) -> None:
    backend, pods = played()
    backend.cluster.claim(CLAIM)
    first = text(work={"claim": CLAIM})
    backend.run(first)
    run = backend.run(first)
    again = [pod.task for pod in pods.pods if pod.run_id == run["run_id"]]
    assert not {"prepare", "validate", "train", "embed", "probe", "report"} & set(again)


@pytest.mark.slow
def test_row_1_a_settled_failure_of_one_run_ends_no_other_run(played: Played) -> None:
    """Both trains fail: the first by its settings, the next by its data, which it would not look at if it took the first's end."""
    backend, _ = played({"train": ProcessPods(as_user=False)})
    backend.cluster.claim(CLAIM, mode=0o777)
    wrong = backend.run(text(work={"claim": CLAIM}), short(train={"lr": -1}), timeout=120)
    assert "train.lr" in log(backend, wrong, "train")
    other = backend.run(text(work={"claim": CLAIM}), short(), timeout=120)
    assert "an earlier try of this run" not in log(backend, other, "train")
    assert "dier: error:" in log(backend, other, "train")


# row 2: a TrainJob's name and manager


def test_row_2_the_manifest_is_one_that_the_trainer_takes(played: Played) -> None:
    backend, pods = played()
    backend.cluster.claim(CLAIM)
    run = backend.run(text(work={"claim": CLAIM}, trainjob={"nodes": 2}))
    assert run["state"] == "SUCCEEDED", messages(backend, run)
    words = pods.one("train").command
    job = json.loads(words[words.index("--trainjob") + 1])
    assert "{{" not in json.dumps(job)
    for patch in job["spec"]["runtimePatches"]:
        assert re.fullmatch(r"[a-z0-9.-]+\.[a-z]+/[A-Za-z0-9._-]+", patch["manager"]), patch["manager"]


# row 4: an importer and its consumers


def test_row_4_a_dataset_by_its_uri(played: Played) -> None:
    backend, pods = played()
    place = backend.store.path("s3://bucket/dataset/manifest.json")
    place.parent.mkdir(parents=True)
    place.write_text("{}")
    run = backend.run(text(dataset={"source": "importer", "uri": "s3://bucket/dataset"}))
    assert run["state"] == "SUCCEEDED", messages(backend, run)
    assert "prepare" not in {pod.task for pod in pods.pods}
    words = pods.one("train").command
    assert words[words.index("--dataset") + 1] == "/s3/bucket/dataset"


# row 5: metadata without null


@pytest.mark.slow
def test_row_5_data_without_labels_are_probed_and_registered(real: tuple[Backend, ProcessPods, str]) -> None:
    """Without labels there is no accuracy, AUC or confusion: no null reaches the metadata, and the run ends with a candidate."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    backend, _, _ = real
    images = backend.cluster.claim("images", (10001, 10001))
    pictures = iter((load_digits().images * 255 / 16).round().astype(np.uint8))
    for split, count in (("train", 240), ("val", 60), ("test", 60)):
        (images / split).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(next(pictures)).save(images / split / f"{number}.png")
    volumes = [
        {"claim": "mlflow", "mount_path": "/mlflow", "steps": ["train", "register"]},
        {"claim": "images", "mount_path": "/images", "steps": ["prepare"]},
    ]
    data = {"source": "folder", "path": "/images", "name": "one", "image_size": 8}
    given = short(data=data) | {"data_source": "folder", "data_path": "/images", "data_name": "one"}
    compiled = text(volumes=volumes)
    given = {name: value for name, value in given.items() if name in _parameters(compiled)}
    run = backend.run(compiled, given, timeout=600)
    assert run["state"] == "SUCCEEDED", failed(backend, run)
    for task in ("train", "embed", "probe", "report"):
        assert backend.execution(run["run_id"], task).state == "COMPLETE", log(backend, run, task)
        assert set(backend.execution(run["run_id"], task).output_artifacts) > {"executor-logs"}
    made = json.loads((backend.path(run["run_id"], "register", "registration") / "registration.json").read_text())
    assert (made["gate"]["verdict"], made["aliases"]) == ("passed", ["candidate"])
    assert not any("accuracy" in reason for reason in made["gate"]["reasons"])


# row 6: what a failed task leaves


@pytest.mark.slow
def test_row_6_after_a_failed_validation_its_pages_are_there(real: tuple[Backend, ProcessPods, str]) -> None:
    backend, _, _ = real
    strict = {"near_duplicate_distance": 0.9, "warn_near_duplicate_share": 0, "max_near_duplicate_share": 0}
    given = short(validate=strict)
    run = backend.run(REAL(), given, timeout=600)
    assert run["state"] == "FAILED"
    assert backend.execution(run["run_id"], "validate").state == "COMPLETE"
    verdict = backend.path(run["run_id"], "validate", "verdict")
    assert json.loads((verdict / "verdict.json").read_text())["passed"] is False
    assert (verdict / "docs" / "index.html").is_file()
    states = _states(run)
    assert states.get("train", "RUNTIME_STATE_UNSPECIFIED") == "RUNTIME_STATE_UNSPECIFIED"
    assert [name for name in ("data-gate", "validate") if states.get(name) == "FAILED"] == ["data-gate"]
    assert "dier: error: " in log(backend, run, "data-gate")


@pytest.mark.slow
def test_row_6_after_a_refused_gate_the_registration_is_there(real: tuple[Backend, ProcessPods, str]) -> None:
    backend, _, first = real
    compiled = REAL()
    given = short(register={"min_accuracy": 1.0})
    if "register_min_accuracy" in _parameters(compiled):
        given["register_min_accuracy"] = 1.0
    run = backend.run(compiled, given, timeout=600)
    assert backend.execution(run["run_id"], "probe").state == "CACHED"
    made = BY_NAME["probe"].kubeflow_output
    assert backend.artifact(run["run_id"], "probe", made) is backend.artifact(first, "probe", made)
    assert run["state"] == "FAILED"
    registration = backend.path(run["run_id"], "register", "registration")
    assert "accuracy" in (registration / "registration.json").read_text()
    assert _states(run)["model-gate"] == "FAILED"
    assert "dier: error: " in log(backend, run, "model-gate")


# row 7: settled failures, and runs that are tried again


@pytest.mark.slow
def test_row_7_a_training_that_must_fail_again_is_not_worked_through_again(real: tuple[Backend, ProcessPods, str]) -> None:
    """A collapse is settled by its settings and seed. Argo tries it again, since it sees an exit code 1; that try ends at once."""
    backend, pods, _ = real
    backend.cluster.claim(CLAIM, (10001, 10001))
    backend.servers.stock = False
    compiled = REAL(work={"claim": CLAIM}, retry={"count": 1, "wait": "1s"})
    run = backend.run(compiled, short(**COLLAPSE), timeout=600)
    backend.servers.stock = True
    assert run["state"] == "FAILED"
    assert len([pod for pod in pods.pods if pod.run_id == run["run_id"] and pod.task == "train"]) == 2
    assert "lower train.lr" in log(backend, run, "train", 0)
    assert "an earlier try of this run" in log(backend, run, "train", 1)
    assert "lower train.lr" not in log(backend, run, "train", 1)


def test_row_7_a_failed_run_is_tried_again_from_where_it_failed(played: Played) -> None:
    codes = iter([1])
    backend, pods = played({"probe": lambda pod: next(codes, 0) or make_outputs(pod)})
    run = backend.run(text())
    assert run["state"] == "FAILED"
    backend.retry_run(run["run_id"])
    assert backend.wait(run["run_id"])["state"] == "SUCCEEDED"
    assert [len(pods.of(task)) for task in ("train", "embed", "probe", "report")] == [1, 1, 2, 1]


# row 8: the window of retries


def test_row_8_a_training_of_two_days_is_tried_again(played: Played) -> None:
    days: Iterator[int] = iter([1])

    def train(pod: Pod) -> int:
        work(pod, 2 * 86400)
        return next(days, 0) or make_outputs(pod)

    backend, pods = played({"train": train}, stock=False)
    run = backend.run(text())
    assert run["state"] == "SUCCEEDED", messages(backend, run)
    assert len(pods.of("train")) == 2


def test_row_8_a_factor_that_argo_cannot_read_is_refused_before() -> None:
    with pytest.raises((SettingsError, ValidationError)):
        text(retry={"factor": 1.5})


# row 9: a fresh volume


@pytest.mark.slow
@needs_root
def test_row_9_a_volume_that_only_root_can_write_is_said_at_once_with_its_remedy(played: Played) -> None:
    backend, _ = played({"train": ProcessPods()})
    backend.cluster.claim(CLAIM)
    run = backend.run(text(work={"claim": CLAIM}), short(), timeout=120)
    assert run["state"] == "FAILED"
    said = log(backend, run, "train")
    assert "cannot write /state" in said.replace(str(backend.cluster.claims[CLAIM]), "/state")
    assert "claim-job.yaml" in said
    assert "manifest.json" not in said  # the folder first: the dataset, which is none here, was not looked at


# row 11: a termination


def test_row_11_what_a_termination_costs_is_bounded_by_a_checkpoint_every_few_minutes(played: Played) -> None:
    """Nothing tells the step: it is killed with the launcher. So the time between two checkpoints is what can be lost."""
    backend, pods = played({"train": wait_for_stop})
    run_id = backend.create_run(body_of(text()))["run_id"]
    while not pods.of("train"):
        backend._threads[run_id].join(0.02)
    backend.terminate_run(run_id)
    run = backend.wait(run_id)
    assert [one["state"] for one in run["state_history"]][-2:] == ["CANCELING", "FAILED"]
    assert set(backend.execution(run_id, "train").output_artifacts) == set()
    given = pods.one("train").executor_input["inputs"]["parameterValues"]["train_settings"]
    assert given["checkpoint_minutes"] <= 2


# row 12: what the task at the end records


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "line"),
    [(Ended(3, "looking\ndier: error: no such images\n"), "no such images"), (Ended(137, oom=True), "OOMKilled (exit code 137)")],
    ids=["by itself", "out of memory"],
)
def test_row_12_the_outcome_names_state_task_line_and_run(played: Played, end: Ended, line: str) -> None:
    """A step that is killed takes its launcher along, which then tells nobody: the task at the end hears RUNNING there too."""
    backend, pods = played({"prepare": lambda pod: end}, clock=Clock())
    backend.cluster.claim(CLAIM)
    with kfp_standin.serve(backend=backend) as api:
        pods.scripts["outcome"] = ProcessPods({"KF_PIPELINES_ENDPOINT": api.url}, as_user=False)
        run = backend.create_run(body_of(text(work={"claim": CLAIM}, trainjob={"nodes": 2})))
        api.runs.append({"storage_state": "AVAILABLE", **run})
        backend.wait(run["run_id"], 120)
    found = json.loads((backend.path(run["run_id"], "outcome", "outcome") / "outcome.json").read_text())
    assert (found["state"], found["run"], found["failed_task"]) == ("FAILED", run["run_id"], "prepare"), log(
        backend, run, "outcome"
    )
    assert line in found["message"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "recorded"),
    [
        (None, ("SUCCEEDED", "", "")),
        (wait_for_stop, ("CANCELED", "", "")),
        (lambda pod: Ended(3, log="dier: error: no such images\n"), ("FAILED", "train", "no such images")),
    ],
    ids=["well", "terminated", "failed"],
)
def test_row_12_its_words_are_the_apis(played: Played, script: Script | None, recorded: tuple[str, str, str]) -> None:
    """Which it asks: what Kubeflow tells the task stays RUNNING after a termination, and has no reason."""
    scripts: dict[str, Script] = {"outcome": ProcessPods(as_user=False)}
    backend, pods = played(scripts | ({"train": script} if script else {}), clock=Clock())
    backend.cluster.claim(CLAIM)
    with kfp_standin.serve(backend=backend) as api:
        compiled = text(work={"claim": CLAIM}, trainjob={"nodes": 2}, env={"KF_PIPELINES_ENDPOINT": api.url}, retry={"count": 0})
        run = backend.create_run(body_of(compiled))
        api.runs.append({"storage_state": "AVAILABLE", **run})
        if script is wait_for_stop:
            while not pods.of("train"):
                backend._threads[run["run_id"]].join(0.02)
            backend.terminate_run(run["run_id"])
        backend.wait(run["run_id"], 120)
    found = json.loads((backend.path(run["run_id"], "outcome", "outcome") / "outcome.json").read_text())
    assert (found["state"], found["failed_task"], found["message"]) == recorded
    assert found["run"] == run["run_id"]


def test_row_12_without_anything_to_do_at_the_end_the_steps_are_the_first_picture(played: Played) -> None:
    backend, pods = played()
    run = backend.run(text())
    root = {node.display for node in backend.workflow(run["run_id"]).nodes.all() if node.name.replace("(0)", "").count(".") == 2}
    assert {"prepare", "validate", "train", "embed", "probe", "report", "register"} <= root
    assert "outcome" not in {pod.task for pod in pods.pods}


# row 13: a proxy


@pytest.mark.parametrize("word", ["HTTPS_PROXY", "https_proxy"])
def test_row_13_a_proxy_does_not_stand_between_the_launcher_and_its_servers(played: Played, word: str) -> None:
    backend, _ = played()
    run = backend.run(text(env={word: "http://proxy.example:3128", "HTTP_PROXY": "http://proxy.example:3128"}))
    assert run["state"] == "SUCCEEDED", [node.log for node in backend.workflow(run["run_id"]).nodes.all() if node.log]


# row 14: names of volumes


@pytest.mark.parametrize(
    "changes",
    [
        {"work": {"claim": "dier.work"}},
        {"volumes": [{"claim": "my.images", "mount_path": "/images"}]},
        {"certificate_authority": {"config_map": "company.ca"}},
    ],
    ids=["work", "volume", "config-map"],
)
def test_row_14_a_name_that_no_volume_can_have_is_refused_when_compiling_or_mapped(played: Played, changes: dict[str, Any]) -> None:
    backend, _ = played()
    for name in ("dier.work", "my.images"):
        backend.cluster.claim(name)
    backend.cluster.config_maps["company.ca"] = {"ca.crt": "x"}
    try:
        compiled = text(**changes)
    except (SettingsError, ValidationError) as error:
        assert "dot" in str(error) or "claim" in str(error) or "config_map" in str(error)
        return
    run = backend.run(compiled)
    assert run["state"] == "SUCCEEDED", messages(backend, run)


# row 15: users and groups


@pytest.mark.parametrize(
    ("security", "left"),
    [
        ({"run_as_group": 0}, {"runAsUser": 10001, "runAsGroup": 0, "runAsNonRoot": True}),
        ({"run_as_user": None, "run_as_group": None}, {"runAsNonRoot": True}),
        ({"run_as_user": None, "run_as_group": 0}, {"runAsGroup": 0, "runAsNonRoot": True}),
    ],
    ids=["group-0", "neither", "no-user"],
)
def test_row_15_null_leaves_it_out_and_group_0_is_a_group(played: Played, security: dict[str, Any], left: dict[str, Any]) -> None:
    backend, pods = played()
    run = backend.run(text(security=security))
    assert run["state"] == "SUCCEEDED", messages(backend, run)
    assert [pod.security for pod in pods.pods] == [left] * len(pods.pods)


# row 17: modes on a claim


@pytest.mark.slow
@needs_root
def test_row_17_what_lies_on_a_claim_has_one_mode_that_a_group_can_go_on_with(real: tuple[Backend, ProcessPods, str]) -> None:
    backend, _, _ = real
    claim = backend.cluster.claim("kept", (0, 10001))
    claim.chmod(0o2775)
    run = backend.run(REAL(work={"claim": "kept"}), short(train={"seed": 2}), timeout=600)
    assert run["state"] == "SUCCEEDED", messages(backend, run)
    below = [path for path in claim.rglob("*") if path.name != ".lock"]
    assert [path for path in below if path.is_file()]
    for files, can in ((True, stat.S_IRGRP | stat.S_IWGRP), (False, stat.S_IRGRP | stat.S_IWGRP | stat.S_IXGRP)):
        modes = {stat.S_IMODE(path.stat().st_mode) & 0o777 for path in below if path.is_file() == files}
        assert len(modes) == 1, {str(path.relative_to(claim)): oct(path.stat().st_mode) for path in below}
        assert modes.pop() & (can | stat.S_IWOTH) == can


# row 18: threads


def test_row_18_a_step_knows_its_share_of_the_cores(played: Played) -> None:
    backend, pods = played()
    backend.run(text())
    assert pods.one("train").env.get("DIER_CPU_REQUEST") == "2"
    assert pods.one("register").env.get("DIER_CPU_REQUEST") == "500m"


def _two_sections(pod: Pod) -> int:
    place = pod.local("/tmp/kfp/outputs/sections")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps([{"timesteps": [0]}, {"timesteps": [300]}]))
    return 0


def _states(run: dict[str, Any]) -> dict[str, str]:
    return {one["display_name"]: one["state"] for one in run["run_details"]["task_details"]}


def _parameters(compiled: str) -> set[str]:
    return set(body_of(compiled)["pipeline_spec"]["pipeline_spec"]["root"]["inputDefinitions"]["parameters"])


def test_paths_of_artifacts_are_the_launchers() -> None:
    assert local_path("s3://bucket/a/b") == "/s3/bucket/a/b"
