"""What goes on beside a training: progress for a person, live metrics for MLflow, an end to a training that is in vain."""

from collections.abc import Callable, Mapping

from torch import Tensor

from components.common.peak_memory import peak_memory
from components.common.progress import say, track
from components.tracking.energy import Meter
from components.tracking.live import LiveLog
from model.errors import PermanentTrainingError
from model.features import GAP_IMAGES, shuffled_gap
from model.rng import sample_rows
from model.training.callback import Callback
from model.training.curve import Point
from model.training.divergence import encoder_faded, encoder_is_dead, unused_encoder
from model.training.trainer import Trainer

GAP_TIMESTEPS = [0, 50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 999]


class StopOnSignal(Callback):
    """Ends the training after a step during which a signal came; `came` gives its number, 0 = none."""

    def __init__(self, came: Callable[[], int]) -> None:
        self._came = came

    def stop_requested(self) -> int:
        """The signal's number."""
        return self._came()


class Progress(Callback):
    """A progress bar, or lines, and the trainer's messages."""

    def __init__(self, steps: int) -> None:
        self._bar, self._shown = track(range(steps), steps, "train", "steps"), -1

    def on_step(self, trainer: Trainer) -> None:
        """Move on; a resumed training starts with the steps that it had."""
        while self._shown < trainer.step:
            next(self._bar, None)
            self._shown += 1

    def on_message(self, message: str) -> None:
        """Say it."""
        say(message)


class LiveMetrics(Callback):
    """Each point of the curve to MLflow, and figures that are in no artifact, as they differ from run to run."""

    def __init__(self, live: LiveLog) -> None:
        self._live, self._meter = live, Meter()

    def on_point(self, trainer: Trainer, point: Point, images_per_second: float) -> None:
        """Log it. A new live metric is one more entry here."""
        metrics = {"images_per_second": images_per_second, **peak_memory(trainer.device)}
        joules = self._meter.joules()
        if joules is not None and trainer.device.type == "cpu" and trainer.processes.count == 1:  # else it is but a part
            metrics["joules"] = joules
        self._live.log(int(point["step"]), {**point, **metrics})


class DeadEncoder(Callback):
    """Ends a training whose encoder died, which the loss alone does not show."""

    def __init__(self, min_gap: float) -> None:
        self._min_gap, self._measured = min_gap, 0

    def on_point(self, trainer: Trainer, point: Point, images_per_second: float) -> None:
        """Measure the gap when the encoder's gradient faded. Raises PermanentTrainingError where v_t has no effect at any t."""
        if trainer.step < 2 * self._measured or not encoder_faded(trainer.curve):
            return
        self._measured = trainer.step  # a healthy encoder's gradient falls as well, so this is done seldom, and on few images
        gap = gap_in_training(trainer, images=GAP_IMAGES // 2, every=2)
        if encoder_is_dead(row["ratio"] for row in gap) and (line := unused_encoder(gap, self._min_gap, trainer.curve)):
            raise PermanentTrainingError(line)


def gap_in_training(
    trainer: Trainer, weights: Mapping[str, Tensor] | None = None, images: int = GAP_IMAGES, every: int = 1
) -> list[dict[str, float]]:
    """What shuffling v_t costs at GAP_TIMESTEPS (the last of each `every`) on training images; of the average by default."""
    timesteps = GAP_TIMESTEPS[every - 1 :: every]
    ema = trainer.ema_model(weights)
    chosen = trainer.images[sample_rows(trainer.config.seed, len(trainer.images), trainer.shards, images)]
    return shuffled_gap(ema, chosen, timesteps, seed=trainer.config.seed, limit=images, device=trainer.device)
