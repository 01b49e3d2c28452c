"""The figure of the README: how far beyond its goal each claim of the published ledgers was measured.

python tools/ledger_figure.py   writes book/_static/ledger.png

Renew it when outputs were published. The rows that it shows are in the file's metadata, and a test compares them.
"""

import io
import json
import re
import textwrap
from pathlib import Path

import matplotlib
import pandas
from matplotlib import pyplot

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "book" / "_static" / "ledger.png"
COLOURS = {"held": "#0072b2", "cannot tell": "#666666", "missed": "#c44e00"}
NUMBER = r"-?\d+(?:\.\d+)?"


def rows():
    """Published claims: dicts of claim, verdict, and `lead`, `low`, `high`: the distance to the goal, its interval."""
    found = []
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if "claims.table(" in "".join(cell["source"]):
                tables = ["".join(output.get("data", {}).get("text/html", "")) for output in cell["outputs"]]
                for table in filter(None, tables):
                    found += [_row(row) for _, row in pandas.read_html(io.StringIO(table))[0].iterrows()]
    return found


def _row(told):
    kind, goal = re.match(rf"(at least|at most) ({NUMBER})", told["goal"]).groups()
    ends = re.match(rf"({NUMBER}) to ({NUMBER})", str(told["95 % interval"]))
    values = [float(one) for one in (told["measured here"].split()[0], *(ends.groups() if ends else ()))]
    leads = [round((value - float(goal)) * (1 if kind == "at least" else -1), 1) for value in values]
    low, high = sorted(leads[1:]) if ends else (None, None)
    told = {"claim": told["claim"], "measured": told["measured here"], "goal": told["goal"], "verdict": told["verdict"]}
    return told | {"lead": leads[0], "low": low, "high": high}


def draw(claims):
    """A matplotlib figure with a line for each claim."""
    figure, axes = pyplot.subplots(figsize=(9, 0.55 * len(claims) + 1.2), layout="constrained")
    for place, one in enumerate(reversed(claims)):
        colour = COLOURS[one["verdict"]]
        if one["low"] is not None:
            axes.plot([one["low"], one["high"]], [place, place], color=colour, linewidth=2)
        axes.plot(one["lead"], place, "o", color=colour, markersize=8)
    right = max(one["high"] if one["high"] is not None else one["lead"] for one in claims) + 2
    for place, one in enumerate(reversed(claims)):
        axes.text(right, place, one["verdict"], color=COLOURS[one["verdict"]], va="center", fontweight="bold")
    axes.axvline(0, color="black", linewidth=1)
    axes.text(0.3, len(claims) - 0.55, "the goal", fontsize=9)
    axes.set_yticks(range(len(claims)), [textwrap.fill(one["claim"], 44) for one in reversed(claims)])
    axes.set_xlim(right=right + 7)
    axes.set_xlabel("how far beyond its goal, in the unit of the claim (% or points; line: 95 % interval)")
    axes.set_title("What is claimed of small models, and what the published run measured", loc="left", fontsize=11)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


if __name__ == "__main__":
    matplotlib.use("agg")
    draw(rows()).savefig(FILE, dpi=110, metadata={"Description": json.dumps(rows())})
    print(FILE)
