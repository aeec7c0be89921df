"""The pipeline for Kubeflow Pipelines: definition, cluster settings, compiling, submitting, waiting."""
