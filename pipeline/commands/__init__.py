"""The `dier` commands that are neither steps nor local: what a person says to a cluster."""
