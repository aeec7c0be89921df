"""Gates, held to from the artifacts that they stand in: the verdict on the data, the registration of the model, a monitoring.

The step that writes such an artifact ends by holding to it. On Kubeflow, where a failed task keeps nothing but its log, the step
ends well and a task of its own holds to the artifact (`dier gate`).
"""

from pathlib import Path
from typing import Any

from components.common import artifact
from components.common.errors import Drifted, GateRefused
from components.common.progress import say
from data.errors import DataError


def check_verdict(verdict: Path, docs: str | None = None) -> None:
    """Raises DataError where an expectation of severity `error` failed, ArtifactError for no whole verdict.

    `docs` says where a person finds the Data Docs, if not in the artifact's own folder.
    """
    found = artifact.read(verdict, "verdict").json("verdict.json")
    if not found["passed"]:
        failed = [check for check in found["expectations"] if check["severity"] == "error" and not check["passed"]]
        each = [f"{check['name']} is {check['observed']}, allowed {check['limit']} ({check['message']})" for check in failed]
        cure = f"see {docs or verdict / 'docs' / 'index.html'}, then mend the data or, where one is named, raise the limit"
        raise DataError(f"validation failed: {'; '.join(each)}; {cure}")


def check_registration(registration: Path) -> None:
    """Say what was registered. Raises GateRefused where the gate said no, ArtifactError for no whole registration."""
    made: dict[str, Any] = artifact.read(registration, "registration").json("registration.json")
    name, version, gate = made["name"], made["version"], made["gate"]
    reasons = "; ".join(gate["reasons"])
    if not gate["passed"]:
        raise GateRefused(
            f"the gate refused {name} version {version}: {reasons}. It is registered without an alias; better the model, or: "
            f"dier promote {name} --version {version} --force --reason TEXT"
        )
    held = ", ".join(made["aliases"]) or "no alias"
    say(f"registered {name} version {version} ({held}); gate {gate['verdict']}: {reasons}")


def check_monitoring(monitoring: Path) -> None:
    """Say what was found of new images. Raises Drifted where they drift, ArtifactError for no whole monitoring."""
    found: dict[str, Any] = artifact.read(monitoring, "monitoring").json("monitor.json")
    images, test, share = found["images"], found["test"], found["unlike"]["share"]
    if found["drifted"]:
        cure = f"look at {monitoring / 'index.html'}; where the new ones are to count, train on them too"
        raise Drifted(f"{images} new images drift: {'; '.join(found['reasons'])}; {cure}")
    unlike = f"{100 * share:.1f} % of them unlike those trained on"
    say(f"no drift in {images} images: p = {test['p']:g}, {unlike}; {monitoring / 'index.html'}")
