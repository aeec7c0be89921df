"""`dier summary`: what it says of the registry. The whole of it is read after a run by `make run`."""

import pytest

from pipeline.run_summary import _registry


@pytest.mark.parametrize(
    ("passed", "verdict", "says"), [(True, "passed", "passed"), (True, "uncompared", "uncompared"), (False, "refused", "REFUSED")]
)
def test_the_gates_verdict_is_the_one_of_the_registration(passed: bool, verdict: str, says: str) -> None:
    gate = {"passed": passed, "verdict": verdict, "reasons": ["a reason"]}
    lines = _registry({"name": "dier", "version": 2, "gate": gate, "aliases": ["candidate"]}).splitlines()
    assert lines[0].split() == ["gate", says]
    assert lines[1].strip() == "a reason"
