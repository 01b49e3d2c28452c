"""What learners are handed: the chapters without solutions, answers and outputs. The repository is the other edition.

Everything else stays as it is, checks and cell ids included, so that what comes back can be graded. For nbgrader,
which grades by what a cell raises, each check is followed by a cell that asks whether it was passed.
"""

import json
import re
from pathlib import Path

from slmops_lab.course import chapters
from slmops_lab.course.stand_ins.cells import CHECK
from slmops_lab.errors import CourseError
from slmops_lab.files import atomic_folder

FOLDED = re.compile(r"<details><summary>(Solution|Answers)</summary>.*?</details>\n*", re.DOTALL)


def hand_out(out, names=None, outputs=False, nbgrader=False):
    """Write the student edition of chapters into the folder `out`; returns its paths.

    names: as `chapters.find` takes them, else all. outputs: keep what the published run printed. nbgrader: mark the
    exercises for it, as `for_nbgrader`. Raises CourseError on an unknown chapter and where `out` exists.
    """
    out = Path(out)
    if out.exists():
        raise CourseError(f"{out} exists already: remove it or give another --out.")
    with atomic_folder(out) as folder:
        for path in [chapters.find(name) for name in names or chapters.names()]:
            made = student(json.loads(path.read_text(encoding="utf-8")), outputs)
            made = for_nbgrader(made) if nbgrader else made
            (folder / path.name).write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return sorted(out.glob("*.ipynb"))


def student(notebook, outputs=False):
    """A notebook (as JSON has it) without its folded solutions and answers, and without outputs unless asked for."""
    cells = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            text = FOLDED.sub("", "".join(cell["source"])).strip()
            if text:
                cells.append(cell | {"source": text})
        else:
            cells.append(cell if outputs else cell | {"outputs": [], "execution_count": None})
    kept = notebook["metadata"] if outputs else {k: v for k, v in notebook["metadata"].items() if k != "widgets"}
    return notebook | {"cells": cells, "metadata": kept}


def for_nbgrader(notebook):
    """A notebook (as JSON has it) whose exercises nbgrader knows: locked checks, and a point for each passed one.

    The marks are those of schema 3, https://nbgrader.readthedocs.io/en/stable/contributor_guide/metadata.html. nbgrader
    executes the whole chapter to grade it.
    """
    cells = []
    for cell in notebook["cells"]:
        if "check" not in cell["metadata"].get("tags", []):
            cells.append(cell)  # an answer, too: nbgrader would replace the stub of one that it knows
            continue
        name = CHECK.search("".join(cell["source"]))[1]
        cells.append(_marked(cell, f"check-{name}"))
        asks = f'assert passed("{name}"), "Exercise {name} is not solved."'
        asks = f"from slmops_lab.course.exercises import passed\n\n{asks}"
        new = {"cell_type": "code", "id": f"points-{name.replace('.', '-')}", "source": asks, "metadata": {}}
        new |= {"outputs": [], "execution_count": None}
        cells.append(_marked(new, f"points-{name}", grade=True, points=1))
    return notebook | {"cells": cells}


def _marked(cell, name, **marks):
    told = {"schema_version": 3, "grade_id": name.replace(".", "-"), "grade": False, "locked": True}
    return cell | {"metadata": cell["metadata"] | {"nbgrader": told | {"solution": False, "task": False} | marks}}
