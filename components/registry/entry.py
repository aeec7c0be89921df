"""What an entry of the record of promotions says, and how it is read back: from a version's tags, whatever was done to them."""

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

ENTRY, MOVED, WITHDRAWN = "dier.promotion", "dier.moved", "dier.withdrawn"
"""Tags of an entry: what it says, as JSON; that its alias was moved; why it was not, and will not be."""
BEFORE = "dier.promotion."
"""Until 0.1 a promotion was a tag of the model itself, named after its time. Those are read, and none is written."""
PROMOTE, ROLLBACK, AUTO = "promote", "rollback", "auto"
UNREADABLE = "unreadable"
"""Kind of an entry that was damaged, or written by a later dier in another form: it is shown, and moves nothing."""


@dataclass(frozen=True)
class Entry:
    """One promotion; `number` is its place in the record (0: from before there was one), `before` and `to` are versions."""

    alias: str
    before: int | None
    to: int
    who: str
    when: str
    """ISO 8601, UTC, by the clock of who promoted. For people: the order is that of the numbers."""
    why: str
    gate: str
    forced: bool = False
    kind: str = PROMOTE
    follows: int = 0
    """Number of the promotion of this alias that was the last when this one was decided on; 0: there was none."""
    seal: str = ""
    """Digest of the promotion that this one follows, so that one changed or removed afterwards is seen."""
    token: str = ""
    number: int = 0
    digest: str = ""
    moved: bool = False
    withdrawn: str | None = None

    @property
    def pending(self) -> bool:
        """Whether the alias is still to be moved: somebody is at it, or died over it."""
        return not self.moved and self.withdrawn is None


READ = ("number", "digest", "moved", "withdrawn")
"""Fields of an entry that are not part of what it says."""
SAYS = TypeAdapter(Entry)
_DAMAGED = Entry(alias="", before=None, to=0, who="", when="", why="", gate="", kind=UNREADABLE, withdrawn=UNREADABLE)


def text_of(entry: Entry, model: "RegisteredModel") -> str:
    """What an entry says, as JSON, as `read_entry` takes it."""
    says = {key: value for key, value in vars(entry).items() if key not in READ}
    return json.dumps({**says, "of": model.creation_timestamp}, ensure_ascii=False)


def read_entry(version: "ModelVersion", model: "RegisteredModel") -> Entry | None:
    """An entry as the store has it; None for one of an earlier model of the same name, which was deleted, and for what is none."""
    text, tags = version.tags.get(ENTRY, "{}"), version.tags
    try:
        said = json.loads(text)
        if said.get("of") != model.creation_timestamp:
            return None
        entry = _entry(said)
    except (ValueError, AttributeError):
        return replace(_DAMAGED, number=int(version.version))
    moved, digest = MOVED in tags, hashlib.sha256(text.encode()).hexdigest()[:16]
    return replace(entry, number=int(version.version), digest=digest, moved=moved, withdrawn=None if moved else tags.get(WITHDRAWN))


def entry_of_tag(value: str) -> Entry:
    """An entry as it was written until 0.1."""
    try:
        said = json.loads(value)
        return replace(_entry({**said, "before": said["from"]}), moved=True)
    except (ValueError, TypeError, KeyError):
        return _DAMAGED


def _entry(said: dict[str, Any]) -> Entry:
    """What an entry says, of what this dier knows. Raises ValueError where anything is missing, or of another type."""
    entry = SAYS.validate_python({key: value for key, value in said.items() if key not in READ})
    if datetime.fromisoformat(entry.when).tzinfo is None:
        raise ValueError(f"when {entry.when} without a time zone")
    return entry


def made_since(entry: Entry, since: datetime | None) -> bool:
    """Whether an entry was written after `since`, so that whoever asked then could not know of it.

    One in the future says that clocks differ: then only the order of the record tells, which needs none.
    """
    return since is not None and since <= datetime.fromisoformat(entry.when) <= datetime.now(UTC)
