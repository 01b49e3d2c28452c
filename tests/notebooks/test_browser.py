"""A learner at the keyboard of a real JupyterLab, and a book's page on a telephone; skipped where Chromium is missing.

One small notebook with what the chapters use: a quiz, sliders, a prediction. About half a minute, most of it the start.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import psutil
import pytest
from conftest import REPOSITORY

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")

EXPLORER = """import sympy
from slmops_lab.course import widgets
n = sympy.Symbol("n")
widgets.explorer("Sizes", {n: ("model", {"Tiny": 1, "Large": 7}, "Tiny")}, {"weights": 2 * n}, "GB")"""
CELLS = {
    "quiz": "from slmops_lab.course import quiz\nquiz.ask(1)",
    "explorer": EXPLORER,
    "predict": 'guess = widgets.predict("How large?", "MB")',
    "answer": "guess.answer(538.1)",
    "choose": 'which = widgets.predict("Which is larger?", ["the cache", "the weights"])',
    "chosen": 'which.answer("the weights")',
    "bar": """from slmops_lab import settings
from slmops_lab.course import chapters
from tqdm import tqdm
chapters.Sections(settings.start("support_desk", "smollm2-135m", "quick", 0), "01_introduction")
print(sum(tqdm(range(3), leave=False)), "counted")""",
}
IDLE = """() => { const context = window.jupyterapp?.shell.currentWidget?.sessionContext;
  return context?.isReady && context.session?.kernel?.status === "idle"; }"""


def saved_notebook():
    """The cells with a quiz as an earlier run left it: JupyterLab does not trust it."""
    from slmops_lab.course import quiz

    cells = [nbformat.v4.new_code_cell(code) for code in CELLS.values()]
    cells[0].outputs = [nbformat.v4.new_output("execute_result", {"text/html": quiz.ask(1).data}, execution_count=1)]
    kernel = {"name": "python3", "display_name": "Python 3"}  # else JupyterLab asks which one
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Address of a JupyterLab with settings of its own, in which the notebook lies."""
    root = tmp_path_factory.mktemp("lab")
    nbformat.write(saved_notebook(), root / "small.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {name: str(root / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    own |= {name: str(root / name.lower()) for name in ("JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")}
    own |= {"IPYTHONDIR": str(root / "ipython"), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--expose-app-in-browser"]
    command += [f"--port={port}", "--ip=127.0.0.1", f"--ServerApp.root_dir={root}", "--IdentityProvider.token="]
    command += ["--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=os.environ | own, **quiet)
    address = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            urllib.request.urlopen(f"{address}/api/status", timeout=1).close()
            break
        except OSError:
            time.sleep(0.2)
    yield address
    for one in [*psutil.Process(process.pid).children(recursive=True), process]:
        one.terminate()
    process.wait(20)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(lab, browser):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(60_000)
    page.outside = []
    page.on("request", lambda request: None if lab in request.url else page.outside.append(request.url))
    page.goto(f"{lab}/lab/tree/small.ipynb?reset")
    page.wait_for_selector(".jp-Notebook")
    page.wait_for_function(IDLE)
    return page


def run(page, name):
    """Run a cell; returns its place on the page."""
    number = list(CELLS).index(name)
    activate = "number => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = number; }"
    page.evaluate(activate, number)
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-cell')")
    page.wait_for_function(IDLE)
    return page.locator(".jp-Notebook .jp-CodeCell").nth(number)


def where(page):
    """Number of the active cell, and of cells."""
    return page.evaluate(
        """() => { const notebook = window.jupyterapp.shell.currentWidget.content;
        return [notebook.activeCellIndex, notebook.widgets.length]; }"""
    )


def test_a_saved_quiz_says_that_its_cell_has_to_run(page):
    saved = page.get_by_text("The quiz answers as soon as you have run this cell.")
    saved.wait_for()
    cell = run(page, "quiz")
    saved.wait_for(state="detached")
    cell.locator("input").first.wait_for()


def test_a_quiz_is_answered_with_the_keyboard_alone(page):
    cell = run(page, "quiz")
    before = where(page)
    cell.locator("input").first.focus()
    page.keyboard.press("Space")
    page.keyboard.press("ArrowDown")
    assert cell.locator("input").nth(1).is_checked()
    assert cell.locator("fieldset p").first.inner_text().startswith(("Right.", "Not quite."))
    page.keyboard.type("dd")  # elsewhere in a notebook it deletes the cell
    assert where(page) == before


def test_a_slider_is_moved_with_the_keyboard_alone(page):
    cell = run(page, "explorer")
    slider = cell.get_by_role("slider", name="model")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert cell.locator("output").inner_text() == "Large" == slider.get_attribute("aria-valuetext")
    assert cell.locator("em").inner_text() == "14 GB"
    assert where(page)[0] == list(CELLS).index("explorer")


def test_a_prediction_is_shown_beside_the_result_and_survives_a_second_run(page):
    run(page, "predict").locator("input").fill("500")
    again = run(page, "predict").locator("input")
    again.wait_for()
    assert again.input_value() == "500"
    run(page, "answer").get_by_text("You predicted: 500 MB. This run: 538 MB.").wait_for()
    assert not page.outside, "asked of another machine"


def test_a_choice_is_made_with_the_keyboard_alone(page):
    cell = run(page, "choose")
    before = where(page)
    cell.get_by_role("button", name="the cache").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    cell.get_by_text("You chose: the weights").wait_for()
    assert where(page) == before
    run(page, "chosen").get_by_text("You predicted: the weights. This run: the weights. You were right.").wait_for()


def test_a_progress_bar_leaves_nothing_behind(page):
    cell = run(page, "bar")
    cell.get_by_text("3 counted").wait_for()
    assert not cell.locator("[data-mime-type='application/vnd.jupyter.stderr']").count(), "a red strip"


def test_sliders_fit_a_telephone(browser, tmp_path):
    import sympy

    from slmops_lab.course import widgets

    n = sympy.Symbol("n")
    dials = {n: ("messages per day and device", [1, 1000], 1)}
    told = widgets.explorer("Sizes", dials, {"weights": n}, "dollars").data
    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8>{told}", encoding="utf-8")
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto((tmp_path / "page.html").as_uri())
    for part in ("input", "output", "em"):
        box = page.locator(part).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390, part
    page.close()
