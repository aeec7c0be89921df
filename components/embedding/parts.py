"""embed in parts, a timestep and a share of the shards each: the settings of every part, and the parts joined into the artifact
that one embed makes.

The files of a part are those that the whole artifact has (a file holds one shard of a split at one timestep), so joining copies
them and writes one manifest; nothing is decoded, and memory does not grow with the number of images.
"""

import json
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from components.common import artifact
from components.common.artifact import Artifact
from components.common.errors import ArtifactError, SettingsError
from components.common.progress import track
from components.common.settings import EmbedSettings
from components.embedding.store import PART, SELECTION

Place = tuple[int, int, int]
"""A timestep t, and the part k of n that is embedded at it."""


def split(embed_settings: EmbedSettings, parts: int = 1) -> list[EmbedSettings]:
    """The same settings once for each timestep and each of so many parts of the shards. Raises SettingsError for one part's own.

    With `embed.timesteps: auto` it is once for each part of the shards, which all choose alike. A list that is divided so stands,
    however many the images are: a task a timestep was asked for.
    """
    if embed_settings.part is not None:
        raise SettingsError(f"embed.part is {embed_settings.part}, which is for one task of several: leave it null to divide all")
    shares = [[number, parts] for number in range(parts)] if parts > 1 else [None]
    if not embed_settings.timesteps:
        return [embed_settings.model_copy(update={"part": part}) for part in shares]
    alone = embed_settings.model_copy(update={"k": 1, "auto_above": 0})
    return [alone.model_copy(update={"timesteps": [t], "part": part}) for t in embed_settings.timesteps for part in shares]


def join(embed_settings: EmbedSettings, parts: Sequence[Path], out: Path) -> None:
    """Write the embeddings artifact that `embed_settings` ask for, from artifacts that hold some of its timesteps and shards.

    It is bit for bit what one embed would have written. Raises ArtifactError where a part is missing, unfinished or damaged, was
    made from another dataset or model or with other settings, or where something is missing, there twice, or not asked for.
    """
    read = [artifact.read(part, _kind(part)) for part in parts]
    facts = [part.json("embeddings.json") for part in read]
    chosen = not embed_settings.timesteps or (
        embed_settings.chooses(sum(facts[0]["counts"].values())) and any((part.path / SELECTION).is_file() for part in read)
    )
    selection = _selection(embed_settings, read) if chosen else None
    timesteps = embed_settings.timesteps if selection is None else selection["timesteps"]
    _check_places([(t, *fact.get("part", (0, 1))) for fact in facts for t in fact["timesteps"]], timesteps)
    alike = [{name: value for name, value in fact.items() if name not in ("timesteps", "part", "k")} for fact in facts]
    wanted = {"splits": embed_settings.splits, "dtype": embed_settings.dtype, "precision": embed_settings.precision}
    for part, fact in zip(read, alike, strict=True):
        _check_alike(part, {"precision": "float32"} | fact, read[0], {"precision": "float32"} | alike[0] | wanted)
    with artifact.create(out, "embeddings", read[0].made_from) as folder:
        for part in track(read, len(read), "join", "parts"):
            for file in part.path.rglob("*.parquet"):
                place = folder / file.relative_to(part.path)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, place)
        together = {"k": embed_settings.k} if embed_settings.k > 1 else {}
        artifact.write_json(folder / "embeddings.json", alike[0] | {"timesteps": timesteps} | together)
        if selection is not None:
            artifact.write_json(folder / SELECTION, selection)


def _selection(settings: EmbedSettings, parts: Sequence[Artifact]) -> dict[str, Any]:
    """How every part chose its timesteps. Raises ArtifactError unless all chose, alike, and as these settings ask."""
    found: list[Any] = [part.json(SELECTION) if (part.path / SELECTION).is_file() else None for part in parts]
    for part, one in zip(parts, found, strict=True):
        asked = {"k": settings.k} | ({} if settings.select == "auto" else {"select": settings.select})
        told = None if one is None else {name: one[name] for name in asked}
        if told != asked:
            raise ArtifactError(
                f"{part.path} {'has given timesteps' if one is None else f'was chosen by {told}'} where {asked} is needed: "
                "embed every part with embed.timesteps auto and the same settings"
            )
        if one != found[0]:
            raise ArtifactError(
                f"{part.path} chose t = {one['timesteps']}, {parts[0].path} {found[0]['timesteps']}, or by other scores: "
                "embed all parts on machines that are alike, or give embed.timesteps"
            )
    return dict(found[0])


def _kind(part: Path) -> str:
    """What to read it as: of a part alone, or of embeddings, where it is neither as well."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        if json.loads((part / artifact.MANIFEST).read_text("utf-8"))["kind"] == PART:
            return PART
    return "embeddings"


def _check_places(found: Sequence[Place], timesteps: Sequence[int]) -> None:
    divided = {t: sorted({n for other, _, n in found if other == t}) for t in timesteps}
    for t, numbers in divided.items():
        if len(numbers) > 1:
            raise ArtifactError(
                f"the embeddings to join divide the shards at t = {t} into {' and '.join(map(str, numbers))} parts: "
                "embed all parts of a timestep with one n in embed.part [k, n]"
            )
    wanted = {(t, k, n) for t, numbers in divided.items() for n in numbers or [1] for k in range(n)}
    twice = {place for place in found if found.count(place) > 1}
    odd = "hold, beside those of embed.timesteps,"
    for what, places in (("hold twice", twice), ("lack", wanted - set(found)), (odd, set(found) - wanted)):
        if places:
            raise ArtifactError(
                f"the {len({t for t, _, _ in found})} timesteps of embeddings to join {what} t = {_named(places)}: "
                f"give every part of each of embed.timesteps {list(timesteps)} once"
            )


def _named(places: Iterable[Place]) -> str:
    return ", ".join(f"{t}" if n == 1 else f"{t} (part {k} of {n})" for t, k, n in sorted(places))


def _check_alike(part: Artifact, fact: dict[str, Any], first: Artifact, expected: dict[str, Any]) -> None:
    for name, value in first.made_from.items():
        if part.made_from.get(name) != value:
            raise ArtifactError(
                f"{part.path} was made from the {name} {part.made_from.get(name)}, {first.path} from {value}: "
                f"embed every part from the same {name}"
            )
    for name in sorted(expected.keys() | fact.keys()):
        if fact.get(name) != expected.get(name):
            raise ArtifactError(
                f"{part.path} has {name} {fact.get(name)} where {expected.get(name)} is needed: "
                "embed every part with the same settings, on machines that are alike"
            )
