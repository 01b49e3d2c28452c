"""What learners are handed: the chapters without solutions, answers and outputs. The repository is the other edition.

Everything else stays as it is, checks and cell ids included, so that what comes back can be graded.
"""

import json
import re
from pathlib import Path

from slmops_lab.course import chapters
from slmops_lab.errors import CourseError
from slmops_lab.files import atomic_folder

FOLDED = re.compile(r"<details><summary>(Solution|Answers)</summary>.*?</details>\n*", re.DOTALL)


def hand_out(out, names=None, outputs=False):
    """Write the student edition of chapters into the folder `out`; returns its paths.

    names: as `chapters.find` takes them, else all. outputs: keep what the published run printed. Raises CourseError on
    an unknown chapter and where `out` exists.
    """
    out = Path(out)
    if out.exists():
        raise CourseError(f"{out} exists already: remove it or give another --out.")
    with atomic_folder(out) as folder:
        for path in [chapters.find(name) for name in names or chapters.names()]:
            made = student(json.loads(path.read_text(encoding="utf-8")), outputs)
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
