import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops_lab.errors import CourseError
from slmops_lab.settings import ROOT
from slmops_lab.task import schema

DESK = schema.load(ROOT / "data" / "support_desk")
INTENTS = DESK.fields["intent"].values
GOOD = {"intent": "track_order", "urgency": "low", "order_id": None}


@given(
    st.sampled_from(INTENTS),
    st.sampled_from(["low", "normal", "high"]),
    st.none() | st.text(min_size=1),
)
def test_what_is_written_is_read_back(intent, urgency, order_id):
    answer = {"order_id": order_id, "urgency": urgency, "intent": intent}
    text = DESK.write(answer)
    assert DESK.read(text).answer == answer
    assert "\n" not in text and list(json.loads(text)) == ["intent", "urgency", "order_id"]


ODD = {'a "b"': ['x"y', "x", "xz"], "null": ["null", "}"], "größe": ["ä", "ö"]}


def odd(nullable_first, nullable_last):
    fields = {"first": {"type": "copy", "nullable": nullable_first}}
    fields |= {name: {"type": "enum", "values": values} for name, values in ODD.items()}
    fields |= {"one": {"type": "copy", "nullable": True}, "last": {"type": "copy", "nullable": nullable_last}}
    return schema.Task(schema.Schema.model_validate({"name": "odd", "fields": fields}))


@given(st.data(), st.booleans(), st.booleans(), st.booleans())
def test_every_answer_is_made_of_phrases_and_what_is_copied(data, first, last, values):
    task = odd(first, last)
    answer = {name: data.draw(st.sampled_from(options)) for name, options in ODD.items()}
    for name, nullable in {"first": first, "one": True, "last": last}.items():
        answer[name] = data.draw((st.none() if nullable else st.nothing()) | st.just("@"))
    text = task.write(answer)
    left, found = text, 0
    while left:
        phrase = max((p for p in task.phrases(values) if left.startswith(p)), key=len, default=None)
        found += phrase is not None
        left = left[len(phrase) if phrase else 1 :]
    copied = sum(answer[name] is not None for name in ("first", "one", "last"))
    if values:
        assert found == len(answer) + (answer["last"] is not None) and text.count("@") == copied
    else:
        assert found >= len(answer)


def test_the_phrases_of_a_small_schema():
    assert DESK.phrases() == ['{"intent":"', '","urgency":"', '","order_id":"', '","order_id":null}', '"}']
    assert len(DESK.phrases(values=True)) == len(INTENTS) + 3 + 3
    assert '","urgency":"high' in DESK.phrases(values=True)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(list(GOOD)) | st.text(), inner),
)


@given(st.text() | st.text('{}[]":,aE9\\u d') | VALUES.map(json.dumps))
def test_no_text_breaks_the_reader(text):
    reading = DESK.read(text)
    assert (reading.answer is None) == (reading.problem is not None)


NOT_JSON = {
    "deep list": "[" * 1000,
    "deep list, closed": "[" * 5000 + "]" * 5000,
    "deep object": '{"intent":' * 100_000,
    "deep in a field": '{"intent": ' + "[" * 990 + "]" * 990 + ', "urgency": "low", "order_id": null}',
    "huge whole number": "9" * 5000,
    "huge number": '{"intent": 1e999}',
    "no number": '{"intent": NaN}',
    "infinite": "-Infinity",
    "half a character": '{"intent": "track_order", "urgency": "low", "order_id": "\\ud83d"}',
    "half a character as a key": '{"\\ude00": 1}',
}


@pytest.mark.parametrize("text", NOT_JSON.values(), ids=NOT_JSON)
def test_what_no_tokenizer_or_parser_takes_is_no_answer(text):
    reading = DESK.read(text)
    assert reading.answer is None and len(reading.problem) < 200
    if not text.startswith('{"intent": [['):  # how deep is too deep is the parser's own limit
        with pytest.raises(ValueError):
            schema.parse(text)


def test_a_problem_is_a_few_words_however_large_the_value():
    deep = [[[[[[[[["x" * 500] * 500]]]]]]]]
    assert len(DESK.problem({**GOOD, "intent": deep})) < 400
    assert len(DESK.problem({**GOOD, "order_id": 10**4000})) < 200


@pytest.mark.parametrize(
    "name",
    ["_label", "__class__", "model_config", "schema", "json", "a b", "\u0936\u094d\u0930\u0947\u0923\u0940", "", 'a"b'],
)
def test_a_field_may_have_any_name(name):
    task = schema.Task(schema.Schema(name="x", fields={name: {"type": "enum", "values": ["one", "two"]}}))
    assert task.read(task.write({name: "two"})).answer == {name: "two"}
    assert task.problem({name: "three"}).startswith(f"{name} is 'three', which the schema does not list")
    assert task.problem({}) == f"the field {name} is missing"
    assert list(task.json_schema()["properties"]) == task.json_schema()["required"] == [name]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ({**GOOD, "intent": "refund"}, "intent is 'refund', which the schema does not list (track_order,"),
        ({"intent": "track_order", "urgency": "low"}, "the field order_id is missing"),
        ({**GOOD, "mood": "bad"}, "the field mood is not in the schema"),
        ({**GOOD, "order_id": 48213}, "order_id is 48213, it must be text or null"),
        ({**GOOD, "order_id": ""}, "order_id is empty"),
        ({**GOOD, "order_id": "TT-1"}, "order_id 'TT-1' does not occur in the text"),
        (["track_order"], "the answer is no JSON object"),
        (None, "the answer is no JSON object"),
    ],
)
def test_problems_are_named(answer, problem):
    assert DESK.problem(answer, "Where is TT-2?").startswith(problem)


def test_good_answers_have_no_problem():
    assert DESK.problem(GOOD, "hello") is None
    assert DESK.problem({**GOOD, "order_id": "TT-2"}, "Where is TT-2?") is None


def test_prose_is_no_answer():
    assert DESK.read("Sure! Here is the JSON.").problem == "no JSON"
    assert DESK.read(DESK.write(GOOD) + "\n").answer == GOOD


def test_prompt_lists_values_only_where_asked():
    short, long = DESK.messages("hi"), DESK.messages("hi", explain=True)
    assert short[-1] == long[-1] == {"role": "user", "content": "hi"}
    assert "lost_parcel" in long[0]["content"] and "lost_parcel" not in short[0]["content"]


def test_json_schema_has_the_fields_in_order():
    schema = DESK.json_schema()
    assert list(schema["properties"]) == ["intent", "urgency", "order_id"]
    assert schema["properties"]["intent"]["enum"] == INTENTS
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{", "Invalid JSON"),
        (b'{"name": "x", "fields": {}}', "fields: "),
        (b'{"name": "x", "fields": {"a": {"type": "enum", "values": ["one"]}}}', "fields.a.enum.values: "),
        (b'{"name": "x", "fields": {"a": {"type": "date"}}}', "fields.a: "),
        (b'{"name": "x"}', "fields: Field required"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"[" * 100_000, "Invalid JSON: recursion limit"),
        (b'{"name": "\\ud800"}', "Invalid JSON"),
    ],
)
def test_broken_schema_is_one_sentence(tmp_path, content, sentence):
    (tmp_path / "schema.json").write_bytes(content)
    with pytest.raises(CourseError, match=sentence) as caught:
        schema.load(tmp_path)
    assert "schema.json" in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_a_schema(tmp_path):
    content = '{"name": "x", "fields": {"a": {"type": "copy"}}}'
    (tmp_path / "schema.json").write_text(content, encoding="utf-8-sig")
    assert schema.load(tmp_path).name == "x"


def test_missing_schema(tmp_path):
    with pytest.raises(CourseError, match=r"schema.json is missing"):
        schema.load(tmp_path)
