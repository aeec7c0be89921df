"""What a registration is made from: four artifacts, read, checked, and found to belong together."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from components.common import artifact
from components.common.errors import ArtifactError
from components.common.lineage import check_one_run
from components.registry import package, provenance
from data.format import labelled


class Inputs:
    """The four input artifacts, read, checked, and found to belong together."""

    def __init__(self, verdict: Path, model: Path, probe: Path, report: Path) -> None:
        self.verdict = artifact.read(verdict, "verdict")
        self.model = artifact.read(model, "model")
        self.probe = artifact.read(probe, "probe")
        self.report = artifact.read(report, "report")
        self.dataset = self.model.made_from.get("dataset", "")
        check_one_run(self.verdict, self.model, self.probe, self.report)
        self.findings = self.verdict.json("verdict.json")
        self.summary = self.model.json("summary.json")
        self.metrics = self.probe.json("metrics.json")
        if not (self.probe.path / package.got_right(self.metrics)).is_file():
            raise ArtifactError(f"{self.probe.path} has no {package.got_right(self.metrics)}, which the gate needs: probe again")
        self.settings = self._settings()
        self.info = provenance.dataset_info(report)
        self.digest = artifact.digest({"model": self.model.fingerprint, "probe": self.probe.fingerprint})

    @property
    def labelled(self) -> bool:
        """Whether the labels tell images apart, so that there is an accuracy."""
        return labelled(self.metrics["task"], self.metrics["class_names"])

    @property
    def figure(self) -> float:
        """The test accuracy, or without labels the share of neighbours that test images keep."""
        return float(self.metrics["test"]["accuracy" if self.labelled else "kept"]["value"])

    @property
    def licence(self) -> str:
        """Of the data, in the words of whoever prepared them; unknown where nobody said."""
        return str(self.info.get("licence") or provenance.UNKNOWN)

    def _settings(self) -> dict[str, dict[str, Any]]:
        """The networks' configuration and every section that the artifacts tell; of model and train what the training kept."""
        found: dict[str, dict[str, Any]] = {"config": self.model.json("config.json")}
        for source in (self.report, self.model):
            if (source.path / "settings.json").is_file():
                found |= source.json("settings.json")
        found["data"] = found.get("data", {}) | {"name": self.metrics["dataset"]}  # prepare names a file or folder after itself
        return found

    def settings_of(self, sections: Iterable[str]) -> dict[str, dict[str, Any]]:
        """These sections, as far as the artifacts tell them."""
        return {name: self.settings[name] for name in sections if name in self.settings}

    def fingerprints(self) -> dict[str, str]:
        """What a registration is made from."""
        return {a.kind: a.fingerprint for a in (self.verdict, self.model, self.probe, self.report)}
