import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from endpoint import reply

from slmops_lab import settings
from slmops_lab.errors import CourseError


def python(code, env):
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)


IMPORTED = """
import json, os, sys
import slmops_lab
print(json.dumps([dict(os.environ), "torch" in sys.modules, "onnxruntime" in sys.modules, "numpy" in sys.modules]))
"""


def imported(**env):
    """Environment after the import in a process that starts with no switch and no proxy set, but with `env`."""
    ours = {*settings.QUIET, "no_proxy", "NO_PROXY", "SLMOPS_HUB"}
    done = python(IMPORTED, {k: v for k, v in os.environ.items() if k not in ours} | env)
    assert done.returncode == 0, done.stderr
    after, *libraries = json.loads(done.stdout)
    assert libraries == [False] * 3, "a library was imported before it was told to be quiet"
    return after


def test_import_sets_every_switch_before_any_library_is_imported():
    after = imported()
    assert {name: after[name] for name in settings.QUIET} == settings.QUIET
    assert imported(CI="", HF_HUB_OFFLINE="0")["HF_HUB_OFFLINE"] == "1"
    assert imported(SLMOPS_HUB="1")["HF_HUB_OFFLINE"] == "0"


def test_this_machine_is_never_asked_through_a_proxy():
    after = imported(NO_PROXY="corp.example, .intern", no_proxy="10.0.0.1", HTTP_PROXY="http://127.0.0.1:9")
    assert after["NO_PROXY"] == after["no_proxy"] == "10.0.0.1,corp.example,.intern,127.0.0.1,localhost,::1"
    again = imported(**{name: after[name] for name in ("NO_PROXY", "no_proxy")})
    assert again["NO_PROXY"] == after["NO_PROXY"], "a process started by this one adds nothing"
    assert imported(NO_PROXY="*")["no_proxy"].startswith("*,")


ASKS = """
import sys
import slmops_lab, openai
for url in sys.argv[1:]:
    client = openai.OpenAI(base_url=url, api_key="x", max_retries=0, timeout=20)
    print(client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}]).model)
"""


def test_the_openai_client_reaches_our_endpoint_past_a_dead_proxy(endpoint):
    url = endpoint(then=reply()).url
    dead = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    env = {k: v for k, v in os.environ.items() if k.lower() != "no_proxy"} | dead
    command = [sys.executable, "-c", ASKS, url, url.replace("127.0.0.1", "localhost")]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["m", "m"], done.stderr


def test_places_are_absolute_for_notebooks_that_run_elsewhere(tmp_path):
    after = imported(SLMOPS_BUILD="build", SLMOPS_ARTIFACTS="~/made", SLMOPS_HOME=str(tmp_path))
    assert after["SLMOPS_BUILD"] == str(Path.cwd() / "build")
    assert after["SLMOPS_ARTIFACTS"] == str(Path.home() / "made") and after["SLMOPS_HOME"] == str(tmp_path)


DOCKER = "5:cpu,cpuacct:/docker/4f\n4:memory:/docker/4f\n"  # the host's names, seen in the container


@pytest.mark.parametrize(
    ("groups", "files", "cores", "bytes"),
    [
        ("0::/\n", {"cpu.max": "max 100000", "memory.max": "max"}, 16, None),
        ("0::/\n", {"cpu.max": "100000 100000", "memory.max": "3000"}, 1, 3000),
        ("0::/\n", {"cpu.max": "50000 100000"}, 1, None),
        ("0::/\n", {"cpu.max": "250000 100000"}, 2, None),
        ("0::/\n", {"cpu.max": "9900000 100000"}, 16, None),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000", "a/b/memory.max": "7"}, 3, 7),
        ("0::/a/b\n", {"a/b/cpu.max": "200000 100000", "a/cpu.max": "300000 100000", "memory.max": "5"}, 2, 5),
        (DOCKER, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 16, None),
        (DOCKER, {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2, None),
        (DOCKER, {"memory/memory.limit_in_bytes": "9223372036854771712"}, 16, None),
        (DOCKER, {"memory/memory.limit_in_bytes": "4000", "memory/docker/4f/memory.limit_in_bytes": "9000"}, 16, 4000),
        (
            "1:cpu:/x\n0::/x\n",
            {"cpu/x/cpu.cfs_quota_us": "0", "cpu/x/cpu.cfs_period_us": "0", "x/cpu.max": ""},
            16,
            None,
        ),
        ("", {}, 16, None),
        (None, {}, 16, None),
    ],
)
def test_threads_and_memory_follow_the_control_groups(tmp_path, monkeypatch, groups, files, cores, bytes):
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    if groups is not None:
        (tmp_path / "own").write_text(groups)
    monkeypatch.setattr(settings, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(settings, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(settings, "cores", lambda: 16)
    for name in ("OMP_NUM_THREADS", "PYTHON_CPU_COUNT"):
        monkeypatch.delenv(name, raising=False)
    assert settings.threads() == cores
    assert settings.memory_limit() == (bytes or psutil.virtual_memory().total)


def test_threads_that_a_user_asked_for(monkeypatch):
    monkeypatch.delenv("PYTHON_CPU_COUNT", raising=False)
    monkeypatch.setattr(settings, "cores", lambda: 16)
    monkeypatch.setattr(settings, "cpu_quota", lambda: 8.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert settings.threads() == 3
    for useless in ("0", "many", "4,2"):
        monkeypatch.setenv("OMP_NUM_THREADS", useless)
        assert settings.threads() == 8


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"profile": "fast"}, "There is no profile 'fast': give one of full, quick."),
        ({"seed": "7"}, "The seed must be a whole number from 0 up and below 2**32, not '7'."),
        ({"seed": -1}, "The seed must be a whole number"),
        ({"seed": True}, "The seed must be a whole number"),
        ({"seed": 2**32}, "The seed must be a whole number"),
        ({"dataset": "nonsense"}, "There is no data set 'nonsense': give one of support_desk"),
    ],
)
def test_start_refuses(arguments, sentence):
    with pytest.raises(CourseError, match=re.escape(sentence)):
        settings.start(**{"dataset": "support_desk", "base_model": "smollm2-135m", **arguments})


def test_profile_comes_from_the_environment(colours, monkeypatch):
    monkeypatch.setenv("SLMOPS_PROFILE", "quick")
    run = settings.start(colours, "tiny")
    assert (run.profile, run.pick(full=1, quick=2)) == ("quick", 2)
    assert settings.start(colours, "tiny", "full").pick(full=1, quick=2) == 1


def of(folder):
    return settings.start(folder, "tiny", "quick").data_sha256


def test_other_data_make_another_run(colours):
    (colours / "replies").mkdir()
    (colours / "replies" / "test.jsonl").write_text("{}\n")
    seen = [of(colours)]
    first, *rest = (colours / "train.jsonl").read_text().splitlines(keepends=True)
    with open(colours / "test.jsonl", "a") as file:
        file.write(first)  # the end of test stands before the start of train
    (colours / "train.jsonl").write_text("".join(rest))
    seen.append(of(colours))
    (colours / "replies" / "test.jsonl").write_text("{ }\n")
    seen.append(of(colours))
    (colours / "drift.jsonl").rename(colours / "later.jsonl")
    seen.append(of(colours))
    assert len(set(seen)) == 4
    copy = shutil.copytree(colours, colours.with_name("copy"))
    (copy / "README.md").write_text("what this is")
    assert of(copy) == seen[-1], "the same data in another place are the same"


def test_course_error_is_one_line_in_a_notebook():
    assert CourseError("This and that.")._render_traceback_() == ["CourseError: This and that."]


def test_the_guard_of_the_notebook_tests_refuses(guarded):
    done = python("import socket; socket.create_connection(('192.0.2.1', 80), 1)", guarded)
    assert "the network is refused in tests" in done.stderr
