"""Folders that a chapter leaves for the next one: made whole or not at all, with a manifest.

A later chapter asks for an artifact by name. Where it is missing, or was made by an unlike run (see `find`), the
chapter that makes it is executed first. Asking costs a glance at the manifest and at the chapters' parameters cells.
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

    settings and metrics are dicts of plain values, kept in the manifest as they are, beside the parameters of the run
    and of its chapter, the versions and the time. Raises CourseError as `files.atomic_folder` does.
    """
    with atomic_folder(run.artifacts / name) as folder:
        yield folder
        manifest = {
            "name": name,
            **run.identity,
            "parameters": run.chapter,
            "settings": settings or {},
            "metrics": metrics or {},
            "versions": {p: importlib.metadata.version(p) for p in VERSIONS},
            "python": sys.version.split()[0],
            "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        write_json(folder / "manifest.json", manifest)


def find(run, name):
    """Folder of the artifact, or None where it is missing or was made by an unlike run.

    A run is alike where it has the same data (by their bytes), base model (by its name), profile and seed, and where
    each parameter of the chapter that made the artifact has the value that this run's own notebook gave it, else the
    one that stands in the parameters cell of the chapter. So `slmops run 2 -p labelled_messages=50` makes a teacher
    for that run; a later chapter uses it only where chapter 2's cell says 50, too. What the chapter derived
    (`settings`) follows from these. Versions of libraries are noted, not compared: an update undoes no training.
    """
    sweep(run.artifacts / name)
    told = _told(run, name)
    return run.artifacts / name if told and not _unlike(run, told) else None


def _told(run, name):
    """The manifest, or None where there is none, or only a part of one."""
    try:
        told = manifest(run, name)
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None


def _unlike(run, told):
    """What an artifact's run had and this one has not, as ['seed=1, not 0']."""
    wanted = chapters.defaults() | run.chapter | run.identity
    had = told.get("parameters", {}) | {key: told.get(key) for key in run.identity}
    return [f"{key}={had[key]}, not {wanted.get(key)}" for key in had if had[key] != wanted.get(key)]


def manifest(run, name):
    """The manifest of an artifact that `find` finds, as a dict."""
    return json.loads((run.artifacts / name / "manifest.json").read_text(encoding="utf-8"))


def need(run, name):
    """Folder of the artifact; where `find` finds none, say why and run the chapter that makes it.

    Raises CourseError for a name that no chapter makes, and when that chapter fails.
    """
    if name not in MADE_BY:
        raise CourseError(f"No chapter makes '{name}': known are {', '.join(MADE_BY)}.")
    if folder := find(run, name):
        return folder
    chapter = MADE_BY[name]
    told = _told(run, name)
    why = f"there was made with {'; '.join(_unlike(run, told))}" if told else "is not there yet"
    print(f"The {name} {why}: running {chapter} first ({chapters.usual_time(run, chapter)}).")
    report = chapters.execute(chapter, run.parameters, run.build)
    print(f"{chapter} took {report['seconds'] / 60:.1f} minutes.")
    if not find(run, name):
        raise CourseError(f"{chapter} ran and left no {name}: look at its notebook in {run.build}.")
    return run.artifacts / name
