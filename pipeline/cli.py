"""The `dier` command. Everything heavy is imported by the step that runs, never here.

Exit codes: 0 done, 2 bad settings or usage, 3 bad data or a damaged artifact, 4 the gate refused, 1 anything else;
130 and 143 after SIGINT and SIGTERM.
"""

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from pipeline import cli_kubeflow
from pipeline.steps import INPUT_HELP, STEPS, Step
from pipeline.task import permanent_failure


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args) or 0)
    except KeyboardInterrupt as error:  # a training that stopped in good order says where it goes on, and by which signal
        return _fail(str(error) or "interrupted", getattr(error, "exit_code", 130), args.debug)
    except Exception as error:
        code = _exit_code(error)
        if os.environ.get(permanent_failure.VARIABLE):  # one of many nodes, whose exit code nobody sees
            permanent_failure.remember(Path(os.environ[permanent_failure.VARIABLE]), code)
        return _fail(_one_line(error), code, args.debug)


def _exit_code(error: Exception) -> int:
    from components.common.errors import GateRefused, SettingsError
    from data.errors import DataError
    from model.errors import ConfigError

    codes: dict[type[Exception], int] = {SettingsError: 2, ConfigError: 2, DataError: 3, GateRefused: 4}
    return next((code for kind, code in codes.items() if isinstance(error, kind)), 1)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if type(error).__module__.split(".")[0] in ("components", "data", "model", "pipeline"):
        return text
    if isinstance(error, OSError) and error.filename is not None:
        return f"cannot use {error.filename}: {error.strerror}; check the path and its permissions"
    return f"{type(error).__name__}: {text}; run again with --debug for the traceback"


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"dier: error: {message}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dier", description="Unlabelled images to versioned, evaluated diffusion embeddings.")
    parser.set_defaults(debug=False)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for step in STEPS:
        _add_step(commands.add_parser(step.name, help=step.help, description=step.help), step)

    promote = commands.add_parser("promote", help="move an alias to a registered version, and record why")
    promote.add_argument("name", help="registered model name")
    promote.add_argument("--version", type=int, help="version (default: the one that carries the alias candidate)")
    promote.add_argument("--to", default="champion", metavar="ALIAS", help="alias to move (default: champion)")
    promote.add_argument("--force", action="store_true", help="promote what the gate refused; needs --reason")
    promote.add_argument("--reason", metavar="TEXT", help="why, kept in the model's record")
    promote.set_defaults(run=_promote)

    models = commands.add_parser("models", help="registered models, their versions, aliases and verdicts")
    models.add_argument("name", nargs="?", help="registered model name (default: all)")
    models.set_defaults(run=_models)

    params = commands.add_parser("params", help="every setting, its default and meaning")
    params.set_defaults(run=_params)

    summary = commands.add_parser("summary", help="what the last run found, and what to do next")
    summary.add_argument("--artifacts", type=Path, default=Path("artifacts"), metavar="DIR", help="default: artifacts")
    summary.set_defaults(run=_summary)

    for command in (promote, models, params, summary, *cli_kubeflow.add_commands(commands)):
        _add_debug(command)
    return parser


def _add_step(command: argparse.ArgumentParser, step: Step) -> None:
    command.add_argument("--params", required=True, metavar="FILE", help="settings, such as params.yaml, or JSON text of sections")
    for name in step.inputs:
        command.add_argument(f"--{name}", type=Path, required=True, metavar="DIR", help=INPUT_HELP[name])
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the artifact goes")
    command.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides", help="override a setting (repeatable)"
    )
    _add_debug(command)
    command.set_defaults(run=_run_step, step=step)


def _add_debug(command: argparse.ArgumentParser) -> None:
    command.add_argument("--debug", action="store_true", help="show a traceback with an error")


def _run_step(args: argparse.Namespace) -> None:
    from pipeline.timing import timed

    with timed(args.step.name, os.environ.get("DIER_TIMINGS")):
        from components.common import settings

        loaded = settings.load(args.params, args.overrides)
        sections = {name + "_settings": loaded.section(name) for name in args.step.sections}
        paths = {name: getattr(args, name) for name in args.step.inputs}
        importlib.import_module(f"components.{args.step.name}").run(**sections, **paths, out=args.out)


def _promote(args: argparse.Namespace) -> None:
    from components.registry.promote import promote

    print(promote(args.name, version=args.version, alias=args.to, force=args.force, reason=args.reason))


def _models(args: argparse.Namespace) -> None:
    from components.registry.promote import models

    print(models(args.name))


def _params(args: argparse.Namespace) -> None:
    from pipeline.params_help import params_table

    print(params_table())


def _summary(args: argparse.Namespace) -> None:
    from pipeline.run_summary import summary

    print(summary(args.artifacts, os.environ.get("DIER_TIMINGS")))


if __name__ == "__main__":
    sys.exit(main())
