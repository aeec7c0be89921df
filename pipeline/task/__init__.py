"""What runs inside a Kubeflow task: a step, in one process or several, and what Kubeflow is told of it."""
