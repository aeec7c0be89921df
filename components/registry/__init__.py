"""MLflow as a registry: gate, versions, aliases, the packaged model and where it comes from."""
