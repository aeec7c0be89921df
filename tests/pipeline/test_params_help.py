import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from components.common.settings import SECTIONS, Settings, load
from pipeline.cli import main
from pipeline.params_help import params_table

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("width", [80, 100, 120])
def test_every_setting_stands_in_the_table_with_its_default_and_meaning(width: int) -> None:
    table = params_table(width)
    flat = " ".join(table.split())
    defaults = Settings()
    for name in SECTIONS:
        section = defaults.section(name)
        assert f"\n{name}: " in table
        for key, field in type(section).model_fields.items():
            assert f"\n  {name}.{key} = " in table
            assert field.description
            assert " ".join(field.description.split()) in flat
    assert max(map(len, table.splitlines())) <= width


def test_ranges_choices_and_nulls_are_read_off_the_schema() -> None:
    lines = [" ".join(line.split()) for line in params_table(120).splitlines()]
    assert "data.image_size = null [whole number 4 .. 1024 or null]" in lines
    assert "data.channels = null [1 | 3 or null]" in lines
    assert "model.pool = mean [mean | flat | grid | attention]" in lines
    assert "train.lr = 0.002 [number > 0, <= 1]" in lines
    assert "train.ema_decay = 0.999 [number >= 0, < 1]" in lines
    assert "model.embed_norm = true [true | false]" in lines
    assert "[non-empty list, each whole number >= 0, < 1000]" in " ".join(lines)


@pytest.mark.parametrize("preset", sorted((ROOT / "pipeline" / "presets").glob("*.yaml")), ids=lambda p: p.stem)
def test_a_preset_becomes_a_whole_params_file(tmp_path: Path, preset: Path) -> None:
    out = tmp_path / "params.yaml"
    assert main(["preset", str(preset), "--set", "train.lr=1e-5", "--out", str(out)]) == 0
    assert load(out) == load(preset, ["train.lr=1e-5"])
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert {name: list(section) for name, section in yaml.safe_load(out.read_text()).items()} == {
        name: list(section) for name, section in shipped.items()
    }


def test_a_narrow_or_wide_terminal_is_held_to_80_and_120_columns() -> None:
    assert params_table(20) == params_table(80)
    assert params_table(400) == params_table(120)


def test_it_needs_none_of_the_heavy_libraries() -> None:
    code = (
        "import sys; from pipeline.cli import main; assert main(['params']) == 0; "
        "heavy = {'torch', 'numpy', 'pandas', 'matplotlib', 'mlflow', 'pyarrow'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "COLUMNS": "90"}, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "train.steps" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 90
