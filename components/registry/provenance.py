"""Where a version comes from, beyond the fingerprints of its artifacts: commit, environment, DVC's outputs, the data's licence."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import yaml

from components.registry import versions
from components.tracking.environment import ENVIRONMENT_TAG, environment
from model.atomic import canonical_json

LOCK = "dvc.lock"
DVC_TAG = "dier.dvc"
"""Of each artifact what DVC's cache and remotes have it under, as JSON: `{"dataset": "1a2b....dir", ...}`."""
LICENCE_TAG, USE_TAG = "dier.licence", "dier.use"
NON_COMMERCIAL = "non-commercial"
"""The value of USE_TAG where the data's licence allows nothing else; without the tag the licence says what is allowed."""
UNKNOWN = "unknown"


def tags(report: Path, licence: str) -> dict[str, str]:
    """What a version says of where it comes from; `report` is the artifact that is registered, `licence` its data's."""
    found = {
        LICENCE_TAG: licence,
        ENVIRONMENT_TAG: canonical_json(environment()),
        **versions.git_tags(Path.cwd()),
    }
    if non_commercial(licence):
        found[USE_TAG] = NON_COMMERCIAL
    outputs = dvc_outputs(Path.cwd(), report)
    return found | ({DVC_TAG: canonical_json(outputs)} if outputs else {})


def non_commercial(licence: str) -> bool:
    """Whether a licence, in whatever words it is written, rules out commercial use: CC BY-NC 4.0, non-commercial use only."""
    return re.search(r"\bNC\b|non-?\s?commercial|(not for|no) commercial", licence, re.IGNORECASE) is not None


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
