"""What can go wrong while training, as one line for a person."""


class TrainingError(Exception):
    """Training cannot go on (the command ends with exit code 1). The message names the cause and the cure."""


class ConfigError(Exception):
    """The model cannot be built from these settings (the command ends with exit code 2)."""
