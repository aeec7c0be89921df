"""The pipeline for Kubeflow Pipelines: definition and compiling, cluster settings, submitting, waiting."""
