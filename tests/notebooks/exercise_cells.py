"""The exercises of a chapter as cells of its notebook, and whether the check of one takes an answer."""

import ast
import contextlib
import io
import re

import jupytext
from conftest import REPOSITORY

from slmops_lab.course import exercises

SOLUTION = re.compile(r"<summary>Solution</summary>\s*```python\n(.*?)```", re.DOTALL)


class Chapter:
    """Exercises of notebooks/NAME.py. stand_ins: function -> the names that it has assigned where they begin."""

    def __init__(self, name, stand_ins):
        path = REPOSITORY / "notebooks" / f"{name}.py"
        self._cells = jupytext.read(path).cells
        self._code = ast.parse(path.read_text(encoding="utf-8"))
        self._stand_ins = stand_ins
        self.names = re.findall(r'check\(\n    "(\d\.\d)"', "\n".join(cell.source for cell in self._cells))

    def functions(self, *names):
        """Code of functions and classes that the chapter defines: where a check uses them, a test needs no copies."""
        kinds = (ast.FunctionDef, ast.ClassDef)
        defined = {node.name: node for node in self._code.body if isinstance(node, kinds)}
        return "\n\n".join(ast.unparse(defined[name]) for name in names)

    def solution(self, name):
        """Code of the folded solution of an exercise."""
        return self._exercise(name)[2]

    def passes(self, name, answer):
        """Whether the check of an exercise takes an answer, given as code; where that is empty the stub stays."""
        stub, check, _ = self._exercise(name)
        known = {"check": exercises.check} | self._stand_ins()
        exec("\n".join(line for line in stub.splitlines() if not line.startswith(("from", "import"))), known)
        exec(answer, known)
        with contextlib.redirect_stdout(io.StringIO()) as told:
            exec(check, known)
        print(told.getvalue())
        assert "cannot be checked yet" not in told.getvalue(), "a name is missing among the stand-ins"
        return exercises.passed(name)

    def _exercise(self, name):
        """(code of the stub, code of the check, code of the solution)."""
        kinds = [(cell.metadata.get("tags", [""])[0], cell.source) for cell in self._cells]
        at = next(i for i, (kind, source) in enumerate(kinds) if kind == "check" and f'"{name}"' in source)
        assert kinds[at - 1][0] == "exercise"
        return kinds[at - 1][1], kinds[at][1], SOLUTION.search(kinds[at + 1][1]).group(1)
