"""`dier submit` and `dier upload`: what they send to a stand-in server, and what stops them before."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.common.settings import Settings
from pipeline.kubeflow import compiled_file
from tests.pipeline.conftest import IMAGE, TOKEN, Command
from tests.pipeline.kubeflow import kfp_standin as standin
from tests.pipeline.kubeflow.kfp_standin import DROP, RUN_1, StandIn


def test_a_run_is_what_was_compiled_and_asked_for(
    dier: Command, server: StandIn, token: Path, tmp_path: Path, compiled_file: Path
) -> None:
    server.token = TOKEN
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text("service_account: runner\n")
    options = ["--token-file", token, "--namespace", "team", "--experiment", "E", "--run-name", "first", "--cluster", cluster]
    settings = [word for one in ("train.steps=500", "train.lr=1e-3", "probe.seed=7") for word in ("--param", one)]
    dier("submit", "--host", server.url + "/", *options, *settings)
    probe = Settings().probe.model_dump(mode="json", exclude_none=True) | {"seed": 7}
    assert dier.code == 0
    [version] = server.versions
    assert dier.out == f"run {RUN_1} (first) of version {version['display_name']}\n{server.url}/#/runs/details/{RUN_1}\n"
    before = ["GET /healthz", "GET /pipelines", "POST /pipelines", *["GET /pipelines/pipeline-1/versions"] * 2]
    assert server.calls() == [*before, "POST /pipelines/upload_version", "GET /experiments", "POST /experiments", "POST /runs"]
    assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {TOKEN}"}
    assert server.only("POST /experiments").json == {"display_name": "E", "namespace": "team"}

    run = server.only("POST /runs").json
    reference = {"pipeline_id": "pipeline-1", "pipeline_version_id": "pipeline_version-1"}
    assert run.pop("pipeline_version_reference") == reference  # so the list of runs shows the version, not [View pipeline]
    assert compiled_file.read_bytes() in server.only("POST /pipelines/upload_version").body
    assert run.pop("runtime_config") == {"parameters": {"train_steps": 500, "train_lr": 1e-3, "probe": probe}}
    assert run == {"display_name": "first", "experiment_id": "experiment-1", "service_account": "runner"}


def test_an_experiment_is_made_once(dier: Command, server: StandIn) -> None:
    for _ in range(2):
        assert dier("submit", "--host", server.url).code == 0
    assert server.calls().count("POST /experiments") == 1
    first, second = (request.json for request in server.requests if request.call == "POST /runs")
    assert first["experiment_id"] == second["experiment_id"]
    assert first["display_name"].startswith("dier 20")
    assert first["runtime_config"] == {"parameters": {}}
    assert "service_account" not in first


def cached(server: StandIn, version: int) -> set[str]:
    """The tasks of a stored version that may take a cached result."""
    document = server.versions[version]["pipeline_spec"]
    tasks = [task for dag in compiled_file.dags(document.get("pipeline_spec", document)) for task in dag.items()]
    return {name for name, task in tasks if task.get("cachingOptions")}


def test_without_the_cache_a_run_is_of_a_version_in_which_no_task_is_cached(dier: Command, server: StandIn) -> None:
    for options in ([], ["--no-cache"], ["--no-cache"], []):
        assert dier("submit", "--host", server.url, *options).code == 0
    assert [version["display_name"].partition("-no-cache")[1] for version in server.versions] == ["", "-no-cache"]
    assert "train" in cached(server, 0)
    assert cached(server, 1) == set()
    used = [request.json["pipeline_version_reference"] for request in server.requests if request.call == "POST /runs"]
    assert [one["pipeline_version_id"][-1] for one in used] == ["1", "2", "2", "1"]


def test_the_version_is_found_whatever_it_is_called(dier: Command, server: StandIn) -> None:
    dier("upload", "--host", server.url, "--version-name", "spring", "--description", "new data")
    dier("submit", "--host", server.url)
    [version] = server.versions
    assert "of version spring" in dier.out
    assert version["description"].startswith("new data [sha256:")
    assert dier("upload", "--host", server.url, "--version-name", "spring").out.startswith("already there: version spring")


def test_a_versions_name_is_of_one_file(dier: Command, server: StandIn, compiled_file: Path, tmp_path: Path) -> None:
    dier("upload", "--host", server.url, "--version-name", "spring")
    changed = tmp_path / "changed.yaml"
    changed.write_text(compiled_file.read_text() + "\n")
    assert dier("upload", "--host", server.url, "--version-name", "spring", "--pipeline", changed).code == 1
    assert "version spring is there already, of another file" in dier.error
    assert dier("upload", "--host", server.url, "--version-name", "x" * 127).code == 2


def test_somebody_else_who_stores_the_same_version_meanwhile_is_no_trouble(dier: Command, server: StandIn) -> None:
    answer = server.answer

    def first_somebody_else(request: standin.Request) -> standin.Reply:
        reply = answer(request)
        return answer(request) if request.call == "POST /pipelines/upload_version" else reply

    server.answer = first_somebody_else  # type: ignore[method-assign]
    assert dier("submit", "--host", server.url).code == 0
    assert len(server.versions) == len(server.runs) == 1


@pytest.mark.slow
def test_the_requests_are_those_of_kfps_own_client(dier: Command, server: StandIn, compiled_file: Path) -> None:
    """In a process of its own: importing and making kfp.Client changes warnings and logging."""
    dier("submit", "--host", server.url, "--namespace", "n", "--run-name", "r", "--param", "probe.max_iter=7")
    name, about = server.versions[0]["display_name"], server.versions[0]["description"]
    ours, parameters = list(server.requests), server.only("POST /runs").json["runtime_config"]["parameters"]
    with standin.serve() as other:
        code = (
            "import kfp\n"
            f"client = kfp.Client(host={other.url!r}, namespace='n')\n"
            f"client.upload_pipeline_version({str(compiled_file)!r}, {name!r}, pipeline_id='pipeline-1', description={about!r})\n"
            "experiment = client.create_experiment('dier', namespace='n')\n"
            "version = dict(pipeline_id='pipeline-1', version_id='pipeline_version-1')\n"
            f"client.run_pipeline(experiment.experiment_id, 'r', params={parameters!r}, **version)\n"
        )
        other.pipelines.append({"pipeline_id": "pipeline-1", "display_name": "dier"})
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True)
        assert other.calls() == ["POST /pipelines/upload_version", "GET /experiments", "POST /experiments", "POST /runs"]
        for theirs in other.requests:
            [same] = [request for request in ours if request.call == theirs.call]
            assert same.query == theirs.query
            if theirs.path.endswith("upload_version"):
                assert all(compiled_file.read_bytes() in request.body for request in (same, theirs))
            elif theirs.method == "POST":
                assert same.json == theirs.json


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no cluster: give --host URL or set KF_PIPELINES_ENDPOINT"),
        (["--host", "kubeflow.example.org"], "--host 'kubeflow.example.org' is no plain http:// or https:// address"),
        (["--host", "https://h/pipeline/#/runs"], "without user, ? and #"),
        (["--host", "https://me:secret@h"], "--host is no plain"),
        (["--host", "http://[::1"], "is no plain"),
        (["--host", "URL", "--param", "train.stepz=5"], "--param: train.stepz = 5: unknown setting"),
        (["--host", "URL", "--param", "trains.steps=5"], "--param: trains: unknown setting"),
        (["--host", "URL", "--param", "train.steps=many"], "--param: train.steps = 'many': a number is needed"),
        (["--host", "URL", "--param", "train.steps=5"], "train.warmup_steps 200 is above train.steps 5"),
        (["--host", "URL", "--param", "steps=5"], "--param 'steps=5' is not section.key=value"),
        (["--host", "URL", "--pipeline", "none.yaml"], "cannot read the compiled pipeline none.yaml"),
        (["--host", "URL", "--pipeline", "params.yaml"], "params.yaml is no compiled pipeline"),
        (["--host", "URL", "--pipeline", "Makefile"], "Makefile is not YAML"),
        (["--host", "URL", "--param", "train.compile=yes"], "train.compile = 'yes'"),
        (["--host", "URL", "--token-file", "none", "--cookie-file", "none"], "give one of them"),
        (["--host", "URL", "--cookie-file", "none"], "cannot read the cookie file none: No such file"),
        (["--host", "URL", "--token-file", "none"], "cannot read the token file none: No such file"),
        (["--host", "URL", "--ca", "none.pem"], "--ca none.pem cannot be used: No such file"),
        (["--host", "URL", "--ca", "README.md"], "--ca README.md cannot be used"),
    ],
)
def test_what_is_wrong_offline_sends_nothing(dier: Command, server: StandIn, options: list[str], message: str) -> None:
    dier("submit", *[server.url if option == "URL" else option for option in options])
    assert dier.code == 2
    assert message in dier.error
    assert "secret" not in dier.error
    assert server.requests == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (f"Bearer {TOKEN}", "without Bearer"),
        (f"{TOKEN}\n{TOKEN}", "more than one word"),
        (TOKEN + "é", "of ASCII"),
    ],
)
def test_a_bad_token_is_refused_unseen(dier: Command, server: StandIn, token: Path, text: str, message: str) -> None:
    token.write_text(text)
    assert dier("submit", "--host", server.url, "--token-file", token).code == 2
    assert message in dier.error
    assert server.requests == []


def test_an_open_token_file_is_noted(dier: Command, server: StandIn, token: Path) -> None:
    token.chmod(0o644)
    assert dier("submit", "--host", server.url, "--token-file", token).code == 0
    assert "note: everybody on this machine can read the token file" in dier.err


def test_an_image_without_digest_needs_a_word(dier: Command, server: StandIn, compiled_file: Path, tmp_path: Path) -> None:
    tagged = tmp_path / "tagged.yaml"
    tagged.write_text(compiled_file.read_text().replace(IMAGE, "registry.example/dier:latest"))
    for command in ("submit", "upload"):
        assert dier(command, "--host", server.url, "--pipeline", tagged).code == 2
        assert "image registry.example/dier:latest" in dier.error
        assert server.requests == []
    assert dier("submit", "--host", server.url, "--pipeline", tagged, "--allow-tag").code == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda spec: spec.pop("pipelineInfo"), "lacks 'pipelineInfo'"),
        (lambda spec: spec["root"]["inputDefinitions"]["parameters"].pop("train"), "lacks 'train'"),
        (lambda spec: spec.update(stages={}), 'no field named "stages"'),
        (
            lambda spec: spec["root"]["inputDefinitions"]["parameters"]["train"]["defaultValue"].update(stepz=5),
            "changed.yaml: train.stepz",
        ),
    ],
)
def test_a_file_that_is_no_pipeline_of_dier(dier: Command, compiled_file: Path, tmp_path: Path, change: Any, message: str) -> None:
    spec, platform = yaml.safe_load_all(compiled_file.read_text())
    change(spec)
    changed = tmp_path / "changed.yaml"
    changed.write_text(yaml.safe_dump_all([spec, platform]))
    assert dier("submit", "--host", "http://127.0.0.1:1", "--pipeline", changed).code == 2
    assert message in dier.error


def test_a_pipeline_is_made_once_and_gets_a_version_for_each_file(
    dier: Command, server: StandIn, compiled_file: Path, tmp_path: Path
) -> None:
    assert dier("upload", "--host", server.url).code == 0
    assert "uploaded version sha256-" in dier.out
    assert f"{server.url}/#/pipelines/details/pipeline-1/version/pipeline_version-1" in dier.out
    assert compiled_file.read_bytes() in server.only("POST /pipelines/upload_version").body
    assert dier("upload", "--host", server.url).code == 0
    assert dier.out.startswith("already there: version sha256-")
    changed = tmp_path / "changed.yaml"
    changed.write_text(compiled_file.read_text() + "\n")
    assert dier("upload", "--host", server.url, "--pipeline", changed).code == 0
    assert dier("upload", "--host", server.url, "--name", "other", "--version-name", "one").code == 0
    assert [pipeline["display_name"] for pipeline in server.pipelines] == ["dier", "other"]
    assert [version["pipeline_id"] for version in server.versions] == ["pipeline-1", "pipeline-1", "pipeline-2"]
    assert server.versions[-1]["display_name"] == "one"
    assert len({version["display_name"] for version in server.versions}) == 3


def test_a_lost_upload_may_be_tried_again(dier: Command, server: StandIn) -> None:
    server.on("POST /pipelines/upload_version", DROP)
    assert dier("upload", "--host", server.url).code == 1
    assert "run the same command again: it looks first" in dier.error
    assert server.calls().count("POST /pipelines/upload_version") == 1
