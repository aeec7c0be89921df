"""The linear probe: which representations, how they are fitted, scored and compared."""
