"""The student edition: nothing to look up, and everything that is needed to be graded."""

import json

import pytest
from typer.testing import CliRunner

from slmops_lab.course import chapters, cli, editions, exercises, grading
from slmops_lab.errors import CourseError

NAMES = chapters.names()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return editions.hand_out(tmp_path_factory.mktemp("class") / "handout")


@pytest.mark.parametrize("number", range(4))
def test_no_solution_and_no_answer_is_left(made, number):
    text = made[number].read_text(encoding="utf-8")
    assert "<summary>Solution" not in text and "<summary>Answers" not in text and "Exercise" in text
    solutions = [grading.chapter_of(number + 1).exercise(name)[2] for name in grading.chapter_of(number + 1).names]
    cells = ["".join(cell["source"]) for cell in json.loads(text)["cells"]]
    assert not [solution for solution in solutions if any(solution.strip() in cell for cell in cells)]
    whole = json.loads(chapters.find(NAMES[number]).read_text(encoding="utf-8"))["cells"]
    code = [
        [(c["id"], "".join(c["source"])) for c in of if c["cell_type"] == "code"]
        for of in (json.loads(text)["cells"], whole)
    ]
    assert code[0] == code[1]


def test_what_is_handed_out_can_be_graded(made, tmp_path):
    graded = grading.grade([made[0]], tmp_path / "out", say=lambda line: None)
    ((learner, told),) = graded.items()
    assert {result["result"] for result in told["1"].values()} == {"not tried"} and learner == "learner"


def test_outputs_are_kept_where_asked_for(made, tmp_path):
    told = CliRunner().invoke(cli.app, ["handout", "1", "--outputs", "--out", str(tmp_path / "with")])
    with_outputs = json.loads((tmp_path / "with" / f"{NAMES[0]}.ipynb").read_text(encoding="utf-8"))
    assert told.exit_code == 0 and any(cell.get("outputs") for cell in with_outputs["cells"])
    assert not any(cell.get("outputs") for cell in json.loads(made[0].read_text(encoding="utf-8"))["cells"])
    with pytest.raises(CourseError, match="exists already"):
        editions.hand_out(tmp_path / "with")
    with pytest.raises(CourseError, match="There is no chapter '7'"):
        editions.hand_out(tmp_path / "other", ["7"])
    assert not (tmp_path / "other").exists()


def test_marks_for_nbgrader(tmp_path):
    told = CliRunner().invoke(cli.app, ["handout", "1", "--nbgrader", "--out", str(tmp_path / "class")])
    assert told.exit_code == 0
    made = json.loads((tmp_path / "class" / f"{NAMES[0]}.ipynb").read_text(encoding="utf-8"))
    marks = [cell["metadata"]["nbgrader"] for cell in made["cells"] if "nbgrader" in cell["metadata"]]
    names = [name.replace(".", "-") for name in grading.chapter_of(1).names]
    kinds = ("check", "points")
    assert [mark["grade_id"] for mark in marks] == [f"{kind}-{name}" for name in names for kind in kinds]
    assert [mark.get("points") for mark in marks] == [None, 1] * len(names)
    assert all(mark["locked"] and not mark["solution"] for mark in marks)
    assert len({cell["id"] for cell in made["cells"]}) == len(made["cells"])


@pytest.mark.parametrize(("answer", "points"), [("my_labels = ...", False), ("2 + 2", True)])
def test_the_point_is_for_a_passed_check(answer, points):
    cells = [
        ("exercise", f"four = {answer}"),
        ("check", 'check("9.1", four, lambda value: value == 4, hint="", why="")'),
    ]
    made = [{"cell_type": "code", "id": tag, "source": code, "metadata": {"tags": [tag]}} for tag, code in cells]
    code = [cell["source"] for cell in editions.for_nbgrader({"cells": made})["cells"]]
    known = {"check": exercises.check}
    exec(code[0] + "\n" + code[1], known)
    if points:
        exec(code[2], known)
    else:
        with pytest.raises(AssertionError, match="Exercise 9.1 is not solved"):
            exec(code[2], known)
