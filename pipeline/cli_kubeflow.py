"""The commands around Kubeflow: compile, submit, upload, trainjob, run-local, and those that run inside its containers alone."""

import argparse
import json
import os
from pathlib import Path

from pipeline.steps import INPUT_HELP, STATE

COMPILED = Path("pipeline/compiled/dier.yaml")
CLUSTER = Path("pipeline/cluster.yaml")


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> list[argparse.ArgumentParser]:
    """Add the parsers; give them back for what all commands share."""
    around = [_compile(commands), _submit(commands), _upload(commands), _trainjob(commands), _run_local(commands)]
    return [*around, _task(commands), _outcome(commands), _embed_split(commands), _embed_join(commands)]


def _compile(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    command = commands.add_parser("compile", help="write the pipeline as Kubeflow's YAML")
    command.add_argument("--cluster", type=Path, default=CLUSTER, metavar="FILE", help=f"cluster settings (default: {CLUSTER})")
    command.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE", help="defaults (default: params.yaml)")
    command.add_argument("--out", type=Path, required=True, metavar="FILE", help="where the compiled pipeline goes")
    _allow_tag(command)
    command.set_defaults(run=_run_compile)
    return command


def _submit(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    command = commands.add_parser("submit", help="start a run of the compiled pipeline on a cluster")
    _connection(command)
    command.add_argument("--experiment", default="dier", metavar="E", help="experiment, made where there is none (default: dier)")
    command.add_argument("--run-name", metavar="R", help="name of the run (default: dier and the time)")
    command.add_argument(
        "--cluster", type=Path, default=CLUSTER, metavar="FILE", help=f"for its service account (default: {CLUSTER})"
    )
    command.add_argument("--no-cache", action="store_true", help="run every step, whatever the cluster has cached")
    command.add_argument("--wait", action="store_true", help="wait for the end; exit 0 only when the run succeeded")
    _param(command)
    _allow_tag(command)
    command.set_defaults(run=_run_submit)
    return command


def _upload(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    command = commands.add_parser("upload", help="store the compiled pipeline on a cluster, as a new version where it is known")
    _connection(command)
    command.add_argument("--name", default="dier", metavar="P", help="name of the pipeline (default: dier)")
    command.add_argument("--version-name", metavar="V", help="name of the version (default: the file's digest)")
    _allow_tag(command)
    command.set_defaults(run=_run_upload)
    return command


def _trainjob(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    command = commands.add_parser("trainjob", help="print train on several nodes as a Kubeflow Trainer TrainJob, for kubectl apply")
    command.add_argument("--cluster", type=Path, default=CLUSTER, metavar="FILE", help=f"cluster settings (default: {CLUSTER})")
    command.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE", help="settings (default: params.yaml)")
    for name in ("dataset", "verdict", "work", "out"):
        place = Path(STATE) / {"work": "train", "out": "model"}.get(name, name)
        what = "where the model goes" if name == "out" else INPUT_HELP[name]
        command.add_argument(
            f"--{name}", type=Path, default=place, metavar="DIR", help=f"{what}, as pods see it (default: {place})"
        )
    command.add_argument("--name", default="dier-train", metavar="N", help="name of the TrainJob (default: dier-train)")
    command.add_argument("--out-file", type=Path, metavar="FILE", help="where the manifest goes (default: standard output)")
    _param(command)
    _allow_tag(command)
    command.set_defaults(run=_run_trainjob)
    return command


def _run_local(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    command = commands.add_parser("run-local", help="run the compiled pipeline in containers on this machine")
    _pipeline(command)
    command.add_argument("--image", metavar="IMAGE", help="image to run instead of the compiled one")
    command.add_argument("--root", type=Path, default=Path(".work/kubeflow"), metavar="DIR", help="default: .work/kubeflow")
    command.add_argument("--mount", action="append", default=[], metavar="HOST:CONTAINER", help="a read-only folder (repeatable)")
    command.add_argument("--network", default="none", help="network of the containers: none, host or a name (default: none)")
    command.add_argument("--no-cache", action="store_true", help="run every step, whatever was run before")
    _param(command)
    command.set_defaults(run=_run_run_local)
    return command


def _task(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    command = commands.add_parser("task", help="run one step inside a Kubeflow task, and tell Kubeflow what it made")
    _executor_input(command)
    command.add_argument("--show", action="append", default=[], metavar="NAME=PATH", help="an output for the UI (repeatable)")
    command.add_argument("--expect", action="append", default=[], metavar="INPUT=FINGERPRINT", help="refuse an input that differs")
    command.add_argument("--list", action="append", default=[], metavar="INPUT", dest="lists", help="an input of many artifacts")
    command.add_argument("--settled", type=Path, metavar="FILE", help="where a failure that no retry can cure is remembered")
    command.add_argument("--processes", type=int, default=1, metavar="N", help="run the step in N processes (default: 1)")
    command.add_argument("--trainjob", metavar="JSON", help="run the step on many nodes: the manifest of a TrainJob")
    command.add_argument("--keep", default="failed", choices=["never", "failed", "always"], help="which TrainJobs stay")
    command.add_argument("step", nargs=argparse.REMAINDER, metavar="-- STEP ...", help="the step's own command line")
    command.set_defaults(run=_run_task)
    return command


def _outcome(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    command = commands.add_parser("outcome", help="record how a Kubeflow run ended")
    _executor_input(command)
    command.add_argument("--status", required=True, metavar="JSON", help="how the steps ended, as Kubeflow says it")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the record goes")
    command.set_defaults(run=_run_outcome)
    return command


def _embed_split(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    command = commands.add_parser("embed-split", help="write the settings of embed once for each timestep, as a JSON list")
    _params(command)
    command.add_argument("--out", type=Path, required=True, metavar="FILE", help="where the list goes")
    command.set_defaults(run=_run_embed_split)
    return command


def _embed_join(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    command = commands.add_parser("embed-join", help="join embeddings of single timesteps into what one embed makes")
    _params(command)
    command.add_argument("--parts", type=Path, action="append", required=True, metavar="DIR", help="embeddings (repeatable)")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the artifact goes")
    command.set_defaults(run=_run_embed_join)
    return command


def _params(command: argparse.ArgumentParser) -> None:
    command.add_argument("--params", required=True, metavar="FILE", help="settings, such as params.yaml, or JSON text of sections")


def _executor_input(command: argparse.ArgumentParser) -> None:
    command.add_argument("--executor-input", required=True, metavar="JSON", help="what Kubeflow hands a task: {{$}}")


def _pipeline(command: argparse.ArgumentParser) -> None:
    command.add_argument("--pipeline", type=Path, default=COMPILED, metavar="FILE", help=f"compiled pipeline (default: {COMPILED})")


def _connection(command: argparse.ArgumentParser) -> None:
    _pipeline(command)
    command.add_argument(
        "--host",
        default=os.environ.get("KF_PIPELINES_ENDPOINT"),
        metavar="URL",
        help="pipelines' API (or KF_PIPELINES_ENDPOINT)",
    )
    command.add_argument("--token-file", type=Path, metavar="FILE", help="file with a bearer token")
    command.add_argument("--ca", type=Path, metavar="FILE", help="certificate of a private authority, PEM")
    command.add_argument("--namespace", metavar="N", help="namespace, where the cluster has several users")


def _param(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--param", action="append", default=[], metavar="SECTION.KEY=VALUE", help="a setting other than compiled (repeatable)"
    )


def _allow_tag(command: argparse.ArgumentParser) -> None:
    command.add_argument("--allow-tag", action="store_true", help="accept an image without @sha256: digest: caches may then lie")


def _run_compile(args: argparse.Namespace) -> None:
    from pipeline.kubeflow.compile import compile_to

    compile_to(args.out, cluster=args.cluster, params=args.params, allow_tag=args.allow_tag)


def _run_submit(args: argparse.Namespace) -> int:
    from pipeline.kubeflow import cluster
    from pipeline.kubeflow.submit import submit

    return submit(
        args.pipeline,
        host=args.host,
        token_file=args.token_file,
        ca=args.ca,
        namespace=args.namespace,
        experiment=args.experiment,
        run_name=args.run_name,
        service_account=cluster.load(args.cluster).service_account,
        params=args.param,
        cache=not args.no_cache,
        wait=args.wait,
        allow_tag=args.allow_tag,
    )


def _run_upload(args: argparse.Namespace) -> None:
    from pipeline.kubeflow.submit import upload

    upload(
        args.pipeline,
        host=args.host,
        token_file=args.token_file,
        ca=args.ca,
        namespace=args.namespace,
        name=args.name,
        version_name=args.version_name,
        allow_tag=args.allow_tag,
    )


def _run_trainjob(args: argparse.Namespace) -> None:
    from pipeline.trainjob.manifest import write

    paths = {name: getattr(args, name) for name in ("dataset", "verdict", "work", "out")}
    write(args.out_file, args.cluster, args.params, args.param, args.name, paths, allow_tag=args.allow_tag)


def _run_run_local(args: argparse.Namespace) -> None:
    from pipeline.local.run_local import run_local

    run_local(
        args.pipeline,
        image=args.image,
        root=args.root,
        mounts=args.mount,
        network=args.network,
        params=args.param,
        cache=not args.no_cache,
    )


def _run_task(args: argparse.Namespace) -> int:
    from pipeline.task.task import run_task

    return run_task(
        args.executor_input,
        args.step,
        show=args.show,
        expect=args.expect,
        lists=args.lists,
        settled=args.settled,
        processes=args.processes,
        trainjob=args.trainjob,
        keep=args.keep,
    )


def _run_outcome(args: argparse.Namespace) -> None:
    from pipeline.task.task import record_outcome

    record_outcome(args.executor_input, args.status, args.out)


def _run_embed_split(args: argparse.Namespace) -> None:
    from components.common import settings
    from components.embedding.parts import split
    from model.atomic import write_whole

    sections = [part.model_dump(mode="json", exclude_none=True) for part in split(settings.load(args.params).embed)]
    write_whole(args.out, json.dumps(sections))


def _run_embed_join(args: argparse.Namespace) -> None:
    from components.common import settings
    from components.embedding.parts import join

    join(settings.load(args.params).embed, args.parts, args.out)
