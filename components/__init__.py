"""One module a step: a plain function that reads artifacts, calls `model` and `data`, and writes an artifact."""
