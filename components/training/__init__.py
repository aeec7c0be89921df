"""What watches and stops a training: callbacks, the online probe, signals."""
