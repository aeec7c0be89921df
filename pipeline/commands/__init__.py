"""The `dier` commands that are neither steps nor local: what a person says to the model registry, and to a cluster."""
