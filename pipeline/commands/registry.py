"""Commands that talk to the model registry: what is there and where from, what becomes champion and what was, how two differ."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from pipeline.run_step import PATH
from pipeline.task import threads

NAME = click.argument("name")
REASON = click.option("--reason", metavar="TEXT", help="why, kept in the model's record")
JSON = click.option("--json", "as_json", is_flag=True, help="print JSON instead of a table")

ARTIFACTS = click.option("--artifacts", type=PATH, default=Path("artifacts"), metavar="DIR", help="a run's, found by fingerprint")


def add_to(dier: click.Group) -> None:
    """Add the commands, in the order in which --help lists them."""
    for command in (promote, rollback, history, compare, lineage, verify, models):
        dier.add_command(command)


@click.command()
@NAME
@click.option("--version", type=int, metavar="N", help="version; without it the one that carries the alias candidate")
@click.option("--alias", "--to", "alias", default="champion", metavar="ALIAS", help="alias to move")
@click.option("--expect", type=int, metavar="N", help="move it only from this version: one that somebody moved meanwhile stays")
@click.option("--force", is_flag=True, help="promote what the gate refused; needs --reason")
@REASON
def promote(name: str, **options: Any) -> None:
    """Move an alias of a registered model to a version, and record why."""
    since = datetime.now(UTC)  # before MLflow is imported, which takes seconds: what moves meanwhile, nobody here knew of
    from components.registry.promote import promote

    print(promote(name, since=since, **options))


@click.command()
@NAME
@click.option("--to", "version", type=int, metavar="VERSION", help="one that it was before; without it the one before this")
@click.option("--alias", default="champion", metavar="ALIAS", help="alias to move back")
@REASON
def rollback(name: str, **options: Any) -> None:
    """Move an alias back to a version that had it before, and record why."""
    since = datetime.now(UTC)
    from components.registry.promote import rollback

    print(rollback(name, since=since, **options))


@click.command()
@NAME
@click.option("--alias", metavar="ALIAS", help="of this alias alone")
@JSON
def history(name: str, **options: Any) -> None:
    """Who moved which alias of a registered model, when, from where, to where, the gate's verdict and the reason."""
    from components.registry.listing import history

    print(history(name, **options))


@click.command()
@click.argument("first", metavar="NAME@ALIAS")
@click.argument("second", metavar="NAME@ALIAS")
@JSON
def compare(first: str, second: str, as_json: bool) -> None:
    """How much better the second version is than the first on the same test images, overall and by class. Also NAME/VERSION."""
    from components.registry.compare import compare

    print(compare(first, second, as_json=as_json))


@click.command()
@click.argument("version", metavar="[NAME@ALIAS]", required=False)
@click.option("--dataset", metavar="FINGERPRINT", help="every version trained on this dataset: fingerprint (8 digits do) or folder")
@ARTIFACTS
@JSON
def lineage(version: str | None, dataset: str | None, artifacts: Path, as_json: bool) -> None:
    """Where a version comes from (commit, settings, artifacts, image), or what was trained on a dataset. Also NAME/VERSION."""
    from components.registry.lineage import lineage, trained_on

    if (version is None) == (dataset is None):
        raise click.UsageError("give NAME@ALIAS, or --dataset FINGERPRINT")
    print(lineage(version, artifacts=artifacts, as_json=as_json) if version else trained_on(str(dataset), as_json=as_json))


@click.command()
@click.argument("version", metavar="NAME@ALIAS")
@ARTIFACTS
@click.option("--files-only", is_flag=True, help="check the files alone, and run nothing")
@JSON
def verify(version: str, artifacts: Path, files_only: bool, as_json: bool) -> None:
    """Download a version, check every file, recompute embeddings of some test images, and compare. Also NAME/VERSION."""
    threads.set_threads()
    from components.common.errors import ArtifactError
    from components.registry.verify import verify

    found = verify(version, artifacts=artifacts, files_only=files_only)
    print(json.dumps(found.record(), indent=2, ensure_ascii=False) if as_json else found)
    if found.problem:
        raise ArtifactError(found.problem)


@click.command()
@click.argument("name", required=False)
def models(name: str | None) -> None:
    """Registered models, their versions, aliases and verdicts: of all, or of one."""
    from components.registry.listing import models

    print(models(name))
