"""Sphinx configuration: the book shows the notebooks as they were executed, and needs no network."""

import json
import re
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
root_doc = "index"  # of the pages that tools/pages.py makes
exclude_patterns = ["README.md"]  # parts of it stand in pages
html_theme = "sphinx_book_theme"
html_title = project
html_theme_options = {"navbar_persistent": [], "show_toc_level": 2}
html_context = {"default_mode": "auto"}  # light or dark as the reader's system; else the theme complains on each page
html_static_path = ["_static"]
html_css_files = ["course.css"]
html_js_files = ["reading.js", "names.js"]
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
    if "/" not in docname:  # no page of a chapter
        return
    notebook = json.loads(source[0])
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            alt = output.get("metadata", {}).get("image/png", {}).get("alt")
            if alt:
                cell["metadata"]["mystnb"] = {"image": {"alt": alt}}
    source[0] = json.dumps(notebook)


TOOK = r"This chapter took [0-9.]+ minutes and at most [0-9.]+ GB"


def published():
    """What the committed notebooks say about the run that they show: Markdown, a chapter after the other."""
    parts = []
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        title = "".join(notebook["cells"][0]["source"]).splitlines()[0].removeprefix("# ")
        where = notebook["metadata"].get("published")
        parts.append(f"### {title}\n\n" + (f"*{where['date']}, {where['machine']}*" if where else "*no day noted*"))
        for cell in notebook["cells"]:
            for output in cell.get("outputs", []):
                said = re.findall(TOOK, "".join(output.get("text", "")))
                parts += [f"{took}." for took in said]
                if "claims.table(" in "".join(cell["source"]):
                    table = "".join(output.get("data", {}).get("text/html", ""))
                    parts.append(re.sub(r"<style.*?</style>\n|^\s*\n", "", table, flags=re.DOTALL | re.MULTILINE))
    return "\n\n".join(filter(None, parts))


def reports(app, docname, source):
    """Put the ledger of the published notebooks, and that of the last `make course` here, into the ledger page."""
    if docname != "ledger":
        return
    build = ROOT / "build"
    for path in (build / "claims.json", build / "timings.json", *(ROOT / "notebooks").glob("[0-9]*.ipynb")):
        app.env.note_dependency(str(path), docname=docname)  # a new run makes this page new
    rows = claims.table(build)
    times = [
        {
            "chapter": name,
            "minutes": f"{t['seconds'] / 60:.1f}",
            "peak memory": f"{t['peak_bytes'] / 1e9:.1f} GB",
        }
        for name, t in sorted(chapters.timings(build).items())
    ]
    local = rows.to_markdown(index=False) if len(rows) else "`make course` writes this table on your machine."
    timings = pandas.DataFrame(times).to_markdown(index=False) if times else ""
    for name, text in {"PUBLISHED": published(), "LOCAL": local, "TIMINGS": timings}.items():
        source[0] = source[0].replace(name, text)


def model_sizes(app, docname, source):
    """Put the table of models and memories, computed from their configurations, into its page."""
    if docname == "bigger_machines":
        from slmops_lab.training import sizes

        source[0] = source[0].replace("SIZES", sizes.table(float("inf")).to_markdown(disable_numparse=True))


def setup(app):
    app.connect("source-read", alt_texts)
    app.connect("source-read", model_sizes)
    app.connect("source-read", reports)
