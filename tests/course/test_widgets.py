"""Widgets and figures.

The flip book turns its pages by links that the browser makes, not by Python; the explorer computes there.
"""

import math
import shutil
import unicodedata
import warnings

import pandas
import pytest
import sympy
from ipywidgets import HTML, Stack
from matplotlib import font_manager

from slmops_lab.course import plots, widgets


def everything(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from everything(child)


def pictures(kinds):
    return {kind: {step: (b"png", f'{kind} "{step}"') for step in (1, 2, 3)} for kind in kinds}


@pytest.mark.parametrize("kinds", [["a"], ["a", "b"]])
def test_every_page_is_there_with_its_alt_text(kinds):
    book = widgets.flip_book(pictures(kinds), over="kind", along="step")
    pages = [w.value for w in everything(book) if isinstance(w, HTML)]
    assert len(pages) == 3 * len(kinds)
    assert 'alt="a &quot;1&quot;"' in pages[0] and "data:image/png;base64,cG5n" in pages[0]
    shelves = [w for w in everything(book) if isinstance(w, Stack)]
    assert all(shelf.selected_index == 0 for shelf in shelves)
    assert len(shelves) == (1 if len(kinds) == 1 else 3)


def test_the_links_need_no_kernel():
    from ipywidgets import Widget, widget_link

    book = widgets.flip_book(pictures(["a", "b"]), over="kind", along="step")
    inside = {id(w) for w in everything(book)}
    links = [w for w in Widget.widgets.values() if isinstance(w, widget_link.Link) and id(w.target[0]) in inside]
    assert sorted(link.target[1] for link in links) == ["selected_index"] * 3


def test_a_picture_needs_a_takeaway():
    figure = plots.columns(["x", "y"], {"teacher": [10, 90], "student": [20, 80]}, "%")
    with pytest.raises(ValueError, match="takeaway"):
        plots.png(figure, " ")
    assert plots.png(figure, "Two columns each").startswith(b"\x89PNG")


def test_pairs_show_every_row_and_its_count():
    figure = plots.pairs({"teacher": {"x": 50, "y": 60}, "student": {"x": 40, "y": 70}}, {"y": 9, "x": 3}, "%")
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["y (9)", "x (3)"]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["teacher", "student"]
    plots.png(figure, "closes it")


@pytest.mark.parametrize("kind", [dict, pandas.Series])
def test_an_interval_below_zero_is_shown_whole(kind):
    figure = plots.dots(kind({"x": 0.0, "y": 1.0}), "nats", kind({"x": -2.0, "y": 0.5}), kind({"x": 2.0, "y": 1.5}))
    assert figure.axes[0].get_xlim()[0] <= -2
    plots.png(figure, "closes it")
    figure = plots.dots(kind({"x": 1.0, "y": 2.0}), "ms")
    assert figure.axes[0].get_xlim()[0] == 0, "lengths that are compared begin at zero"
    plots.png(figure, "closes it")


def test_calibration_shows_each_group_with_its_interval_in_per_cent():
    figure = plots.calibration([(0.4, 0.5, 0.3, 0.7), (0.9, 0.8, 0.7, 0.9)])
    (axis,) = figure.axes
    assert axis.lines[1].get_xydata().tolist() == [[40, 50], [90, 80]]
    (intervals,) = axis.collections
    assert [[list(end) for end in part] for part in intervals.get_segments()] == [
        [[40, 30], [40, 70]],
        [[90, 70], [90, 90]],
    ]
    plots.png(figure, "closes it")


def test_a_frontier_has_every_point_in_every_panel():
    points = {
        "teacher": {"fp32": (500, 900, 70, 66, 74)},
        "student": {"fp32": (100, 90, 68, 64, 72), "int4": (20, 30, 67, 63, 71)},
    }
    figure = plots.frontier(points, ["MB", "ms"], "exact match in %")
    assert [axis.get_xlabel() for axis in figure.axes] == ["MB", "ms"]
    for place, axis in enumerate(figure.axes):
        marked = {(x, y) for line in axis.lines if line.get_marker() != "None" for x, y in line.get_xydata()}
        assert marked == {(p[place], p[2]) for named in points.values() for p in named.values()}
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["teacher", "student", "fp32", "int4"]
    plots.png(figure, "closes it")


BILLIONS, BITS, ROOM = sympy.symbols("values x_{1} new")  # names that a script could not use
GIGABYTES = BILLIONS * BITS / 8
DIALS = {
    BILLIONS: ("billion weights", [0.135, 3.8, 671], 3.8),
    BITS: ("bits <each>", [4, 16], 16),
    ROOM: ("memory", [1, 8], 8),
}


def explorer(**more):
    told = {"title": "Fits?", "dials": DIALS, "results": {"weights": GIGABYTES}, "unit": "GB", **more}
    return widgets.explorer(**told, fits=(ROOM - GIGABYTES, "It fits.", "It does not fit."))


def test_an_explorer_shows_its_beginning_without_a_script():
    before_any_script = explorer().data.split("<script>")[0]
    assert "<span>7.60</span> GB" in before_any_script and ">It fits.</p>" in before_any_script
    assert "bits &lt;each&gt;" in before_any_script
    assert ">It does not fit.</p>" in explorer(dials=DIALS | {ROOM: ("memory", [1, 8], 1)}).data
    assert explorer().data == explorer().data, "the same every time, so that a run again changes nothing"


NAMED = {"Tiny <1>": 0.135, "Large": 671}


def test_a_dial_may_show_names():
    begun = explorer(dials=DIALS | {BILLIONS: ("model", NAMED, "Large")}).data.split("<script>")[0]
    assert "<output>Large</output>" in begun and 'value="1" data-values="[0.135, 671.0]"' in begun
    assert 'data-names="[&quot;Tiny &lt;1&gt;&quot;, &quot;Large&quot;]"' in begun
    assert (
        "<span>1,342</span> GB"
        in explorer(dials=DIALS | {BILLIONS: ("model", NAMED, "Large"), BITS: ("b", [16], 16)}).data
    )
    with pytest.raises(ValueError, match="'Huge' is not in list"):
        explorer(dials=DIALS | {BILLIONS: ("model", NAMED, "Huge")})


def test_an_explorer_refuses_what_it_could_not_compute():
    with pytest.raises(ValueError, match="no dial for rank"):
        explorer(results={"adapter": sympy.Symbol("rank") * 2})
    with pytest.raises(ValueError, match="5 is not in list"):
        explorer(dials=DIALS | {BITS: ("bits", [4, 16], 5)})


def test_an_explorer_computes_in_the_browser_what_sympy_computes(tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8>{explorer().data}", encoding="utf-8")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto((tmp_path / "page.html").as_uri())
        for place, billions in enumerate(DIALS[BILLIONS][1]):
            page.locator("input").nth(0).fill(str(place))
            size = float(GIGABYTES.subs({BILLIONS: billions, BITS: 16}))
            shown = page.locator("em").text_content()
            assert float(shown.removesuffix(" GB").replace(",", "")) == pytest.approx(size, rel=0.02)
            assert page.locator("p").text_content() == ("It fits." if size <= 8 else "It does not fit.")
        browser.close()


def test_names_and_steps_in_a_formula_work_in_the_browser(tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    cache = sympy.Piecewise((12, BILLIONS <= 1), (70, True)) * ROOM
    told = explorer(dials=DIALS | {BILLIONS: ("model", NAMED, "Large")}, results={"cache": cache})
    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8>{told.data}", encoding="utf-8")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto((tmp_path / "page.html").as_uri())
        for place, (name, shown) in enumerate({"Tiny <1>": "96 GB", "Large": "560 GB"}.items()):
            page.locator("input").nth(0).fill(str(place))
            assert page.locator("output").nth(0).text_content() == name
            assert page.locator("em").text_content() == shown
        browser.close()


def test_a_prediction_is_still_there_when_its_cell_is_run_again(capsys):
    for choices, value, others in (("MB", "12", ["a", "b"]), (["half", "whole"], "whole", ["half", "double"])):
        question = f"How large is it now, {choices}?"
        widgets.predict(question, choices).place.value = value
        assert widgets.predict(question, choices).place.value == value
        assert widgets.predict(question, others).place.value is None, "no longer one of the choices"
        assert not widgets.predict(question + "?", choices).place.value, "another question"


def test_a_prediction_stands_beside_the_result(capsys):
    guess = widgets.predict("How large is the file?", "MB")
    capsys.readouterr()
    guess.answer(538.1)
    assert capsys.readouterr().out == "This run: 538 MB.\n", "nobody predicted: a run without a reader goes on"
    guess.place.value = "1,200 MB"
    guess.answer(538.1)
    assert capsys.readouterr().out == "You predicted: 1,200 MB. This run: 538 MB.\n"
    guess.place.value = "many"
    guess.answer(float("inf"))
    assert capsys.readouterr().out == "Your prediction 'many' is no number. This run: no finite number of MB.\n"
    guess.answer(None)
    assert capsys.readouterr().out == "This system could not measure it.\n"


def test_a_prediction_may_be_a_choice(capsys):
    guess = widgets.predict("Which is cheaper?", ["the cloud", "a device"])
    capsys.readouterr()
    guess.answer("a device")
    assert capsys.readouterr().out == "This run: a device.\n"
    guess.place.value = "a device"
    guess.answer("a device")
    guess.answer("the cloud")
    right, wrong = capsys.readouterr().out.splitlines()
    assert right == "You predicted: a device. This run: a device. You were right."
    assert wrong == "You predicted: a device. This run: the cloud."


def test_a_prediction_reads_as_text_where_no_widget_is_shown():
    shown = widgets.Prediction("Is a < b?", ["yes", "no"])._repr_mimebundle_()
    assert shown["text/plain"] == "Your prediction: Is a < b? (yes, no)"
    assert "a &lt; b" in widgets.Prediction("Is a < b?", "%").children[0].value


@pytest.mark.parametrize(("question", "choices"), [(" ", "MB"), ("?", " "), ("?", ""), ("?", ["a"]), ("?", ["a", "a"])])
def test_what_is_no_prediction_is_refused(question, choices):
    with pytest.raises(ValueError):
        widgets.predict(question, choices)


@pytest.mark.parametrize(
    ("choices", "result"), [("MB", "538"), ("MB", True), (["yes", "no"], "perhaps"), (["1", "2"], 1)]
)
def test_what_is_no_answer_is_refused(choices, result):
    with pytest.raises(ValueError, match="is no"):
        widgets.Prediction("?", choices).answer(result)


def test_dots_have_the_first_name_on_top_and_their_intervals():
    values, low, high = {"whole": 1, "half": 4}, {"whole": 1, "half": 3}, {"whole": 1, "half": math.inf}
    figure = plots.panels(
        {"values": values, "unit": "MB"},
        {"values": values, "unit": "times", "low": low, "high": high, "log": True, "mark": 1},
    )
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["whole", "half"]
    assert [tuple(point) for point in left.lines[0].get_xydata()] == [(1, 1), (4, 0)]
    assert left.get_xlim()[0] == 0 and right.get_xscale() == "log" and right.get_xlabel() == "times"
    assert len(right.collections) == 1, "an interval without an end is not drawn"
    plots.png(figure, "closes it")


def test_a_cloud_names_every_point():
    points = {
        "layers": {"28": (500, 1.3, 1.2, 1.4), "24": (450, 1.9, 0, math.inf)},
        "bits": {"int4": (86, 1.3, 1.2, 1.4)},
    }
    figure = plots.cloud(points, "MB", "times")
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.texts] == ["28", "24", "int4"]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["layers", "bits"]
    assert len(axis.collections) == 2 and axis.get_xlim()[0] == 0
    plots.png(figure, "closes it")


def test_a_cycle_has_every_step():
    figure = plots.cycle({"label": "first", "train": "second", "watch": "third"})
    texts = [text for text in figure.axes[0].texts if text.get_text()]
    assert [text.get_text() for text in texts] == ["label\nfirst", "train\nsecond", "watch\nthird"]
    boxes, arrows = (
        [text.get_bbox_patch() for text in texts],
        [t.arrow_patch for t in figure.axes[0].texts if t not in texts],
    )
    assert [(arrow.patchA, arrow.patchB) for arrow in arrows] == list(zip(boxes, [*boxes[1:], boxes[0]], strict=True))
    plots.png(figure, "closes it")


FONTS = ("DejaVu Sans", "STIXGeneral")  # matplotlib brings both along


def lettered(letters):
    """A figure with the letters everywhere: names of bars, axis, legend, a title of its own."""
    figure = plots.bars({letters: 1, "latin": 2}, f"share of {letters}")
    figure.axes[0].set_title(letters)
    figure.axes[0].plot([1], [1], label=letters)
    figure.axes[0].legend()
    return figure


def test_letters_that_another_installed_font_has_are_drawn_with_it(capsys):
    default, other = ({*font_manager.get_font(font_manager.findfont(name)).get_charmap()} for name in FONTS)
    letter = next(chr(code) for code in sorted(other - default) if unicodedata.category(chr(code)).startswith("S"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = lettered(letter)
        plots.png(figure, f"takeaway {letter}")
    families = figure.axes[0].get_yticklabels()[0].get_fontfamily()
    assert families[0] == FONTS[0] and len(families) == 2
    assert ord(letter) in font_manager.get_font(font_manager.findfont(families[1])).get_charmap()


def test_letters_that_no_font_has_are_told_once(capsys):
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            plots.png(lettered("\U000f1234 \U000f1235"), "letters of nobody")  # for private use
    assert capsys.readouterr().out.count("No installed font has \U000f1234 \U000f1235: figures show boxes") == 1


@pytest.mark.parametrize(
    "text", ["Größe in °C, −3 ± 2 µs → 5 × 10", "привет", "naïve … “quotes”", "two\nlines\tand a tab"]
)
def test_usual_letters_need_no_other_font(capsys, text):
    figure = lettered(text)
    plots.png(figure, text)
    assert figure.axes[0].get_title("left") == text and capsys.readouterr().out == ""
    assert len(figure.axes[0].get_yticklabels()[0].get_fontfamily()) == 1


def test_a_bar_may_lie_on_the_end_of_its_interval():
    figure = plots.bars(
        {"all right": 100.0, "half": 50}, "%", low={"all right": 95, "half": 40}, high={"all right": 99.999, "half": 60}
    )
    axis = figure.axes[0]
    assert [text.get_text() for text in axis.texts] == ["100.0", "50.0"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["all right", "half"]
    assert axis.yaxis_inverted(), "the first name on top"
    (lines,) = [c for c in axis.collections]
    assert [[point[0] for point in line] for line in lines.get_segments()] == [[95, 100], [40, 60]]
    plots.png(figure, "closes it")
