"""What can go wrong between a person and a cluster or an engine: one line each."""


class ClusterError(Exception):
    """Kubeflow Pipelines did not answer, said no, or its answer was lost."""

    passing = False
    """Whether the same request may succeed later."""


class FolderError(Exception):
    """A folder that must be written cannot be: exit code 1, for the same command succeeds once its rights are mended."""


class EngineError(Exception):
    """No container engine, no image, or a step that ran and left nothing whole."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        """That of the step that failed, where it is known."""
