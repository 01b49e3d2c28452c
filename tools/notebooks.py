"""Keep notebooks/*.py (what people edit) and notebooks/*.ipynb (what learners open) together.

python tools/notebooks.py sync     cells from .py into .ipynb, outputs of unchanged cells kept
python tools/notebooks.py publish  outputs of build/notebooks (from `make course`) into .ipynb, with day and machine
python tools/notebooks.py derive DIR [MODEL]  copies for nbval, in which each exercise is also solved; chapters
                                   after the first start from the base model in the folder MODEL
"""

import platform
import re
import sys
from datetime import date
from pathlib import Path

import jupytext
import nbformat
import psutil
from jupytext.combine import combine_inputs_with_outputs
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from slmops_lab import settings

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "notebooks").glob("[0-9]*.py"))
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def read_source(path):
    """A .py source as a notebook without outputs."""
    notebook = jupytext.read(path)
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"{path.stem[:2]}-{number:03d}"  # unique over all chapters, stable in diffs
    return notebook


BAR = re.compile(r"\|.*(it/s|s/it)\]$")  # one that stays when it has come to its end


def without_progress(outputs):
    """Outputs without progress bars that have come to their end: of a line, what a terminal would show."""
    kept = []
    for output in outputs:
        if output.output_type != "stream":
            kept.append(output)
        elif kept and kept[-1].output_type == "stream" and kept[-1].name == output.name:
            kept[-1].text += output.text
        else:
            kept.append(nbformat.from_dict(output))
    for output in kept:
        if output.output_type == "stream" and "\r" in output.text:
            lines = [line.removesuffix("\r").rpartition("\r")[2].rstrip() for line in output.text.split("\n")]
            output.text = "\n".join(line for line in lines if not BAR.search(line))
    return [output for output in kept if output.output_type != "stream" or output.text.strip()]


def with_outputs(notebook, executed):
    """The notebook with the outputs of the same code cells in `executed`, cleaned."""
    combined = combine_inputs_with_outputs(notebook, executed, "py:percent")
    executed_code = {cell.source for cell in executed.cells if cell.cell_type == "code"}
    for cell, source in zip(combined.cells, notebook.cells, strict=True):
        cell["id"], cell["metadata"] = source["id"], source["metadata"]
        if cell.cell_type == "code":
            cell.outputs = without_progress(cell.outputs)
            if cell.source not in executed_code:  # jupytext would leave it the old cell's
                cell.outputs, cell.execution_count = [], None
    combined.metadata = notebook.metadata
    for kept in ("widgets", "published"):  # the former have a state, so that they are there without a kernel
        if kept in executed.metadata:
            combined.metadata[kept] = executed.metadata[kept]
    return combined


def published(executed):
    """When and on which machine a notebook was executed: its readers see other times on theirs."""
    cores, memory = settings.threads(), psutil.virtual_memory().total / 1e9
    told = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", told.read_text()) if told.is_file() else []
    arithmetic = "16-bit arithmetic" if settings.fast_bf16() else "no 16-bit arithmetic"
    processor = (names or [platform.processor() or platform.machine()])[0].strip()
    day = date.fromtimestamp(executed.stat().st_mtime).isoformat()
    return {"date": day, "machine": f"{processor}, {arithmetic}, {cores} cores, {memory:.0f} GB"}


CHECK = re.compile(r'check\(\s*"(\d+\.\d+)"')  # a version such as "1.0" may stand in a check, too
SOLUTION = re.compile(r"<summary>Solution</summary>\s*```python\n(.*?)```", re.DOTALL)


def with_solutions(notebook):
    """After each exercise: its untouched stub must not have passed, its solution must.

    The solution's cells come after the check of the stub, so the learner's cells run as they are.
    """
    cells, check = [], None
    for cell in notebook.cells:
        cells.append(cell)
        if "check" in cell.metadata.get("tags", []):
            check = cell.source
        elif cell.cell_type == "markdown" and (solution := SOLUTION.search(cell.source)):
            (name,) = CHECK.findall(check)
            cells.append(
                nbformat.v4.new_code_cell(
                    f"from slmops_lab.course import exercises\nassert not exercises.passed('{name}')"
                )
            )
            cells.append(nbformat.v4.new_code_cell(solution.group(1)))
            cells.append(nbformat.v4.new_code_cell(f"{check}\nassert exercises.passed('{name}')"))
            check = None
    notebook.cells = cells
    return notebook


def derive(folder, model=None):
    folder.mkdir(parents=True, exist_ok=True)
    for number, source in enumerate(SOURCES):
        notebook = load_notebook_node(str(source.with_suffix(".ipynb")))
        if model and number:  # chapter 1 looks at the real one
            notebook = parameterize_notebook(notebook, {"base_model": model})
        nbformat.write(with_solutions(notebook), folder / f"{source.stem}.ipynb")


def main(action):
    for source in SOURCES:
        target = source.with_suffix(".ipynb")
        donor = ROOT / "build/notebooks" / target.name if action == "publish" else target
        notebook = read_source(source)
        if donor.is_file():
            notebook = with_outputs(notebook, nbformat.read(donor, as_version=4))
            if action == "publish":
                notebook.metadata["published"] = published(donor)
        elif action == "publish":
            sys.exit(f"{donor.relative_to(ROOT)} is missing: run `make course` first.")
        nbformat.write(notebook, target)
        print(target.relative_to(ROOT))


if __name__ == "__main__":
    if sys.argv[1:2] == ["derive"] and len(sys.argv) in (3, 4):
        derive(Path(sys.argv[2]), *sys.argv[3:])
    elif sys.argv[1:] in (["sync"], ["publish"]):
        main(sys.argv[1])
    else:
        sys.exit(__doc__)
