"""Widgets that work in JupyterLab and, without a kernel, in the book: every picture is there from the start."""

import base64
import hashlib
import html
import json

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
    return ipywidgets.HTML(f'<img alt="{html.escape(alt, quote=True)}" src="data:image/png;base64,{source}">')


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
    for number, (label, values, start) in enumerate(dials.values()):
        place = list(values).index(start)
        rows.append(
            f'<label>{html.escape(label)} <input type="range" min="0" max="{len(values) - 1}" value="{place}" '
            f'data-dial="{number}"> <output>{_number(start)}</output></label>'
        )
    shown = [float(formula.subs(begin)) for formula in results.values()]
    longest = max([*shown, 1e-9])
    for label, value in zip(results, shown, strict=True):
        rows.append(
            f"<div><span>{html.escape(label)}</span><i><b style='width:{max(0, 100 * value / longest):.1f}%'></b></i>"
            f"<em><span>{_number(value)}</span> {html.escape(unit)}</em></div>"
        )
    verdict = (fits[1] if fits[0].subs(begin) >= 0 else fits[2]) if fits else ""
    told = json.dumps([[float(v) for v in values] for _, values, _ in dials.values()])
    wanted = ", ".join(f"() => {sympy.jscode(formula.xreplace(plain))}" for formula in results.values())
    test = f"() => {sympy.jscode(fits[0].xreplace(plain))}" if fits else "null"
    sentences = json.dumps([html.escape(text) for text in fits[1:]] if fits else [])
    names = ", ".join(map(str, plain.values()))
    body = "\n".join(rows)
    name = "explorer-" + hashlib.sha256((title + body + wanted).encode()).hexdigest()[:12]
    script = _SCRIPT % {"name": name, "names": names, "dials": told, "results": wanted, "fits": test, "say": sentences}
    return IPython.display.HTML(
        f'<div id="{name}" class="explorer"><style>{_STYLE}</style><strong>{html.escape(title)}</strong>\n{body}\n'
        f"<p>{html.escape(verdict)}</p></div>\n<script>{script}</script>"
    )


def _number(value):
    """As the script writes it: three digits that count, thousands apart."""
    digits = 0 if abs(value) >= 100 or value == int(value) else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


_STYLE = """
.explorer { max-width: 46rem; font-size: 0.9rem; line-height: 1.7; }
.explorer label { display: grid; grid-template-columns: 17rem 1fr 6rem; gap: 0.6rem; }
.explorer div { display: grid; grid-template-columns: 17rem 1fr 9rem; gap: 0.6rem; align-items: center; }
.explorer i { height: 0.9rem; } .explorer b { display: block; height: 100%; background: #0072B2; }
.explorer output, .explorer em { text-align: right; font-style: normal; }
.explorer p { font-weight: bold; }
"""

# every number is computed again at each move; nothing is fetched
_SCRIPT = """(() => {
  const box = document.getElementById("%(name)s");
  const dials = %(dials)s, say = %(say)s;
  const inputs = [...box.querySelectorAll("input")], outputs = [...box.querySelectorAll("output")];
  const bars = [...box.querySelectorAll("b")], texts = [...box.querySelectorAll("em span")];
  const write = (x) => x.toLocaleString("en-US", (d => ({minimumFractionDigits: d, maximumFractionDigits: d}))(
    Math.abs(x) >= 100 || x === Math.trunc(x) ? 0 : Math.abs(x) >= 10 ? 1 : Math.abs(x) >= 1 ? 2 : 3));
  const draw = () => {
    const [%(names)s] = dials.map((dial, i) => dial[inputs[i].value]);
    dials.forEach((dial, i) => { outputs[i].textContent = write(dial[inputs[i].value]); });
    const values = [%(results)s].map((f) => f()), fits = %(fits)s;
    const longest = Math.max(...values, 1e-9);
    values.forEach((value, i) => {
      bars[i].style.width = Math.max(0, 100 * value / longest) + "%%";
      texts[i].textContent = write(value);
    });
    if (fits) box.querySelector("p").innerHTML = fits() >= 0 ? say[0] : say[1];
  };
  inputs.forEach((input) => input.addEventListener("input", draw));
  draw();
})();"""
