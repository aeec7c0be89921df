"""The compiled pipeline in containers on this machine."""
