"""Whether artifacts belong together: each records the fingerprints of what it was made from."""

from components.common.artifact import Artifact
from components.common.errors import ArtifactError

MADE_FROM = {
    "dataset": (),
    "verdict": ("dataset",),
    "model": ("dataset", "verdict"),
    "embeddings": ("dataset", "model"),
    "probe": ("dataset", "model", "embeddings"),
    "report": ("dataset", "verdict", "model", "embeddings", "probe"),
}
"""What an artifact of each kind is made from; the registry's `registration` is made last and nothing is made from it."""


def check_one_run(*artifacts: Artifact) -> None:
    """Raise ArtifactError unless the artifacts are of one run: made from one another, and otherwise from the same ones."""
    known = {one.kind: (one.fingerprint, one) for one in artifacts}
    for made in artifacts:
        for kind in MADE_FROM[made.kind]:
            recorded = made.made_from.get(kind, "none")
            expected, other = known.setdefault(kind, (recorded, made))
            if recorded != expected:
                wrong = f"not made from the {kind}" if other.kind == kind else f"made from another {kind} than the {other.kind}"
                raise ArtifactError(
                    f"the {made.kind} {made.path} was {wrong} {other.path} ({recorded[:12]} where {expected[:12]} is needed): "
                    f"give artifacts of one run, or make the {made.kind} again"
                )
