"""What can go wrong between a person and a cluster or an engine: one line each, exit code 1."""


class ClusterError(Exception):
    """Kubeflow Pipelines did not answer, said no, or its answer was lost."""

    passing = False
    """Whether the same request may succeed later."""


class EngineError(Exception):
    """No container engine, no image, or a step that ran and left nothing whole."""
