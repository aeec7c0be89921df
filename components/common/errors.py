"""The exceptions of the steps; `pipeline.run_step` turns each into its exit code."""

from data.errors import DataError


class SettingsError(Exception):
    """Bad settings or usage: exit code 2."""


class ArtifactError(DataError):
    """An artifact is missing, incomplete, damaged or of another kind: exit code 3."""


class Drifted(Exception):
    """New images are not like those that a model was trained on; everything is written: exit code 4."""


class GateRefused(Exception):
    """The registration gate, or a promotion against it, said no: exit code 4."""
