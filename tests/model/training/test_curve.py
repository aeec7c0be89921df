import json
import time

import pytest
import torch

from model.errors import CheckpointError
from model.training.curve import Rates, Window

CPU = torch.device("cpu")


def filled(steps: int) -> Window:
    window, random = Window(CPU), torch.Generator().manual_seed(steps)
    for _ in range(steps):
        window.add(torch.randint(1000, (16,), generator=random), torch.rand(16, generator=random), torch.rand(2, generator=random))
    return window


def test_a_window_survives_json_bit_for_bit() -> None:
    before, after = filled(7), Window(CPU)
    after.restore(json.loads(json.dumps(before.state())))
    assert after.point(7, 0.1) == before.point(7, 0.1)
    assert after.state() == before.state()
    assert list(after.point(7, 0.1)) == list(before.point(7, 0.1))  # the order of the curve's columns


def test_the_rate_counts_only_what_this_process_saw() -> None:
    window = Window(CPU)
    window.restore(filled(1000).state())  # of the process before
    window.add(torch.zeros(16, dtype=torch.long), torch.ones(16), torch.ones(2))
    time.sleep(0.05)
    assert 0 < window.rate() <= 16 / 0.05  # 16,016 images over this time would be a thousand times more


@pytest.mark.parametrize("step", [0, 20, 25, 30, 99])
def test_rates_are_cut_back_to_a_step(tmp_path, step: int) -> None:
    rates = Rates(tmp_path / "rates.csv")
    rates.cut(step)  # nothing is there yet
    for logged in (10, 20, 30):
        rates.add(logged, 1.5)
    whole = (tmp_path / "rates.csv").read_text().splitlines()
    (tmp_path / "rates.csv").open("a").write("3")  # what a kill or a full disk leaves of a line
    rates.cut(step)
    assert (tmp_path / "rates.csv").read_text().splitlines() == [line for line in whole if int(line.split(",")[0]) <= step]
    rates.add(40, 2.0)
    assert (tmp_path / "rates.csv").read_text().splitlines()[-1].startswith("40,2.0,")


def test_rates_that_cannot_be_written_are_one_line(tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot write rates\.csv in .*No such file or directory"):
        Rates(tmp_path / "none" / "rates.csv").add(1, 1.0)
