"""What a learner can give a check: the right value, a wrong one, none, and what no check is made for."""

import importlib

import pandas
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

from slmops_lab.course import exercises


class Unspeakable:
    def __repr__(self):
        raise RuntimeError("no words")


def told(capsys, value, test=lambda value: abs(value - 3) < 0.1, **more):
    exercises.check("9.9", value, test, hint="Count.", why="It is three.", **more)
    (line,) = capsys.readouterr().out.splitlines()
    return line


def test_right(capsys):
    assert told(capsys, 3.05) == "Exercise 9.9: right. It is three."
    assert exercises.passed("9.9") and not exercises.passed("9.8")


def test_wrong_shows_what_was_found_beside_what_was_wanted(capsys):
    told(capsys, 3)
    assert told(capsys, 4) == "Exercise 9.9: not yet: found 4 (int). Count."
    assert not exercises.passed("9.9")
    assert told(capsys, 4, wanted=3) == "Exercise 9.9: not yet: found 4 (int), wanted 3. Count."


def test_untried(capsys):
    told(capsys, 3)
    assert "not tried yet. Replace the ..." in told(capsys, ...)
    assert not exercises.passed("9.9")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "found None (NoneType); the check ended with TypeError"),
        ("3", "found '3' (str); the check ended with TypeError"),
        ((3, 3), "found (3, 3) (tuple); the check ended with TypeError"),
        (print, "found print (builtin_function_or_method); the check ended with TypeError"),
        (torch.arange(10_000.0).view(100, 100), "(Tensor); the check ended with RuntimeError"),
        (pandas.DataFrame({"a": [3, 3]}), "(DataFrame); the check ended with ValueError"),
        (Unspeakable(), "(Unspeakable); the check ended with TypeError"),
        ("long " * 10_000, "(str); the check ended with TypeError"),
        (float("nan"), "found nan (float). Count."),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_no_check_is_made_for_is_one_short_sentence(capsys, value, shown):
    line = told(capsys, value)
    assert line.startswith("Exercise 9.9: not yet: found ") and shown in line and len(line) < 300
    assert not exercises.passed("9.9")


def test_a_check_whose_chapter_was_not_run_blames_no_answer(capsys):
    line = told(capsys, 3, lambda value: value == parameters * 2)  # noqa: F821
    assert "cannot be checked yet: name 'parameters' is not defined. Run the cells" in line
    assert not exercises.passed("9.9")


@pytest.fixture
def shell():
    """A notebook's interpreter that has imported the checks."""
    shell = InteractiveShell.instance()
    importlib.reload(exercises)
    shell.run_cell("from slmops_lab.course.exercises import check", store_history=True)
    yield shell
    InteractiveShell.clear_instance()


def test_a_name_without_a_value_is_one_sentence_in_a_check_and_a_traceback_elsewhere(shell, capsys):
    done = shell.run_cell("check('9.9', answer, lambda value: True, 'hint', 'why')", store_history=True)
    assert isinstance(done.error_in_exec, NameError), "a headless run still fails"
    said = "Name 'answer' is not defined: run the cell above that assigns it, then this one again."
    assert capsys.readouterr().out.split("\n\n")[0].strip() == said
    done = shell.run_cell("answer + 1", store_history=True)
    assert isinstance(done.error_in_exec, NameError) and "Traceback" in capsys.readouterr().out
