"""Quizzes: the file is sound, what is shown can be used without a mouse, and its reasons do not stand in the page."""

import base64
import json
import re

import pytest
from conftest import REPOSITORY

from slmops_lab.course import quiz
from slmops_lab.errors import CourseError

QUIZZES = quiz.load()


@pytest.mark.parametrize("chapter", [1, 2, 3, 4])
def test_each_chapter_has_a_quiz_whose_reasons_are_packed(chapter):
    page = quiz.ask(chapter).data
    assert page.count("<fieldset>") == page.count("<legend>") == len(QUIZZES[chapter]) >= 6
    assert page.count('type="radio"') == sum(len(one.options) for one in QUIZZES[chapter])
    assert not [o.why for one in QUIZZES[chapter] for o in one.options if o.why in page]
    assert "http" not in page and "src=" not in page
    told = json.loads(base64.b64decode(re.search(r'data-told="([^"]+)"', page)[1]))
    for (right, why), one in zip(told, quiz.load()[chapter], strict=True):
        (wanted,) = [option for option in one.options if option.right]
        assert why[right] == wanted.why.replace("`", "") and len(why) == len(one.options)


def test_the_right_option_stands_in_every_place():
    told = [json.loads(base64.b64decode(re.search(r'data-told="([^"]+)"', quiz.ask(c).data)[1])) for c in QUIZZES]
    assert {right for chapter in told for right, _ in chapter} == {0, 1, 2}


def test_texts_are_escaped(tmp_path):
    (tmp_path / "q.yaml").write_text(
        "1: [{ask: '<b> & `x<y`', options: [{says: a, why: b, right: true}, {says: <i>, why: c}]}]", encoding="utf-8"
    )
    page = quiz.ask(1, tmp_path / "q.yaml").data
    assert "&lt;b&gt; &amp; <code>x&lt;y</code>" in page and "<i>" not in page


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1: [{ask: a, options: [{says: a, why: b}, {says: b, why: c}]}]", "exactly one option has to be right"),
        ("1: [{ask: a, options: [{says: a, why: b, right: true}]}]", "at least 2 items"),
        ("1: [{ask: a, options: [{says: a, why: b, right: true}, {says: a, why: c}]}]", "two options say the same"),
        ("1: [{ask: a, options: [{says: a, right: true}, {says: b, why: c}]}]", "1.0.options.0.why: Field required"),
        ("1: [", "cannot be read"),
        ("2: []", "There is no quiz of chapter 1"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, text, said):
    (tmp_path / "q.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(CourseError, match=said) as refusal:
        quiz.ask(1, tmp_path / "q.yaml")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("chapter", [1, 2, 3, 4])
def test_a_chapter_asks_its_own_quiz(chapter):
    (source,) = (REPOSITORY / "notebooks").glob(f"0{chapter}_*.py")
    assert f"quiz.ask({chapter})" in source.read_text(encoding="utf-8")
