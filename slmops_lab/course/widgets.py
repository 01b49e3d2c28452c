"""Widgets that work in JupyterLab and, without a kernel, in the book: every picture is there from the start.

`explorer` is the one page of JavaScript that we wrote ourselves (explorer.html): ipywidgets compute nothing without a
kernel, and Vega or Bokeh would bring megabytes of JavaScript into each notebook, or fetch them, for a few sliders and
bars. The formulas are sympy's, because the same ones are solved in the chapter, and sympy writes JavaScript itself.
"""

import base64
import hashlib
import json
from html import escape
from importlib import resources
from string import Template

import IPython.display
import ipywidgets
import sympy


def flip_book(pictures, over, along):
    """Pictures to leaf through: a slider, and buttons where there is more than one kind.

    pictures is {kind: {step: (PNG bytes, alt text)}}, every kind with the same steps; over names
    what the buttons choose, along what the slider moves. The links between them are made in the browser (jslink).
    """
    kinds, steps = list(pictures), list(next(iter(pictures.values())))
    slider = ipywidgets.SelectionSlider(options=[str(step) for step in steps], description=along, readout=True)
    slider.style.description_width = "initial"
    shelves = []
    for pages in pictures.values():
        shelf = ipywidgets.Stack([_picture(*pages[step]) for step in steps], selected_index=0)
        ipywidgets.jslink((slider, "index"), (shelf, "selected_index"))
        shelves.append(shelf)
    if len(kinds) == 1:
        return ipywidgets.VBox([slider, shelves[0]])
    buttons = ipywidgets.ToggleButtons(options=kinds, description=over)
    buttons.style.description_width = "initial"
    buttons.style.button_width = "auto"
    both = ipywidgets.Stack(shelves, selected_index=0)
    ipywidgets.jslink((buttons, "index"), (both, "selected_index"))
    return ipywidgets.VBox([buttons, slider, both])


def _picture(png, alt):
    source = base64.b64encode(png).decode()
    return ipywidgets.HTML(f'<img alt="{escape(alt)}" src="data:image/png;base64,{source}">')


def explorer(title, dials, results, unit, fits=None):
    """Sliders and bars that need no kernel: formulas become JavaScript, so the book has them, too.

    dials: {sympy symbol: (label, values to choose from, the one to begin with)}. results: {label:
    sympy expression of the dials}, all in `unit`. fits: (expression, sentence where it is not negative,
    sentence where it is). Returns an IPython HTML object, which shows the beginning where no script
    may run. Raises ValueError where an expression has a symbol without a dial or a beginning is no choice.
    """
    formulas = [*results.values(), *([fits[0]] if fits else [])]
    if missing := set().union(*(formula.free_symbols for formula in formulas)) - set(dials):
        raise ValueError(f"no dial for {', '.join(sorted(map(str, missing)))}")
    begin = {symbol: start for symbol, (_, _, start) in dials.items()}
    plain = {symbol: sympy.Symbol(f"x{number}") for number, symbol in enumerate(dials)}  # safe as names in a script
    rows = []
    for label, values, start in dials.values():
        place, told = list(values).index(start), json.dumps([float(value) for value in values])
        slider = f'<input type="range" max="{len(values) - 1}" value="{place}" data-values="{told}">'
        rows.append(f"<label>{escape(label)} {slider} <output>{_number(start)}</output></label>")
    shown = [float(formula.subs(begin)) for formula in results.values()]
    for label, value in zip(results, shown, strict=True):
        bar = f"<i><b style='width:{max(0, 100 * value / max([*shown, 1e-9])):.1f}%'></b></i>"
        number = f"<em><span>{_number(value)}</span> {escape(unit)}</em>"
        rows.append(f"<div><span>{escape(label)}</span>{bar}{number}</div>")
    if fits:
        yes, no = map(escape, fits[1:])
        rows.append(f'<p data-yes="{yes}" data-no="{no}">{yes if fits[0].subs(begin) >= 0 else no}</p>')
    parts = {"title": escape(title), "rows": "\n".join(rows), "names": ", ".join(map(str, plain.values()))}
    parts["formulas"] = ", ".join(sympy.jscode(formula.xreplace(plain)) for formula in formulas)
    parts["name"] = "explorer-" + hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
    page = resources.files(__package__).joinpath("explorer.html").read_text(encoding="utf-8")
    return IPython.display.HTML(Template(page).substitute(parts))


def _number(value):
    """As the page's `write` does it: three digits that count, thousands apart."""
    digits = 0 if abs(value) >= 100 or value == int(value) else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"
