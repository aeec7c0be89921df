"""The processors' energy counters, in a folder that is laid out as Linux lays out powercap."""

from pathlib import Path

import pytest

from components.tracking import energy
from components.tracking.energy import Meter


def zone(folder: Path, number: str, name: str, counter: int, most: int = 10**9) -> None:
    (folder / f"intel-rapl:{number}").mkdir(exist_ok=True)
    for file, text in {"name": name, "energy_uj": counter, "max_energy_range_uj": most}.items():
        (folder / f"intel-rapl:{number}" / file).write_text(f"{text}\n")


def test_joules_are_those_of_every_processor_since_the_last_reading(tmp_path: Path) -> None:
    zone(tmp_path, "0", "package-0", 2_000_000)
    zone(tmp_path, "0:0", "core", 1_000_000)  # a part of it
    zone(tmp_path, "1", "package-1", 998_000_000)
    zone(tmp_path, "2", "psys", 5)  # the whole machine, which those are part of
    meter = Meter(tmp_path)
    assert meter.joules() == 0
    zone(tmp_path, "0", "package-0", 5_000_000)
    zone(tmp_path, "0:0", "core", 9_000_000)
    zone(tmp_path, "1", "package-1", 1_000_000)  # it went round
    zone(tmp_path, "2", "psys", 50_000_000)
    assert meter.joules() == 3 + 3
    assert meter.joules() == 0


def test_what_cannot_be_told_is_not_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Meter(tmp_path).joules() is None
    zone(tmp_path, "0", "package-0", 2_000_000)
    meter = Meter(tmp_path)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()  # as for whoever may not read it
    assert meter.joules() is None
    zone(tmp_path, "0", "package-0", 3_000_000)
    assert meter.joules() is None  # since when is unknown
    assert meter.joules() == 0
    monkeypatch.setattr(energy, "MOST_W", 1e12)  # by which the counter could have gone round more than once meanwhile
    assert meter.joules() is None
