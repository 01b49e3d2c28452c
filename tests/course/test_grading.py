"""Grading: answers are judged, changed checks are said, and what one answer does stops only itself."""

import copy
import csv
import json
import re

import nbformat
import psutil
import pytest
from conftest import REPOSITORY
from typer.testing import CliRunner

from slmops_lab.course import cli, grading
from slmops_lab.course.stand_ins import chapter_1
from slmops_lab.errors import CourseError

CHAPTER = chapter_1.CHAPTER
LIMITS = grading.Limits(seconds=20, megabytes=1_500)


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(REPOSITORY / "notebooks/01_introduction.ipynb", as_version=4)


def at(notebook, name, tag):
    places = [i for i, cell in enumerate(notebook.cells) if tag in cell.metadata.get("tags", [])]
    (check,) = [i for i in places if f'"{name}"' in notebook.cells[i].source] if tag == "check" else [None]
    return check if tag == "check" else at(notebook, name, "check") - 1


@pytest.fixture
def handed(notebook, tmp_path):
    """Function: {exercise: code} and a change of the notebook -> what `grade` says of a learner."""

    def grade(answers, change=lambda notebook: None, **limits):
        mine = copy.deepcopy(notebook)
        for name, code in answers.items():
            mine.cells[at(mine, name, "exercise")].source = code
        change(mine)
        (tmp_path / "class/anna").mkdir(parents=True, exist_ok=True)
        nbformat.write(mine, tmp_path / "class/anna/01_introduction.ipynb")
        chosen = grading.Limits(**{**vars(LIMITS), **limits})
        made = grading.grade([tmp_path / "class"], tmp_path / "out", chosen, say=lambda line: None)
        return made["anna"]["1"]

    return grade


SOLVED = {name: CHAPTER.exercise(name)[2] for name in CHAPTER.names}
WRONG = "memory_for = lambda *numbers: 0"


def test_solutions_are_right_and_the_rest_is_not_tried(handed, tmp_path):
    told = handed(SOLVED | {"1.2": WRONG, "1.1": "my_labels = ..."})
    assert [one["result"] for one in told.values()] == ["not tried", "not yet", "right", "right", "right"]
    assert "not yet: found" in told["1.2"]["said"]
    (row,) = csv.DictReader((tmp_path / "out/class.csv").read_text().splitlines())
    assert row["learner"] == "anna" and row["right"] == "3" and row["1.2"] == "not yet"
    assert json.loads((tmp_path / "out/anna.json").read_text())["chapters"]["1"] == told


def test_cells_that_a_learner_adds_belong_to_the_answer(handed):
    def in_two(mine):
        place = at(mine, "1.2", "exercise")
        mine.cells.insert(place, nbformat.v4.new_code_cell("def half(x):\n    return x / 2"))
        mine.cells.insert(place + 2, nbformat.v4.new_markdown_cell("my notes"))
        mine.cells.insert(place + 3, nbformat.v4.new_code_cell(SOLVED["1.2"] + "\nhalf(2)"))

    assert handed({}, in_two)["1.2"]["result"] == "right"


def edited(mine):
    mine.cells[at(mine, "1.2", "check")].source += "\nprint('right')"


def copied(mine):
    mine.cells.append(copy.deepcopy(mine.cells[at(mine, "1.2", "check")]))


def split(mine):
    place = at(mine, "1.2", "check")
    first, rest = mine.cells[place].source.split("check(", 1)
    mine.cells[place].source = "check(" + rest
    mine.cells.insert(place, nbformat.v4.new_code_cell(first or "pass"))
    mine.cells[place + 1].source = mine.cells[place + 1].source.replace("hint=", "\n    hint=")


def deleted(mine):
    del mine.cells[at(mine, "1.2", "check")]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (edited, "was changed, or is of another version"),
        (copied, "more than once"),
        (split, "was changed"),
        (deleted, "is missing"),
    ],
)
def test_a_check_that_is_not_as_it_was_is_said_and_not_scored(handed, change, said):
    told = handed({"1.2": SOLVED["1.2"]}, change)["1.2"]
    assert told["result"] == "not scored" and said in told["said"]


MANY = """
import os, time
for _ in range(60):
    if not os.fork():
        time.sleep(60)
        os._exit(0)
time.sleep(60)
"""
PATCHED = "from slmops_lab.course import exercises\nexercises.check = lambda *a, **k: None\nmemory_for = 1"


@pytest.mark.parametrize(
    ("code", "result", "said"),
    [
        ("while True:\n    pass", "stopped", "longer than 5 seconds"),
        ("import os\nos._exit(3)", "stopped", "exit code 3"),
        ("import os\nos.kill(os.getpid(), 11)", "stopped", "SIGSEGV"),
        ("while True:\n    print('x' * 1000)", "stopped", "MB|SIGXFSZ|exit code"),
        ("x = []\nwhile True:\n    x.append(bytearray(10**7))", "stopped", "memory"),
        (MANY, "stopped", "more than 32 processes"),
        ("import sys\nsys.exit(0)", "not yet", "SystemExit"),
        ("memory_for = 1 / 0", "not yet", "ZeroDivisionError"),
        ("memory_for = (", "not yet", "is no Python"),
        ("memory_for = my_helper", "not scored", "only the whole chapter has .*my_helper"),
        ("check = lambda *a, **k: None\nmemory_for = 1", "not yet", "not yet: found"),
        (PATCHED, "not yet", "not yet: found"),
    ],
)
def test_what_an_answer_does_stops_only_itself(handed, code, result, said):
    told = handed({"1.2": code, "1.5": SOLVED["1.5"]}, seconds=5)
    assert told["1.2"]["result"] == result and re.search(said, told["1.2"]["said"]), told["1.2"]
    assert told["1.5"]["result"] == "right"
    left = [p.info for p in psutil.process_iter(["cmdline", "status"])]
    assert not [p for p in left if "slmops_lab.course.stand_ins" in (p["cmdline"] or [])]  # a zombie has none


def test_what_is_no_learners_notebook_is_said(notebook, tmp_path):
    place = tmp_path / "class"
    for learner in ("anna", "ben", "cleo", "dora"):
        (place / learner).mkdir(parents=True)
    nbformat.write(notebook, place / "anna/01_introduction.ipynb")
    nbformat.write(notebook, place / "anna/copy.ipynb")
    (place / "ben/01_introduction.ipynb").write_text("{")
    (place / "emil").mkdir()
    (place / "emil/answers.docx").write_text("sorry")
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), place / "cleo/mine.ipynb")
    nbformat.write(notebook, place / "dora/01_introduction.ipynb")
    told = []
    assert list(grading.grade([place], tmp_path / "out", LIMITS, say=told.append)) == ["dora"]
    assert any(line.startswith("anna: there is more than one notebook of chapter 1") for line in told)
    assert any("ben" in line and "is no notebook." in line for line in told)
    assert any("cleo" in line and "no check of an exercise" in line for line in told)
    assert any(line.startswith("emil: there is no notebook in ") for line in told)
    rows = {r["learner"]: r for r in csv.DictReader((tmp_path / "out/class.csv").read_text().splitlines())}
    assert {name: row["right"] for name, row in rows.items()} == dict.fromkeys(("anna", "ben", "cleo", "emil"), "") | {
        "dora": "0"
    }
    assert "is no notebook." in rows["ben"]["problems"] and not rows["dora"]["problems"]
    assert "no notebook" in json.loads((tmp_path / "out/emil.json").read_text())["problems"][0]
    with pytest.raises(CourseError, match="There is no notebook to grade"):
        grading.grade([place / "cleo"], tmp_path / "out")
    with pytest.raises(CourseError, match="There is no file or folder"):
        grading.grade([place / "nobody"], tmp_path / "out")


def test_two_chapters_in_one_file_are_no_notebook_of_one(notebook, tmp_path):
    mixed = copy.deepcopy(notebook)
    mixed.cells.append(nbformat.v4.new_code_cell('check(\n    "2.1", 1, bool, hint="", why="")'))
    nbformat.write(mixed, tmp_path / "eve_01_introduction.ipynb")
    handed, problems = grading.collect([tmp_path])
    assert not handed and "checks of chapters 1, 2" in problems[0] and problems[0].startswith("eve:")


def test_from_the_command_line(notebook, tmp_path):
    nbformat.write(notebook, tmp_path / "frank-01_introduction.ipynb")
    told = CliRunner().invoke(cli.app, ["grade", str(tmp_path), "--out", str(tmp_path / "out")])
    assert "frank, chapter 1: 0 of 5 right" in told.output and "class.csv: 1 learner" in told.output
