"""The flip book turns its pages by links that the browser makes, not by Python; the explorer computes there."""

import shutil

import pytest
import sympy
from ipywidgets import HTML, Stack

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


def test_a_cycle_has_every_step():
    figure = plots.cycle({"label": "first", "train": "second", "watch": "third"})
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert [text for text in texts if text] == ["label\nfirst", "train\nsecond", "watch\nthird"]
    plots.png(figure, "closes it")
