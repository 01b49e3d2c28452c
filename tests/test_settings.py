import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slmops_lab import offline, settings
from slmops_lab.settings import CourseError


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


REPORTS = """
import sys
import onnxruntime_genai as og  # not by way of slmops_lab, whose import sets the switches
kept = og.Model(sys.argv[1])
"""
SERVED = """
import sys
from slmops_lab import runtime
for kind in ("genai", "foundry"):
    served = runtime.open_runtime(kind, sys.argv[1])
    served.generate([{"role": "user", "content": "hello"}], 4)
    served.close()
"""
CONNECTS = """
import socket
try:
    socket.create_connection(("192.0.2.1", 80), 1)
except OSError as error:
    print(error)
"""


def attempts(code, *arguments, **how):
    tried, printed = offline.run(code, *arguments, **how)
    if tried is None:
        pytest.skip("this system lets no test make a network namespace")
    return tried, printed


def test_native_code_attempts_no_connection(tiny_onnx, tmp_path, monkeypatch):
    """Telemetry in compiled code passes every Python guard; the kernel's counter sees it."""
    monkeypatch.setenv("SLMOPS_HOME", str(tmp_path / "home"))
    tried, printed = attempts(CONNECTS)
    assert tried > 0 and "unreachable" in printed, "the counter must see an attempt"
    assert attempts(REPORTS, tiny_onnx, switches=False, stay=12)[0] > 0, "without the switches it does report"
    assert attempts(REPORTS, tiny_onnx, stay=12)[0] == 0
    assert attempts(SERVED, tiny_onnx, stay=12)[0] == 0


def test_code_without_a_network_leaves_nothing_at_home():
    assert attempts("import pathlib; (pathlib.Path.home() / 'left').touch(); print('done')") == (0, "done")
    assert not (Path.home() / "left").exists()


def test_without_a_network_what_is_printed_comes_back_whole():
    assert attempts("print('two\\x0clines', end='')") == (0, "two\x0clines")
    assert attempts("import os; print(os.environ.get('PYTHONPATH'))") == (0, "None")


def test_code_that_ends_itself_stays_as_well():
    begun = time.monotonic()
    assert attempts("print('x'); raise SystemExit(0)", stay=2) == (0, "x")
    assert time.monotonic() - begun >= 2


def test_without_a_network_code_runs_with_or_without_the_switches():
    code = "import os, sys; print(sys.argv[1], os.environ.get('ORT_DISABLE_TELEMETRY'))"
    assert attempts(code, "x") == (0, "x 1")
    assert attempts(code, "x", switches=False) == (0, "x None")


@pytest.mark.parametrize(
    ("code", "reason"), [("1/0", "ZeroDivisionError"), ("import os; os._exit(3)", r"no reason given \(exit code 3\)")]
)
def test_code_that_fails_without_a_network_says_so(code, reason):
    attempts("")
    with pytest.raises(CourseError, match=f"without a network failed: .*{reason}"):
        offline.run(code)


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
