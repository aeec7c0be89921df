"""Choosing timesteps without sweeping all of them: with a few labels, or with none."""
