"""What can go wrong while training, as one line for a person."""


class TrainingError(Exception):
    """Training cannot go on (the command ends with exit code 1). The message names the cause and the cure."""


class PermanentTrainingError(TrainingError):
    """Training failed as the same data, settings and seed must fail again (the command ends with exit code 5)."""


class ConfigError(Exception):
    """The model cannot be built from these settings (the command ends with exit code 2)."""


class CheckpointError(TrainingError):
    """A running checkpoint cannot be written, or none that is there can be used. What was saved before stays."""


class Stopped(KeyboardInterrupt):
    """A signal asked training to stop; it finished its step and saved it. An interruption: `except Exception` lets it by."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
        """What a shell reports of a process that this signal ended: 130 for SIGINT, 143 for SIGTERM."""
