"""Where a version comes from, beyond the fingerprints of its artifacts: commits, environment, DVC's outputs, the data's licence."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from components.common.artifact import Artifact
from components.registry import versions
from components.tracking.environment import COMMIT_TAG, DIRTY_TAG, ENVIRONMENT_TAG, environment, git_tags, read_json
from model.atomic import canonical_json

LOCK = "dvc.lock"
DVC_TAG = "dier.dvc"
"""Of each artifact what DVC's cache and remotes have it under, as JSON: `{"dataset": "1a2b....dir", ...}`."""
TRAINED = {COMMIT_TAG: "dier.trained_git_commit", DIRTY_TAG: "dier.trained_git_dirty"}
"""By tag of the training's run the version's: a training may be older than the process that registers what came of it."""
LICENCE_TAG, USE_TAG = "dier.licence", "dier.use"
NON_COMMERCIAL = "non-commercial"
"""The value of USE_TAG where the data's licence allows nothing else; without the tag the licence says what is allowed."""
UNKNOWN = "unknown"


_AT_MOST_FOUR = r"(?: \w+){0,4} "
_NC = re.compile(
    r"\bnon ?commercial"
    r"|(?:\b|by)nc(?:sa|nd)?\d*\b"  # CC BY-NC, BYNC, BY-NC4.0; not "INC.", not "by NCBI"
    rf"|\b(?:no|not|never|without|except|excluding|prohibits?|forbids?|cannot){_AT_MOST_FOUR}commercial"
    rf"|\bcommercial\w*{_AT_MOST_FOUR}(?:not|never|cannot|isnt|arent|prohibited|forbidden|excluded|disallowed|restricted)\b"
    r"|\b(?:research|academic|educational|personal)(?: \w+){0,3} only\b"
    r"|\bonly(?: \w+){0,3} (?:research|academic|educational|personal)\b"
)


def tags(report: Path, trained: Mapping[str, str]) -> dict[str, str]:
    """What a version says, when it is made and never again, of where it comes from.

    `report` is the artifact that is registered, `trained` the tags of the training's run.
    """
    found = {ENVIRONMENT_TAG: canonical_json(environment()), **git_tags(Path.cwd())}
    found |= {tag: trained[told] for told, tag in TRAINED.items() if told in trained}
    outputs = dvc_outputs(Path.cwd(), report)
    return found | ({DVC_TAG: canonical_json(outputs)} if outputs else {})


def report_tags(told: Mapping[str, str], report: Artifact) -> dict[str, str]:
    """What changes in a version that says `told` when it is registered with another report, whose digest in DVC may be unknown.

    REPORT_TAG comes last: whoever was killed before it does this again.
    """
    outputs = dvc_outputs(Path.cwd(), report.path)
    if not outputs:
        outputs = {name: digest for name, digest in read_json(told.get(DVC_TAG)).items() if name != report.kind}
    return ({DVC_TAG: canonical_json(outputs)} if outputs or DVC_TAG in told else {}) | {versions.REPORT_TAG: report.fingerprint}


def licence_tags(licence: str) -> dict[str, str]:
    """What a version says of its data's licence."""
    return {LICENCE_TAG: licence} | ({USE_TAG: NON_COMMERCIAL} if non_commercial(licence) else {})


def non_commercial(licence: str) -> bool:
    """Whether a licence, in whatever words it is written, rules out commercial use: CC BY-NC 4.0, research only.

    Where words are read wrongly it is rather on this side: "no restrictions on commercial use" counts too.
    """
    plain = unicodedata.normalize("NFKC", licence).casefold().replace("'", "").replace("\u2019", "")
    return _NC.search(re.sub(r"(?:[^\w.,;:()]|_)+", " ", plain)) is not None


def dvc_outputs(folder: Path, report: Path) -> dict[str, str]:
    """By artifact what `dvc.lock` in `folder` calls those behind `report`; {} where it tells of another run, or DVC made none.

    The stage that made the report lists what it was made from. That it is this very report shows in its digest, which is
    computed as DVC does.
    """
    try:
        stages = yaml.safe_load((folder / LOCK).read_text("utf-8"))["stages"].values()
        outputs = {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", ())}
        place = report.resolve().relative_to(folder.resolve()).as_posix()
        made = next(stage for stage in stages if any(out["path"] == place for out in stage.get("outs", ())))
        if outputs[place] != _dvc_digest(report):
            return {}
        behind = {one["path"]: one["md5"] for one in made["deps"] if one["path"] in outputs}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration, yaml.YAMLError):
        return {}  # no DVC here, or not in this folder
    return {Path(path).name: md5 for path, md5 in {**behind, place: outputs[place]}.items()}


def _dvc_digest(folder: Path) -> str:
    """A folder's digest as DVC 3 has it: md5 of the JSON list of its files and their md5 (dvc_data, hashfile/tree.py)."""
    rows = []
    for file in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        if file.is_file():
            with file.open("rb") as opened:
                digest = hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            rows.append({"md5": digest, "relpath": file.relative_to(folder).as_posix()})
    return hashlib.md5(json.dumps(rows, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def dataset_info(report: Path) -> dict[str, Any]:
    """What the dataset says of itself, as the report keeps it; {} for a report of before it did."""
    file = report / "dataset.json"
    return json.loads(file.read_text("utf-8")) if file.is_file() else {}
