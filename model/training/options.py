"""How to train: the settings that the trainer reads. The section `train` of params.yaml is these and what the step adds."""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ..config import NUM_TIMESTEPS
from .fields import Float, Int, Off, Section, Share


class TrainConfig(Section):
    """How the model is trained."""

    steps: Int = Field(4000, ge=1, description="optimizer steps")
    batch_size: Int = Field(64, ge=2, description="images a step, over all processes")
    micro_batch: Annotated[Int, Field(ge=1)] | None = Field(
        None, description="images at a time on a device, gradients summed over them; null = all of a process's"
    )
    workers: Annotated[Int, Field(ge=0)] | None = Field(
        None,
        description="threads of a process that read images ahead; null = none on a CPU or for small images, else up to 4",
    )
    shuffle_shards: Int = Field(
        8, ge=1, description="of a dataset in shards: how many are open, over all processes, and shuffled together"
    )
    lr: Float = Field(2e-3, gt=0, le=1, description="peak learning rate of AdamW")
    warmup_steps: Int = Field(200, ge=0, description="steps of linear warm-up")
    lr_decay: Literal["constant", "cosine"] = Field("cosine", description="after warm-up: stay, or fall to 0 along a cosine")
    loss_weight: Literal["auto", "uniform", "min_snr", "v_capped"] = Field(
        "auto",
        description="what the error in the image counts at each t: uniform = as the prediction implies (SNR for eps), "
        "min_snr = min(SNR, 5), v_capped = min(SNR + 1, 20), so that noisy t count too; auto = v_capped where the "
        "image is predicted, else uniform",
    )
    timesteps: Literal["uniform", "log_snr"] = Field(
        "uniform", description="how t is drawn: all alike, or so that log-SNR is normal around log_snr_mean"
    )
    log_snr_mean: Float = Field(-0.5, ge=-10, le=10, description="mean of log-SNR in nats, with timesteps log_snr")
    log_snr_std: Float = Field(1.5, gt=0, le=10, description="its standard deviation")
    fixed_timestep: Annotated[Int, Field(ge=0, lt=NUM_TIMESTEPS)] | None = Field(
        None, description="train on this t alone, a control that says what the noise levels do; null = on all"
    )
    views: Annotated[Literal["off", "crop", "crop_flip", "crop_flip_colour"], Off] = Field(
        "off",
        description="encoder and denoiser see different random crops of an image, mirrored or not with crop_flip: "
        "never on digits, text or what else a mirror changes; crop_flip_colour changes colours too: natural images only",
    )
    identity_share: Share = Field(
        0.0, description="with views: share of the images of which the encoder sees the denoiser's view instead of one of its own"
    )
    mask_ratio: Float = Field(
        0.0,
        ge=0,
        le=0.9,
        description="share of the encoder's tokens dropped while training; with pool flat zeros stand at their places",
    )
    condition_dropout: Float = Field(
        0.0, ge=0, lt=1, description="share of the images whose v_t the denoiser gets as zeros while training"
    )
    variance_covariance: Float = Field(
        0.0,
        ge=0,
        description="weight of VICReg's variance and covariance terms on v_t over the whole batch: a hybrid, no longer DiER alone",
    )
    weight_decay: Float = Field(0.0, ge=0, description="AdamW's weight decay")
    ema_decay: Float = Field(0.999, ge=0, lt=1, description="decay of the weight average that is exported")
    grad_clip: Float = Field(1.0, gt=0, description="largest global gradient norm")
    seed: Int = Field(0, ge=0, description="seed of initialisation, order, timesteps and noise")
    precision: Literal["float32", "tf32", "bf16"] = Field(
        "float32",
        description="of matrix products, weights stay float32: tf32 = TF32 on a GPU, float32 on a CPU; bf16 = autocast",
    )
    checkpoint_activations: bool = Field(
        False,
        description="keep each block's input alone and compute the rest again in the backward pass: less memory, a third more work",
    )
    log_every: Int = Field(100, ge=1, description="steps between points of the training curve")
    checkpoint_every: Int = Field(500, ge=1, description="steps between running checkpoints in the work folder")
    checkpoint_minutes: Float = Field(
        2.0, ge=0, description="and one whenever the last is this old, in minutes (later where saving is slow); 0 = by steps alone"
    )
    keep_checkpoints: Int = Field(2, ge=1, description="running checkpoints kept: the newest, and others to fall back to")

    @model_validator(mode="after")
    def _warmup_ends(self) -> "TrainConfig":
        if self.warmup_steps > self.steps:
            raise ValueError(f"train.warmup_steps {self.warmup_steps} is above train.steps {self.steps}: lower it")
        return self

    @model_validator(mode="after")
    def _views_differ(self) -> "TrainConfig":
        if self.identity_share and self.views == "off":
            raise ValueError(
                f"train.identity_share {self.identity_share} says nothing with train.views off, where all images are seen alike: "
                "set train.views, crop say, or train.identity_share to 0"
            )
        return self

    @property
    def method(self) -> str:
        """What is trained, by name: DiER as its authors describe it, or a variant that is never called DiER alone."""
        parts = {"views": self.views != "off", "mask": self.mask_ratio > 0, "variance-covariance": self.variance_covariance > 0}
        return "+".join(["DiER", *(name for name, on in parts.items() if on)])


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up from lr / warmup_steps, then constant or a cosine to 0. `step` counts from 0."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.lr_decay == "constant":
        return config.lr
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * done))


def ema_decay(config: TrainConfig, step: int) -> float:
    """The average's decay, smaller in the first steps so that it forgets the initial weights."""
    return min(config.ema_decay, (1 + step) / (10 + step))
