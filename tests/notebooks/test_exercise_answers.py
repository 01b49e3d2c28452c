"""The checks of the exercises take what is right and refuse what looks right: all chapters, see `exercises_1`."""

import exercises_1
import exercises_2
import exercises_3
import exercises_4
import pytest

CHAPTERS = [exercises_1, exercises_2, exercises_3, exercises_4]
IDS = [chapter.__name__ for chapter in CHAPTERS]


def listed(kind):
    """(chapter, name of an exercise, code) of each answer in the dicts of that name."""
    return [
        pytest.param(chapter, name, answer, id=f"{name}-{number}")
        for chapter in CHAPTERS
        for name, answers in getattr(chapter, kind).items()
        for number, answer in enumerate(answers)
    ]


@pytest.mark.parametrize("chapter", CHAPTERS, ids=IDS)
def test_exercises_are_numbered_and_each_has_wrong_answers(chapter):
    number, names = chapter.__name__[-1], chapter.CHAPTER.names
    assert len(names) >= 5 and names == [f"{number}.{exercise}" for exercise in range(1, len(names) + 1)]
    assert set(chapter.WRONG) == set(chapter.CHAPTER.names) >= set(chapter.RIGHT)


@pytest.mark.parametrize(
    ("chapter", "name"), [(chapter, name) for chapter in CHAPTERS for name in chapter.CHAPTER.names]
)
def test_the_solution_passes_and_the_stub_does_not(chapter, name):
    assert chapter.CHAPTER.passes(name, chapter.CHAPTER.exercise(name)[2])
    assert not chapter.CHAPTER.passes(name, "")


@pytest.mark.parametrize(("chapter", "name", "answer"), listed("RIGHT"))
def test_more_than_one_way_is_right(chapter, name, answer):
    assert chapter.CHAPTER.passes(name, answer)


@pytest.mark.parametrize(("chapter", "name", "answer"), listed("WRONG"))
def test_a_plausible_wrong_answer_is_refused(chapter, name, answer):
    assert not chapter.CHAPTER.passes(name, answer)
