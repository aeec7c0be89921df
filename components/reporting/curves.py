"""The line charts: training, and whether v_t is used."""

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from components.reporting.figures import BLUE, GREY, INK, ORANGE, RED, Picture, figure, plain_numbers, style, svg
from components.reporting.inputs import Inputs


def training(inputs: Inputs) -> Picture:
    """Loss (total and by range of t), gradient norms and learning rate over the steps, from the model's curve.csv."""
    curve = pd.read_csv(inputs.artifacts["model"].path / "curve.csv")
    with style():
        drawn = figure(10.4, 3.8)
        loss, gradients, rate = drawn.subplots(1, 3, width_ratios=[2, 1.25, 1])
        _loss(loss, curve)
        gradients.plot(curve["step"], curve["grad_norm_encoder"], color=BLUE, label="encoder")
        gradients.plot(curve["step"], curve["grad_norm_denoiser"], color=ORANGE, ls="--", label="denoiser")
        gradients.set(title="Gradient norms", xlabel="step")
        plain_numbers(gradients, log=True)
        gradients.legend()
        rate.plot(curve["step"], curve["lr"], color=INK)
        rate.set(title="Learning rate", xlabel="step", ylim=(0, None))
        rate.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        plain_numbers(rate)
        drawn.legend(*loss.get_legend_handles_labels(), loc="outside lower left", ncols=6)
        first, last = curve.iloc[0], curve.iloc[-1]
        alt = (
            f"Training curves. The loss goes from {first['loss']:.3g} at step {int(first['step'])} to {last['loss']:.3g} at step "
            f"{int(last['step'])}; the gradient norm ends at {last['grad_norm_encoder']:.3g} for the encoder and "
            f"{last['grad_norm_denoiser']:.3g} for the denoiser."
        )
        caption = (
            f"Left: the error in predicting {inputs.sought}, for all t and for five ranges of "
            f"t{'; a little noise (low t) is harder to find than much' if inputs.sought == 'the noise' else ''}. It should fall "
            "and level off. Middle: how strongly each network is being changed; an encoder line at zero would mean that it learns "
            "nothing. Right: the learning rate."
        )
        return svg(drawn, alt, caption)


def _loss(axes: Axes, curve: pd.DataFrame) -> None:
    buckets = [name for name in curve.columns if name.startswith("loss_t")]
    colours = colormaps["viridis"](np.linspace(0, 0.88, max(len(buckets), 1)))
    for name, colour in zip(buckets, colours, strict=False):
        low, high = name.removeprefix("loss_t").split("_")
        axes.plot(curve["step"], curve[name], color=colour, lw=1.2, label=f"t {int(low)} to {int(high)}")
    axes.plot(curve["step"], curve["loss"], color=INK, lw=2.4, label="all t")
    axes.set(title="Loss (squared error of the prediction)", xlabel="step")
    plain_numbers(axes, log=True)


def gap(inputs: Inputs) -> Picture:
    """The loss with v_t and with another image's v_t over t, from `gap` of the model's summary.json."""
    rows = inputs.summary["gap"]
    t = [row["t"] for row in rows]
    own, shuffled, ratio = ([row[key] for row in rows] for key in ("loss", "loss_shuffled", "ratio"))
    with style():
        drawn = figure(10.4, 3.1)
        losses, ratios = drawn.subplots(1, 2, width_ratios=[1.5, 1])
        losses.plot(t, shuffled, color=RED, ls="--", marker="s", ms=4, label="with another image's embedding")
        losses.plot(t, own, color=BLUE, marker="o", ms=4, label="with its own embedding")
        losses.fill_between(t, own, shuffled, color=GREY, alpha=0.15, lw=0)
        losses.set(title="Loss", xlabel="timestep t (more noise to the right)")
        plain_numbers(losses, log=True)
        losses.legend()
        ratios.axhline(1, color=GREY, ls=":")
        ratios.plot(t, ratio, color=INK, marker="o", ms=4)
        ratios.set(title="Loss when swapped, as a multiple", xlabel="timestep t")
        plain_numbers(ratios, log=max(ratio) > 10)
        most = max(rows, key=lambda row: row["ratio"])
        alt = (
            f"Loss over t with each image's own embedding and with another image's. Swapping costs most at t = {most['t']}: "
            f"{most['ratio']:.3g} times the loss; at t = {rows[-1]['t']} it is {rows[-1]['ratio']:.3g} times."
        )
        caption = (
            "Left: the denoiser's error with an image's own embedding and with another image's. Right: how many times larger the "
            "error becomes by the swap. Far above 1, the embedding matters; where the ratio falls to 1 (dotted), the denoiser "
            "ignores it, and training teaches the encoder nothing at that t. No label is used here."
        )
        return svg(drawn, alt, caption)
