"""Execute the chapters' notebooks headlessly, with parameters, and say plainly what failed."""

import json
import os
import re
import sys
from pathlib import Path

from slmops_lab import measure
from slmops_lab.errors import CourseError
from slmops_lab.settings import ROOT

NOTEBOOKS = ROOT / "notebooks"


def names():
    """Names of all chapters in order, such as '01_introduction'."""
    return sorted(path.stem for path in NOTEBOOKS.glob("[0-9]*.ipynb"))


def find(name):
    """Chapter name, its number or the path of a notebook -> path. Raises CourseError if unknown."""
    if Path(name).suffix == ".ipynb" and Path(name).is_file():
        return Path(name).resolve()
    for known in names():
        if name in (known, known.split("_")[0], known.split("_")[0].lstrip("0")):
            return NOTEBOOKS / f"{known}.ipynb"
    raise CourseError(f"There is no chapter '{name}': give one of {', '.join(names())}.")


def parameters_of(notebook):
    """Names of the parameters that a notebook's `parameters` cell sets."""
    import papermill

    return set(papermill.inspect_notebook(str(notebook)))


def refuse_unknown(notebook, parameters):
    """Raise CourseError where a notebook has no such parameter (papermill itself only logs it)."""
    known = parameters_of(notebook)
    if unknown := sorted(set(parameters) - known):
        raise CourseError(f"{notebook.stem} has no parameter '{unknown[0]}': it has {', '.join(sorted(known))}.")


def execute(name, parameters, build):
    """Run a chapter; the executed notebook goes to build/notebooks.

    Returns {'seconds', 'peak_bytes'}, the latter of the largest process, and notes them in
    timings.json. Raises CourseError on an unknown chapter or parameter, and when a cell fails,
    naming the cell.
    """
    import papermill

    notebook = find(name)
    refuse_unknown(notebook, parameters)
    target = Path(build) / "notebooks" / notebook.name
    target.parent.mkdir(parents=True, exist_ok=True)
    _hush_kernels(Path(build))
    with measure.MemoryWatch() as memory, measure.timed() as elapsed:
        try:
            papermill.execute_notebook(
                str(notebook),
                str(target),
                parameters,
                cwd=str(notebook.parent),
                kernel_name="python3",
                progress_bar=sys.stderr.isatty(),
            )
        except papermill.PapermillExecutionError as error:
            raise CourseError(_failure(notebook, target, error)) from error
        except RuntimeError as error:  # DeadKernelError and friends
            raise CourseError(f"{notebook.stem}: the notebook's kernel died ({error}).") from error
    report = {"seconds": round(elapsed.seconds, 1), "peak_bytes": memory.peak}
    _note(build, notebook.stem, report)
    return report


def _hush_kernels(build):
    """Kernels started from here do not remark, each time, that they listen on this machine's TCP."""
    profile = build / "ipython" / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    (profile / "ipython_kernel_config.py").write_text("c.IPKernelApp.log_level = 50\n")
    os.environ["IPYTHONDIR"] = str(profile.parent)


def _failure(notebook, target, error):
    kind = "" if error.ename == "CourseError" else f"{error.ename}: "
    return (
        f"{notebook.stem} stopped in cell {error.exec_count}: {kind}{error.evalue} "
        f"(the notebook up to there: {_shown(target)})"
    )


def _shown(path):
    path = Path(path)
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def timings(build):
    """{chapter: {'seconds', 'peak_bytes'}} of the last runs; empty where none was made."""
    try:
        return json.loads((Path(build) / "timings.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def usual_time(run, chapter):
    """'about N minutes' from the last measured run, else 'some minutes'."""
    known = timings(run.build).get(chapter)
    return f"about {known['seconds'] / 60:.0f} minutes" if known else "some minutes"


def _note(build, chapter, report):
    from slmops_lab.files import write_json  # which imports this module

    write_json(Path(build) / "timings.json", timings(build) | {chapter: report})


def parse_parameters(pairs):
    """['seed=3', 'dataset=data/mine'] -> {'seed': 3, 'dataset': 'data/mine'}.

    Values are read as JSON where they are JSON, else as text; an existing path is made absolute,
    since notebooks run in their own folder. Raises CourseError where there is no '='.
    """
    values = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign or not re.fullmatch(r"\w+", name):
            raise CourseError(f"'{pair}' is no parameter: write name=value.")
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = str(Path(text).resolve()) if Path(text).exists() else text
    return values
