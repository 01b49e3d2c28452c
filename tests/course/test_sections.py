"""The clock of a chapter's sections: it counts cells, not readers."""

import json

import pytest
from IPython.core.interactiveshell import InteractiveShell

from slmops_lab.course import chapters


@pytest.fixture
def shell():
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


def run_through(shell, run, monkeypatch):
    """A chapter whose cells take 60, 120 and 30 seconds, with an hour before each of them."""
    now = 0.0
    monkeypatch.setattr(chapters.time, "monotonic", lambda: now)

    def pass_time(seconds):
        nonlocal now
        now += seconds

    shell.user_ns |= {"sections": chapters.Sections(run, "own"), "work": pass_time}
    for code in ("sections.begin('1.1'); work(60)", "sections.begin('1.2'); work(120)", "work(30)"):
        pass_time(3600)
        assert shell.run_cell(code).success
    assert shell.run_cell("minutes = sections.end()").success
    return shell.user_ns["minutes"]


def test_the_time_between_cells_is_not_counted(shell, run, monkeypatch):
    assert run_through(shell, run, monkeypatch) == {"1.1": 1.0, "1.2": 2.5}


def test_the_next_run_says_what_the_last_one_took(shell, run, monkeypatch, capsys):
    said = []
    monkeypatch.setattr(chapters.Sections, "_say", lambda self, sentence: said.append(sentence))
    run_through(shell, run, monkeypatch)
    assert said == []
    run_through(shell, run, monkeypatch)
    assert said == [
        "When this chapter last ran here, its cells took 3.5 minutes.",
        "1.1 took 1.0 minutes when it last ran here.",
        "1.2 took 2.5 minutes when it last ran here.",
    ]


def test_chapters_do_not_overwrite_one_another_and_damage_is_forgotten(run):
    file = run.build / "sections.json"
    for chapter in ("one", "two"):
        sections = chapters.Sections(run, chapter)  # no shell here: nothing is counted, nothing fails
        sections.begin("1.1")
        assert sections.end() == {"1.1": 0.0}
    assert json.loads(file.read_text()) == {"one": {"1.1": 0.0}, "two": {"1.1": 0.0}}
    file.write_text("{")
    assert chapters.Sections(run, "one").end() == {}
