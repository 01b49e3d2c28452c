import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from slmops_lab.errors import CourseError
from slmops_lab.operations import offline

REPORTS = """
import sys
import onnxruntime_genai as og  # not by way of slmops_lab, whose import sets the switches
kept = og.Model(sys.argv[1])
"""


SERVED = """
import sys
from slmops_lab.deployment import runtime
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


OLIVE = """
from slmops_lab.deployment import olive
olive.install()
from olive.cli.launcher import main
main(["run-pass", "--list-passes"])
"""


@pytest.fixture(scope="module")
def reports(tiny_onnx, tmp_path_factory):
    """Attempts of each piece of code, all waiting side by side: reports are sent up to 10 s late."""
    jobs = {
        "a report": (REPORTS, {"switches": False}),
        "switched off": (REPORTS, {}),
        "answering": (SERVED, {}),
        "olive": (OLIVE, {}),
    }
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor() as pool:
        patch.setenv("SLMOPS_HOME", str(tmp_path_factory.mktemp("home")))
        patch.chdir(tmp_path_factory.mktemp("work"))  # Olive leaves a folder where it runs
        waiting = {job: pool.submit(attempts, code, tiny_onnx, stay=12, **how) for job, (code, how) in jobs.items()}
        return {job: done.result() for job, done in waiting.items()}


def test_the_counter_sees_python_and_compiled_code(reports):
    """Telemetry in compiled code passes every Python guard; the kernel's counter sees it."""
    tried, printed = attempts(CONNECTS)
    assert tried > 0 and "unreachable" in printed
    assert reports["a report"][0] > 0, "without the switches it does report"


@pytest.mark.parametrize("job, said", [("switched off", ""), ("answering", ""), ("olive", "passes available")])
def test_with_the_switches_nothing_is_attempted(reports, job, said):
    tried, printed = reports[job]
    assert tried == 0 and said in printed


def test_code_without_a_network_leaves_nothing_at_home():
    assert attempts("import pathlib; (pathlib.Path.home() / 'left').touch(); print('done')") == (0, "done")
    assert not (Path.home() / "left").exists()


def test_without_a_network_what_is_printed_comes_back_whole():
    assert attempts("print('two\\x0clines', end='')") == (0, "two\x0clines")
    assert attempts("import os; print(os.environ.get('PYTHONPATH'))") == (0, "None")


def test_code_that_ends_itself_stays_as_well():
    code = "import time; time.sleep = lambda seconds: print('stays', seconds); raise SystemExit(0)"
    assert attempts(code, stay=99) == (0, "stays 99.0")


def test_code_that_takes_too_long_is_stopped_with_what_it_started(tmp_path):
    attempts("")
    code = (
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])\n"
        "pathlib.Path(sys.argv[1]).write_text(str(child.pid)); time.sleep(300)"
    )
    with pytest.raises(CourseError, match="stopped after 5 seconds: give it more of them"):
        offline.run(code, tmp_path / "pid", seconds=5)
    with contextlib.suppress(psutil.NoSuchProcess):  # killed, perhaps not yet buried
        psutil.Process(int((tmp_path / "pid").read_text())).wait(60)


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
