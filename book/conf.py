"""Sphinx configuration: the book shows the notebooks as they were executed, and needs no network."""

import json
import re
from pathlib import Path

import yaml

TOC = yaml.safe_load((Path(__file__).parent / "myst.yml").read_text(encoding="utf-8"))["project"]["toc"]
TOCTREE = "\n\n```{{toctree}}\n:maxdepth: 2\n{}\n\n{}\n```\n"

project = "SLMOps Lab"
author = "the SLMOps Lab authors"
copyright = "SLMOps Lab; text and data CC-BY-4.0, code Apache-2.0"
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "myst_nb",
    "sphinx_design",
    "sphinxcontrib.bibtex",
    "sphinx_togglebutton",
    "sphinx_copybutton",
]
root_doc = "index"  # of the pages that tools/pages.py makes
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
autodoc_default_options = {"member-order": "bysource"}
autodoc_preserve_defaults = True  # as they are written, not what they evaluate to
add_module_names = False  # the page says it
autodoc_typehints = "none"  # the docstrings say it, with shapes and units
nitpicky = True
linkcheck_ignore = [r"https?://([\w.-]+\.)?example\b", r"http://(127\.0\.0\.1|localhost)"]  # made up; this machine
linkcheck_allowed_redirects = {r".*": r".*"}  # a page that moved and says so is still found
linkcheck_anchors = False  # many sites make them by script
linkcheck_timeout, linkcheck_retries, linkcheck_rate_limit_timeout = 20, 2, 120
linkcheck_report_timeouts_as_broken = False
suppress_warnings = ["mystnb.unknown_mime_type"]

# Everything a page loads is local, so that it opens with no network.
VENDOR = Path(__file__).parent / "_static" / "vendor"
if (VENDOR / "tex-svg.js").is_file():  # `make book` puts it there where npm is at hand
    mathjax_path = "vendor/tex-svg.js"
if (VENDOR / "embed.js").is_file():
    nb_ipywidgets_js = {"vendor/embed.js": {}}
    html_js_files.append(("mathjax-hub.js", {"priority": 100}))


def contents(app, docname, source):
    """Put the lists of pages, which myst.yml holds for both builders, into the pages that they stand under."""
    for part in TOC if docname == "index" else []:
        if "title" in part:
            pages = [Path(page["file"]).with_suffix("").as_posix() for page in part["children"]]
            source[0] += TOCTREE.format(f":caption: {part['title']}", "\n".join(pages))
    if docname == "index":
        source[0] += TOCTREE.format(":caption: The library", "reference/index")
    elif docname == "reference/index":
        source[0] += TOCTREE.format(":hidden:", "\n".join(re.findall(r"\((\w+)\.md\)", source[0])))
    elif docname.endswith("/index"):  # a chapter: a notebook, with all others of its folder
        notebook = json.loads(source[0])
        cell = next(cell for cell in reversed(notebook["cells"]) if cell["cell_type"] == "markdown")
        cell["source"] = "".join(cell["source"]) + TOCTREE.format(":hidden:\n:glob:", "*")
        source[0] = json.dumps(notebook)


def plain(text):
    """Text of a docstring, which is prose with `code` in it, as reStructuredText that reads the same."""
    parts = re.split(r"`([^`]+)`", text)
    parts[::2] = [re.sub(r"([\\*|`]|_\b)", r"\\\1", part) for part in parts[::2]]
    parts[2::2] = [re.sub(r"^(?=\w)", r"\\ ", part) for part in parts[2::2]]  # as in `Finding`s
    parts[1::2] = [f"``{part}``" for part in parts[1::2]]
    return "".join(parts)


def prose(app, what, name, thing, options, lines):
    """Docstrings for autodoc: paragraphs that are indented are shown as they are typed, all else is prose."""
    told = []
    for paragraph in "\n".join(lines).rstrip().split("\n\n"):
        told += ["::", "", paragraph] if paragraph.startswith("    ") else [plain(paragraph)]
        told.append("")
    lines[:] = "\n".join(told).splitlines()


def setup(app):
    app.connect("autodoc-process-docstring", prose)
    app.connect("source-read", contents)
