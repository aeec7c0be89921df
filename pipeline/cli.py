"""The `dier` command: the steps (pipeline/run_step.py, which also has the exit codes), and here what is around them.

What is said to the model registry is in pipeline/commands/registry.py, to a cluster's API in runs.py beside it. Everything heavy is
imported by the command that runs, never here.
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from pipeline import run_step
from pipeline.commands import inference, registry, runs
from pipeline.commands.options import ALLOW_TAG, CLUSTER, DEFAULTS, NO_CACHE, PARAM, PIPELINE
from pipeline.run_step import OUT, PATH, SET, dier, options
from pipeline.steps import INPUT_HELP, STATE

EXECUTOR_INPUT = click.option("--executor-input", required=True, metavar="JSON", help="what Kubeflow hands a task: {{$}}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    return run_step.run(sys.argv[1:] if argv is None else argv)


registry.add_to(dier)


@dier.command("serve-manifest")
@click.argument("model", metavar="NAME[@ALIAS]")
@click.option("--namespace", metavar="N", help="namespace of the InferenceService; without it that of kubectl")
@click.option("--image", metavar="IMAGE", help="serving image that holds what the model needs; without it the runtime's own")
@click.option("--service-account", metavar="N", help="account of its pods, with the object store's Secret")
@click.option("--artifacts-destination", metavar="URI", help="object store behind an MLflow server that proxies artifacts")
def serve_manifest(model: str, **options: Any) -> None:
    """Print a registered version, by default the champion, as a KServe InferenceService, for kubectl apply."""
    from components.registry.serving import serve_manifest

    print(serve_manifest(model, **options), end="")


inference.add_to(dier)


@dier.command()
def params() -> None:
    """Every setting, its default and meaning."""
    from pipeline.params_help import params_table

    print(params_table())


@dier.command()
@click.argument("preset", type=PATH)
@SET
@click.option("--out", type=PATH, default=Path("params.yaml"), metavar="FILE", help="where the settings go")
def preset(preset: Path, overrides: Sequence[str], out: Path) -> None:
    """Write every setting to params.yaml: the defaults, but for those of a preset, such as pipeline/presets/medmnist.yaml."""
    from model.atomic import write_whole
    from pipeline.params_help import params_file

    write_whole(out, params_file(preset, overrides))


@dier.command()
@click.option("--artifacts", type=PATH, default=Path("artifacts"), metavar="DIR", help="artifacts of the run")
def summary(artifacts: Path) -> None:
    """What the last run found, and what to do next."""
    from pipeline.run_summary import summary

    print(summary(artifacts, os.environ.get(run_step.TIMINGS)))


@dier.command()
@click.option("--work", type=PATH, default=Path(".work/train"), metavar="DIR", help="work folders of trainings")
@click.option("--artifacts", type=PATH, default=Path("artifacts"), metavar="DIR", help="artifacts of the run")
@click.option("--maps", type=PATH, default=Path(".work/explore"), metavar="DIR", help="maps that dier explore keeps")
@click.option("--state", type=PATH, metavar="DIR", help="a mounted claim of tasks on Kubeflow")
@click.option("--keep", type=click.IntRange(0), default=2, metavar="N", help="ended trainings that keep their checkpoints")
@click.option("--days", type=click.FloatRange(0), default=7.0, metavar="N", help="that maps and what lies on a claim stay unused")
@click.option("--yes", is_flag=True, help="remove it")
def clean(**options: Any) -> None:
    """List what runs left behind and nobody needs, with its size; with --yes remove it."""
    from pipeline.clean import clean

    clean(**options)


@dier.command()
@click.option("--params", default="params.yaml", metavar="FILE", help="settings, such as params.yaml, or JSON text of sections")
@SET
@click.option("--root", type=PATH, default=Path(".work/trial"), metavar="DIR", help="where its artifacts go")
def trial(**options: Any) -> int:
    """Run prepare to probe in a row for a tuner, and print the validation metrics as name=value."""
    from pipeline.trial import trial

    return trial(**options)


@dier.command("compile")
@CLUSTER
@DEFAULTS
@click.option("--out", type=PATH, required=True, metavar="FILE", help="where the compiled pipeline goes")
@ALLOW_TAG
def compile_pipeline(**options: Any) -> None:
    """Write the pipeline as Kubeflow's YAML."""
    from pipeline.kubeflow.pipeline import compile_to

    compile_to(**options)


@dier.command("compile-monitor")
@CLUSTER
@click.option("--model", default="dier@champion", metavar="MODEL", help="default of the pipeline's parameter: NAME@ALIAS")
@click.option("--images", required=True, metavar="PATH", help="default of another: a folder or npz, as pods see it")
@click.option("--alpha", type=click.FloatRange(0.002, 1), default=0.01, metavar="P", help="default of another, as of dier monitor")
@click.option("--out", type=PATH, required=True, metavar="FILE", help="where the compiled pipeline goes")
@ALLOW_TAG
def compile_monitor(**options: Any) -> None:
    """Write a pipeline that watches new images (dier monitor) as Kubeflow's YAML, for dier schedule and dier submit."""
    from pipeline.kubeflow.monitoring import compile_to

    compile_to(**options)


@dier.command("components")
@CLUSTER
@click.option("--out", type=PATH, default=Path("pipeline/compiled/components"), metavar="DIR", help="where the files go")
@ALLOW_TAG
def component_files(**options: Any) -> None:
    """Write each step as a component file for pipelines of others, and a page on what it takes, gives and needs."""
    from pipeline.kubeflow.component_files import write

    write(**options)


runs.add_to(dier)


def _pod_path(name: str, folder: str, what: str) -> Callable[..., Any]:
    return click.option(f"--{name}", type=PATH, default=Path(STATE) / folder, metavar="DIR", help=f"{what}, as pods see it")


pod_paths = options(
    _pod_path("dataset", "dataset", INPUT_HELP["dataset"]),
    _pod_path("verdict", "verdict", INPUT_HELP["verdict"]),
    _pod_path("work", "train", INPUT_HELP["work"]),
    _pod_path("out", "model", "where the model goes"),
)
"""Where the pods of a TrainJob see inputs and output."""


@dier.command()
@CLUSTER
@DEFAULTS
@pod_paths
@click.option("--name", default="dier-train", metavar="N", help="name of the TrainJob")
@click.option("--out-file", "file", type=PATH, metavar="FILE", help="where the manifest goes; without it to standard output")
@PARAM
@ALLOW_TAG
def trainjob(dataset: Path, verdict: Path, work: Path, out: Path, **options: Any) -> None:
    """Print train on several nodes as a Kubeflow Trainer TrainJob, for kubectl apply."""
    from pipeline.trainjob.manifest import write

    write(paths={"dataset": dataset, "verdict": verdict, "work": work, "out": out}, **options)


@dier.command("run-local")
@PIPELINE
@click.option("--image", metavar="IMAGE", help="image to run instead of the compiled one")
@click.option("--root", type=PATH, default=Path(".work/kubeflow"), metavar="DIR", help="folder of runs, logs, cache, artifacts")
@click.option("--mount", "mounts", multiple=True, metavar="HOST:CONTAINER", help="a read-only folder (repeatable)")
@click.option("--network", default="none", help="network of the containers: none, host or a name")
@NO_CACHE
@PARAM
def run_local(mounts: Sequence[str], overrides: Sequence[str], no_cache: bool, **options: Any) -> None:
    """Run the compiled pipeline in containers on this machine."""
    from pipeline.local.run_local import run_local

    run_local(mounts=list(mounts), params=list(overrides), cache=not no_cache, **options)


@dier.command()
@EXECUTOR_INPUT
@click.option("--show", multiple=True, metavar="NAME=PATH", help="an output for the UI (repeatable)")
@click.option("--expect", multiple=True, metavar="INPUT=FINGERPRINT", help="refuse an input that differs")
@click.option("--list", "lists", multiple=True, metavar="INPUT", help="an input of many artifacts")
@click.option("--keep-in", type=PATH, metavar="DIR", help="copy the artifact to DIR/FINGERPRINT, for tasks that read it there")
@click.option("--fingerprint-to", type=PATH, metavar="FILE", help="write the artifact's fingerprint, for those tasks")
@click.option("--permanent-failures", "failures", type=PATH, metavar="DIR", help="where a permanent failure is remembered, by run")
@click.option("--gated", metavar="TASK", help="the task that ends the run where the artifact, once whole, says no")
@click.option("--processes", type=int, default=1, metavar="N", help="run the step in N processes")
@click.option("--trainjob", metavar="JSON", help="run the step on many nodes: the manifest of a TrainJob")
@click.option("--keep", type=click.Choice(["never", "failed", "always"]), default="failed", help="which TrainJobs stay")
@click.argument("step", nargs=-1, metavar="-- STEP ...")
def task(executor_input: str, step: Sequence[str], **options: Any) -> int:
    """Run one step inside a Kubeflow task by its own command line, and tell Kubeflow what it made."""
    from pipeline.task import file_modes, threads

    file_modes.set_umask(file_modes.IN_TASKS)
    threads.set_threads(processes=options["processes"])
    from pipeline.task.task import run_task  # only now: it brings NumPy

    return run_task(executor_input, step, **options)


@dier.command()
@EXECUTOR_INPUT
@click.option("--status", required=True, metavar="JSON", help="how the steps ended, as Kubeflow says it")
@click.option("--end-trainjob", is_flag=True, help="end the run's TrainJob, which a termination leaves running")
@OUT
def outcome(**options: Any) -> None:
    """Record how a Kubeflow run ended, and end what it left running."""
    from pipeline.task.outcome import record_outcome

    record_outcome(**options)


@dier.command()
@click.option("--verdict", type=PATH, metavar="DIR", help=INPUT_HELP["verdict"])
@click.option("--registration", type=PATH, metavar="DIR", help=INPUT_HELP["registration"])
@click.option("--monitoring", type=PATH, metavar="DIR", help="monitoring artifact, made by dier monitor")
def gate(verdict: Path | None, registration: Path | None, monitoring: Path | None) -> None:
    """Hold to a verdict, a registration, a monitoring: end as the command that wrote it would have (3, 4) where it says no."""
    from components.common import gates

    if verdict is None and registration is None and monitoring is None:
        raise click.UsageError("give --verdict DIR, --registration DIR or --monitoring DIR")
    if verdict is not None:
        gates.check_verdict(verdict, docs="the artifact data_docs of validate on the run's page")
    if registration is not None:
        gates.check_registration(registration)
    if monitoring is not None:
        gates.check_monitoring(monitoring)


if __name__ == "__main__":
    sys.exit(main())
