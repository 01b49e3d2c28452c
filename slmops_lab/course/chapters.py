"""Execute the chapters' notebooks headlessly, with parameters, and say plainly what failed.

Knows notebooks as files, not what they make (`artifacts`). An execution costs a kernel's start, about two seconds.
"""

import ast
import functools
import json
import os
import re
import sys
import time
from contextlib import suppress
from pathlib import Path

from slmops_lab import measure
from slmops_lab.errors import CourseError
from slmops_lab.files import write_json
from slmops_lab.settings import ROOT, memory_limit

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
    """{name: default} of what a notebook's `parameters` cell sets; None for a default that has to be computed.

    Raises CourseError where the file is no notebook.
    """
    try:
        cells = json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
        statements = ast.parse("".join(code[:1])).body
    except (ValueError, KeyError, TypeError, AttributeError, SyntaxError) as error:
        raise CourseError(f"{notebook} is no notebook, or its parameters cell no Python: {error}.") from error
    found = {}
    for statement in statements:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
            if isinstance(target, ast.Name) and statement.value:
                found[target.id] = _value(ast.unparse(statement.value), None)
    return found


def defaults():
    """{name: default} of all chapters' parameters cells, as they stand now."""
    return {name: value for chapter in names() for name, value in parameters_of(find(chapter)).items()}


def refuse_unknown(notebook, parameters):
    """Raise CourseError where a notebook has no such parameter (papermill itself only logs it)."""
    known = parameters_of(notebook)
    if unknown := sorted(set(parameters) - set(known)):
        raise CourseError(
            f"{notebook.stem} has no parameter '{unknown[0]}': it has {', '.join(sorted(known)) or 'none'}."
        )


def execute(name, parameters, build):
    """Run a chapter; the executed notebook goes to build/notebooks.

    Returns {'seconds', 'peak_bytes'}, the latter of the largest process, and notes them in timings.json. Raises
    CourseError on an unknown chapter or parameter, when a cell fails, naming it, and when the kernel is killed.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

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
                language="python",  # not every tool that makes notebooks notes it
                progress_bar=sys.stderr.isatty(),
            )
        except papermill.PapermillExecutionError as error:
            raise CourseError(_failure(notebook, target, error)) from error
        except DeadKernelError as error:
            allowed, had = memory_limit() / 1e9, memory.peak / 1e9
            raise CourseError(
                f"{notebook.stem}: the notebook's kernel was killed, probably for its memory: {allowed:.1f} GB allowed "
                f"here, the largest process had {had:.1f} GB; `slmops doctor` says how much is needed."
            ) from error
        except RuntimeError as error:
            raise CourseError(f"{notebook.stem}: the notebook's kernel did not start ({error}).") from error
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


class Sections:
    """The clock of a chapter's sections: `begin` in the first cell of each, `end` in the last cell of the chapter.

    It counts the time that cells take, not the time between them, in which somebody reads. What a whole run took is
    kept in build/sections.json, and the next run says it where each section begins.
    """

    def __init__(self, run, chapter):
        from IPython import get_ipython  # not at the top: the endpoint's image has no notebooks

        self._file, self._chapter = run.build / "sections.json", chapter
        self._before = _kept(self._file).get(chapter, {})
        self._seconds, self._section, self._begun = {}, None, time.monotonic()  # this cell counts, too
        if shell := get_ipython():
            shell.events.register("pre_run_cell", self._cell_begins)
            shell.events.register("post_run_cell", self._cell_ends)
            _bars_on_the_page()
        if self._before:
            self._say(f"When this chapter last ran here, its cells took {sum(self._before.values()):.1f} minutes.")

    def begin(self, section):
        """From this cell on the time is this section's; says in italics what it took when the chapter last ran here."""
        self._section = section
        self._seconds.setdefault(section, 0.0)
        if section in self._before:
            self._say(f"{section} took {self._before[section]:.1f} minutes when it last ran here.")

    def end(self):
        """{section: minutes} of this run, kept for the next one."""
        minutes = {section: seconds / 60 for section, seconds in self._seconds.items()}
        write_json(self._file, _kept(self._file) | {self._chapter: minutes})
        return minutes

    def _cell_begins(self, _):
        self._begun = time.monotonic()

    def _cell_ends(self, _):
        if self._section is not None:
            self._seconds[self._section] += time.monotonic() - self._begun

    def _say(self, sentence):
        from IPython.display import Markdown, display

        display(Markdown(f"*{sentence}*"))


def _bars_on_the_page():
    """tqdm writes to stderr, for which JupyterLab leaves a red strip when a bar has gone: here it writes to stdout."""
    from tqdm import tqdm  # not at the top, either

    tqdm.__init__ = functools.partialmethod(tqdm.__init__, file=sys.stdout)


def timings(build):
    """{chapter: {'seconds', 'peak_bytes'}} of the last runs; empty where none was made."""
    return _kept(Path(build) / "timings.json")


def _kept(path):
    """What a report file holds; {} where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def usual_time(run, chapter):
    """'about N minutes' from the last measured run, else 'some minutes'."""
    known = timings(run.build).get(chapter)
    return f"about {known['seconds'] / 60:.0f} minutes" if known else "some minutes"


def _note(build, chapter, report):
    write_json(Path(build) / "timings.json", timings(build) | {chapter: report})


KINDS = {bool: "True or False", int: "a whole number", float: "a number"}


def parse_parameters(pairs, known=None):
    """['seed=3', 'speed=None', 'dataset=data/mine'] -> {'seed': 3, 'speed': None, 'dataset': '/.../data/mine'}.

    Values are read as JSON (false, null, "text") or as Python's literals (False, None, 'text'), else they are text.
    known: the notebooks' {name: default}, whose types the values must have; where a text is meant, 5 is one, too.
    The path of something that exists is made absolute, since notebooks run in their own folder.
    Raises CourseError where there is no '=' and on a value of another type.
    """
    values = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign or not re.fullmatch(r"\w+", name):
            raise CourseError(f"'{pair}' is no parameter: write name=value.")
        default, value = (known or {}).get(name), _value(text, text)
        if isinstance(default, str) and not isinstance(value, str):
            value = text
        if isinstance(value, str) and (isinstance(default, str) or not known) and os.path.exists(value):
            value = os.path.abspath(value)
        if not _fits(value, default):
            kind = KINDS.get(type(default), f"a {type(default).__name__} like {default!r}")
            raise CourseError(f"The parameter {name} must be {kind}, not '{text}'.")
        values[name] = value
    return values


def _value(text, otherwise):
    for read in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            return read(text)
    return otherwise


def _fits(value, default):
    """Whether a value can stand where a notebook has `default`; True is no number, 3 is a 3.0."""
    if default is None or isinstance(value, bool) or isinstance(default, bool):
        return default is None or type(value) is type(default)
    return isinstance(value, int | float if isinstance(default, float) else type(default))
