"""Olive's commands: here with a stand-in for the process. Real ones run in chapters 3 and 4 and in test_offline."""

import json
import sys

import psutil
import pytest

from slmops_lab.deployment import export, olive
from slmops_lab.errors import CourseError


def test_the_shim_is_needed_for_these_versions():
    """When this fails, Olive and the model builder fit by themselves: delete `olive.install` and what it needs."""
    assert olive.needed()


def test_the_shim_does_nothing_where_it_is_not_needed(monkeypatch):
    from onnxruntime_genai.models import builder

    monkeypatch.setattr(olive, "needed", lambda: False)
    before = builder.create_model
    olive.install()
    assert builder.create_model is before


@pytest.fixture
def process(monkeypatch):
    """Function: what a process leaves, says and ends with; from then on it is what is started."""

    def becomes(makes=None, says="", code=0):
        def within(seconds, step, line, log, cwd=".", **_):
            for name, text in (makes or {}).items():
                (cwd / name).parent.mkdir(parents=True, exist_ok=True)
                (cwd / name).write_text(text)
            log.write(says)
            return code

        monkeypatch.setattr(olive, "within", within)

    return becomes


def test_a_workflow_gives_its_model_and_its_metrics(process, tmp_path):
    measured = {"size-bytes": {"value": 7, "priority": 1}, "latency-avg": {"value": 0.5}}
    process({"out/model.onnx": "made", "out/metrics.json": json.dumps(measured)})
    made, metrics = olive.run({"passes": {}}, tmp_path / "kitchen")
    assert (made / "model.onnx").read_text() == "made"
    assert metrics == {"size-bytes": 7, "latency-avg": 0.5}
    told = json.loads((tmp_path / "kitchen" / "workflow.json").read_text())
    assert told == {"passes": {}, "output_dir": "out", "cache_dir": ".olive-cache"}


def test_olive_that_fails_says_so_whatever_its_exit_code(process, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.onnx").write_text("left by an earlier run, which went well")
    process(says="loading\nValueError: no such file: nowhere.jsonl\nend of run\n", code=0)
    with pytest.raises(CourseError) as failed:
        olive.run({}, tmp_path)
    assert "`olive run` ended with exit code 0 and left no out/model.onnx: ValueError: no such" in str(failed.value)
    assert f"(the whole log: olive.log in {tmp_path.name})" in str(failed.value)


def test_olive_itself_says_what_it_does_not_know(tmp_path):
    with pytest.raises(CourseError, match="`olive frobnicate` ended with exit code 2 and left no x: .*finetune"):
        olive.command("frobnicate", makes="x", folder=tmp_path)


@pytest.mark.parametrize(("makes", "code"), [([], 0), (["x/model.onnx"], 1)])
def test_a_conversion_that_fails_says_so(process, tmp_path, makes, code):
    process({tmp_path / name: "" for name in makes}, "Traceback\nOSError: no config\n\n", code)
    with pytest.raises(CourseError, match="^The conversion of nothing to fp32 failed: OSError: no config$"):
        export.to_onnx("nothing", tmp_path / "x", "fp32")


def test_every_step_has_a_time_limit_that_names_it(tmp_path, monkeypatch):
    with pytest.raises(CourseError, match=r"^`olive finetune` took longer than 0\.01 s and was ended\.$"):
        olive.command("finetune", makes="x", folder=tmp_path, seconds=0.01)
    with pytest.raises(CourseError, match=r"^`olive run` took longer than 0\.01 s and was ended\.$"):
        olive.run({}, tmp_path, seconds=0.01)
    monkeypatch.setattr(olive, "SECONDS", 0.01)
    with pytest.raises(CourseError, match=r"^The conversion of a to int4 took longer than 0\.01 s and was ended\.$"):
        export.to_onnx("a", tmp_path / "x")


PARENT = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE); "
PARENT += "print(p.pid, flush=True); p.wait()"


@pytest.mark.parametrize("end", [KeyboardInterrupt(), psutil.TimeoutExpired(60)])
def test_what_a_step_started_is_ended_with_it(end, tmp_path, monkeypatch):
    class Ends(psutil.Popen):
        def wait(self, timeout=None):
            if timeout != 60:
                return super().wait(timeout)
            while not (tmp_path / "log").read_text().endswith("\n"):
                assert self.poll() is None
            raise end

    monkeypatch.setattr(psutil, "Popen", Ends)
    with open(tmp_path / "log", "w") as log, pytest.raises((KeyboardInterrupt, CourseError)):
        olive.within(60, "x", [sys.executable, "-c", PARENT], log)
    started = int((tmp_path / "log").read_text())
    assert not psutil.pid_exists(started)
