"""Versions and runs on a cluster: stored, started, scheduled, watched, listed, retried, ended."""
