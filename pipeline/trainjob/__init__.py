"""Training on several nodes as a TrainJob of Kubeflow Trainer: manifest, client, and the task that makes one and waits."""
