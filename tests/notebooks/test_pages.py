"""The pages of the book: every cell once, in order; what was not executed as it stands is refused."""

import importlib.util
import json
import re
import sys
import tomllib

import docutils.core
import nbformat
import PIL.Image
import pytest
import yaml
from conftest import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("[0-9]*.ipynb"))


@pytest.fixture(scope="module")
def pages():
    sys.path.append(str(REPOSITORY / "tools"))  # where a script finds those beside it
    spec = importlib.util.spec_from_file_location("pages", REPOSITORY / "tools/pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(pages, tmp_path_factory):
    folder = tmp_path_factory.mktemp("book") / "pages"
    pages.main(folder)
    return folder


@pytest.fixture(scope="module")
def conf():
    spec = importlib.util.spec_from_file_location("conf", REPOSITORY / "book/conf.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def words(notebook):
    return "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown").replace("#", "").split()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_is_on_one_page_in_order(made, path):
    whole, folder = nbformat.read(path, 4), made / path.stem
    names = ["index", *(f.stem for f in sorted(folder.glob("[0-9]*.ipynb"))), "quiz"]
    parts = [nbformat.read(folder / f"{name}.ipynb", 4) for name in names]
    code = [cell for part in parts for cell in part.cells if cell.cell_type == "code"]
    assert [c.source for c in code] == [c.source for c in whole.cells if c.cell_type == "code"]
    assert [c.outputs for c in code] == [c.outputs for c in whole.cells if c.cell_type == "code"]
    parts[0].cells.pop()  # the list of sections
    title = parts[-1].cells[0]
    assert title.source.startswith(f"# Quiz of chapter {int(path.stem[:2])}")
    title.source = title.source.replace(f" of chapter {int(path.stem[:2])}", "", 1)
    here = [word for part in parts for word in words(part) if "](" not in word]
    assert here == [word for word in words(whole) if "](" not in word]


def test_links_to_sections_go_to_their_pages(pages, made):
    assert pages.to_sections("[2.11](../notebooks/02_distillation.ipynb)") == "[2.11](02_distillation/2-11.ipynb)"
    assert (
        pages.to_sections("[2.1 to 2.3](02_distillation.ipynb)", "../") == "[2.1 to 2.3](../02_distillation/2-01.ipynb)"
    )
    assert pages.to_sections("[chapter 2](02_distillation.ipynb)") == "[chapter 2](02_distillation.ipynb)"
    named = re.findall(r"\((\d\d_\w+/\d-\d\d\.ipynb)\)", (made / "index.md").read_text(encoding="utf-8"))
    assert named and all((made / name).is_file() for name in named)


def outside_of_code(text):
    return "".join(text.split("```")[::2]).splitlines()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_page_has_one_title_and_its_widgets(made, pages, path):
    state = nbformat.read(path, 4).metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {})
    for file in (made / path.stem).glob("*.ipynb"):
        page = nbformat.read(file, 4)
        lines = [line for c in page.cells if c.cell_type == "markdown" for line in outside_of_code(c.source)]
        assert sum(line.startswith("# ") for line in lines) == 1, file
        kept = page.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {}).get("state", {})
        for output in (o for cell in page.cells for o in cell.get("outputs", [])):
            if pages.VIEW in output.get("data", {}):
                assert output.data[pages.VIEW]["model_id"] in kept
        assert all(kept[model] == state["state"][model] for model in kept)
        assert all(other in kept for other in pages.MODEL.findall(json.dumps(kept)))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_section_has_its_minutes(pages, path):
    notebook = nbformat.read(path, 4)
    numbers = [number for number, _, _ in pages.sections(notebook) if number]
    assert set(pages.minutes_of(notebook)) == set(numbers) and 0 < sum(pages.minutes_of(notebook).values()) < 180


def test_headings_and_links(pages):
    before = "# A\n```python\n### b\n```\n## B\n### C\ntext # d"
    assert pages.up_a_level(before) == before.replace("\n### C", "\n## C")
    text = "[a](../book/glossary.md#x), [2](02_distillation.ipynb), [f](https://a.example/02_x.ipynb)"
    wanted = "[a](../glossary.md#x), [2](../02_distillation/index.ipynb), [f](https://a.example/02_x.ipynb)"
    assert pages.bent(text) == wanted


def test_every_cell_has_an_id_of_its_own(made):
    """Jupyter Book 2 wants it over the whole book."""
    ids = [cell["id"] for file in made.rglob("*.ipynb") for cell in nbformat.read(file, 4).cells]
    assert len(ids) == len(set(ids)) > 500


def test_the_table_of_contents_has_every_page_of_the_book(made):
    toc = yaml.safe_load((made / "myst.yml").read_text(encoding="utf-8"))["project"]["toc"]
    listed, parts = [], list(toc)
    while parts:
        part = parts.pop()
        parts += part.get("children", [])
        listed += [made / part["file"]] if "file" in part else made.glob(part.get("pattern", "-"))
    assert {page for kind in ("*.md", "*/*.ipynb") for page in made.glob(kind)} == set(listed)


def test_the_reference_has_every_public_module(made):
    import pkgutil

    import slmops_lab

    modules = {module.name for module in pkgutil.walk_packages(slmops_lab.__path__, "slmops_lab.")}
    public = {name for name in modules if not name.rsplit(".", 1)[-1].startswith("_")}
    text = "\n".join(page.read_text(encoding="utf-8") for page in (made / "reference").glob("*.md"))
    shown = re.findall(r"^\.\. automodule:: (\S+)$", text, re.MULTILINE)
    assert len(shown) == len(set(shown)) and set(shown) == public


def test_docstrings_read_in_the_reference_as_they_were_written(conf):
    lines = [
        "One `x`s or `a*b`, **options, a_ | b",
        "over `two",
        "lines`.",
        "",
        "    till: {a: *1}",
        "      b",
        "",
        "End.",
    ]
    conf.prose(None, "function", "f", None, None, lines)
    page = docutils.core.publish_parts("\n".join(lines), writer="html5", settings_overrides={"report_level": 1})["body"]
    words = re.sub(r"<[^>]+>", "", page).split()
    assert words == "One xs or a*b, **options, a_ | b over two lines. till: {a: *1} b End.".split(), page
    assert "<pre" in page and page.count('<span class="docutils literal">') + page.count("<code") >= 3


def test_nothing_is_left_open_on_a_page(made):
    pages = "\n".join(page.read_text(encoding="utf-8") for page in made.glob("*.md"))
    assert not re.findall(r"PUBLISHED|LOCAL|TIMINGS|SIZES|CITED|{include}", pages)
    assert "`slmops doctor` says of each of these" in pages and "{cite:t}`hinton2015distilling`" in pages


def test_a_part_that_is_no_longer_there_is_said(pages):
    part = '```{include} ../README.md\n:start-after: "## Two commands"\n:end-before: "## Licence"\n```'
    assert pages.page_parts.included(part).startswith("You need Linux")
    with pytest.raises(SystemExit, match="a part of README.md that has no line '## Two command' any more"):
        pages.page_parts.included(part.replace("commands", "command"))


TEXTS = [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *(REPOSITORY / "book").glob("*.md")]
TEXTS += [path.with_suffix(".py") for path in NOTEBOOKS]


def dead_links(path, text):
    """Links of a text, as if it stood in the file `path`, that lead to no file here, or to no heading of that file."""
    dead = []
    for target in re.findall(r"\]\(((?![a-z]+:|#)[^)\s]+)\)", text):
        file, _, heading = target.partition("#")
        found = path.parent / file
        titles = re.findall(r"^#+ (.+)$", found.read_text("utf-8"), re.M) if heading and found.is_file() else []
        known = {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}
        if not found.is_file() or (heading and heading not in known):
            dead.append(target)
    return dead


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_lead_somewhere_in_the_repository_too(path):
    """Where they are read on GitHub, or in JupyterLab; inside the book, Sphinx checks them."""
    lines = path.read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if path.suffix == ".md" or line.startswith("# "))  # no code
    assert dead_links(path, text) == []


def test_dead_links_are_found():
    text = (
        "[a](glossary.md#layer) [b](nowhere.md) [c](glossary.md#nonsense) [d](https://a.example/x) ![e](_static/no.png)"
    )
    assert dead_links(REPOSITORY / "book/index.md", text) == ["nowhere.md", "glossary.md#nonsense", "_static/no.png"]


def test_the_changelog_begins_with_the_version_of_the_package(made):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions = re.findall(r"^## (\S+)", (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert versions[0] == project["version"] and len(versions) == len(set(versions))
    assert f"## {versions[0]}\n" in (made / "changelog.md").read_text(encoding="utf-8")


CODE = "# %% [markdown]\n# # One\n# ## 1.1 First\n\n# %%\n1 + 1\n\n# %%\n2 + 2\n"


@pytest.fixture
def chapter(tmp_path):
    """Function: a change of an executed notebook of two code cells -> its path."""

    def write(change):
        import jupytext

        (tmp_path / "01_one.py").write_text(CODE)
        notebook = jupytext.reads(CODE, "py:percent")
        for number, cell in enumerate([c for c in notebook.cells if c.cell_type == "code"], 1):
            cell.execution_count = number
        change(notebook)
        nbformat.write(notebook, tmp_path / "01_one.ipynb")
        return tmp_path / "01_one.ipynb"

    return write


def failed(notebook):
    notebook.cells[2].outputs = [nbformat.v4.new_output("error", ename="ValueError", evalue="x", traceback=[])]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (failed, "01_one.ipynb, code cell 2 failed: ValueError: '2 \\+ 2'"),
        (lambda notebook: notebook.cells[1].update(execution_count=None), "code cell 1 was never run: '1 \\+ 1'"),
        (lambda notebook: notebook.cells[2].update(source="2 + 3"), "code cell 2 is not that of its .py: '2 \\+ 3'"),
        (lambda notebook: notebook.cells.pop(), "lacks code cell 2 of its .py"),
        (lambda notebook: notebook.cells.append(nbformat.v4.new_code_cell("3")), "code cell 3 is not that of its .py"),
    ],
)
def test_what_was_not_executed_as_it_stands_is_refused(pages, chapter, change, said):
    pages.refuse_unfit(chapter(lambda notebook: None))
    with pytest.raises(SystemExit, match=said):
        pages.refuse_unfit(chapter(change))


def test_the_figure_of_the_readme_shows_the_published_ledgers():
    spec = importlib.util.spec_from_file_location("ledger_figure", REPOSITORY / "tools/ledger_figure.py")
    drawn = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawn)
    rows = drawn.rows()
    with PIL.Image.open(drawn.FILE) as picture:
        assert json.loads(picture.info["Description"]) == rows, "python tools/ledger_figure.py draws it anew"
    assert {row["verdict"] for row in rows} <= set(drawn.COLOURS)
    alone = [(row["lead"] >= 0) == (row["verdict"] == "held") for row in rows if row["verdict"] != "cannot tell"]
    assert all(alone) and all(row["low"] <= row["lead"] <= row["high"] for row in rows if row["low"] is not None)
    counts = [sum(row["verdict"] == verdict for row in rows) for verdict in ("held", "cannot tell", "missed")]
    assert counts == [7, 1, 1], "the README says so in words"
