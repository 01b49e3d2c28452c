import signal
import subprocess
import sys

import jupytext
import nbformat
import pytest

from slmops_lab import settings
from slmops_lab.course import artifacts
from slmops_lab.errors import CourseError

CHAPTER = """
# %% tags=["parameters"]
dataset = "support_desk"
base_model = "tiny"
profile = None
seed = 0
labelled_messages = 960
# %%
from slmops_lab import settings
from slmops_lab.course import artifacts
run = settings.start(dataset, base_model, profile, seed, labelled_messages=labelled_messages)
with artifacts.save(run, "student", {"examples": labelled_messages}) as folder:
    (folder / "weights").write_text("made")
"""


def fill(run, name, content):
    with artifacts.save(run, name, settings={"epochs": 2}, metrics={"exact_match": 0.5}) as folder:
        (folder / "weights").write_text(content)


@pytest.fixture
def chapter(tmp_path, monkeypatch):
    """Chapter 2 as a notebook of one cell that makes a student; returns its path."""
    monkeypatch.setattr(artifacts.chapters, "NOTEBOOKS", tmp_path / "notebooks")
    path = tmp_path / "notebooks" / "02_distillation.ipynb"
    path.parent.mkdir()
    nbformat.write(jupytext.reads(CHAPTER, "py:percent"), path)
    return path


def test_saved_artifact_is_found_with_its_manifest(run):
    fill(run, "teacher", "a")
    assert artifacts.need(run, "teacher") == artifacts.find(run, "teacher")
    manifest = artifacts.manifest(run, "teacher")
    assert manifest["settings"] == {"epochs": 2} and manifest["metrics"] == {"exact_match": 0.5}
    assert manifest["data_sha256"] == run.data_sha256 and "torch" in manifest["versions"]


@pytest.mark.parametrize("change", [{"seed": 1}, {"base_model": "other"}, {"profile": "full"}])
def test_artifact_of_another_run_is_not_used(run, change):
    fill(run, "teacher", "a")
    other = settings.start(**{**run.parameters, **change})
    other.artifacts.parent.mkdir(exist_ok=True)
    if not other.artifacts.exists():  # somebody copied what another profile made
        run.artifacts.rename(other.artifacts)
    assert artifacts.find(other, "teacher") is None


def test_artifact_of_other_data_is_not_used(run):
    fill(run, "teacher", "a")
    with open(run.dataset / "train.jsonl", "a") as file:
        file.write("\n")
    assert artifacts.find(settings.start(**run.parameters), "teacher") is None


def test_artifact_of_other_chapter_parameters_is_not_used(run, chapter):
    def started(**own):
        return settings.start(**run.parameters, **own)

    fill(started(labelled_messages=50), "teacher", "with 50")
    assert artifacts.find(run, "teacher") is None, "the chapter's cell says 960"
    assert artifacts.find(started(labelled_messages=960), "teacher") is None
    assert artifacts.find(started(labelled_messages=50), "teacher"), "the chapter itself, run again"
    assert artifacts.find(started(rank=8), "teacher") is None
    fill(started(labelled_messages=960), "teacher", "with 960")
    assert artifacts.find(run, "teacher") and artifacts.find(started(rank=8), "teacher")
    assert artifacts.find(started(labelled_messages=50), "teacher") is None
    chapter.write_text(chapter.read_text().replace("labelled_messages = 960", "labelled_messages = 50"))
    assert artifacts.find(run, "teacher") is None, "a learner changed the cell and has not run it yet"


def test_an_update_of_a_library_keeps_an_artifact(run, monkeypatch):
    with monkeypatch.context() as before:
        before.setattr(artifacts.importlib.metadata, "version", lambda name: "0")
        fill(run, "teacher", "a")
    assert artifacts.find(run, "teacher") and artifacts.manifest(run, "teacher")["versions"]["torch"] == "0"


def test_missing_artifact_is_made_by_its_chapter_and_an_unlike_one_made_anew(run, chapter, capsys):
    assert (artifacts.need(run, "student") / "weights").read_text() == "made"
    assert "The student is not there yet: running 02_distillation first (some minutes)" in capsys.readouterr().out
    fill(settings.start(**run.parameters, labelled_messages=50), "student", "with 50")
    assert (artifacts.need(run, "student") / "weights").read_text() == "made"
    said = capsys.readouterr().out
    assert (
        "The student there was made with labelled_messages=50, not 960: running 02_distillation first (about 0" in said
    )


def test_a_chapter_that_leaves_nothing(run, chapter):
    chapter.write_text(chapter.read_text().replace('\\"student\\"', '\\"pupil\\"'))
    with pytest.raises(CourseError, match="02_distillation ran and left no student: look at its notebook in"):
        artifacts.need(run, "student")


KILLED = """
import os, sys
from slmops_lab import files
with files.atomic_folder(sys.argv[1]) as folder:
    (folder / "weights").write_text("half")
    os.kill(os.getpid(), 9)
"""
BETWEEN = KILLED.replace("    os.kill", "    os.rename(sys.argv[1], folder.with_suffix('.old'))\n    os.kill")


@pytest.mark.parametrize("code", [KILLED, BETWEEN], ids=["in its block", "between its two renames"])
def test_a_killed_run_leaves_the_old_one_and_the_next_run_clears_up(run, code):
    fill(run, "teacher", "old")
    done = subprocess.run([sys.executable, "-c", code, str(run.artifacts / "teacher")])
    assert done.returncode == -signal.SIGKILL
    assert len(list(run.artifacts.iterdir())) > 1
    assert (artifacts.find(run, "teacher") / "weights").read_text() == "old"
    assert [p.name for p in run.artifacts.iterdir()] == ["teacher"]


@pytest.mark.parametrize("text", ['{"name": "tea', "[]", '"x"', '{"name": "teacher"}'])
def test_a_manifest_that_is_none_counts_as_missing(run, text):
    fill(run, "teacher", "a")
    (run.artifacts / "teacher" / "manifest.json").write_text(text)
    assert artifacts.find(run, "teacher") is None


def test_a_name_that_no_chapter_makes(run):
    with pytest.raises(CourseError, match="No chapter makes 'tutor': known are teacher, student"):
        artifacts.need(run, "tutor")
