"""The committed notebooks as files. `make test` executes them too, with nbval, in quick mode."""

import importlib.util
import re
from pathlib import Path

import jupytext
import nbformat
import pytest
import yaml
from jupytext.compare import compare_notebooks

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = sorted((REPOSITORY / "notebooks").glob("[0-9]*.py"))
NOTEBOOKS = [nbformat.read(p.with_suffix(".ipynb"), as_version=4) for p in SOURCES]
BOTH = list(zip(SOURCES, NOTEBOOKS, strict=True))
IDS = [p.stem for p in SOURCES]


def code_cells(notebook):
    return [c for c in notebook.cells if c.cell_type == "code"]


def texts(output):
    """Everything in an output that a reader may see as text."""
    if output.output_type == "stream":
        return output.text
    return "\n".join(str(v) for k, v in output.get("data", {}).items() if not k.startswith("image/"))


def script(name):
    """tools/NAME.py as a module."""
    spec = importlib.util.spec_from_file_location(f"tools_{name}", REPOSITORY / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_four():
    assert IDS == ["01_introduction", "02_distillation", "03_fine_tuning", "04_deployment"]


@pytest.mark.parametrize(("source", "notebook"), BOTH, ids=IDS)
def test_source_and_notebook_hold_the_same_cells(source, notebook):
    written = jupytext.read(source)
    cells = nbformat.v4.new_notebook(cells=notebook.cells)  # the kernel's name stands in the .ipynb only
    written.metadata = cells.metadata
    compare_notebooks(cells, written, fmt="py:percent", compare_outputs=False, compare_ids=False)


@pytest.mark.parametrize(("source", "notebook"), BOTH, ids=IDS)
def test_executed_from_top_to_bottom_without_errors(source, notebook):
    counts = [c.execution_count for c in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    outputs = [o for c in code_cells(notebook) for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
    streams = [o for o in outputs if o.output_type == "stream"]
    assert not [o.text for o in streams if o.name == "stderr" or "\r" in o.text]


def test_of_a_line_with_a_progress_bar_what_comes_after_it_stays():
    def stream(text, name="stdout"):
        return nbformat.v4.new_output("stream", name=name, text=text)

    picture = nbformat.v4.new_output("display_data", {"image/png": "AAAA"})
    outputs = [stream("\ranswering:   0%|"), stream("\ranswering: 50%|##  | 1/2\r")]
    outputs += [
        stream("      \r48 messages\nin 3 s\n"),
        picture,
        stream("\r        \r"),
        stream("\rMap: 100%|####| 8/8 [00:01<00:00, 6.1it/s]\n", "stderr"),
    ]
    left = script("notebooks").without_progress([*outputs, stream("| a | table |\n")])
    assert [o.get("text") for o in left] == ["48 messages\nin 3 s\n", None, "| a | table |\n"]


def test_the_readme_has_the_times_of_the_published_run():
    text, total = (REPOSITORY / "README.md").read_text(encoding="utf-8"), 0.0
    for source, notebook in BOTH:
        shown = "".join(texts(o) for c in code_cells(notebook) for o in c.outputs)
        (took,) = re.findall(r"This chapter took ([\d.]+) minutes and at most ([\d.]+) GB", shown)
        assert f"| {source.stem} | {took[0]} | {took[1]} |" in text
        total += float(took[0])
    assert f"| all | {total:.1f} | |" in text


@pytest.mark.parametrize(("source", "notebook"), BOTH, ids=IDS)
def test_no_path_of_a_machine(source, notebook):
    shown = "\n".join(texts(o) for c in code_cells(notebook) for o in c.outputs)
    assert not re.search(r"(?<![\w:/.~])/\w+/\w|\b[A-Z]:\\", shown), "an absolute path"


@pytest.mark.parametrize(("source", "notebook"), BOTH, ids=IDS)
def test_every_figure_has_alt_text(source, notebook):
    figures = [o for c in code_cells(notebook) for o in c.outputs if "image/png" in o.get("data", {})]
    assert figures
    assert all(len(o.metadata.get("image/png", {}).get("alt", "")) > 20 for o in figures)


@pytest.mark.parametrize(("source", "notebook"), BOTH, ids=IDS)
def test_anatomy(source, notebook):
    tags = [t for c in notebook.cells for t in c.metadata.get("tags", [])]
    prose = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    assert tags.count("parameters") == 1
    assert tags.count("exercise") >= 4
    assert tags.count("exercise") == tags.count("check") == prose.count("<summary>Solution</summary>")
    assert prose.count("### Exercise ") == tags.count("exercise")
    for heading in ("You will be able to", "You need", "## Quiz", "## Take-aways"):
        assert heading in prose
    assert max(len([x for x in c.source.splitlines() if x.strip()]) for c in code_cells(notebook)) <= 20
    assert not re.search(r"pip install|!pip|%pip", "".join(c.source for c in code_cells(notebook)))


@pytest.mark.parametrize("source", SOURCES, ids=IDS)
def test_every_prediction_is_answered(source):
    text = source.read_text(encoding="utf-8")
    asked = re.findall(r"(\w+) = widgets\.predict\(", text)
    assert sorted(asked) == sorted(re.findall(r"(\w+)\.answer\(", text)) and len(asked) <= 10


@pytest.mark.parametrize("source", SOURCES, ids=IDS)
def test_links_to_the_glossary_lead_to_a_word_in_it(source):
    headings = re.findall(r"^#+ (.*)$", (REPOSITORY / "book" / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(headings) == len(set(headings))
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\(\.\./book/glossary\.md#([^)]*)\)", source.read_text(encoding="utf-8"))) <= anchors


@pytest.mark.parametrize(("source", "notebook"), BOTH, ids=IDS)
def test_citations_are_in_the_bibliography(source, notebook):
    """As plain links, which read well in JupyterLab and in the book alike."""
    text = source.read_text(encoding="utf-8")
    known = set(re.findall(r"url = \{(.*?)\}", (REPOSITORY / "book" / "references.bib").read_text()))
    cited = set(re.findall(r"\]\((https://[^)\s]+)\)", text))
    assert cited and cited <= known
    assert "{cite}" not in text, "JupyterLab would show the role's name"


def test_a_changed_cell_loses_its_output():
    """Whatever stands under a cell was printed by that cell."""
    tools = script("notebooks")
    cells = [nbformat.v4.new_code_cell(f"print({i})", execution_count=i + 1) for i in range(3)]
    for i, cell in enumerate(cells):
        cell.outputs = [nbformat.v4.new_output("stream", text=f"{i}\n")]
    executed = nbformat.v4.new_notebook(cells=cells)
    sources = ["print(0)", "print(7)", "print(2)"]
    now = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    shown = [[output.text for output in cell.outputs] for cell in tools.with_outputs(now, executed).cells]
    assert shown == [["0\n"], [], ["2\n"]]


def test_day_and_machine_of_the_published_run_stay_with_the_outputs(tmp_path):
    tools = script("notebooks")
    file = tmp_path / "executed.ipynb"
    nbformat.write(nbformat.v4.new_notebook(), file)
    told = tools.published(file)
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", told["date"]) and re.search(r"\d cores, \d+ GB$", told["machine"])
    executed = nbformat.v4.new_notebook(metadata={"published": told})
    assert tools.with_outputs(nbformat.v4.new_notebook(), executed).metadata["published"] == told
    assert "published" not in tools.with_outputs(nbformat.v4.new_notebook(), nbformat.v4.new_notebook()).metadata


def test_the_ledger_page_shows_the_published_run_of_each_chapter(monkeypatch, tmp_path):
    """Without a run on this machine: what the committed notebooks have printed, with its day and machine."""
    parts = script("page_parts")
    page = parts.published()
    for notebook in NOTEBOOKS:
        where = notebook.metadata["published"]
        assert f"*{where['date']}, {where['machine']}*" in page
    assert len(re.findall(r"^This chapter took [0-9.]+ minutes and at most [0-9.]+ GB\.$", page, re.MULTILINE)) == 4
    assert page.count("<table") == page.count("</table>") == 3  # chapter 1 has no claims
    tables = re.findall(r"<table.*?</table>", page, re.DOTALL)
    assert not [table for table in tables if re.search(r"\n\s*\n", table)], "Markdown would end the table there"
    (tmp_path / "notebooks").mkdir()
    cells = [nbformat.v4.new_markdown_cell("# A chapter")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "notebooks" / "01_new.ipynb")
    monkeypatch.setattr(parts, "ROOT", tmp_path)
    assert parts.published() == "### A chapter\n\n*no day noted*"


def test_jupyterlab_opens_the_notebook_and_leaves_the_source_alone(tmp_path):
    """Paired files would not open where the .ipynb is the newer one, and would put a learner's answers into the .py."""
    import os
    import shutil

    from jupytext import TextFileContentsManager  # what JupyterLab reads and writes notebooks with

    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    (tmp_path / "notebooks").mkdir()
    for file in (SOURCES[0], SOURCES[0].with_suffix(".ipynb")):
        shutil.copy(file, tmp_path / "notebooks")
    source = tmp_path / "notebooks" / SOURCES[0].name
    os.utime(source, (0, 0))
    manager = TextFileContentsManager()
    manager.root_dir = str(tmp_path)
    path = f"notebooks/{IDS[0]}.ipynb"
    model = manager.get(path)
    assert len(model["content"]["cells"]) == len(NOTEBOOKS[0].cells)
    model["content"]["cells"][0]["source"] = "my own notes"
    manager.save(model, path)
    assert source.read_bytes() == SOURCES[0].read_bytes()
    assert "my own notes" in source.with_suffix(".ipynb").read_text()


def test_environment_yml_installs_the_lock():
    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    plain = [d for d in environment["dependencies"] if isinstance(d, str)]
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert environment["channels"] == ["conda-forge"]
    assert plain == ["python=3.11", "pip"] and pip == ["-r requirements.lock"]


def test_lock_pins_what_pyproject_asks_for():
    import tomllib

    from packaging.requirements import Requirement

    lines = (REPOSITORY / "requirements.lock").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    assert all([s.operator for s in p.specifier] == ["=="] for p in pins)
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    for wanted in map(Requirement, project["dependencies"]):
        versions = [next(iter(p.specifier)).version for p in pins if p.name.lower() == wanted.name.lower()]
        assert versions and all(v in wanted.specifier for v in versions), wanted
    assert not [p.name for p in pins if p.name.startswith(("nvidia", "cuda", "triton"))]


def test_tracked_files_name_no_machine_and_no_registry():
    import subprocess

    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert "README.md" in listed.splitlines()
    of_a_machine = re.compile(
        rb"/(home|Users|root|opt|mnt)/\w|index-url(?! <)[ =]|" + rb"find-" + rb"links|/simple" + rb"/"
    )
    for name in listed.splitlines():
        content = (REPOSITORY / name).read_bytes()
        assert len(content) < 3_000_000, name
        found = of_a_machine.search(content)
        assert not found, (name, found)


def test_quick_copies_start_from_the_given_base_and_solve_their_exercises(tmp_path):
    script("notebooks").derive(tmp_path, "/a/base")
    code = {p.stem: [c.source for c in code_cells(nbformat.read(p, 4))] for p in sorted(tmp_path.glob("*.ipynb"))}
    assert list(code) == IDS
    given = 'base_model = "/a/base"'
    assert [any(given in source for source in sources) for sources in code.values()] == [False, True, True, True]
    for sources in code.values():
        assert sum("assert exercises.passed(" in source for source in sources) >= 4
        assert sum("assert not exercises.passed(" in source for source in sources) >= 4
        asked = re.findall(r'check\(\n    "(\d\.\d)"', "\n".join(sources))
        solved = [re.search(r"\nassert exercises.passed\('(.*)'\)", source) for source in sources]
        assert [found[1] for found in solved if found] == list(dict.fromkeys(asked))


def test_another_recipe_makes_another_short_base(monkeypatch, tmp_path):
    tool = script("short_base")
    monkeypatch.setenv("SLMOPS_HOME", str(tmp_path))
    monkeypatch.setattr(tool, "make", lambda folder: (folder / "config.json").write_text("{}"))
    tool.main()
    tool.main()  # it is there
    changed = tmp_path / "changed.py"
    changed.write_text("# another recipe")
    monkeypatch.setattr(tool, "__file__", str(changed))
    tool.main()
    assert len(list(tmp_path.glob("smollm2-135m-short-*"))) == 2
