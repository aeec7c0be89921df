"""How DiER is trained: loop, options, checkpoints, several processes. A registered model carries none of it."""
