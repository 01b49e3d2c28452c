import errno
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading

import pytest

from slmops_lab import files
from slmops_lab.errors import CourseError

AT_WORK = """
import sys
from slmops_lab import files
with files.atomic_folder(sys.argv[1]) as folder:
    (folder / "weights").write_text("half")
    print(folder, flush=True)
    sys.stdin.read()
"""
BETWEEN = """
import os, signal, sys
from slmops_lab import files
rename = os.rename
def killed(source, target):
    if str(source).endswith(".draft") and not os.path.exists(target):
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
os.rename = killed
with files.atomic_folder(sys.argv[1]) as folder:
    (folder / "weights").write_text("new")
"""
WRITER = """
import sys
from slmops_lab import files
sys.stdin.readline()
for i in range(30):
    with files.atomic_folder(sys.argv[1]) as folder:
        for part in range(5):
            (folder / str(part)).write_text(sys.argv[2] + str(i))
    files.write_json(sys.argv[1] + ".json", [sys.argv[2]] * 1000)
"""


def fill(target, content):
    with files.atomic_folder(target) as folder:
        (folder / "weights").write_text(content)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def python(code, *arguments, **more):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **more)


@pytest.fixture
def at_work():
    """Function: target -> a process in the middle of writing it, and its draft's path."""
    processes = []

    def start(target):
        processes.append(python(AT_WORK, target))
        return processes[-1], processes[-1].stdout.readline().strip()

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_the_draft_of_a_living_process_stays_and_that_of_a_killed_one_goes(tmp_path, at_work):
    fill(tmp_path / "student", "old")
    process, draft = at_work(tmp_path / "student")
    other, deeper = at_work(tmp_path / "student-9999999-layers")
    for target in ("student", "student-9999999-layers", "stud", "student-9999999"):
        files.sweep(tmp_path / target)
    assert os.path.exists(draft) and os.path.exists(deeper)
    for each in (process, other):
        each.kill()
        each.wait()
    files.sweep(tmp_path / "student")
    assert not os.path.exists(draft), "its process is dead"
    assert os.path.exists(deeper), "the draft of another target"
    fill(tmp_path / "student-9999999-layers", "new")
    assert names(tmp_path) == ["student", "student-9999999-layers"]
    assert (tmp_path / "student" / "weights").read_text() == "old"


def test_two_processes_may_be_at_work_on_one_target(tmp_path, at_work):
    process, draft = at_work(tmp_path / "student")
    fill(tmp_path / "student", "mine")
    assert os.path.exists(draft)
    process.communicate("")
    assert process.returncode == 0
    assert (tmp_path / "student" / "weights").read_text() == "half", "the last one to end wins"
    assert names(tmp_path) == ["student"]


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path):
    fill(tmp_path / "student", "old")
    process = python(BETWEEN, tmp_path / "student")
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "student").exists()
    files.sweep(tmp_path / "student")
    assert (tmp_path / "student" / "weights").read_text() == "old"
    assert names(tmp_path) == ["student"]


def test_writers_that_race_leave_the_whole_of_one(tmp_path):
    writers = [python(WRITER, tmp_path / "student", name) for name in "ab"]
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.wait() for writer in writers] == [0, 0]
    assert names(tmp_path) == ["student", "student.json"]
    assert len({path.read_text() for path in (tmp_path / "student").iterdir()}) == 1
    assert len(set(json.loads((tmp_path / "student.json").read_text()))) == 1
    for writer in writers:
        writer.communicate()


def test_threads_that_race_leave_the_whole_of_one(tmp_path):
    threads = [threading.Thread(target=fill, args=(tmp_path / "student", str(i))) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(tmp_path) == ["student"] and names(tmp_path / "student") == ["weights"]


def test_a_target_with_a_glob_in_its_name(tmp_path, at_work):
    process, draft = at_work(tmp_path / "a[b]*")
    process.kill()
    process.wait()
    files.sweep(tmp_path / "ab")
    assert os.path.exists(draft)
    files.sweep(tmp_path / "a[b]*")
    assert names(tmp_path) == []


def test_a_link_stays_one_and_a_file_is_not_replaced_by_a_folder(tmp_path):
    fill(tmp_path / "disk" / "student", "old")
    files.write_json(tmp_path / "disk" / "a.json", "old")
    for name in ("student", "a.json"):
        (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    fill(tmp_path / "student", "new")
    files.write_json(tmp_path / "a.json", "new")
    assert (tmp_path / "student").is_symlink() and (tmp_path / "a.json").is_symlink()
    assert (tmp_path / "disk" / "student" / "weights").read_text() == "new"
    assert names(tmp_path / "disk") == ["a.json", "student"]
    with pytest.raises(NotADirectoryError):
        fill(tmp_path / "disk" / "a.json", "x")
    assert json.loads((tmp_path / "a.json").read_text()) == "new" and names(tmp_path / "disk") == ["a.json", "student"]


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
@pytest.mark.parametrize("umask, folder, file", [(0o022, 0o755, 0o644), (0o077, 0o700, 0o600), (0o002, 0o775, 0o664)])
def test_modes_follow_the_umask(tmp_path, umask, folder, file):
    before = os.umask(umask)
    try:
        fill(tmp_path / "student", "x")
        files.write_json(tmp_path / "a.json", 1)
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("student", "student/weights", "a.json")]
    assert modes == [folder, file, file]


def test_a_failed_block_leaves_the_old_one(tmp_path):
    fill(tmp_path / "student", "old")
    with pytest.raises(ValueError), files.atomic_folder(tmp_path / "student") as folder:
        (folder / "weights").write_text("new")
        raise ValueError
    assert (tmp_path / "student" / "weights").read_text() == "old"
    assert names(tmp_path) == ["student"]


FULL = [
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),  # as safetensors says it
]


@pytest.mark.parametrize("error", FULL, ids=["Python", "a library"])
def test_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, error):
    with pytest.raises(CourseError, match=r"Could not write .*student: .*No space left on device.*; nothing half-writ"):
        with files.atomic_folder(tmp_path / "student"):
            raise error
    assert names(tmp_path) == []


def test_other_errors_keep_their_own_words(tmp_path):
    for error in (FileNotFoundError(errno.ENOENT, "gone", "/x"), CourseError("No space left on device for you.")):
        with pytest.raises(type(error)) as caught, files.atomic_folder(tmp_path / "student"):
            raise error
        assert caught.value is error


def test_a_file_elsewhere_that_may_not_be_read_is_named(tmp_path):
    with pytest.raises(CourseError, match=r"Permission denied \(/elsewhere/in.csv\)"):
        with files.atomic_folder(tmp_path / "student"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/elsewhere/in.csv")


TOO_MUCH = """
import resource, sys
from slmops_lab import files
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    files.write_json(sys.argv[1], "x" * 10_000)
except files.CourseError as error:
    print(error)
"""
AS_NOBODY = """
import os, sys
from slmops_lab import files
import filelock
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
try:
    files.write_json(sys.argv[1], 1)
except files.CourseError as error:
    print(error)
"""


@pytest.mark.skipif(os.name == "nt", reason="limits are POSIX")
def test_json_that_does_not_fit_is_one_sentence_and_the_old_file_stays(tmp_path):
    files.write_json(tmp_path / "a.json", "old")
    said, _ = python(TOO_MUCH, tmp_path / "a.json").communicate()
    assert said.startswith(f"Could not write {tmp_path / 'a.json'}: File too large;")
    assert json.loads((tmp_path / "a.json").read_text()) == "old" and names(tmp_path) == ["a.json"]


@pytest.mark.skipif(os.name == "nt", reason="users are POSIX")
def test_a_place_that_may_not_be_written_is_one_sentence():
    said, _ = python(AS_NOBODY, "/slmops-test.json").communicate()
    assert re.match("Could not write /slmops-test.json: (Permission denied|Read-only file system);", said)


def test_write_json_replaces_whole_and_leaves_no_draft(tmp_path):
    files.write_json(tmp_path / "a.json", {"a": "ü"})
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "a.json", {"a": object()})
    with pytest.raises(UnicodeEncodeError):
        files.write_json(tmp_path / "a.json", "\ud800")
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"a": "ü"}
    assert names(tmp_path) == ["a.json"]


def test_sha256_of_one_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert files.sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_sha256_of_several_counts_names_and_where_a_file_ends(tmp_path):
    def of(folder, **contents):
        for name, content in contents.items():
            path = tmp_path / folder / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return files.sha256_of(*(p for p in (tmp_path / folder).rglob("*") if p.is_file()))

    first = of("1", test="a\n", train="b\nc\n")
    others = [
        of("2", test="a\nb\n", train="c\n"),  # the first line moved to the end of the file before
        of("3", test="b\nc\n", train="a\n"),  # files that changed names
        of("4", test="a\n", train="b\nc\n", pool=""),
        of("5", test="a\n", in__train="b\nc\n"),
    ]
    assert len({first, *others}) == 5
    shutil.move(tmp_path / "1", tmp_path / "elsewhere")
    moved = [tmp_path / "elsewhere" / name for name in ("train", "test")]
    assert first == files.sha256_of(*moved) == files.sha256_of(*reversed(moved)), "neither place nor order counts"
