"""What a version carries for people and for `dier verify`, beside what it runs on: the model card, and a sample of test images."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.common.settings import RegisterSettings
from components.embedding import sample
from components.embedding.sample import SAMPLE, Sample
from components.registry import card, package, provenance
from components.registry.inputs import Inputs
from components.tracking.client import Run
from components.tracking.cost import training_cost

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Documents:
    """The facts of the card, and the sample; None where the report has none."""

    facts: card.Facts
    sample: Sample | None

    @classmethod
    def of(cls, client: "MlflowClient", settings: RegisterSettings, run: Run, inputs: Inputs) -> "Documents":
        """Gather them."""
        taken = allowed(settings, inputs.report.path / SAMPLE, inputs.licence)
        training = inputs.settings.get("train", {})
        facts = card.Facts(
            name=settings.name,
            info=inputs.info,
            dataset=inputs.dataset,
            licence=inputs.licence,
            metrics=inputs.metrics,
            summary=inputs.summary,
            verdict=inputs.findings,
            settings=inputs.settings,
            curve=inputs.probe.path / "curve.csv",
            right=inputs.probe.path / package.PREDICTIONS,
            sampled=_in_words(taken),
            cost=training_cost(client, run, training, int(inputs.summary["steps"])),
        )
        return cls(facts, taken)

    def write(self, folder: Path) -> None:
        """Put them among the files of a version."""
        (folder / card.CARD).write_text(card.card(self.facts), "utf-8")
        if self.sample is not None:
            sample.write(folder / SAMPLE, self.sample)


def allowed(settings: RegisterSettings, file: Path, licence: str) -> Sample | None:
    """The report's sample as it may go along: whoever may read the registry sees it, and can give it on.

    With `auto` without images where nobody said under which licence they are: they may be somebody's own, or of people.
    """
    if not file.is_file():
        return None
    found = sample.read(file)
    with_images = settings.sample == "images" or (settings.sample == "auto" and licence != provenance.UNKNOWN)
    return found if with_images else found.without_images()


def _in_words(taken: Sample | None) -> str:
    if taken is None:
        return "none"
    what = "their embeddings alone" if taken.images is None else "images and embeddings"
    return f"{len(taken.index)} of {taken.facts['of']}: {what}"
