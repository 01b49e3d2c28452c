"""A task is its schema: prompt, answer text, parser and JSON schema all follow from schema.json.

    {"name": "support_desk", "about": "...", "fields": {
        "intent": {"type": "enum", "values": ["track_order", ...]},
        "order_id": {"type": "copy", "nullable": true}}}

An `enum` field is one of its values; a `copy` field is a piece of the message, character by
character, or null where it is nullable. Files of records are `data`'s job, tokens `encoding`'s.
"""

import functools
import json
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from slmops_lab.errors import CourseError


class Enum(pydantic.BaseModel, extra="forbid"):
    """A field with one of a fixed list of values."""

    type: Literal["enum"]
    values: list[str] = pydantic.Field(min_length=2)
    about: str = ""

    def annotation(self):
        """The field's type, as pydantic takes it."""
        return Literal[tuple(self.values)]

    def hint(self):
        """How a prompt explains the field."""
        return "one of " + ", ".join(self.values)


class Copy(pydantic.BaseModel, extra="forbid"):
    """A field whose value is copied out of the message."""

    type: Literal["copy"]
    nullable: bool = False
    about: str = ""

    def annotation(self):
        """The field's type, as pydantic takes it."""
        return str | None if self.nullable else str

    def hint(self):
        """How a prompt explains the field."""
        return "copied from the message" + (", or null" if self.nullable else "")


class Schema(pydantic.BaseModel, extra="forbid"):
    """The content of schema.json."""

    name: str = pydantic.Field(min_length=1)
    about: str = ""
    fields: dict[str, Annotated[Enum | Copy, pydantic.Field(discriminator="type")]] = pydantic.Field(min_length=1)


@dataclass(frozen=True)
class Reading:
    """What a model's text was read as: an answer, or the reason why it is none."""

    answer: dict[str, Any] | None
    problem: str | None = None


class Task:
    """Prompts, answers and checks derived from one `Schema`."""

    def __init__(self, schema):
        self.schema = schema
        self.name = schema.name
        self.fields = schema.fields
        self._answer = pydantic.create_model(
            "Answer",
            __config__=pydantic.ConfigDict(extra="forbid", strict=True),
            # an alias may be any text, a name of pydantic's own may not be `_label`, `__class__` or `model_config`
            **{
                f"field_{number}": (field.annotation(), pydantic.Field(alias=name))
                for number, (name, field) in enumerate(schema.fields.items())
            },
        )

    def messages(self, text, explain=False):
        """The chat that asks for the answer to one message: a list of {'role', 'content'}.

        A tuned model has learned the values, a short system line is enough. explain=True lists
        every field with its values, for a model that has seen no example.
        """
        system = f"Task: {self.name}"  # short: these tokens are paid for in every message
        if explain:
            lines = [f'"{n}": {f.hint()}' + (f" ({f.about})" if f.about else "") for n, f in self.fields.items()]
            about = f"{self.schema.about} " if self.schema.about else ""
            system = f"{about}Reply with one line of JSON and nothing else, with the fields\n"
            system += "\n".join(lines)
        return [{"role": "system", "content": system}, {"role": "user", "content": text}]

    def write(self, answer):
        """Answer dict -> the compact JSON line that a model is trained to write."""
        ordered = {name: answer[name] for name in self.fields}
        return json.dumps(ordered, ensure_ascii=False, separators=(",", ":"))

    def phrases(self, values=False):
        """The pieces of JSON that stand in every answer, each up to where the next choice begins: a list of texts.

        With values, a listed value belongs to the piece that leads to it. For `compression.add_phrases`: a model that
        has them as single tokens writes the same text in fewer steps.
        """
        pieces, before = [], ["{"]
        for name, field in self.fields.items():
            kinds = [json.dumps(value, ensure_ascii=False)[:-1] for value in getattr(field, "values", ()) if values]
            kinds = kinds or ['"']
            if getattr(field, "nullable", False):
                kinds.append("null}" if name == list(self.fields)[-1] else "null")
            pieces += [start + json.dumps(name, ensure_ascii=False) + ":" + kind for start in before for kind in kinds]
            before = ['",', ","] if "null" in kinds else ['",']
        return [*pieces, '"}']

    def read(self, text):
        """Model text -> `Reading`. White space around the JSON is the only thing forgiven."""
        try:
            value = parse(text.strip())
        except ValueError:
            return Reading(None, "no JSON")
        problem = self.problem(value)
        return Reading(None, problem) if problem else Reading(value)

    def problem(self, answer, text=None):
        """What is wrong with an answer, in a few words, or None. With text, copies are checked."""
        if not isinstance(answer, dict):
            return "the answer is no JSON object"
        try:
            self._answer.model_validate(answer)
        except pydantic.ValidationError as error:
            return self._explain(error.errors()[0], answer)
        for name, field in self.fields.items():
            value = answer[name]
            if isinstance(field, Copy) and value is not None:
                if value == "":
                    return f"{name} is empty"
                if text is not None and value not in text:
                    return f"{name} {value!r} does not occur in the text"
        return None

    def _explain(self, error, answer):
        name = error["loc"][0]
        if error["type"] == "missing":
            return f"the field {name} is missing"
        if error["type"] == "extra_forbidden":
            return f"the field {name} is not in the schema"
        field, value = self.fields[name], answer[name]
        found = repr(value) if isinstance(value, str) else reprlib.repr(value)  # may be large and nested
        if isinstance(field, Enum):
            shown = ", ".join(field.values[:4]) + (", ..." if len(field.values) > 4 else "")
            return f"{name} is {found}, which the schema does not list ({shown})"
        return f"{name} is {found}, it must be text" + (" or null" if field.nullable else "")

    def json_schema(self):
        """JSON schema of an answer, fields in order, for guided decoding."""
        return self._answer.model_json_schema()

    def grammar(self, text):
        """Lark grammar of every valid answer to one message, for guided decoding.

        Stricter than `json_schema`: a copied value can be nothing but a piece of the message, so it
        also comes to an end. Raises CourseError where something has to be copied from an empty message.
        In the dialect of llguidance, https://github.com/guidance-ai/llguidance.
        """
        quoted = functools.partial(json.dumps, ensure_ascii=False)

        text = text.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair is no character
        # as they stand inside a JSON string; escaped, because llguidance loses its way inside of characters
        # that are several tokens
        pieces = [json.dumps(character)[1:-1] for character in text]
        start, rules = "", [f"PIECE: %regex {json.dumps({'substring_chunks': pieces})}", "COPY: PIECE & /(?s:.)+/"]
        for number, (name, field) in enumerate(self.fields.items()):
            start += f"{quoted(('{', ',')[number > 0] + quoted(name) + ':')} value{number} "
            if isinstance(field, Enum):
                choices = [quoted(quoted(value)) for value in field.values]
            else:
                choices = ['"\\"" COPY "\\""'] * bool(text) + ['"null"'] * field.nullable
            if not choices:
                raise CourseError(f"{name} has to be copied from the message, and the message is empty.")
            rules.append(f"value{number}: {' | '.join(choices)}")
        return "\n".join([f'start: {start}"}}"', *rules])


def parse(text):
    """JSON text -> its value. Raises ValueError with a few words for what is no JSON.

    Stricter than Python's own reader: a number that is not finite and half a surrogate pair (no tokenizer
    takes it) are refused, and what is nested too deeply is no RecursionError.
    """
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeEncodeError as error:
        raise ValueError(f"{error.object[error.start]!a} is half of a character: write both halves") from None
    return value


def load(folder):
    """Data folder -> `Task`. Raises CourseError where schema.json is missing or wrong."""
    path = Path(folder) / "schema.json"
    try:
        return Task(Schema.model_validate_json(path.read_text(encoding="utf-8-sig")))
    except FileNotFoundError:
        raise CourseError(f"{path} is missing: it names the fields of the answer.") from None
    except UnicodeDecodeError:
        raise CourseError(f"{path} is not UTF-8 text: save it as UTF-8.") from None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise CourseError(f"{path}: {where}: {first['msg']}.") from None
