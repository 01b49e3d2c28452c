"""Figures: one look, alt text, a takeaway."""

import io

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as pyplot
from IPython.display import Image, display

from slmops_lab import evaluate

# Okabe and Ito's colours, which colour-blind readers tell apart (https://jfly.uni-koeln.de/color/)
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]

pyplot.rcParams.update(
    {
        "figure.dpi": 110,
        "figure.figsize": (7, 3.6),
        "font.size": 10,
        "axes.prop_cycle": matplotlib.cycler(color=COLOURS),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
    }
)


def show(figure, takeaway, alt):
    """Display a figure as PNG, with its takeaway as title and alt text for those who cannot see it.

    Closes the figure. Raises ValueError where takeaway or alt is empty.
    """
    if not takeaway.strip() or not alt.strip():
        raise ValueError("a figure needs a takeaway and an alt text")
    figure.suptitle(takeaway, x=0.01, ha="left", fontweight="bold", fontsize=11)
    figure.tight_layout()
    png = io.BytesIO()
    figure.savefig(png, format="png")
    pyplot.close(figure)
    display(Image(png.getvalue(), format="png", alt=alt))


def bars(values, unit, low=None, high=None, axis=None, digits=1):
    """Horizontal bars, one per {name: value}, labelled with their values; returns the figure.

    low and high are {name: interval end} in the same unit.
    """
    if axis is None:
        _, axis = pyplot.subplots(figsize=(7, 0.9 + 0.5 * len(values)))
    names = list(values)[::-1]
    for row, name in enumerate(names):
        axis.barh(row, values[name], color=COLOURS[(len(names) - 1 - row) % len(COLOURS)], height=0.6)
        reach = values[name]
        if low:
            axis.plot([low[name], high[name]], [row, row], color="black", linewidth=1.5)
            reach = high[name]
        axis.annotate(f" {values[name]:,.{digits}f}", (max(reach, 0), row), va="center", fontsize=9)
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel(unit)
    axis.margins(x=0.12)
    return axis.figure


def shares(scores, unit="exact match in % (line: 95 % interval)"):
    """Bars of {name: per-record booleans} as percentages with 95 % intervals; returns the figure."""
    ends = {name: evaluate.proportion(rows) for name, rows in scores.items()}
    percent = [{name: 100 * e[key] for name, e in ends.items()} for key in ("share", "low", "high")]
    return bars(percent[0], unit, *percent[1:])


def curve(history, unit="loss per answer token (nats)"):
    """Loss over steps of a `training.train` history; unit labels the loss. Returns the figure."""
    figure, axis = pyplot.subplots()
    axis.plot(history["step"], history["loss"], marker=".")
    axis.set(xlabel="training step", ylabel=unit, ylim=(0, None))
    return figure
