"""Folders that a chapter leaves for the next one: made whole or not at all, with a manifest.

A later chapter asks for an artifact by name. Where it is missing, or was made from other data,
another base model, profile or seed, the chapter that makes it is executed first.
"""

import datetime
import importlib.metadata
import json
import sys
from contextlib import contextmanager

from slmops_lab.course import chapters
from slmops_lab.errors import CourseError
from slmops_lab.files import atomic_folder, sweep, write_json

MADE_BY = {"teacher": "02_distillation", "student": "02_distillation"}
VERSIONS = ["torch", "transformers", "peft", "onnxruntime", "onnxruntime-genai"]


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
