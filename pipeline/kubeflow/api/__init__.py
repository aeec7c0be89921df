"""The API of Kubeflow Pipelines: its client, logins, what failed requests mean, logs of pods."""
