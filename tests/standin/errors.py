"""How a Kubeflow installation says no: one kind of error for each part that can."""


class StandInError(Exception):
    """Something that the servers refuse, in their words."""


class CompileError(StandInError):
    """The API server cannot make a workflow of the pipeline."""


class DriverError(StandInError):
    """The driver's pod ends with exit code 1: the task has no execution."""


class LauncherError(StandInError):
    """The launcher ends with exit code 1, before or after the step."""


class PodRefused(StandInError):
    """Kubernetes takes no such pod: an invalid name, or Pod Security."""


class PodStuck(StandInError):
    """Kubernetes took the pod and cannot start it: it stays Pending."""


class ApiError(StandInError):
    """A request that the API server answers with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Unsupported(StandInError):
    """The stand-in does not know the rule: add it, with its source, rather than guess."""
