"""Widgets that work in JupyterLab and, without a kernel, in the book: every picture is there from the start.

`explorer` is the one page of JavaScript that we wrote ourselves (explorer.html): ipywidgets compute nothing without a
kernel, and Vega (6.4, with Vega-Lite and Vega-Embed) would bring 0.8 MB of JavaScript into each notebook, or fetch it,
for what 2.5 kB do here. The formulas are sympy's, because the same ones are solved in the chapter, and sympy writes
JavaScript itself.
`predict` is the exception: what was predicted is compared by the kernel, so the book shows the question only.
"""

import base64
import hashlib
import json
import math
import numbers
from html import escape
from importlib import resources
from string import Template

import IPython.display
import ipywidgets
import sympy

from slmops_lab.course.quiz import NO_SHORTCUTS

_given = {}  # {question: what was predicted}: a cell that is run again keeps it


def predict(question, choices):
    """Show a question with a place for the reader's prediction; returns the `Prediction`.

    choices: a list of texts of which one is chosen, or the unit of a number, such as "MB". Nothing waits for it: a run
    without a reader goes on. A cell that is run again shows what was predicted before. Raises ValueError for an empty
    question or unit, and for fewer than two different texts.
    """
    prediction = Prediction(question, choices)
    IPython.display.display(prediction)
    return prediction


class Prediction(ipywidgets.VBox):
    """A question and a place for the answer that a reader expects; see `predict`. As text it is the question."""

    def __init__(self, question, choices):
        self.unit = choices if isinstance(choices, str) else None
        self.options = [] if self.unit else [str(choice) for choice in choices]
        if not str(question).strip():
            raise ValueError("a prediction needs a question")
        if not (self.unit or "").strip() and len(set(self.options)) < max(2, len(self.options)):
            raise ValueError("give at least two different choices, or the unit of a number")
        self.question = f"Your prediction: {question}"
        self.place, self._told = self._choice() if self.options else self._number(), ipywidgets.HTML()
        self.place.style.description_width = "initial"
        given = _given.get(self.question)
        if given and (self.unit or given in self.options):
            self.place.value = given
            self._keep({"new": given})
        self.place.observe(self._keep, "value")
        super().__init__([ipywidgets.HTML(f"<b>{escape(self.question)}</b>"), self.place, self._told])

    def _number(self):
        return ipywidgets.Text(placeholder="a number", description=self.unit)

    def _choice(self):
        # buttons and no radio buttons, among which one moves with arrow keys: JupyterLab takes those for its cells
        buttons = ipywidgets.ToggleButtons(options=self.options, value=None)
        buttons.style.button_width = "auto"
        return buttons

    def _keep(self, change):
        _given[self.question] = change["new"]
        if self.options:  # in words, too: a screen reader is not told which button is pressed
            self._told.value = f"<span role='status'>You chose: {escape(change['new'])}</span>"

    def _repr_mimebundle_(self, **kwargs):
        told = f"{self.question} ({self.unit or ', '.join(self.options)})"
        return super()._repr_mimebundle_(**kwargs) | {"text/plain": told}

    def answer(self, result):
        """Print the result of this run beside the prediction, where there is one.

        result: one of the choices, or a number in the unit; None where this system could not measure it. Raises
        ValueError for a choice that was not offered and for what is no number.
        """
        if result is None:
            print("This system could not measure it.")
            return
        if self.unit:
            if isinstance(result, bool) or not isinstance(result, numbers.Real):
                raise ValueError(f"{result!r} is no number of {self.unit}")
            result = float(result)
        elif result not in self.options:
            raise ValueError(f"'{result}' is none of the choices: {', '.join(self.options)}")
        predicted, said = self._predicted()
        shown = f"{_plain(result)} {self.unit}" if self.unit else result
        right = " You were right." if not self.unit and predicted == result else ""
        print(f"{said}This run: {shown}.{right}")

    def _predicted(self):
        """(what was predicted or None, the sentence that says so, with a space behind it)."""
        given = self.place.value
        if not given or not self.unit:
            return given, f"You predicted: {given}. " if given else ""
        try:
            number = float(given.replace(self.unit, "").replace(",", ""))
        except ValueError:
            return None, f"Your prediction '{given}' is no number. "
        return number, f"You predicted: {_plain(number)} {self.unit}. "


def _plain(value):
    """A number as it is read in a sentence."""
    return _number(value) if math.isfinite(value) else "no finite number of"


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

    dials: {sympy symbol: (label, values to choose from, the one to begin with)}; the values are numbers, or
    {name: number}, and then the beginning is a name and the dial shows names. results: {label: sympy expression of
    the dials}, all in `unit`. fits: (expression, sentence where it is not negative, sentence where it is). Returns an
    IPython HTML object, which shows the beginning where no script may run. Raises ValueError where an expression has
    a symbol without a dial or a beginning is no choice.
    """
    formulas = [*results.values(), *([fits[0]] if fits else [])]
    if missing := set().union(*(formula.free_symbols for formula in formulas)) - set(dials):
        raise ValueError(f"no dial for {', '.join(sorted(map(str, missing)))}")
    named = {symbol: values if isinstance(values, dict) else {} for symbol, (_, values, _) in dials.items()}
    begin = {symbol: named[symbol].get(start, start) for symbol, (_, _, start) in dials.items()}
    plain = {symbol: sympy.Symbol(f"x{number}") for number, symbol in enumerate(dials)}  # safe as names in a script
    rows = []
    for symbol, (label, values, start) in dials.items():
        names, place = named[symbol], list(values).index(start)
        shown = escape(start) if names else _number(start)
        told = json.dumps([float(value) for value in (names.values() if names else values)])
        slider = f'<input type="range" max="{len(values) - 1}" value="{place}" data-values="{told}"'
        slider += f' data-names="{escape(json.dumps(list(names)))}" {NO_SHORTCUTS}>'
        rows.append(f"<label>{escape(label)} {slider} <output>{shown}</output></label>")
    shown = [float(formula.subs(begin)) for formula in results.values()]
    for label, value in zip(results, shown, strict=True):
        bar = f"<i><b style='width:{max(0, 100 * value / max([*shown, 1e-9])):.1f}%'></b></i>"
        number = f"<em><span>{_number(value)}</span> {escape(unit)}</em>"
        rows.append(f"<div><span>{escape(label)}</span>{bar}{number}</div>")
    if fits:
        yes, no = map(escape, fits[1:])
        rows.append(f'<p role="status" data-yes="{yes}" data-no="{no}">{yes if fits[0].subs(begin) >= 0 else no}</p>')
    parts = {"title": escape(title), "rows": "\n".join(rows), "names": ", ".join(map(str, plain.values()))}
    parts["formulas"] = ", ".join(sympy.jscode(formula.xreplace(plain)) for formula in formulas)
    parts["name"] = "explorer-" + hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
    page = resources.files(__package__).joinpath("explorer.html").read_text(encoding="utf-8")
    return IPython.display.HTML(Template(page).substitute(parts))


def _number(value):
    """As the page's `write` does it: three digits that count, thousands apart."""
    digits = 0 if abs(value) >= 100 or value == int(value) else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"
