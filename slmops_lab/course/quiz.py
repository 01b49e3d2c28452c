"""The quiz at a chapter's end: a choice, and why it is right or not, in JupyterLab and, without a kernel, in the book.

Questions stand in notebooks/quizzes.yaml. Plain form controls, so keyboard and screen reader work; nothing is loaded.
Reasons are packed (base64), so that they are not read by accident in the page's source; it is no secret. Where no
script may run, the questions are shown and nothing answers. Nothing is kept and nothing is graded.
"""

import base64
import hashlib
import json
import re
from html import escape
from importlib import resources
from string import Template

import IPython.display
import pydantic
import yaml

from slmops_lab.errors import CourseError
from slmops_lab.settings import ROOT

# JupyterLab looks at the focused element alone: without it an arrow key leaves for the next cell, and "dd" deletes one
NO_SHORTCUTS = 'data-lm-suppress-shortcuts="true"'

FILE = ROOT / "notebooks" / "quizzes.yaml"


class Option(pydantic.BaseModel, extra="forbid"):
    """One choice, and what is said to whoever takes it."""

    says: str = pydantic.Field(min_length=1)
    why: str = pydantic.Field(min_length=1)
    right: bool = False


class Question(pydantic.BaseModel, extra="forbid"):
    """A question with its options, exactly one of which is right."""

    ask: str = pydantic.Field(min_length=1)
    options: list[Option] = pydantic.Field(min_length=2, max_length=6)

    @pydantic.model_validator(mode="after")
    def _one_is_right(self):
        if sum(option.right for option in self.options) != 1:
            raise ValueError("exactly one option has to be right")
        if len({option.says for option in self.options}) < len(self.options):
            raise ValueError("two options say the same")
        return self


def load(file=FILE):
    """{chapter: [`Question`]}. Raises CourseError where the file cannot be used, naming the question."""
    try:
        told = yaml.safe_load(file.read_text(encoding="utf-8"))
        return pydantic.TypeAdapter(dict[int, list[Question]]).validate_python(told)
    except (OSError, yaml.YAMLError) as error:
        raise CourseError(f"{file} cannot be read: {' '.join(str(error).split())}.") from None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise CourseError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from None


def ask(chapter, file=FILE):
    """The quiz of a chapter as an IPython HTML object. Raises CourseError where there is none."""
    questions = load(file).get(chapter)
    if not questions:
        raise CourseError(f"There is no quiz of chapter {chapter} in {file}.")
    for one in questions:  # in an order of their own, which tells nothing
        one.options.sort(key=lambda option: hashlib.sha256((one.ask + option.says).encode()).digest())
    told = [[[o.right for o in one.options].index(True), [_plain(o.why) for o in one.options]] for one in questions]
    packed = base64.b64encode(json.dumps(told).encode()).decode()
    name = "quiz-" + hashlib.sha256(packed.encode()).hexdigest()[:12]
    rows = [_fieldset(name, number, one) for number, one in enumerate(questions)]
    page = resources.files(__package__).joinpath("quiz.html").read_text(encoding="utf-8")
    return IPython.display.HTML(Template(page).substitute(name=name, told=packed, questions="\n".join(rows)))


def _fieldset(name, number, question):
    lines = [f"<fieldset><legend>{number + 1}. {_code(question.ask)}</legend>"]
    for place, option in enumerate(question.options):
        control = f'<input type="radio" name="{name}-{number}" value="{place}" data-question="{number}" {NO_SHORTCUTS}>'
        lines.append(f"<label>{control} {_code(option.says)}</label>")
    return "\n".join([*lines, '<p role="status"></p></fieldset>'])


def _code(text):
    """Text as HTML, `code` and $formula$ marked."""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
    return re.sub(r"\$([^$]+)\$", r"<i>\1</i>", text)


def _plain(text):
    return text.replace("`", "")
