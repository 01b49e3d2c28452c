"""The house: imports go down the stairs, rooms keep their budgets, functions stay short."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

import slmops_lab

LIBRARY = Path(slmops_lab.__file__).parent


def lint(folder):
    """`lint-imports` as in a checkout, on the library that lies in `folder`."""
    code = "import sys; from importlinter.cli import lint_imports_command as run; sys.argv[0] = 'lint-imports'; run()"
    command, here = [sys.executable, "-c", code, "--no-cache"], {"PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=here, capture_output=True, text=True)


@pytest.fixture
def house(tmp_path):
    shutil.copytree(LIBRARY, tmp_path / "slmops_lab", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    return tmp_path


def test_imports_go_down_and_never_in_a_circle(house):
    result = lint(house)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    "module, line, said",
    [
        ("task/schema.py", "def f():\n    from slmops_lab.course import plots\n", "go down the stairs"),
        ("files.py", "from slmops_lab import settings\n", "go down the stairs"),
        ("course/chapters.py", "from slmops_lab.course import cli\n", "no circles"),
        ("attic.py", "", "attic"),
    ],
)
def test_an_import_that_goes_up_is_found(house, module, line, said):
    path = house / "slmops_lab" / module
    path.write_text((path.read_text() if path.exists() else "") + "\n" + line)
    result = lint(house)
    assert result.returncode == 1 and said in result.stdout, result.stdout


def test_every_folder_is_a_package_that_gets_installed():
    import tomllib

    listed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(p.parent.relative_to(LIBRARY.parent).parts) for p in LIBRARY.rglob("*.py")}
    assert found == set(listed)


def definitions(tree, public):
    """(name, node) of functions and classes; with public, of those that a reader may use, methods included."""
    for node in tree.body if public else ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if not public or not node.name.startswith("_"):
            yield node.name, node
            if public and isinstance(node, ast.ClassDef):
                yield from ((f"{node.name}.{name}", inner) for name, inner in definitions(node, public))


MODULES = sorted(LIBRARY.rglob("*.py"))
IDS = [path.relative_to(LIBRARY).as_posix() for path in MODULES]


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_functions_are_short_and_explained(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [(n, f) for n, f in definitions(tree, public=False) if not isinstance(f, ast.ClassDef)]
    assert not [name for name, node in functions if node.end_lineno - node.lineno >= 50]
    assert not [name for name, node in definitions(tree, public=True) if not ast.get_docstring(node)]
    assert ast.get_docstring(tree)
