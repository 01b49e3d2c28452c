"""The pages of the book out of the notebooks: one for each section, so that each can be read at a sitting.

python tools/pages.py FOLDER   a source folder for both builders (Sphinx, Jupyter Book 2): chapters as folders of small
                               notebooks, the pages of book/ with their tables, myst.yml and the references

A notebook whose code differs from its .py, has a cell that failed or one that was never run is refused: the book
shows what was executed, or nothing. Cells are copied as they are; headings move up a level, links are bent.
"""

import itertools
import json
import re
import shutil
import sys
from pathlib import Path

import jupytext
import nbformat
import page_parts

ROOT = Path(__file__).resolve().parents[1]
SECTION = re.compile(r"^## (?:(\d+\.\d+) )?(.+)$")
MINUTES = re.compile(r"(\d+\.\d+): (\d+\.\d+)")
MODEL = re.compile(r"IPY_MODEL_(\w+)")
OWN_PAGE = ("Quiz",)  # of the headings without a number; the others stay on the page before
VIEW = "application/vnd.jupyter.widget-view+json"


def refuse_unfit(path):
    """The notebook of a path, executed as its source is now. Exits with the cell that is not."""
    notebook = nbformat.read(path, as_version=4)
    source = [cell.source for cell in jupytext.read(path.with_suffix(".py")).cells if cell.cell_type == "code"]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, 1):
        failed = [output for output in cell.outputs if output.output_type == "error"]
        why = "is not that of its .py" if number > len(source) or cell.source != source[number - 1] else None
        why = why or ("failed: " + failed[0].ename if failed else None if cell.execution_count else "was never run")
        if why:
            sys.exit(f"{path.name}, code cell {number} {why}: {cell.source.splitlines()[0]!r}. Run it and publish it.")
    if len(source) > len(code):
        sys.exit(f"{path.name} lacks code cell {len(code) + 1} of its .py. Run it and publish it.")
    return notebook


def sections(notebook):
    """[(number or None, title, cells)] of a notebook; the first is what stands before the first section."""
    found = [(None, None, [])]
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            found[-1][2].append(cell)
            continue
        part, fenced = [], False
        for line in cell.source.splitlines():
            fenced ^= line.startswith("```")
            heading = None if fenced else SECTION.match(line)
            if heading and (heading[1] or heading[2] in OWN_PAGE):
                _keep(found[-1][2], part)
                found.append((heading[1], heading[2], []))
                part, line = [], line.removeprefix("#")  # the title of a page
            part.append(line)
        _keep(found[-1][2], part)
    return found


def _keep(cells, lines):
    if any(line.strip() for line in lines):
        cells.append(nbformat.v4.new_markdown_cell("\n".join(lines).strip()))


def slug(number, title):
    """File name of a section's page: '4-02', 'quiz'."""
    return "{}-{:02}".format(*map(int, number.split("."))) if number else title.lower()


def minutes_of(notebook):
    """{section: minutes} as a chapter has printed them at its end: in a sentence, or in a table."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    said = "".join("".join(output.get("text", "")) for output in outputs).split("Minutes per section:")[-1]
    found = {number: float(minutes) for number, minutes in MINUTES.findall(said)}
    for output in outputs:
        table = "".join(output.get("data", {}).get("text/html", ""))
        if re.search(r"<th>minutes</th>", table):
            columns, values = (re.findall(rf"<{tag}>([0-9.]+)</{tag}>", table) for tag in ("th", "td"))
            found |= dict(zip(columns, map(float, values), strict=True))
    return found


def up_a_level(text):
    """Markdown of a section whose headings below its own are one level higher, code blocks left alone."""
    lines, fenced = [], False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        lines.append(line[1:] if not fenced and re.match(r"###+ ", line) else line)
    return "\n".join(lines)


def to_sections(text, up=""):
    """Links whose words begin with a section's number, such as [2.11], go to its page; up: the way to the pages."""

    def page(found):
        return f"[{found[1]}]({up}{found[3]}/{slug(found[2], '')}.ipynb)"

    return re.sub(r"\[(([1-4]\.\d+)[^]]*)\]\((?:\.\./notebooks/)?(\d\d_\w+)\.ipynb\)", page, text)


def bent(text):
    """Links of a notebook, as they are from a page of the book."""
    text = to_sections(text, "../").replace("](../book/", "](../")
    return re.sub(r"\]\((?:\.\./notebooks/)?(\d\d_\w+)\.ipynb", r"](../\1/index.ipynb", text)


def widgets_of(cells, state):
    """The part of a notebook's widget state that the outputs of these cells show."""
    shown = {o.data[VIEW]["model_id"] for c in cells for o in c.get("outputs", []) if VIEW in o.get("data", {})}
    kept, wanted = {}, sorted(shown)
    while wanted:
        model = wanted.pop()
        if model in state and model not in kept:
            kept[model] = state[model]
            wanted += MODEL.findall(json.dumps(state[model]))
    return kept


def give_alt_text(cell):
    """Say to MyST-NB the alt text that a figure carries in its output's metadata."""
    for output in cell.get("outputs", []):
        if alt := output.get("metadata", {}).get("image/png", {}).get("alt"):
            cell.metadata["mystnb"] = {"image": {"alt": alt}}


def write(notebook, folder):
    """A chapter as a folder of small notebooks, the first of which lists the others with their minutes."""
    folder.mkdir(parents=True)
    parts, minutes = sections(notebook), minutes_of(notebook)
    widgets = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {})
    rows = ["| section | minutes of running |", "|---|---|"]
    for number, title, _ in parts[1:]:
        name = f"{number} {title}" if number else title
        took = "" if number not in minutes else f"{minutes[number]:.1f}" if minutes[number] else "under 0.1"
        rows.append(f"| [{name}]({slug(number, title)}.ipynb) | {took} |")
    parts[0][2].append(nbformat.v4.new_markdown_cell("\n".join(rows)))
    ids = (f"{folder.name[:2]}-{number:03d}" for number in itertools.count())  # unique in the book, the same each time
    for number, title, cells in parts:
        made = nbformat.v4.new_notebook(metadata={"kernelspec": notebook.metadata["kernelspec"]})
        for cell in cells:
            cell["id"] = next(ids)
            give_alt_text(cell)
            if cell.cell_type == "markdown":
                cell.source = bent(cell.source if title is None else up_a_level(cell.source))
                if title in OWN_PAGE:  # one in each chapter: a search shows titles only
                    cell.source = cell.source.replace(f"# {title}", f"# {title} of chapter {int(folder.name[:2])}", 1)
        made.cells = cells
        if state := widgets_of(cells, widgets.get("state", {})):
            made.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {**widgets, "state": state}}
        nbformat.write(made, folder / f"{'index' if title is None else slug(number, title)}.ipynb")


def main(folder):
    """All pages, anew."""
    folder = Path(folder)
    shutil.rmtree(folder, ignore_errors=True)
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        write(refuse_unfit(path), folder / path.stem)
    for page in (ROOT / "book").glob("*.md"):
        text = to_sections(page_parts.complete(page.stem, page.read_text(encoding="utf-8")))
        text = re.sub(r"\]\(\.\./notebooks/(\d\d_\w+)\.ipynb", r"](\1/index.ipynb", text)
        (folder / page.name).write_text(text, encoding="utf-8")
    (folder / "reference").mkdir()
    for name, text in page_parts.reference().items():
        (folder / "reference" / f"{name}.md").write_text(text, encoding="utf-8")
    shutil.copy(ROOT / "data" / "support_desk" / "README.md", folder / "dataset.md")
    for file in ("myst.yml", "references.bib"):
        shutil.copy(ROOT / "book" / file, folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
