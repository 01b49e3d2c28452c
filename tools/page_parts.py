"""What the pages of book/ leave open, computed: the ledgers, the table of models, parts of other files.

tools/pages.py puts it in, so that both builders of the book (Sphinx and Jupyter Book 2) read the same finished text.
"""

import ast
import json
import re
import sys
from pathlib import Path

import pandas
import pybtex.database

from slmops_lab.course import chapters, claims

ROOT = Path(__file__).resolve().parents[1]
TOOK = r"This chapter took [0-9.]+ minutes and at most [0-9.]+ GB"
INCLUDE = re.compile(
    r'```\{include\} \.\./(?P<file>\S+)\n:start-after: "(?P<start>.+)"\n(?::end-before: "(?P<end>.+)"\n)?```'
)


def included(text):
    """A page with the parts of other files (README.md, CHANGELOG.md) that its include directives name.

    Exits where a file lacks the line that a part begins or ends with. Jupyter Book 2 takes no quotes around these
    lines, and Sphinx no '#' without them: so no builder reads the directives.
    """

    def part(found):
        whole = (ROOT / found["file"]).read_text(encoding="utf-8")
        for line in filter(None, (found["start"], found["end"])):
            if f"\n{line}\n" not in f"\n{whole}":
                sys.exit(f"A page of the book includes a part of {found['file']} that has no line {line!r} any more.")
        after = f"\n{whole}".split(f"\n{found['start']}\n", 1)[1]
        return (after.split(f"\n{found['end']}\n", 1)[0] if found["end"] else after).strip()

    return INCLUDE.sub(part, text)


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


def ledger(text):
    """The ledger page with that of the published notebooks, and that of the last `make course` here."""
    build = ROOT / "build"
    rows = claims.table(build)
    times = [
        {
            "chapter": name,
            "minutes": f"{t['seconds'] / 60:.1f}",
            "peak memory": f"{t['peak_bytes'] / 1e9:.1f} GB",
        }
        for name, t in sorted(chapters.timings(build).items())
    ]
    rows = rows.reset_index(names="claim")
    local = rows.to_markdown(index=False) if len(rows) else "`make course` writes this table on your machine."
    timings = pandas.DataFrame(times).to_markdown(index=False) if times else ""
    for name, part in {"PUBLISHED": published(), "LOCAL": local, "TIMINGS": timings}.items():
        text = text.replace(name, part)
    return text


def model_sizes(text):
    """The page on bigger machines with the table of models and memories, computed from their configurations."""
    from slmops_lab.training import sizes

    return text.replace("SIZES", sizes.table(float("inf")).to_markdown(disable_numparse=True))


def cited(text):
    """The page of references, which cites each of them: what is not cited on a page Jupyter Book 2 does not list."""
    found = pybtex.database.parse_file(ROOT / "book/references.bib").entries.items()
    keys = [key for _, key in sorted((str(entry.persons["author"][0]).strip("{").lower(), key) for key, entry in found)]
    return text.replace("CITED", "; ".join(f"{{cite:t}}`{key}`" for key in keys))


ROOMS = {  # the lowest floor first
    "ground": ("errors", "files", "settings", "devices", "measure"),
    **{room: (room,) for room in ("task", "evaluation", "training", "deployment", "operations")},
    "cluster": ("operations/cluster",),  # beside its room: the page would be too long
    "course": ("course",),
}
MODULE = "\n{1}```{{eval-rst}}\n.. automodule:: slmops_lab.{0}\n   :members:\n```\n"


def reference():
    """{name: Markdown} of the pages of the library's reference, one a room; Sphinx's autodoc fills them.

    Jupyter Book 2 has no autodoc, so these pages are Sphinx's alone.
    """
    library, pages, listed = ROOT / "slmops_lab", {}, []
    for page, names in ROOMS.items():
        files = [file for name in names for file in [library / f"{name}.py", *sorted((library / name).rglob("*.py"))]]
        others = {library / name for own in ROOMS.values() if own != names for name in own}
        files = [file for file in files if file.is_file() and file.name != "__main__.py"]
        files = [file for file in files if page == "cluster" or not others & set(file.parents)]
        modules = [
            ".".join(file.relative_to(library).with_suffix("").parts).removesuffix(".__init__") for file in files
        ]
        pages[page] = f"# {', '.join(names)}\n"
        rooms = [name.replace("/", ".") for name in names if (library / name).is_dir()]
        pages[page] += "".join(MODULE.format(name, "" if name in rooms else f"## {name}\n\n") for name in modules)
        said = ast.get_docstring(ast.parse(files[0].read_text(encoding="utf-8"))).splitlines()[0]
        said = said if rooms else "Paths, safe writes, devices, time and memory: what all rooms stand on."
        listed.append(f"- [{', '.join(names)}]({page}.md): {said}")
    head = "The public functions and classes, room by room. A module imports from its own room and from those above it."
    pages["index"] = f"# Reference of the library\n\n{head}\n\n" + "\n".join(listed) + "\n"
    return pages


COMPUTED = {"ledger": ledger, "bigger_machines": model_sizes, "references": cited}


def complete(name, text):
    """Text of the page `name` with all that it leaves open."""
    return COMPUTED.get(name, str)(included(text))
