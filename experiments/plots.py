"""The contest's figures, from its CSV alone: the same table gives the same bytes.

    python -m experiments.plots                                      # docs/images/contest-*.svg, of the tables that there are
    python -m experiments.plots --tables experiments/results/studies --name studies

Made by experiments.tables: main, minutes, curve, linearity, occupancy, gap. Made by experiments.choosing: regret-MODELS (way, mean,
worst: points; share: of the sweep's cost). A figure whose table is missing or empty is left out, and told.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from components.reporting.figures import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, RED, SKY, figure, style
from experiments.contest import RESULTS

IMAGES = Path(__file__).parents[1] / "docs" / "images"
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, INK, GREY)
MARKS = "osD^vP*X"
Frames = dict[str, pd.DataFrame]


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.plots", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tables", type=Path, default=RESULTS, help="folder of the CSV files")
    parser.add_argument("--out", type=Path, default=IMAGES)
    parser.add_argument("--name", default="contest", help="what the figures' files begin with")
    args = parser.parse_args(arguments)
    frames = {file.stem: pd.read_csv(file) for file in sorted(args.tables.glob("*.csv"))}
    if races := [frame.assign(set=name.removeprefix("regret-")) for name, frame in frames.items() if name.startswith("regret-")]:
        frames["regret"] = pd.concat(races, ignore_index=True)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, (needs, draw) in FIGURES.items():
        if needs not in frames or frames[needs].empty:
            print(f"plots: no {name}: in {args.tables} the table {needs} is missing or empty", file=sys.stderr)
            continue
        with style():
            save(draw(frames), args.out / f"{args.name}-{name}.svg")
    return 0


def save(drawn: Figure, file: Path) -> None:
    """An SVG without a date; lines end without spaces, as git likes them."""
    drawn.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, facecolor="white")
    file.write_text("\n".join(line.rstrip() for line in file.read_text("utf-8").splitlines()) + "\n", "utf-8")


def accuracies(frames: Frames) -> Figure:
    """The main table: accuracy with its interval, a panel a set, the best on top."""
    probe = next((name for name in ("all", "10k", "1k") if name in frames["main"] and frames["main"][name].notna().any()), "all")
    table = frames["main"].dropna(subset=[probe]) if probe in frames["main"] else frames["main"].iloc[:0]
    table = _contested(table)
    drawn, panels = _panels(table, height=1.2 + 0.27 * max((len(lines) for _, lines in table.groupby("set")), default=1))
    for axes, (name, lines) in panels:
        lines = lines.sort_values(probe, kind="stable")
        y = np.arange(len(lines))
        sure = (lines["seeds"] > 1) | (lines["of"] == 1)
        for known, fill in ((sure, BLUE), (~sure, "white")):
            part = lines[known]
            error = [part[probe] - part[f"{probe}_low"], part[f"{probe}_high"] - part[probe]]
            axes.errorbar(part[probe], y[known], xerr=error, fmt="o", ms=5, color=BLUE, mfc=fill, lw=1.2)
        axes.set_yticks(y, lines["reading"])
        axes.set(title=name, xlabel="accuracy on test, %")
        axes.xaxis.set_major_formatter(PERCENT)
    return drawn


def minutes(frames: Frames) -> Figure:
    """Accuracy on val against processor minutes of training: mean and range over the seeds."""
    drawn, panels = _panels(frames["minutes"])
    for axes, (name, lines) in panels:
        for label, colour, mark, rows in _readings(lines, frames["minutes"]):
            by = rows.groupby(rows.groupby("seed").cumcount())
            x = by["cpu_seconds"].mean() / 60
            axes.fill_between(x, by["val"].min(), by["val"].max(), color=colour, alpha=0.15, lw=0)
            axes.plot(x, by["val"].mean(), color=colour, marker=mark, ms=4, label=label)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axes.xaxis.set_major_formatter(PLAIN)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set(title=name, xlabel="processor minutes of training", ylabel="accuracy on val, %")
        axes.yaxis.set_major_formatter(PERCENT)
    return _with_legend(drawn)


def curve(frames: Frames) -> Figure:
    """Accuracy over log-SNR, mean and range over seeds; beneath it how much v_t tells the denoiser, where that was measured."""
    table, gap = _contested(frames["curve"]), frames.get("gap", pd.DataFrame({"set": []}))
    drawn, panels = _panels(table, below=not gap.empty)
    for axes, (name, lines) in panels:
        for label, colour, mark, rows in _readings(lines, table):
            _band(axes, rows, "val", colour, mark, label)
        axes.set(title=name, ylabel="accuracy on val, %")
        axes.yaxis.set_major_formatter(PERCENT)
        _noisier_to_the_right(axes)
    for axes, name in zip(drawn.axes[table["set"].nunique() :], table["set"].unique(), strict=False):
        for label, colour, mark, rows in _readings(gap[gap["set"] == name], table):
            _band(axes, rows, "gap_nats", colour, mark, label)
        axes.set_yscale("symlog", linthresh=0.1)
        axes.yaxis.set_major_formatter(PLAIN)
        axes.set(ylabel="gap, nats per log-SNR")
        _noisier_to_the_right(axes)
    return _with_legend(drawn)


def linearity(frames: Frames) -> Figure:
    """How linear features are in the pixels against what they are worth: a point a reading, its mean over the seeds."""
    table = _contested(frames["linearity"].dropna(subset=["r2"]))
    table = table.groupby(["set", "reading"], sort=False, as_index=False)[["r2", "val"]].mean()
    drawn, panels = _panels(table)
    for axes, (name, lines) in panels:
        for label, colour, mark, rows in _readings(lines, table):
            axes.plot(rows["r2"], rows["val"], mark, color=colour, ms=5, ls="", label=label)
        axes.set(title=name, xlabel="R2 of a ridge regression from pixels", ylabel="accuracy on val, %")
        axes.yaxis.set_major_formatter(PERCENT)
    return _with_legend(drawn)


def occupancy(frames: Frames) -> Figure:
    """Left the curves of the reading on most sets; right how full images are against the best log-SNR, of those on several sets."""
    table, curves = frames["occupancy"], frames["curve"]
    many = table.groupby("reading")["set"].transform("nunique") > 1
    table = table[many] if many.any() else table
    most = str(table.groupby("reading", sort=False)["set"].nunique().idxmax())
    drawn = figure(9.6, 4.2)
    left, axes = drawn.subplots(1, 2)
    for number, (name, rows) in enumerate(curves[curves["reading"] == most].groupby("set", sort=False)):
        below = rows.assign(val=rows["val"] - rows.groupby("t")["val"].mean().max())
        _band(left, below, "val", COLOURS[number % len(COLOURS)], MARKS[number % len(MARKS)], f"{most} on {name}")
    left.set(ylabel="accuracy on val, points from the best t")
    left.yaxis.set_major_formatter(PERCENT)
    _noisier_to_the_right(left)
    for number, (name, rows) in enumerate(table.groupby("reading", sort=False)):
        colour, mark = COLOURS[-1 - number % len(COLOURS)], MARKS[-1 - number % len(MARKS)]
        axes.plot(rows["occupancy"], rows["log_snr"], mark, color=colour, ms=4, ls="", alpha=0.5)  # a point a seed
        means = rows.groupby("set")[["occupancy", "log_snr"]].mean().sort_values("occupancy")
        axes.plot(means["occupancy"], means["log_snr"], color=colour, marker=mark, ms=8, lw=1.2, label=str(name))
    for name, rows in table.groupby("set", sort=False):
        place = rows["occupancy"].mean(), rows["log_snr"].max()
        axes.annotate(str(name), place, xytext=(0, 7), textcoords="offset points", rotation=45)
    axes.set(xlabel="share of the pixels that are not blank, %", ylabel="log-SNR that is best on val")
    axes.xaxis.set_major_formatter(PERCENT)
    return _with_legend(drawn)


def regret(frames: Frames) -> Figure:
    """What choosing t costs against what it loses: the mean over sets, and a line to the worst of them; a panel a kind of model."""
    table = frames["regret"]
    ways = list(table["way"].unique())
    drawn, panels = _panels(table, height=4.4)
    for axes, (name, lines) in panels:
        for row in lines.to_dict("records"):
            number = ways.index(row["way"])
            colour, mark = COLOURS[number % len(COLOURS)], MARKS[(number + number // len(COLOURS)) % len(MARKS)]
            axes.plot([row["share"]] * 2, [row["mean"], row["worst"]], color=colour, lw=1)
            axes.plot(row["share"], row["mean"], mark, color=colour, ms=7, label=str(row["way"]))
            axes.plot(row["share"], row["worst"], "_", color=colour, ms=9)
        axes.axhline(0.5, color=GREY, lw=1, ls=":")  # the goal
        axes.set_xscale("symlog", linthresh=0.01)
        axes.set(title=name, xlim=(-0.001, 1.5), xlabel="cost, % of the sweep's")
        axes.xaxis.set_major_formatter(PERCENT)
    drawn.axes[0].set_ylabel("points lost on test: mean, worst")
    return _with_legend(drawn)


FIGURES: dict[str, tuple[str, Callable[[Frames], Figure]]] = {
    "accuracy": ("main", accuracies),
    "minutes": ("minutes", minutes),
    "curve": ("curve", curve),
    "linearity": ("linearity", linearity),
    "occupancy": ("occupancy", occupancy),
    "regret": ("regret", regret),
}
"""By name: the table without which there is none, and what draws it."""
PERCENT = FuncFormatter(lambda value, _: f"{100 * value:g}")
PLAIN = FuncFormatter(lambda value, _: f"{value:g}")


def _contested(table: pd.DataFrame) -> pd.DataFrame:
    """Without the sets that one reading alone is on (the canvases), unless there are no others."""
    several = table.groupby("set")["reading"].transform("nunique") > 1
    return table[several] if several.any() else table


def _panels(
    table: pd.DataFrame, *, height: float = 3.6, below: bool = False
) -> tuple[Figure, list[tuple[Axes, tuple[str, pd.DataFrame]]]]:
    """A panel for each set side by side, with a lower row where asked."""
    groups = [(str(name), lines) for name, lines in table.groupby("set", sort=False)]
    number = max(1, len(groups))
    drawn = figure(1.5 + 3.9 * number, height * (1.6 if below else 1))
    axes = drawn.subplots(2 if below else 1, number, squeeze=False, height_ratios=[1.6, 1] if below else None)
    return drawn, list(zip(axes[0], groups, strict=False))


def _readings(lines: pd.DataFrame, everything: pd.DataFrame) -> Iterator[tuple[str, str, str, pd.DataFrame]]:
    """Each reading's lines with its name, colour and mark, which are the same in all panels."""
    names = list(everything["reading"].unique())
    for number, name in enumerate(names):
        if len(rows := lines[lines["reading"] == name]):
            turn = number // len(COLOURS)
            yield str(name), COLOURS[number % len(COLOURS)], MARKS[(number + turn) % len(MARKS)], rows


def _band(axes: Axes, rows: pd.DataFrame, column: str, colour: str, mark: str, label: str) -> None:
    by = rows.groupby("log_snr")[column]
    mean = by.mean()
    axes.fill_between(mean.index, by.min(), by.max(), color=colour, alpha=0.15, lw=0)
    axes.plot(mean.index, mean, color=colour, marker=mark, ms=4, label=label)


def _noisier_to_the_right(axes: Axes) -> None:
    axes.set_xlabel("log-SNR (noisier to the right)")
    axes.invert_xaxis()


def _with_legend(drawn: Figure) -> Figure:
    """One legend for all panels, a name once."""
    found = {label: handle for axes in drawn.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if found:
        drawn.legend(list(found.values()), list(found), loc="outside lower center", ncols=4 if drawn.get_figwidth() > 7 else 3)
    return drawn


if __name__ == "__main__":
    sys.exit(main())
