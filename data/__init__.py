"""Image sets: where they come from, the one on-disk format, its expectations, the batches."""
