"""Where a checkout may lie: folders with any name, Git that rewrites line ends, Pythons of other ages."""

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

from slmops_lab.course import doctor

# a `make` that starts these tests would talk to the ones in here
CALM = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
NAMES = ["Müller & Söhne (1)", "it's 100 % $HOME", "कक्षा #2"]
NOTE = """
import os, sys
with open({log!r}, "a", encoding="utf-8") as log:
    print([os.path.basename(sys.argv[1]), sys.argv[2:], os.getcwd(), dict(os.environ)], file=log)
"""
NPM = """#!/bin/sh
mkdir -p package/es5 package/dist
touch package/es5/tex-svg.js package/dist/embed.js package/dist/a.woff2
tar czf mathjax-3.2.2.tgz package
tar czf jupyter-widgets-html-manager-1.0.15.tgz package
"""


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture(params=NAMES)
def checkout(request, tmp_path):
    """A copy of what `make` reads, in a folder of that name, whose programs only note their calls."""
    folder = tmp_path / request.param
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(REPOSITORY / name, folder)
    for name in ("python", "slmops", "ruff", "jupyter"):
        note = shlex.join([sys.executable, "-c", NOTE.format(log=str(tmp_path / "log"))])
        program(folder / ".venv" / "bin" / name, f'#!/bin/sh\nexec {note} "$0" "$@"\n')
    program(tmp_path / "bin" / "npm", NPM)
    (folder / "build" / "test").mkdir(parents=True)
    return folder


def make(folder, *targets):
    """`make` there; returns its calls as (program, arguments, environment), in order."""
    log = folder.parent / "log"
    log.unlink(missing_ok=True)
    path = os.pathsep.join([str(folder.parent / "bin"), os.environ["PATH"]])
    done = subprocess.run(["make", *targets], cwd=folder, capture_output=True, text=True, env=CALM | {"PATH": path})
    assert done.returncode == 0, done.stderr
    calls = [eval(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert {Path(where) for _, _, where, _ in calls} == {folder}
    return [(program, arguments, environment) for program, arguments, _, environment in calls]


def test_make_installs_once_in_any_folder(checkout):
    first = [arguments for _, arguments, _ in make(checkout, "course", f"PYTHON={sys.executable}")]
    assert ["-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", "requirements.lock", "-e", "."] in first
    assert first[-2:] == [["fetch"], ["run"]]
    assert [arguments for _, arguments, _ in make(checkout, "course")] == [["fetch"], ["run"]]


def test_make_test_and_lab_and_book_in_any_folder(checkout):
    make(checkout, ".venv/.ready", f"PYTHON={sys.executable}")
    calls = make(checkout, "test")
    assert not (checkout / "build" / "test").exists(), "what the last test left is gone"
    name, arguments, environment = calls[-1]
    assert name == "python" and {"pytest", "--nbval-lax"} <= set(arguments)
    assert environment["PYTHONPATH"] == str(checkout / "tests" / "guard")
    assert environment["SLMOPS_ARTIFACTS"] == str(checkout / "build" / "test" / "artifacts")
    assert environment["SLMOPS_BUILD"] == str(checkout / "build" / "test")
    assert make(checkout, "weekly")[-1][1] == ["-m", "pytest", "-m", "weekly"]
    lab = ["lab", "--ServerApp.root_dir=.", "notebooks/01_introduction.ipynb"]  # links to the book need that root
    assert make(checkout, "lab")[-1][1] == lab
    (checkout / "build").mkdir(exist_ok=True)
    (checkout / "build" / "book").mkdir()
    assert make(checkout, "book")[-1][1][-1] == "build/book"
    vendor = checkout / "book" / "_static" / "vendor"
    assert sorted(path.name for path in vendor.iterdir()) == ["a.woff2", "embed.js", "tex-svg.js"]


def test_no_recipe_pastes_the_folder_into_a_shell_line():
    printed = subprocess.run(
        ["make", "-nB", "test", "book", "jupyter-book", "course", "lab"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        env=CALM,
    )
    assert printed.returncode == 0 and "pytest" in printed.stdout
    assert str(REPOSITORY) not in printed.stdout


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 9, 1), (3, 15, 0), (4, 0, 0)])
def test_a_python_without_wheels_is_refused_before_anything_is_downloaded(tmp_path, version):
    code = f"import sys; sys.version_info = {version}; exec(sys.argv[1])"
    program(tmp_path / "python", f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(code)} "$2"\n')
    command = ["make", "-C", REPOSITORY, "check-python", f"PYTHON={tmp_path / 'python'}"]
    done = subprocess.run(command, capture_output=True, text=True, env=CALM)
    assert done.returncode != 0
    assert f"The course needs Python 3.11 to 3.14, this is {version[0]}.{version[1]}: install one" in done.stderr
    command[-1] = f"PYTHON={sys.executable}"
    assert subprocess.run(command, capture_output=True, env=CALM).returncode == 0


def test_make_and_doctor_and_pip_support_the_same_pythons():
    assert 'requires-python = ">=3.11,<3.15"' in (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"\((\d, \d+)\) <= v <= \((\d, \d+)\)", text).groups() == ("3, 11", "3, 14")
    assert doctor.PYTHONS == ((3, 11), (3, 14))


def git(*arguments):
    return subprocess.run(["git", *map(str, arguments)], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def repository(tmp_path):
    """The tracked files and .gitattributes as they lie here, committed to a repository of their own."""
    folder = tmp_path / "repository"
    for name in {*git("-C", REPOSITORY, "ls-files", "-z").split("\0")[:-1], ".gitattributes"}:
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    (folder / "made.onnx").write_bytes(b"text at first\r\n" * 9)  # binaries that Git would take for text
    (folder / "made.safetensors").write_bytes(b"text at first\n" * 9)
    git("init", "-q", folder)
    git("-C", folder, "add", "-A")
    git("-C", folder, "-c", "user.name=x", "-c", "user.email=x@example.com", "commit", "-qm", "x")
    return folder


@pytest.mark.parametrize("option", ["core.autocrlf=true", "core.autocrlf=input", "core.eol=crlf"])
def test_a_clone_has_the_same_bytes_whatever_git_does_to_line_ends(repository, tmp_path, option):
    git("clone", "-q", "-c", option, repository, tmp_path / "clone")
    names = git("-C", repository, "ls-files", "-z").split("\0")[:-1]
    assert {"data/support_desk/train.jsonl", "Makefile", "notebooks/02_distillation.ipynb"} <= set(names)
    different = [name for name in names if (repository / name).read_bytes() != (tmp_path / "clone" / name).read_bytes()]
    assert not different
