"""Folders that a chapter leaves for the next one: made whole or not at all, with a manifest.

A later chapter asks for an artifact by name. Where it is missing, or was made from other data,
another base model, profile or seed, the chapter that makes it is executed first.
"""

import datetime
import errno
import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import psutil

from slmops_lab import chapters
from slmops_lab.settings import CourseError

MADE_BY = {"teacher": "02_distillation", "student": "02_distillation"}
VERSIONS = ["torch", "transformers", "peft", "onnxruntime", "onnxruntime-genai"]


# What the operating system says when a place cannot take the file, whoever wrote.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def atomic_folder(target):
    """Yield an empty folder beside `target`; it takes target's place when the block ends well.

    A killed or failed block leaves the old target as it was. Raises CourseError where the disk is
    full or the place cannot be written.
    """
    target = Path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target)
        prefix = f".{target.name}-{os.getpid()}-"
        draft = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    except OSError as error:
        raise CourseError(f"Cannot write in {target.parent}: {error.strerror}.") from error
    try:
        yield draft
        old = draft.with_name(draft.name + "-old")
        if target.exists():
            os.rename(target, old)
        os.rename(draft, target)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise CourseError(
            f"Could not write {target}: {error.strerror}; nothing half-written was left behind."
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def sweep(target):
    """Clear what a killed process left beside `target`; put an old version back that it had moved."""
    for left in target.parent.glob(f".{target.name}-*-*"):
        owner = left.name.removeprefix(f".{target.name}-").split("-")[0]
        if not owner.isdigit() or psutil.pid_exists(int(owner)):
            continue
        if left.name.endswith("-old") and not target.exists():
            os.rename(left, target)
        else:
            shutil.rmtree(left, ignore_errors=True)


def write_json(path, value):
    """Write `value` as JSON so that a reader sees the old file or the new one, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
    os.replace(draft, path)


@contextmanager
def save(run, name, settings=None, metrics=None):
    """Yield a folder to fill; it becomes the run's artifact `name`, with a manifest.json.

    settings and metrics are dicts of plain values, kept in the manifest as they are.
    """
    with atomic_folder(run.artifacts / name) as folder:
        yield folder
        manifest = {
            "name": name,
            **run.identity,
            "settings": settings or {},
            "metrics": metrics or {},
            "versions": {p: importlib.metadata.version(p) for p in VERSIONS},
            "python": sys.version.split()[0],
            "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        write_json(folder / "manifest.json", manifest)


def find(run, name):
    """Folder of the artifact, or None where it is missing or was made for another run."""
    folder = run.artifacts / name
    sweep(folder)
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    same = all(manifest.get(key) == value for key, value in run.identity.items())
    return folder if same else None


def manifest(run, name):
    """The manifest of an artifact that `find` finds, as a dict."""
    return json.loads((run.artifacts / name / "manifest.json").read_text(encoding="utf-8"))


def need(run, name):
    """Folder of the artifact; where there is none, run the chapter that makes it.

    Raises CourseError for a name that no chapter makes, and when that chapter fails.
    """
    if name not in MADE_BY:
        raise CourseError(f"No chapter makes '{name}': known are {', '.join(MADE_BY)}.")
    if folder := find(run, name):
        return folder
    chapter = MADE_BY[name]
    print(f"The {name} is not there yet: running {chapter} first ({chapters.usual_time(run, chapter)}).")
    report = chapters.execute(chapter, run.parameters, run.build)
    print(f"{chapter} took {report['seconds'] / 60:.1f} minutes.")
    if not find(run, name):
        raise CourseError(f"{chapter} ran and left no {name}: look at its notebook in {run.build}.")
    return run.artifacts / name
