import os
import subprocess
import sys

import pytest

from slmops_lab import settings
from slmops_lab.errors import CourseError


def python(code, env):
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)


@pytest.mark.parametrize("name", sorted(settings.QUIET))
def test_import_sets_every_switch(name):
    bare = {k: v for k, v in os.environ.items() if k not in settings.QUIET}
    done = python(f"import slmops_lab, os; print(os.environ[{name!r}])", bare)
    assert done.stdout.strip() == settings.QUIET[name], done.stderr


def test_import_of_the_library_imports_no_other_library_first():
    done = python("import slmops_lab, sys; print('torch' in sys.modules, 'onnxruntime' in sys.modules)", None)
    assert done.stdout.split() == ["False", "False"]


def test_hub_can_be_allowed():
    done = python("import slmops_lab, os; print(os.environ['HF_HUB_OFFLINE'])", os.environ | {"SLMOPS_HUB": "1"})
    assert done.stdout.strip() == "0"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"profile": "fast"}, "There is no profile 'fast': give one of full, quick."),
        ({"seed": "7"}, "The seed must be a whole number from 0 up, not '7'."),
        ({"seed": -1}, "The seed must be a whole number"),
        ({"dataset": "nonsense"}, "There is no data set 'nonsense': give one of support_desk"),
    ],
)
def test_start_refuses(arguments, sentence):
    with pytest.raises(CourseError, match=sentence.replace("(", r"\(")):
        settings.start(**{"dataset": "support_desk", "base_model": "smollm2-135m", **arguments})


def test_profile_comes_from_the_environment(colours, monkeypatch):
    monkeypatch.setenv("SLMOPS_PROFILE", "quick")
    run = settings.start(colours, "tiny")
    assert (run.profile, run.pick(full=1, quick=2)) == ("quick", 2)
    assert settings.start(colours, "tiny", "full").pick(full=1, quick=2) == 1


def test_other_data_make_another_run(colours):
    before = settings.start(colours, "tiny", "quick").identity
    with open(colours / "train.jsonl", "a") as file:
        file.write("\n")
    assert settings.start(colours, "tiny", "quick").identity != before


def test_course_error_is_one_line_in_a_notebook():
    assert CourseError("This and that.")._render_traceback_() == ["CourseError: This and that."]


def test_the_guard_of_the_notebook_tests_refuses(guarded):
    done = python("import socket; socket.create_connection(('192.0.2.1', 80), 1)", guarded)
    assert "the network is refused in tests" in done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other C libraries decide themselves")
def test_freed_memory_stays_until_it_is_given_back():
    code = """
import psutil, numpy
from slmops_lab import measure

def size():
    return psutil.Process().memory_info().rss

measure.reuse_freed_memory()
before = size()
a = numpy.ones(25_000_000)  # 200 MB
del a
print(size() - before > 150e6)
measure.give_back()
print(size() - before < 50e6)
"""
    assert python(code, None).stdout == "True\nTrue\n"
