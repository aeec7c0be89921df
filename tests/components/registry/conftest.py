"""A chain of real artifacts, digits with a briefly trained model, to register."""

from pathlib import Path

import pytest

from components.common import artifact
from components.common.settings import Settings
from components.embedding import sample
from components.reporting.inputs import read_inputs
from data.format import write_info
from tests.components.registry_artifacts import Inputs
from tests.components.report_inputs import Paths, make
from tests.conftest import Once


@pytest.fixture(scope="session")
def digits(once: Once) -> Paths:
    """Dataset, verdict, model, embeddings and probe by kind, and a report without its page."""

    def make_all(root: Path) -> None:
        paths = make(root)
        inputs = read_inputs(paths)
        taken = inputs.sample()
        assert taken is not None
        settings = Settings()
        with artifact.create(root / "report", "report", inputs.fingerprints) as folder:
            (folder / "report.html").write_text("<html>report</html>")
            sections = {name: settings.section(name).record() for name in ("data", "validate", "model", "train", "embed", "probe")}
            artifact.write_json(folder / "settings.json", sections)
            write_info(folder, inputs.dataset.info)
            sample.write(folder / sample.SAMPLE, taken)

    root = once("registered-digits", make_all)
    return {kind: root / kind for kind in ("dataset", "verdict", "model", "embeddings", "probe", "report")}


@pytest.fixture(scope="session")
def to_register(digits: Paths) -> Inputs:
    """Those that `dier register` is given."""
    return Inputs(**{kind: digits[kind] for kind in ("verdict", "model", "probe", "report")})
