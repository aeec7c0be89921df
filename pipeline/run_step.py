"""A command line to its exit code: the commands of the steps, one line for whatever goes wrong, how long a step took.

Exit codes: 0 done, 2 bad settings or usage, 3 bad data or a damaged artifact, 4 the gate refused or new images drift, 5 a training
that failed and that the same data and settings must fail again, 1 anything else; 130 and 143 after SIGINT and SIGTERM,
141 where whoever read the output has gone.

`dier task` runs a step inside a Kubeflow task through this module; the commands around the steps are added in pipeline/cli.py.
Everything heavy is imported by the step that runs, never here.
"""

import importlib
import json
import os
import select
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from pipeline.steps import INPUT_HELP, JOIN, SPLIT, STEPS, Step
from pipeline.task import file_modes, permanent_failure, threads, work_folder

F = TypeVar("F", bound=Callable[..., Any])
TIMINGS = "DIER_TIMINGS"
"""Environment variable with a file for the seconds of each step: inside the artifacts they would make equal runs differ."""
LONGEST, TAIL = 300, 120
"""Characters of an error message, and how many of them are its end where its middle is left out."""
READER_GONE = 141
"""What a shell reports of a program that SIGPIPE ended, as in `dier models dier | head -1`."""
PATH = click.Path(path_type=Path)
PARAMS = click.option("--params", required=True, metavar="FILE", help="settings, such as params.yaml, or JSON text of sections")
SET = click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="override a setting (repeatable)")
OUT = click.option("--out", type=PATH, required=True, metavar="DIR", help="where the artifact goes")


def options(*each: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, in the order in which --help lists them."""

    def decorate(command: F) -> F:
        for option in reversed(each):
            command = option(command)
        return command

    return decorate


class Commands(click.Group):
    """Commands in the order in which they were added, each with --debug; the list of them cuts no sentence short."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add one."""
        cmd.params.append(click.Option(["--debug"], is_flag=True, expose_value=False, help="show a traceback with an error"))
        cmd.short_help = cmd.help
        super().add_command(cmd, name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return list(self.commands)


dier = Commands(
    "dier",
    help="Unlabelled images to versioned, evaluated diffusion embeddings.",
    no_args_is_help=False,
    context_settings={"show_default": True, "max_content_width": 120},
)


def run(argv: Sequence[str]) -> int:
    """Run one command and return its exit code. An error is one line on stderr, after a traceback with --debug."""
    debug, umask = "--debug" in argv, file_modes.current()
    try:
        file_modes.set_umask()
        with dier.make_context("dier", list(argv)) as context:
            code = int(dier.invoke(context) or 0)
            sys.stdout.flush()  # so that a reader who has gone shows here, and not when Python ends
            return code
    except click.exceptions.Exit as ended:  # after --help
        return ended.exit_code
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "dier"
        return _fail(f"{error.format_message().rstrip('.')}; see {command} --help", 2, debug)
    except KeyboardInterrupt as error:  # a training that stopped in good order says where it goes on, and by which signal
        return _fail(str(error) or "interrupted", getattr(error, "exit_code", 130), debug)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_has_gone():
            return READER_GONE
        code = exit_code(error)
        if os.environ.get(permanent_failure.VARIABLE):  # one of many nodes, whose exit code nobody sees
            permanent_failure.remember(Path(os.environ[permanent_failure.VARIABLE]), code)
        return _fail(_message(error), code, debug)
    finally:
        os.umask(umask)  # that of the process, which other commands may run in


def _reader_has_gone() -> bool:
    """Whether standard output is the pipe that broke; if so, what is left of it goes nowhere."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    gone = any(event & select.POLLERR for _, event in poll.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone


def flag_value(argv: Sequence[str], flag: str) -> str:
    """What stands after `--flag` in a step's command line. Raises SettingsError where there is none."""
    return argv[_place(argv, flag)]


def with_flag_value(argv: Sequence[str], flag: str, value: str) -> list[str]:
    """The same command line, but for what stands after `--flag`. Raises SettingsError where there is none."""
    at = _place(argv, flag)
    return [*argv[:at], value, *argv[at + 1 :]]


def _place(argv: Sequence[str], flag: str) -> int:
    from components.common.errors import SettingsError

    if f"--{flag}" not in argv[:-1]:
        raise SettingsError(f"the step's command line {' '.join(argv[:1])} has no --{flag}")
    return argv.index(f"--{flag}") + 1


def exit_code(error: Exception) -> int:
    """What a command ends with that raised `error`."""
    from components.common.errors import Drifted, GateRefused, SettingsError
    from data.errors import DataError
    from model.errors import ConfigError, PermanentTrainingError

    codes: dict[type[Exception], int] = {
        SettingsError: 2,
        ConfigError: 2,
        DataError: 3,
        GateRefused: 4,
        Drifted: 4,
        PermanentTrainingError: 5,
    }
    return next((code for kind, code in codes.items() if isinstance(error, kind)), getattr(error, "exit_code", 1))


def _message(error: Exception) -> str:
    if type(error).__module__.split(".")[0] in ("components", "data", "model", "pipeline"):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"cannot use {error.filename}: {error.strerror}; check the path and its permissions"
    return f"{type(error).__name__}: {error}; run again with --debug for the traceback"


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"dier: error: {one_line(message)}", file=sys.stderr)
    return code


def one_line(text: str) -> str:
    """`text` in one line of printable characters, at most 300: of more the middle goes, since causes stand first and cures last."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(text.split()))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - TAIL - 5]} ... {line[-TAIL:]}"


def _add(step: Step) -> None:
    """Add the command of a step, `--params FILE --INPUT DIR ... --out DIR`."""

    def command(params: str, overrides: tuple[str, ...], **paths: Path) -> None:
        threads.set_threads(processes=int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
        if "work" in paths:
            work_folder.check_writable(paths["work"])
        with _timed(step.name, os.environ.get(TIMINGS)):
            from components.common import settings

            loaded = settings.load(params, list(overrides))
            sections = {name + "_settings": loaded.section(name) for name in step.sections}
            importlib.import_module(f"components.{step.name}").run(**sections, **paths)

    inputs = [click.option(f"--{name}", type=PATH, required=True, metavar="DIR", help=INPUT_HELP[name]) for name in step.inputs]
    dier.command(step.name, help=f"{step.help[0].upper()}{step.help[1:]}.")(options(PARAMS, *inputs, OUT, SET)(command))


@contextmanager
def _timed(step: str, file: str | None) -> Iterator[None]:
    """Append the step's seconds to `file` (JSON lines) when one is asked for and the step succeeds."""
    start = time.perf_counter()
    yield
    if file:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        with open(file, "a", encoding="utf-8") as log:
            log.write(json.dumps({"step": step, "seconds": round(time.perf_counter() - start, 2)}) + "\n")


for _step in STEPS:
    _add(_step)


@dier.command(SPLIT)
@PARAMS
@click.option("--parts", type=click.IntRange(1), default=1, show_default=True, help="parts of the images' files, every n-th each")
@click.option("--out", type=PATH, required=True, metavar="FILE", help="where the list goes")
def _embed_split(params: str, parts: int, out: Path) -> None:
    """Write the settings of embed once for each timestep and part, as a JSON list."""
    from components.common import settings
    from components.embedding.parts import split
    from model.atomic import write_whole

    sections = [part.model_dump(mode="json", exclude_none=True) for part in split(settings.load(params).embed, parts)]
    write_whole(out, json.dumps(sections))


@dier.command(JOIN)
@PARAMS
@click.option("--parts", type=PATH, multiple=True, required=True, metavar="DIR", help="embeddings (repeatable)")
@OUT
def _embed_join(params: str, parts: Sequence[Path], out: Path) -> None:
    """Join embeddings of single timesteps and parts into what one embed makes."""
    from components.common import settings
    from components.embedding.parts import join

    join(settings.load(params).embed, list(parts), out)
