"""How many timesteps and parts a fanned-out embed may have, by what one argument of a command may hold."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from components.common.errors import SettingsError
from components.common.settings import Settings
from pipeline.kubeflow.argument_limits import LONGEST_ARGUMENT, check_arguments, fitting_tasks
from pipeline.kubeflow.cluster import Cluster
from pipeline.kubeflow.pipeline import compiled
from tests.pipeline.conftest import IMAGE, Command
from tests.pipeline.kubeflow.kfp_standin import StandIn


def test_linux_takes_no_longer_argument() -> None:
    for length, fits in ((LONGEST_ARGUMENT, True), (LONGEST_ARGUMENT + 1, False)):
        try:
            subprocess.run([sys.executable, "-c", "", "x" * length], check=True)
        except OSError:
            assert not fits
        else:
            assert fits


def test_too_many_are_refused_with_how_many_fit() -> None:
    fit = fitting_tasks()
    assert 100 <= fit <= 140
    check_arguments(fit)
    with pytest.raises(SettingsError, match=rf"with {fit + 1} timesteps: .* at most {fit} fit"):
        check_arguments(fit + 1)
    check_arguments(11, fit // 11)
    with pytest.raises(SettingsError, match=rf"with 11 timesteps of {fit // 11 + 1} parts: .* at most {fit} fit; .*embed\.parts"):
        check_arguments(11, fit // 11 + 1)
    assert fitting_tasks("s3://a-bucket-with-a-long-name/and/a/long/prefix/for/each/namespace") < fit


def test_a_run_with_too_many_is_refused_before_anything_is_sent(dier: Command, server: StandIn, tmp_path: Path) -> None:
    fanned = tmp_path / "fanned.yaml"
    fanned.write_text(compiled(Settings(), Cluster.model_validate({"image": IMAGE, "embed": {"fan_out": True}})))
    many = json.dumps(list(range(200)))
    assert dier("submit", "--host", server.url, "--pipeline", fanned, "--param", f"embed.timesteps={many}").code == 2
    assert "embed.fan_out with 200 timesteps" in dier.error
    parts = Cluster.model_validate({"image": IMAGE, "embed": {"fan_out": True, "parts": 20}})
    fanned.write_text(compiled(Settings(), parts))
    assert dier("submit", "--host", server.url, "--pipeline", fanned, "--param", "embed.timesteps=[0,1,2,3,4,5,6]").code == 2
    assert "embed.fan_out with 7 timesteps of 20 parts" in dier.error
    assert server.requests == []
    assert dier("submit", "--host", server.url, "--param", f"embed.timesteps={many}").code == 0  # one task knows no such limit
