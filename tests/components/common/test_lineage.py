from pathlib import Path

import pytest

from components.common import artifact
from components.common.artifact import Artifact
from components.common.errors import ArtifactError
from components.common.lineage import MADE_FROM, check_one_run


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Artifact]:
    """An artifact of each kind, of one run."""
    found: dict[str, Artifact] = {}
    for kind, sources in MADE_FROM.items():
        with artifact.create(tmp_path / kind, kind, {source: found[source].fingerprint for source in sources}):
            pass
        found[kind] = artifact.read(tmp_path / kind, kind)
    return found


def test_artifacts_of_one_run_belong_together_also_where_some_are_not_given(made: dict[str, Artifact]) -> None:
    check_one_run(*made.values())
    check_one_run(made["verdict"], made["model"], made["report"])


@pytest.mark.parametrize("recorded", [{"dataset": "0" * 64}, {}], ids=["another", "none"])
def test_an_artifact_of_another_dataset_is_refused_whether_or_not_the_dataset_is_given(
    made: dict[str, Artifact], tmp_path: Path, recorded: dict[str, str]
) -> None:
    with artifact.create(tmp_path / "other", "verdict", recorded):
        pass
    other = artifact.read(tmp_path / "other", "verdict")
    with pytest.raises(ArtifactError, match=r"the verdict .*other was not made from the dataset .* give artifacts of one run"):
        check_one_run(made["dataset"], other)
    with pytest.raises(ArtifactError, match=r"the model .* was made from another dataset than the verdict .*other"):
        check_one_run(other, made["model"])
