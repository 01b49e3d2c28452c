"""Sphinx configuration: the book shows the notebooks as they were executed, and needs no network."""

import json
from pathlib import Path

import pandas

from slmops_lab.course import chapters, claims

ROOT = Path(__file__).resolve().parents[1]

project = "SLMOps Lab"
author = "the SLMOps Lab authors"
copyright = "SLMOps Lab; text and data CC-BY-4.0, code Apache-2.0"
extensions = [
    "myst_nb",
    "sphinx_design",
    "sphinxcontrib.bibtex",
    "sphinx_togglebutton",
    "sphinx_copybutton",
]
root_doc = "book/index"
include_patterns = ["book/*.md", "notebooks/*.ipynb"]
html_theme = "sphinx_book_theme"
html_title = project
html_theme_options = {"navbar_persistent": [], "show_toc_level": 2}
html_static_path = ["_static"]
html_css_files = ["course.css"]
html_js_files = ["reading.js"]
myst_enable_extensions = ["amsmath", "dollarmath", "colon_fence"]
myst_heading_anchors = 3
bibtex_bibfiles = ["references.bib"]
nb_execution_mode = "off"  # the outputs are those of `make course`
nitpicky = True
suppress_warnings = ["mystnb.unknown_mime_type"]

# Everything a page loads is local, so that it opens with no network.
VENDOR = Path(__file__).parent / "_static" / "vendor"
if (VENDOR / "tex-svg.js").is_file():  # `make book` puts it there where npm is at hand
    mathjax_path = "vendor/tex-svg.js"
if (VENDOR / "embed.js").is_file():
    nb_ipywidgets_js = {"vendor/embed.js": {}}
    html_js_files.append(("mathjax-hub.js", {"priority": 100}))


def alt_texts(app, docname, source):
    """Give MyST-NB the alt texts that the figures carry in their outputs' metadata."""
    if not docname.startswith("notebooks/"):
        return
    notebook = json.loads(source[0])
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            alt = output.get("metadata", {}).get("image/png", {}).get("alt")
            if alt:
                cell["metadata"]["mystnb"] = {"image": {"alt": alt}}
    source[0] = json.dumps(notebook)


def reports(app, docname, source):
    """Put the tables of the last `make course` into the ledger page."""
    if docname != "book/ledger":
        return
    build = ROOT / "build"
    for name in ("claims.json", "timings.json"):  # a new run makes this page new
        app.env.note_dependency(str(build / name), docname=docname)
    rows = claims.table(build)
    times = [
        {
            "chapter": name,
            "minutes": f"{t['seconds'] / 60:.1f}",
            "peak memory": f"{t['peak_bytes'] / 1e9:.1f} GB",
        }
        for name, t in sorted(chapters.timings(build).items())
    ]
    missing = "*This book was built without a run of the course: `make course` writes this table.*"
    ledger = missing if rows.empty else rows.to_markdown(index=False)
    timings = pandas.DataFrame(times).to_markdown(index=False) if times else missing
    source[0] = source[0].replace("LEDGER", ledger).replace("TIMINGS", timings)


def setup(app):
    app.connect("source-read", alt_texts)
    app.connect("source-read", reports)
