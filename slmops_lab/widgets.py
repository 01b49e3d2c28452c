"""Widgets that work in JupyterLab and, without a kernel, in the book: every picture is there from the start."""

import base64
import html

import ipywidgets


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
