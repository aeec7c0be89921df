"""DiER itself (arXiv 2505.05732): schedule, encoder, denoiser, loss, trainer, checkpoints, features.

Knows tensors; knows no dataset name, no MLflow, no DVC, no Kubeflow. Imports here are relative, so that a
registered model can carry this package under a name of its own.
"""
