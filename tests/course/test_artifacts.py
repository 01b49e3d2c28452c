import errno
import os
import subprocess
import sys

import pytest

from slmops_lab import settings
from slmops_lab.course import artifacts
from slmops_lab.errors import CourseError


def fill(run, name, content):
    with artifacts.save(run, name, settings={"epochs": 2}, metrics={"exact_match": 0.5}) as folder:
        (folder / "weights").write_text(content)


def test_saved_artifact_is_found_with_its_manifest(run):
    fill(run, "teacher", "a")
    assert artifacts.need(run, "teacher") == artifacts.find(run, "teacher")
    manifest = artifacts.manifest(run, "teacher")
    assert manifest["settings"] == {"epochs": 2} and manifest["metrics"] == {"exact_match": 0.5}
    assert manifest["data_sha256"] == run.data_sha256 and "torch" in manifest["versions"]


@pytest.mark.parametrize("change", [{"seed": 1}, {"base_model": "other"}])
def test_artifact_of_another_run_is_not_used(run, change):
    fill(run, "teacher", "a")
    other = settings.start(**{**run.parameters, **change})
    assert artifacts.find(other, "teacher") is None


def test_a_failed_block_leaves_the_old_one(run):
    fill(run, "teacher", "old")
    with pytest.raises(ValueError), artifacts.save(run, "teacher") as folder:
        (folder / "weights").write_text("new")
        raise ValueError
    assert (artifacts.find(run, "teacher") / "weights").read_text() == "old"
    assert [p.name for p in run.artifacts.iterdir()] == ["teacher"]


def test_full_disk_is_one_sentence_and_leaves_nothing(run):
    with pytest.raises(CourseError, match="No space left on device; nothing half-written"):
        with artifacts.save(run, "teacher"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(run.artifacts.iterdir()) == []


def test_other_os_errors_keep_their_own_words(run):
    with pytest.raises(FileNotFoundError), artifacts.save(run, "teacher"):
        open("/does/not/exist")


KILLED = """
import os, sys
from slmops_lab import files
with files.atomic_folder(sys.argv[1]) as folder:
    (folder / "weights").write_text("half")
    os.kill(os.getpid(), 9)
"""


def test_a_killed_run_leaves_the_old_one_and_the_next_run_clears_up(run):
    fill(run, "teacher", "old")
    subprocess.run([sys.executable, "-c", KILLED, str(run.artifacts / "teacher")])
    assert len(list(run.artifacts.iterdir())) == 2
    assert (artifacts.find(run, "teacher") / "weights").read_text() == "old"
    assert [p.name for p in run.artifacts.iterdir()] == ["teacher"]


def test_a_run_killed_between_the_two_renames_is_put_right(run):
    fill(run, "teacher", "old")
    os.rename(run.artifacts / "teacher", run.artifacts / ".teacher-999999999-x-old")
    assert (artifacts.find(run, "teacher") / "weights").read_text() == "old"


def test_manifest_cut_in_half_counts_as_missing(run):
    fill(run, "teacher", "a")
    (run.artifacts / "teacher" / "manifest.json").write_text('{"name": "tea')
    assert artifacts.find(run, "teacher") is None


def test_a_name_that_no_chapter_makes(run):
    with pytest.raises(CourseError, match="No chapter makes 'tutor': known are teacher, student"):
        artifacts.need(run, "tutor")


def test_missing_artifact_is_made_by_its_chapter(run, monkeypatch, capsys):
    def chapter(name, parameters, build):
        assert (name, parameters) == ("02_distillation", run.parameters)
        fill(run, "student", "made")
        return {"seconds": 90, "peak_bytes": 0}

    monkeypatch.setattr(artifacts.chapters, "execute", chapter)
    assert (artifacts.need(run, "student") / "weights").read_text() == "made"
    assert "running 02_distillation first (some minutes)" in capsys.readouterr().out
