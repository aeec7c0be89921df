"""Step report: one self-contained HTML page that shows what a run found, and how far to trust it."""

from pathlib import Path

from components.common import artifact
from components.common.progress import say
from components.common.settings import DataSettings, EmbedSettings, ModelSettings, ProbeSettings, TrainSettings, ValidateSettings
from components.embedding import sample
from components.reporting.inputs import read_inputs
from components.reporting.page import page
from data.format import write_info


def run(
    data_settings: DataSettings,
    validate_settings: ValidateSettings,
    model_settings: ModelSettings,
    train_settings: TrainSettings,
    embed_settings: EmbedSettings,
    probe_settings: ProbeSettings,
    dataset: Path,
    verdict: Path,
    model: Path,
    embeddings: Path,
    probe: Path,
    out: Path,
) -> None:
    """Write a `report` artifact: `report.html`, every step's settings, what the dataset says of itself, a sample of test images.

    The last two are for the registry, which is handed no dataset. The same inputs give the same bytes. Raises ArtifactError when an
    artifact is damaged or the five do not belong together.
    """
    inputs = read_inputs({"dataset": dataset, "verdict": verdict, "model": model, "embeddings": embeddings, "probe": probe})
    sections = {
        "data": data_settings,
        "validate": validate_settings,
        "model": model_settings,
        "train": train_settings,
        "embed": embed_settings,
        "probe": probe_settings,
    }
    text, sampled = page(inputs, sections), inputs.sample()
    with artifact.create(out, "report", inputs.fingerprints) as folder:
        (folder / "report.html").write_text(text, "utf-8")
        artifact.write_json(folder / "settings.json", {name: section.record() for name, section in sections.items()})
        write_info(folder, inputs.dataset.info)
        if sampled is not None:
            sample.write(folder / sample.SAMPLE, sampled)
    say(f"report: {out / 'report.html'}")
