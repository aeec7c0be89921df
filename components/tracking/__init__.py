"""MLflow as a log of trainings: client, live metrics, their spool on disk, the completed run."""
