"""The exercises of a chapter as cells of its notebook: their stubs, checks and solutions, and what a check says.

An answer runs in this process and may do whatever this process may: `course.grading` gives it one of its own.
"""

import ast
import contextlib
import functools
import io
import re

from slmops_lab.course import exercises
from slmops_lab.settings import ROOT

SOLUTION = re.compile(r"<summary>Solution</summary>\s*```python\n(.*?)```", re.DOTALL)
CHECK = re.compile(r'check\(\s*"(\d+\.\d+)"')


class Chapter:
    """Exercises of notebooks/NAME.py. stand_ins: function -> the names that it has assigned where they begin."""

    def __init__(self, name, stand_ins):
        self.name, self._stand_ins = name, stand_ins
        self._path = ROOT / "notebooks" / f"{name}.py"

    @functools.cached_property
    def cells(self):
        """The chapter's cells, as jupytext reads them."""
        import jupytext

        return jupytext.read(self._path).cells

    @functools.cached_property
    def names(self):
        """Numbers of the exercises, in order."""
        return CHECK.findall("\n".join(cell.source for cell in self.cells))

    def functions(self, *names):
        """Code of functions and classes that the chapter defines: where a check uses them, no copies are needed."""
        kinds = (ast.FunctionDef, ast.ClassDef)
        code = ast.parse(self._path.read_text(encoding="utf-8"))
        defined = {node.name: node for node in code.body if isinstance(node, kinds)}
        return "\n\n".join(ast.unparse(defined[name]) for name in names)

    def exercise(self, name):
        """(code of the stub, code of the check, code of the solution)."""
        kinds = [(cell.metadata.get("tags", [""])[0], cell.source) for cell in self.cells]
        at = next(i for i, (kind, source) in enumerate(kinds) if kind == "check" and name in CHECK.findall(source))
        assert kinds[at - 1][0] == "exercise"
        return kinds[at - 1][1], kinds[at][1], SOLUTION.search(kinds[at + 1][1]).group(1)

    def asked(self, name):
        """Names that an exercise's stub assigns or defines: what the learner has to find."""
        stub = ast.parse(self.exercise(name)[0]).body
        defined = {node.name for node in stub if isinstance(node, ast.FunctionDef)}
        return defined | {target.id for node in stub if isinstance(node, ast.Assign) for target in node.targets}

    def judge(self, name, answer):
        """(whether the check of an exercise takes an answer, what it says). An empty answer leaves the stub.

        Only what the exercise asks for counts: whatever else the answer assigns is taken back before the check.
        Raises whatever the answer raises.
        """
        stub, check, _ = self.exercise(name)
        known = {"check": exercises.check} | self._stand_ins()
        exec("\n".join(line for line in stub.splitlines() if not line.startswith(("from", "import"))), known)
        before = {key: value for key, value in known.items() if key not in self.asked(name)}
        exec(answer, known)
        known.update(before)
        with contextlib.redirect_stdout(io.StringIO()) as told:
            exec(check, known)
        return exercises.passed(name), told.getvalue().strip()

    def passes(self, name, answer):
        """Whether the check of an exercise takes an answer; for tests, which need all names among the stand-ins."""
        passed, told = self.judge(name, answer)
        assert "cannot be checked yet" not in told, "a name is missing among the stand-ins"
        return passed
