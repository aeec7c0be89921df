"""What the training key says of the code: what it does, not how it is written."""

from pathlib import Path

import pytest

from model.training.run_configuration import code_digests, differences

CODE = '''"""A module."""

import math

LIMIT = 2.0
"""A constant."""


class Net:
    """A class."""

    def area(self, r: float) -> float:
        """A method."""
        return math.pi * r**2 + LIMIT


class Empty:
    """Nothing else."""


def field() -> object:
    return dict(le=1, description="what it is for")
'''


def digests(folder: Path, code: str = CODE) -> dict[str, str]:
    (folder / "model" / "training").mkdir(parents=True, exist_ok=True)
    (folder / "model" / "net.py").write_text(code)
    (folder / "model" / "training" / "loop.py").write_text("STEPS = 1\n")
    return code_digests(folder / "model")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("import math", "import math  # for pi"),
        ('"""A module."""', '"""Another one."""'),
        ('"""A module."""\n', ""),
        ('"""A constant."""', '"""Of what?"""'),
        ('"""A method."""', '"""Of a circle."""'),
        ('        """A method."""\n', ""),
        ("\n\n\nclass", "\n\n\n\nclass"),
        ("math.pi * r**2 + LIMIT", "(\n            math.pi * r ** 2 + LIMIT\n        )"),
        ('description="what it is for"', 'description="what it is not for"'),
    ],
)
def test_words_and_layout_do_not_count(tmp_path: Path, old: str, new: str) -> None:
    assert old in CODE
    assert digests(tmp_path / "a") == digests(tmp_path / "b", CODE.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [("r**2", "r**3"), ("* r", "/ r"), ("= 2.0", "= 2"), ("LIMIT\n", "1\n"), ("le=1", "lt=1"), ("import math", "import math, os")],
)
def test_whatever_is_done_otherwise_counts(tmp_path: Path, old: str, new: str) -> None:
    before, after = digests(tmp_path / "a"), digests(tmp_path / "b", CODE.replace(old, new))
    assert before["model/net.py"] != after["model/net.py"]
    assert before["model/training/loop.py"] == after["model/training/loop.py"]


def test_a_file_in_a_folder_below_counts(tmp_path: Path) -> None:
    assert set(digests(tmp_path)) == {"model/net.py", "model/training/loop.py"}


def test_the_digest_does_not_depend_on_the_version_of_python(tmp_path: Path) -> None:
    """Written down once: a training key made on one machine is to be that of another one."""
    assert digests(tmp_path)["model/net.py"][:12] == "efb5568c3150"


def test_differences_name_both_values_and_stay_one_line() -> None:
    then = {f"train.{i}": i for i in range(20)} | {"same": [1, 2]}
    line = differences(then, {name: -value for name, value in then.items() if name != "same"} | {"same": [1, 2]})
    assert line.startswith("train.1 was 1, is -1; ")
    assert line.endswith("; and 11 more")
