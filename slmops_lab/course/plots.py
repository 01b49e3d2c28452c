"""Figures: one look, alt text, a takeaway, and letters of any script that an installed font has.

Importing it sets, for the whole process, matplotlib's backend (agg) and rcParams, and pandas' display.max_colwidth:
the one place where notebooks get their look. It draws and tells nothing about what is drawn. Costs about a second.
"""

import functools
import io
import math
import textwrap
import warnings
from contextlib import suppress

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as pyplot
import pandas
from IPython.display import Image, display
from matplotlib import font_manager, ticker
from transformers import TrainerCallback

from slmops_lab.evaluation import intervals

# Okabe and Ito's colours, which colour-blind readers tell apart (https://jfly.uni-koeln.de/color/)
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]

SIGNS_PER_INCH = 10  # of a title: bold, 11 points

pandas.set_option("display.max_colwidth", 120)  # a claim is shown whole
pyplot.rc("figure", dpi=110, figsize=(7, 3.6))
pyplot.rc("axes", prop_cycle=matplotlib.cycler(color=COLOURS), titlelocation="left", titleweight="bold")
pyplot.rc("axes.spines", top=False, right=False)


def show(figure, takeaway, alt):
    """Display a figure as PNG, with its takeaway as title and alt text for those who cannot see it.

    Closes the figure. Raises ValueError where takeaway or alt is empty.
    """
    if not alt.strip():
        raise ValueError("a figure needs an alt text")
    display(Image(png(figure, takeaway), format="png", alt=alt))


def png(figure, takeaway):
    """A figure with its takeaway as title, as the bytes of a PNG file. Closes the figure.

    Characters that no installed font has are boxes in it: one printed line says which, once. Raises ValueError where
    the takeaway is empty.
    """
    if not takeaway.strip():
        raise ValueError("a figure needs a takeaway")
    lines = textwrap.fill(takeaway, int(SIGNS_PER_INCH * figure.get_figwidth()))  # else its end is cut off
    figure.suptitle(lines, x=0.01, ha="left", fontweight="bold", fontsize=11)
    texts = figure.findobj(matplotlib.text.Text)
    families = _families(frozenset(ord(sign) for text in texts for sign in text.get_text() if not sign.isspace()))
    if len(families) > 1:
        for text in texts:
            text.set_fontfamily(families)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from|Matplotlib currently does not support")
        if figure.get_layout_engine() is None:
            figure.tight_layout()
            if any([_broken(axis) for axis in figure.axes]):
                figure.tight_layout()
        figure.savefig(file, format="png")
    pyplot.close(figure)
    return file.getvalue()


@functools.cache
def _families(characters):
    """Families of installed fonts that together have these code points, the one that matplotlib brings along first."""
    families, left = ["DejaVu Sans"], characters - _drawn_by(font_manager.findfont("DejaVu Sans"))
    for font in sorted(font_manager.fontManager.ttflist, key=lambda font: (font.style != "normal", font.fname)):
        if not left:
            return families
        if left & _drawn_by(font.fname) and not font.name.startswith("Last Resort"):  # whose glyphs are boxes
            families.append(font.name)
            left -= _drawn_by(font.fname)
    if left:
        signs = " ".join(map(chr, sorted(left)))
        print(
            f"No installed font has {signs}: figures show boxes instead. Install a font of that script, such as Noto."
        )
    return families


@functools.cache
def _drawn_by(path):
    """Code points that matplotlib can draw with a font file: none of one that it cannot open or scale."""
    with suppress(OSError, RuntimeError):
        font = font_manager.get_font(path)
        return frozenset(font.get_charmap() if font.scalable else ())
    return frozenset()


def _broken(axis):
    """Break the label of an x axis that would leave the figure; says whether there was one."""
    label, figure = axis.xaxis.label, axis.figure
    place = label.get_window_extent()
    room = 2 * min(place.x0 + place.width / 2, figure.bbox.width - place.x0 - place.width / 2) - 8
    if place.width <= room or "\n" in label.get_text():
        return False
    label.set_text(textwrap.fill(label.get_text(), int(len(label.get_text()) * room / place.width)))
    return True


def bars(values, unit, low=None, high=None, axis=None, digits=1):
    """Horizontal bars, one per {name: value}, labelled with their values; returns the figure.

    low and high are {name: interval end} in the same unit.
    """
    if axis is None:
        _, axis = pyplot.subplots(figsize=(7, 0.9 + 0.5 * len(values)))
    # rounding may put a value just outside of its own interval
    ends = low and [
        [max(0, side * (end[name] - values[name])) for name in values] for side, end in ((-1, low), (1, high))
    ]
    colours = [COLOURS[row % len(COLOURS)] for row in range(len(values))]
    look = {"height": 0.6, "color": colours, "xerr": ends, "error_kw": {"linewidth": 1.5}}
    drawn = axis.barh(range(len(values)), list(values.values()), tick_label=list(values), **look)
    axis.bar_label(drawn, [f"{value:,.{digits}f}" for value in values.values()], padding=3, fontsize=9)
    axis.invert_yaxis()
    axis.set_xlabel(unit)
    axis.margins(x=0.12)
    return axis.figure


def dots(values, unit, low=None, high=None, axis=None, log=False, mark=None):
    """A point per {name: value} from the top, with its interval as a line; returns the figure.

    values may be a pandas Series; low and high are {name: interval end} or a Series in the same unit. log makes the x
    axis logarithmic; mark draws a broken line at a value that the points are to be compared with.
    """
    if axis is None:
        _, axis = pyplot.subplots(figsize=(7, 0.9 + 0.35 * len(values)))
    values, rows = dict(values), range(len(values))[::-1]
    ends = [(value, value) if low is None else (low[name], high[name]) for name, value in values.items()]
    for row, (left, right) in zip(rows, ends, strict=True):
        if math.isfinite(left) and math.isfinite(right):  # of few measurements no interval is known
            axis.hlines(row, left, right, color="#999999", linewidth=2)
    axis.plot(list(values.values()), rows, "o", color=COLOURS[0])
    if mark is not None:
        axis.axvline(mark, color=COLOURS[1], linestyle="--", linewidth=1)
    axis.set_yticks(rows, list(values))
    axis.set_xlabel(unit)
    axis.margins(x=0.1, y=max(0.1, 0.4 / max(1, len(values) - 1)))  # no point on the frame
    axis.grid(axis="x", alpha=0.3)
    if log:
        axis.set_xscale("log")
        _plain_ticks(axis.xaxis)
    elif min([*values.values(), *(dict(low).values() if low is not None else ())]) >= 0:
        _from_zero(axis, "x")
    return axis.figure


def _from_zero(axis, side):
    """Let the x or y axis begin at 0 and end behind the largest value, however narrow the values lie."""
    largest = getattr(axis.dataLim, f"{side}1")
    getattr(axis, f"set_{side}lim")(0, 1.08 * largest if largest > 0 else None)


def calibration(points, xlabel="mean confidence in %", ylabel="right in % (line: 95 % interval)"):
    """Shares of right answers over confidence, beside the diagonal of perfect calibration; returns the figure.

    points: (mean confidence, share, low, high) of each group of answers, all from 0 to 1.
    """
    figure, axis = pyplot.subplots(figsize=(6, 4))
    axis.plot([0, 100], [0, 100], color="#999999", linestyle="--", linewidth=1, label="perfect calibration")
    percent = [[100 * value for value in column] for column in zip(*points, strict=True)]
    axis.vlines(percent[0], percent[2], percent[3], color=COLOURS[0], linewidth=1.5)
    axis.plot(percent[0], percent[1], "o-", color=COLOURS[0], label="this run")
    axis.set(xlabel=xlabel, ylabel=ylabel, xlim=(0, 102), ylim=(0, 102))
    axis.legend(frameon=False, loc="upper left")
    axis.grid(alpha=0.3)
    return figure


def panels(*parts):
    """`dots` side by side, with the names on the left only; returns the figure. parts: dicts of its arguments."""
    height = 0.9 + 0.27 * len(parts[0]["values"])
    figure, axes = pyplot.subplots(1, len(parts), figsize=(8, height), sharey=True)
    for axis, part in zip(axes, parts, strict=True):
        dots(**part, axis=axis)
    return figure


def cloud(points, xlabel, ylabel):
    """Named points of several groups, the y axis logarithmic; returns the figure.

    points: {group: {name: (x, y, low, high)}}; a group shares colour and marker, and the legend names it. The vertical
    line of a point is its interval from low to high, in the unit of y. Names stand on the right of their points, those
    of the second group on the left.
    """
    figure, axis = pyplot.subplots(figsize=(7, 4.6))
    for number, (group, named) in enumerate(points.items()):
        colour, left = COLOURS[number % len(COLOURS)], number == 1
        xs, ys, *_ = zip(*named.values(), strict=True)
        axis.plot(xs, ys, "os^Dvp"[number % 6], color=colour, label=group)
        for name, (x, y, *ends) in named.items():
            if all(math.isfinite(end) and end > 0 for end in ends):
                axis.vlines(x, *ends, color=colour, linewidth=1)
            place = {"xytext": (-6 if left else 6, 2), "textcoords": "offset points", "ha": "right" if left else "left"}
            axis.annotate(name, (x, y), fontsize=8, color=colour, **place)
    axis.set(xlabel=xlabel, ylabel=ylabel, yscale="log")
    _plain_ticks(axis.yaxis)
    axis.margins(x=0.12)
    axis.set_xlim(left=0)
    axis.legend(frameon=False)
    axis.grid(alpha=0.3)
    return figure


def _plain_ticks(axis):
    """Whole numbers on a logarithmic axis."""
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(ticker.NullLocator())


def shares(scores, unit="exact match in % (line: 95 % interval)"):
    """Bars of {name: per-record booleans} as percentages with 95 % intervals; returns the figure."""
    ends = {name: intervals.proportion(rows) for name, rows in scores.items()}
    percent = [{name: 100 * e[key] for name, e in ends.items()} for key in ("share", "low", "high")]
    return bars(percent[0], unit, *percent[1:])


def curve(history, unit="loss per answer token (nats)"):
    """Loss over steps of a `trainer.train` history; unit labels the loss. Returns the figure."""
    figure, axis = pyplot.subplots()
    axis.plot(history["step"], history["loss"], marker=".")
    axis.set(xlabel="training step", ylabel=unit)
    _from_zero(axis, "y")
    return figure


def lines(series, xlabel, ylabel, log=False, markers=True):
    """One line per {label: (xs, ys)}; log makes the x axis logarithmic, markers mark the points. Returns the figure."""
    figure, axis = pyplot.subplots()
    for (label, (xs, ys)), marker in zip(series.items(), "os^Dvp", strict=False):
        axis.plot(xs, ys, marker=marker if markers else None, label=label)
    axis.set(xlabel=xlabel, ylabel=ylabel, **({"xscale": "log"} if log else {}))
    if not log:
        _from_zero(axis, "y")
    if len(series) > 1:
        axis.legend(frameon=False)
    return figure


class LiveCurve(TrainerCallback):
    """A figure under the cell, drawn anew whenever a training logs: its loss, and the held-out loss where it is taken.

    Give it to `trainer.train(callbacks=[...])`. takeaway and alt as in `show`.
    """

    def __init__(self, takeaway, alt):
        self.takeaway, self.alt, self.handle = takeaway, alt, None

    def on_log(self, args, state, control, **kwargs):
        """Draw what the trainer has noted so far."""
        series = {}
        for label, key in {"trained on": "loss", "held-out": "eval_loss"}.items():
            points = [(entry["step"], entry[key]) for entry in state.log_history if key in entry]
            if points:
                series[label] = tuple(zip(*points, strict=True))
        if not series:
            return
        figure = lines(series, "training step", "loss per answer token (nats)")
        image = Image(png(figure, self.takeaway), format="png", alt=self.alt)
        if self.handle is None:
            self.handle = display(image, display_id=True)
        else:
            self.handle.update(image)


def pairs(values, counts, unit):
    """Two marks per row, joined by a line; returns the figure.

    values is {series: {row: value}} with two series; counts is {row: number of cases}, which is shown
    with the row's name and gives the order from the top.
    """
    figure, axis = pyplot.subplots(figsize=(7, 1.2 + 0.3 * len(counts)))
    rows = range(len(counts))[::-1]
    ends = [[series[name] for name in counts] for series in values.values()]
    axis.hlines(rows, *ends, color="#999999", linewidth=2, zorder=1)
    for label, points, colour, marker in zip(values, ends, COLOURS, "so", strict=False):
        axis.scatter(points, rows, color=colour, marker=marker, label=label, zorder=2)
    axis.set_yticks(rows, [f"{name} ({count})" for name, count in counts.items()])
    axis.set_xlabel(unit)
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=9)
    axis.grid(axis="x", alpha=0.3)
    return figure


def frontier(points, axes, unit):
    """One panel per axis, the same points in each; returns the figure.

    points is {group: {name: (x of the first axis, x of the second, ..., share, low, high)}}, the last
    three in `unit`; axes names the x axes, which are logarithmic. A group shares a colour and a line, a name
    a marker; there are six colours and four markers before they repeat.
    """
    figure, panels = pyplot.subplots(1, len(axes), figsize=(7.5, 4), sharey=True, squeeze=False, layout="constrained")
    markers = {}
    for place, (axis, label) in enumerate(zip(panels[0], axes, strict=True)):
        for number, (group, named) in enumerate(points.items()):
            colour = COLOURS[number % len(COLOURS)]
            line = [[point[i] for point in named.values()] for i in (place, -3)]
            axis.plot(*line, color=colour, linewidth=1, label=group)
            for name, point in named.items():
                marker = markers.setdefault(name, "so^D"[len(markers) % 4])
                axis.vlines(point[place], *point[-2:], color=colour, linewidth=1)
                axis.plot(point[place], point[-3], marker, color=colour)
        axis.set(xscale="log", xlabel=label)
        _plain_ticks(axis.xaxis)
        axis.margins(x=0.15)
        axis.grid(alpha=0.3)
    panels[0][0].set_ylabel(unit)
    handles, labels = panels[0][0].get_legend_handles_labels()
    handles += [pyplot.Line2D([], [], color="#666666", marker=marker, linestyle="") for marker in markers.values()]
    figure.legend(handles, [*labels, *markers], loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def columns(names, values, unit, top=100):
    """Groups of columns, one group per name and one column per {series: values}; returns the figure.

    top: upper end of the y axis, None for one that leaves room for the legend.
    """
    table = pandas.DataFrame(values, index=names)
    axis = table.plot.bar(rot=0, width=0.8, figsize=(7, 3), ylabel=unit, ylim=(0, top or 1.3 * table.max(axis=None)))
    axis.legend(frameon=False, loc="best" if top else "upper left")
    return axis.figure


def cycle(steps):
    """Steps of a loop around a circle, an arrow from each to the next; returns the figure.

    steps is {name: what stands below it}.
    """
    figure, axis = pyplot.subplots(figsize=(7, 4.4))
    turns = [math.pi / 2 - 2 * math.pi * i / len(steps) for i in range(len(steps))]
    places = [(1.5 * math.cos(turn), math.sin(turn)) for turn in turns]
    box = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": COLOURS[0]}
    bend = {"arrowstyle": "-|>", "color": "#666666", "shrinkA": 2, "shrinkB": 2, "connectionstyle": "arc3,rad=-0.15"}
    boxes = []
    for place, (name, below) in zip(places, steps.items(), strict=True):
        text = axis.text(*place, f"{name}\n{below}", ha="center", va="center", fontsize=9, bbox=box, zorder=2)
        boxes.append(text.get_bbox_patch())
    for number, place in enumerate(places):  # drawn after the boxes, whose edges each arrow meets
        after = (number + 1) % len(places)
        ends = {"patchA": boxes[number], "patchB": boxes[after]}
        axis.annotate("", places[after], place, arrowprops=bend | ends, zorder=3)
    axis.set(xlim=(-2.1, 2.1), ylim=(-1.25, 1.25))
    axis.axis("off")
    return figure
