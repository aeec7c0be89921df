"""Test harness: what several processes do to one registry at the same time, and where one of them dies or stands still.

    python -m tests.components.registry.promote_in_processes '[[{"do": "move", "version": 3, ...}, ...], ...]'

One list after another, a process for each dict in it; they are forks of this one, which has imported MLflow once for all and talks
to no store. Lines of JSON say what each process is (pid), what came of it (said), and how it ended (exit code or -signal).

    do        move: promotions.move, all having looked at the record before the first one moves
              promote, rollback: dier's own, as if every one had been asked for at the same time
              register: components.register.run with the artifacts in `folder`, policy auto, all compared with the same champion
    kill      [call, when]: kill this process (SIGKILL) before or after that call of MLflow's client
    stop      the same, but it stands still (SIGSTOP) until somebody lets it go on
"""

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from components.tracking.client import connect, set_environment

set_environment()
import mlflow.store.model_registry.sqlalchemy_store  # noqa: E402
import mlflow.store.tracking.sqlalchemy_store  # noqa: E402, F401
from mlflow import MlflowClient  # noqa: E402

from components.registry import promotions  # noqa: E402
from components.registry.promote import promote, rollback  # noqa: E402

NAME = "glyphs"


def strike(call: str, when: str, number: signal.Signals) -> None:
    """Send this process a signal at a call of MLflow's client."""
    whole = getattr(MlflowClient, call)

    def struck(*arguments: Any, **named: Any) -> Any:
        setattr(MlflowClient, call, whole)  # once
        if when == "before":
            os.kill(os.getpid(), number)
        done = whole(*arguments, **named)
        if when == "after":
            os.kill(os.getpid(), number)
        return done

    setattr(MlflowClient, call, struck)


def child(asked: dict[str, Any], since: datetime, wait: Callable[[], object]) -> str:
    """What one process does; what it says of it."""
    for key, number in (("kill", signal.SIGKILL), ("stop", signal.SIGSTOP)):
        if key in asked:
            strike(*asked[key], number)
    version = asked.get("version")
    if asked["do"] == "register":
        return register(asked, wait)
    client = connect()
    if asked["do"] == "promote":
        wait()
        return promote(NAME, version=version, alias="champion", force=False, reason=asked.get("reason"), since=since)
    if asked["do"] == "rollback":
        wait()
        return rollback(NAME, version=version, alias="champion", reason=None, since=since)
    last = promotions.last(promotions.settle(client, client.get_registered_model(NAME), "champion"), "champion")
    model = client.get_registered_model(NAME)
    wait()
    return f"moved: {promotions.move(client, model, 'champion', version, follows=last, why='', gate='passed').number}"


def register(asked: dict[str, Any], wait: Callable[[], object]) -> str:
    from components import register
    from components.common import artifact
    from tests.components.registry_artifacts import Inputs, settings

    folder = Path(asked["folder"])
    inputs = Inputs(*(folder / kind for kind in ("verdict", "model", "probe", "report")))
    whole = register.decide

    def decide(evidence: Any) -> Any:
        """Nobody stores a version before everybody has looked whom it is compared with."""
        wait()
        return whole(evidence)

    register.decide = decide
    register.run(settings(policy="auto"), **inputs.paths(), out=folder / "out")
    return ",".join(artifact.read(folder / "out", "registration").json("registration.json")["aliases"])


def run(asked: dict[str, Any], since: datetime, barrier: Barrier) -> None:
    try:
        said = child(asked, since, lambda: barrier.wait(300))
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    tell({**asked, "said": said})


def tell(line: dict[str, Any]) -> None:
    """In one piece, whoever else writes."""
    os.write(1, (json.dumps(line) + "\n").encode())


def main() -> None:
    turns = json.loads(sys.argv[1])
    if any(one["do"] == "register" for asked in turns for one in asked):
        import torch

        from components import register  # noqa: F401

        torch.set_num_threads(1)
    for asked in turns:
        together(asked)


def together(asked: list[dict[str, Any]]) -> None:
    fork = multiprocessing.get_context("fork")
    barrier, since = fork.Barrier(len(asked)), datetime.now(UTC)
    children = [fork.Process(target=run, args=(one, since, barrier)) for one in asked]
    for process in children:
        process.start()
        tell({"pid": process.pid})
    for process in children:
        process.join()
        tell({"ended": process.exitcode})


if __name__ == "__main__":
    main()
