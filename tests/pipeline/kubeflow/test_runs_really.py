"""What a person says to Kubeflow's API, on runs that really run in the stand-in's engine, from upload to termination."""

import time
from pathlib import Path

from tests.pipeline.conftest import Command
from tests.pipeline.kubeflow import kfp_standin as standin
from tests.standin.backend import Backend
from tests.standin.pod import Ended, Pod
from tests.standin.scripted import ScriptedPods, make_outputs, wait_for_stop


def test_the_life_of_runs(dier: Command, tmp_path: Path) -> None:
    leaks = [True]

    def validate(pod: Pod) -> int | Ended:
        return Ended(3, log="looking\ndier: error: leaks is 0.2\n") if leaks[0] else make_outputs(pod)

    pods = ScriptedPods({"validate": validate})
    with standin.serve(backend=Backend(tmp_path, pods)) as server:

        def say(*words: object) -> Command:
            return dier(*map(str, words), "--host", server.url)

        assert "ended FAILED after 0 min: validate: leaks is 0.2; dier logs" in say("submit", "--wait", "--run-name", "one").error
        assert say("runs").out.splitlines()[1].endswith("validate")
        assert say("logs", "one").out.startswith("looking\ndier: error: leaks is 0.2\n")
        leaks[0] = False
        assert say("retry", "one", "--wait").code == 0
        assert say("submit", "--wait", "--run-name", "two").code == 0
        assert len(pods.of("prepare")) == 1  # the second run has it from the cache
        assert "its result came from the cache" in say("logs", "two", "prepare").error
        assert say("schedule", "nightly", "--cron", "0 2 * * *").code == 0
        server.backend.wait(server.fire("nightly"))
        assert len(pods.of("prepare")) == 2  # data is read anew
        pods.scripts["train"] = wait_for_stop
        before = len(pods.of("train"))
        assert say("submit", "--run-name", "three", "--no-cache").code == 0
        until = time.monotonic() + 20
        while len(pods.of("train")) == before:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert "is being terminated" in say("terminate", "three").out
        server.backend.wait(server.runs[-1]["run_id"])
        assert "has ended already: CANCELED" in say("terminate", "three").out
