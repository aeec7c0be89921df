"""embed in parts, a timestep each: the settings of every part, and the parts joined into the artifact that one embed makes.

The files of a part are those that the whole artifact has (a file holds one split at one timestep), so joining copies them and
writes one manifest; nothing is decoded, and memory does not grow with the number of images.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from components.common import artifact
from components.common.artifact import Artifact
from components.common.errors import ArtifactError
from components.common.progress import track
from components.common.settings import EmbedSettings


def split(embed_settings: EmbedSettings) -> list[EmbedSettings]:
    """The same settings once for each timestep, with that timestep alone."""
    return [embed_settings.model_copy(update={"timesteps": [t]}) for t in embed_settings.timesteps]


def join(embed_settings: EmbedSettings, parts: Sequence[Path], out: Path) -> None:
    """Write the embeddings artifact that `embed_settings` ask for, from embeddings artifacts that hold some of its timesteps.

    It is bit for bit what one embed would have written. Raises ArtifactError where a part is missing, unfinished or damaged, was
    made from another dataset or model or with other settings, or where a timestep is missing, there twice, or not asked for.
    """
    read = [artifact.read(part, "embeddings") for part in parts]
    facts = [part.json("embeddings.json") for part in read]
    timesteps = [t for fact in facts for t in fact["timesteps"]]
    _check_timesteps(timesteps, embed_settings.timesteps)
    common = {"splits": embed_settings.splits, "dtype": embed_settings.dtype}
    for part, fact in zip(read, facts, strict=True):
        _check_alike(part, fact, read[0], facts[0] | common)
    with artifact.create(out, "embeddings", read[0].made_from) as folder:
        for part in track(read, len(read), "join", "parts"):
            for file in part.path.glob("*/*.parquet"):
                place = folder / file.relative_to(part.path)
                place.parent.mkdir(exist_ok=True)
                shutil.copyfile(file, place)
        artifact.write_json(folder / "embeddings.json", facts[0] | {"timesteps": embed_settings.timesteps})


def _check_timesteps(found: Sequence[int], wanted: Sequence[int]) -> None:
    twice = sorted({t for t in found if found.count(t) > 1})
    missing, odd = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    for what, timesteps in (("hold twice", twice), ("lack", missing), ("hold, beside those of embed.timesteps,", odd)):
        if timesteps:
            raise ArtifactError(
                f"the {len(found)} timesteps of embeddings to join {what} t = {', '.join(map(str, timesteps))}: "
                f"give one part for each of embed.timesteps {list(wanted)}"
            )


def _check_alike(part: Artifact, fact: dict[str, object], first: Artifact, expected: dict[str, object]) -> None:
    for name, value in first.made_from.items():
        if part.made_from.get(name) != value:
            raise ArtifactError(
                f"{part.path} was made from the {name} {part.made_from.get(name)}, {first.path} from {value}: "
                f"embed every part from the same {name}"
            )
    for name in expected.keys() - {"timesteps"}:
        if fact.get(name) != expected[name]:
            raise ArtifactError(
                f"{part.path} has {name} {fact.get(name)} where {expected[name]} is needed: embed every part with the same settings"
            )
