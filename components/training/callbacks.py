"""Who watches a training: progress for a person, points for MLflow, looks at the embeddings, an end to what is in vain."""

from collections.abc import Callable, Sequence

from components.common.peak_memory import peak_memory
from components.common.progress import say, track
from components.tracking.live import LiveLog
from model.dier import DiER
from model.features import shuffled_gap
from model.training.curve import Point
from model.training.divergence import check_encoder, encoder_faded, encoder_is_dead
from model.training.options import Watch
from model.training.trainer import Trainer

GAP_TIMESTEPS = [0, 50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 999]
GAP_IMAGES = 500


def swapped(
    trainer: Trainer, ema: DiER, images: int = GAP_IMAGES, timesteps: Sequence[int] = GAP_TIMESTEPS
) -> list[dict[str, float]]:
    """What shuffling v_t costs at several t, on the first training images."""
    return shuffled_gap(ema, trainer.images[:images], list(timesteps), seed=trainer.config.seed, device=trainer.device)


def watch(trainer: Trainer, live: LiveLog, stop: Callable[[], int], min_gap: float) -> Watch:
    """Progress, points, whether a signal came. Ends a training whose encoder died (`min_gap` above 0)."""
    steps = track(range(trainer.config.steps), trainer.config.steps, "train", "steps")
    seen = looked = 0

    def step(done: int) -> None:
        nonlocal seen
        while seen < done:  # a resumed run starts with the steps it had
            next(steps, None)
            seen += 1
        if done == trainer.config.steps:
            next(steps, None)

    def point(row: Point, rate: float) -> None:
        nonlocal looked
        live.log(int(row["step"]), {**row, "images_per_second": rate, **peak_memory(trainer.device)})
        if min_gap and trainer.step >= 2 * looked and encoder_faded(trainer.curve):
            looked = trainer.step  # a healthy encoder's gradient falls as well, so this is asked seldom, and of few images
            gap = swapped(trainer, trainer.ema_model(), images=GAP_IMAGES // 2, timesteps=GAP_TIMESTEPS[1::2])
            if encoder_is_dead(row["ratio"] for row in gap):
                check_encoder(gap, min_gap, trainer.curve)

    return Watch(point=point, step=step, say=say, stop=stop)
