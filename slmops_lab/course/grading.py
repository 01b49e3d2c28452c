"""Grade a class: each learner's answers, run on stand-ins in a process of their own with limits.

Only exercises are run, none of a chapter's training: about 4 s an exercise. The check that decides is the course's
own; a learner's that was changed, copied, split or deleted is said, and its exercise is not scored. What an answer
needs of the chapter beyond its stand-ins cannot be tried here, and is said. Limits keep one answer from stopping the
others: time, memory (on Linux only), output, and processes, which the system counts for users and only this module for
root. They are no sandbox: an answer may read and write what whoever grades may, so grade where nothing else lies about.

Weighed against nbgrader (a database and a JupyterLab extension around an exchange folder) and otter-grader (a container
per notebook): both run the whole notebook, an hour here.
"""

import csv
import functools
import hashlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from slmops_lab.course.stand_ins.cells import CHECK
from slmops_lab.errors import CourseError
from slmops_lab.files import write_json

CHAPTERS = (1, 2, 3, 4)
BEGUN = "begun"  # a file that the process makes where the answer begins
RIGHT, WRONG, UNTRIED, UNSCORED, STOPPED = "right", "not yet", "not tried", "not scored", "stopped"


@dataclass(frozen=True)
class Limits:
    """Of one answer: seconds, megabytes of memory and of output, processes at once."""

    seconds: float = 60.0
    megabytes: int = 2_000
    output_megabytes: float = 1.0
    processes: int = 32


@dataclass(frozen=True)
class Handed:
    """A notebook that was handed in: whose, which chapter's, where."""

    learner: str
    chapter: int
    path: Path
    cells: list


def grade(paths, out, limits=None, workers=2, say=print):
    """Grade notebooks or folders of them; writes out/LEARNER.json and out/class.csv, also for those who handed in
    nothing that can be graded.

    A notebook's learner is the folder it lies in below a given folder, else its name without the chapter's. say:
    called with one line for each notebook. Returns {learner: {chapter: {exercise: {'result', 'said', ...}}}}. Raises
    CourseError where nothing can be graded.
    """
    handed, problems = collect(paths)
    for problem in problems:
        say(problem)
    if not handed:
        raise CourseError(f"There is no notebook to grade in {', '.join(map(str, paths))}.")
    limits, graded = limits or Limits(), {}
    with ThreadPoolExecutor(workers) as pool:
        jobs = {}
        for one in handed:
            names = chapter_of(one.chapter).names
            jobs[one.path] = pool.map(functools.partial(judged, one, limits=limits), names)
        for one in handed:
            results = dict(zip(chapter_of(one.chapter).names, jobs[one.path], strict=True))
            graded.setdefault(one.learner, {})[str(one.chapter)] = results
            right = sum(result["result"] == RIGHT for result in results.values())
            say(f"{one.learner}, chapter {one.chapter}: {right} of {len(results)} right")
    Path(out).mkdir(parents=True, exist_ok=True)
    said = {problem.partition(":")[0]: [] for problem in problems} | {learner: [] for learner in graded}
    for problem in problems:
        said[problem.partition(":")[0]].append(problem)
    for learner, own in said.items():
        told = {"learner": learner, "chapters": graded.get(learner, {}), "problems": own}
        write_json(Path(out) / f"{learner}.json", told)
    _write_class(Path(out) / "class.csv", graded, said)
    return graded


def judged(handed, name, limits):
    """What became of one exercise of a notebook: {'result', 'said'}, and 'seconds' where it was run."""
    state, answer = found(handed, chapter_of(handed.chapter), name)
    return state or run(handed.chapter, name, answer, limits)


def chapter_of(number):
    """The `cells.Chapter` of a chapter's number."""
    return importlib.import_module(f"slmops_lab.course.stand_ins.chapter_{number}").CHAPTER


def collect(paths):
    """([`Handed`], sentences "LEARNER: ..." about what is none): files, and the .ipynb files of folders."""
    handed, problems = [], []
    for path in map(Path, paths):
        if not path.exists():
            raise CourseError(f"There is no file or folder {path}.")
        files = sorted(path.rglob("*.ipynb")) if path.is_dir() else [path]
        for file in (file for file in files if ".ipynb_checkpoints" not in file.parts):
            one, problem = _read(file, _learner(file, path))
            handed += [one] if one else []
            problems += [problem] if problem else []
        problems += [f"{_name(empty.name)}: there is no notebook in {empty}." for empty in _without(path, files)]
    twice = {key_of(one) for i, one in enumerate(handed) if any(key_of(one) == key_of(other) for other in handed[:i])}
    for learner, chapter in sorted(twice):
        both = ", ".join(str(one.path) for one in handed if key_of(one) == (learner, chapter))
        problems.append(f"{learner}: there is more than one notebook of chapter {chapter}, so none is graded: {both}.")
    return [one for one in handed if key_of(one) not in twice], problems


def _without(path, files):
    """Learners' folders in which none of the files lies; none where the given path is one learner's own folder."""
    if not path.is_dir() or any(file.parent == path for file in files):
        return []
    folders = sorted(one for one in path.iterdir() if one.is_dir() and not one.name.startswith((".", "_")))
    return [one for one in folders if not any(one in file.parents for file in files)]


def _read(file, learner):
    """(`Handed`, None), or (None, why it is none)."""
    try:
        made = json.loads(file.read_text(encoding="utf-8"))["cells"]
        cells = [{"source": "".join(cell["source"]), "code": cell["cell_type"] == "code"} for cell in made]
    except (OSError, ValueError, KeyError, TypeError):
        return None, f"{learner}: {file} is no notebook."
    numbers = {int(name.split(".")[0]) for cell in cells if cell["code"] for name in CHECK.findall(cell["source"])}
    if len(numbers) != 1 or not numbers <= set(CHAPTERS):
        what = (
            "no check of an exercise" if not numbers else f"checks of chapters {', '.join(map(str, sorted(numbers)))}"
        )
        return None, f"{learner}: {file} is no notebook of one of the chapters: it has {what}."
    return Handed(learner, numbers.pop(), file, cells), None


def key_of(handed):
    """(learner, chapter)"""
    return handed.learner, handed.chapter


TITLE = re.compile(r"[-_ ]*0?[1-4][-_ ](introduction|distillation|fine[-_]tuning|deployment)[-_ ]*", re.IGNORECASE)


def _learner(file, given):
    inside = file.relative_to(given).parts[:-1] if given.is_dir() else ()
    return _name(inside[0] if inside else TITLE.sub("", file.stem))


def _name(name):
    return re.sub(r"[^\w.@+-]+", "-", name).strip("-.") or "learner"


def found(handed, chapter, name):
    """(None, code of the answer), or ({'result', 'said'}, None) where there is nothing to run.

    The answer is all code between the last cell of the course before the stub and the check, so a learner may add
    cells there.
    """
    stub, check, _ = chapter.exercise(name)
    known = {cell.source.strip() for cell in chapter.cells}
    places = [i for i, cell in enumerate(handed.cells) if cell["code"] and name in CHECK.findall(cell["source"])]
    whole = [i for i in places if same(handed.cells[i]["source"], check)]
    if len(places) != 1 or not whole:
        what = "is missing" if not places else "is there more than once" if len(places) > 1 else "was changed"
        more = "" if len(places) != 1 else ", or is of another version of the course"
        return {"result": UNSCORED, "said": f"The check of {name} {what}{more}."}, None
    answer = []
    for cell in reversed(handed.cells[: whole[0]]):
        if cell["source"].strip() in known and not same(cell["source"], stub):
            break  # a cell of the course: what stands before it is no part of the answer
        answer.insert(0, cell["source"] if cell["code"] else "")
    code = "\n\n".join(part for part in answer if part.strip())
    if same(code, stub) or not code.strip():
        return {"result": UNTRIED, "said": "The stub is as it was."}, None
    return None, code


def same(one, other):
    """Whether two cells have the same code, white space at the ends of lines aside."""
    return digest(one) == digest(other)


def digest(source):
    """Hex SHA-256 of a cell's code, white space at the ends of lines aside."""
    return hashlib.sha256("\n".join(line.rstrip() for line in source.strip().splitlines()).encode()).hexdigest()


def run(chapter, name, answer, limits):
    """Judge one answer in a fresh process: {'result', 'said', 'seconds'}."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="graded-") as folder:
        asked, told = Path(folder) / "asked.json", Path(folder) / "told.json"
        asked.write_text(json.dumps({"chapter": chapter, "name": name, "answer": answer, "limits": vars(limits)}))
        command = [sys.executable, "-m", "slmops_lab.course.stand_ins", str(asked), str(told)]
        with open(Path(folder) / "output", "wb") as output:
            process = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            why = _watched(process, Path(folder), limits)
        _end(process)
        result = {"result": STOPPED, "said": why} if why else _result(told, process.returncode)
    return result | {"seconds": round(time.monotonic() - begun, 1)}


def _result(told, code):
    try:
        return json.loads(told.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return {"result": STOPPED, "said": f"The process ended {how} before it had an answer."}


def _watched(process, folder, limits):
    """Wait for a process; why it has to be stopped, or None where it ended by itself.

    Its time begins with the answer, not with the imports before, which take seconds and on a busy machine more.
    """
    end, answering = time.monotonic() + 10 * limits.seconds, False
    while process.poll() is None:
        if not answering and (folder / BEGUN).exists():
            end, answering = time.monotonic() + limits.seconds, True
        if time.monotonic() > end:
            return f"It took longer than {limits.seconds:g} seconds."
        if (folder / "output").stat().st_size > limits.output_megabytes * 1e6:
            return f"It printed more than {limits.output_megabytes:g} MB."
        if len(_session(process)) > limits.processes:
            return f"It started more than {limits.processes} processes."
        time.sleep(0.05)
    return None


def _session(process):
    """Processes of the session that a process leads, itself included."""
    members = []
    for one in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getsid(one.pid) == process.pid:
                members.append(one)
    return members


def _end(process):
    """End every process of a session; several rounds, because a fork bomb goes on while one is at it."""
    for _ in range(200):
        left = [one for one in _session(process) if one.status() != psutil.STATUS_ZOMBIE]
        if not left:
            break
        for one in left:
            with suppress(psutil.Error):
                one.suspend()  # all stand still before the first is gone, else the others replace it
        for one in left:
            with suppress(psutil.Error):
                one.kill()
    process.wait()


def _write_class(path, graded, problems):
    """A row for each learner, also where there was nothing to grade: their number of right answers is empty then."""
    names = sorted({name for chapters in graded.values() for results in chapters.values() for name in results})
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["learner", "right", *names, "problems"])
        for learner, sentences in sorted(problems.items()):
            chapters = graded.get(learner, {})
            results = {name: result["result"] for of in chapters.values() for name, result in of.items()}
            right = sum(result == RIGHT for result in results.values()) if chapters else ""
            table.writerow([learner, right, *(results.get(name, "") for name in names), " ".join(sentences)])
