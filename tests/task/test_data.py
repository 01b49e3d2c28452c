import json
import random

import pytest
from conftest import write_records

from slmops_lab.errors import CourseError
from slmops_lab.task import data


def lines(folder, split="train"):
    return (folder / f"{split}.jsonl").read_text().splitlines()


def replace_line(folder, number, line, split="train"):
    content = lines(folder, split)
    content[number - 1] = line if isinstance(line, str) else json.dumps(line)
    (folder / f"{split}.jsonl").write_text("\n".join(content) + "\n")


def test_load(colours):
    loaded = data.load(colours)
    assert loaded.sizes()["records"].to_dict() == {"train": 4, "pool": 4, "test": 4, "drift": 4}
    assert data.check(colours) == []


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"id": "x", "text": "gre', "no valid JSON"),
        ("[1, 2]", "the line is no JSON object"),
        ({"id": "x", "text": "red", "answer": {"kind": "hot", "word": "red"}}, "kind is 'hot', which the"),
        ({"id": "x", "text": " ", "answer": {"kind": "warm", "word": None}}, "'text' is empty"),
        ({"text": "red", "answer": {"kind": "warm", "word": None}}, "'id' is missing"),
        (
            {"id": 7, "text": "red", "answer": {"kind": "warm", "word": None}},
            "'id' is missing or is not text",
        ),
        ({"id": "x", "text": "red"}, "the answer is no JSON object"),
        ({"id": "x", "text": "a", "answer": {"kind": "warm", "word": None}, "b": 1}, "unexpected key 'b'"),
        (
            {"id": "train-0", "text": "b", "answer": {"kind": "warm", "word": None}},
            "the id 'train-0' is used",
        ),
        (
            {"id": "x", "text": "so nice", "answer": {"kind": "warm", "word": "red"}},
            "word 'red' does not occ",
        ),
        ("[" * 1000, "no valid JSON (nested too deeply)"),
        ('{"id": "x", "text": ' + '{"a":' * 100_000, "no valid JSON (nested too deeply)"),
        ("9" * 5000, "no valid JSON (Exceeds the limit"),
        ('{"id": "x", "text": 1e999}', "no valid JSON (Out of range"),
        ('{"id": "x", "text": NaN}', "no valid JSON (Out of range"),
        ('{"id": "x", "text": "a \\ud83d face"}', "no valid JSON ('\\ud83d' is half of a character"),
        ('{"id": "\\ude00", "text": "b"}', "no valid JSON ('\\ude00' is half of a character"),
        ({"id": "x", "text": "a\0b", "answer": {"kind": "warm", "word": None}}, "'text' holds a NUL"),
        ({"id": "a\0b", "text": "b", "answer": {"kind": "warm", "word": None}}, "'id' holds a NUL"),
        ({"id": "x", "text": "long " * 801, "answer": {"kind": "warm", "word": None}}, "'text' has 4,005 bytes, more"),
    ],
)
def test_broken_line_is_named_with_file_and_line(colours, line, what):
    replace_line(colours, 3, line)
    (problem,) = data.check(colours)
    assert (problem.file, problem.line) == ("train.jsonl", 3)
    assert problem.what.startswith(what)
    with pytest.raises(CourseError, match=r"train\.jsonl:3: .*slmops data check"):
        data.load(colours)


def sixty_warm_then_sixty_cold():
    kinds = {"red": "warm", "blue": "cold"}
    return [
        {"id": f"{word}-{i}", "text": f"{word} {i}", "answer": {"kind": kind, "word": word}}
        for word, kind in kinds.items()
        for i in range(60)
    ]


@pytest.mark.parametrize("split", ["train", "test", "drift"])
def test_a_sorted_split_is_named(colours, split):
    write_records(colours / f"{split}.jsonl", sixty_warm_then_sixty_cold())
    kind, word = data.check(colours)
    assert str(kind) == f"{split}.jsonl: the records are sorted by 'kind': shuffle the lines"
    assert "sorted by 'word'" in str(word)
    with pytest.raises(CourseError, match="sorted by 'kind': shuffle the lines"):
        data.load(colours)


def test_records_come_in_the_order_of_the_lines(colours):
    rows = sixty_warm_then_sixty_cold()
    random.Random(1).shuffle(rows)
    write_records(colours / "train.jsonl", rows)
    assert data.load(colours).train == rows


def test_text_in_two_splits(colours):
    record = json.loads(lines(colours, "test")[0]) | {"id": "new"}
    record["text"] = record["text"].upper().replace(" ", "  ")
    record["answer"]["word"] = None
    replace_line(colours, 2, record)
    (problem,) = data.check(colours)
    assert str(problem) == "test.jsonl:1: the text occurs in another split, at train.jsonl:2"


def test_answer_in_the_pool(colours):
    replace_line(colours, 1, {"id": "p", "text": "a red door", "answer": {}}, "pool")
    assert "a pool record has no answer" in str(data.check(colours)[0])


def test_not_utf8(colours):
    with open(colours / "train.jsonl", "ab") as file:
        file.write('{"id": "z", "text": "caf\u00e9"}\n'.encode("latin-1"))
    assert "train.jsonl:5: not UTF-8 text" in str(data.check(colours)[0])


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_empty_file(colours, content):
    (colours / "train.jsonl").write_text(content)
    assert str(data.check(colours)[0]) == "train.jsonl: the file is empty"


def test_missing_files(colours):
    (colours / "pool.jsonl").unlink()
    assert data.load(colours).pool == []
    (colours / "test.jsonl").unlink()
    assert str(data.check(colours)[0]) == "test.jsonl: the file is missing"


def test_all_problems_are_listed(colours):
    replace_line(colours, 1, "x")
    replace_line(colours, 2, "y", "test")
    assert [(p.file, p.line) for p in data.check(colours)] == [("train.jsonl", 1), ("test.jsonl", 2)]


def test_replies_by_message(colours):
    assert data.replies(colours, "train") == {}
    (colours / "replies").mkdir()
    path = colours / "replies" / "train.jsonl"
    path.write_text('{"id": "train-0", "reply": "On its way.", "summary": "Where is it?"}\n')
    assert data.replies(colours, "train") == {"train-0": {"reply": "On its way.", "summary": "Where is it?"}}
    for line, sentence in {
        '{"id": "train-1", "reply": "On its way."}': "train.jsonl:2: a line needs the texts id, reply and summary.",
        '{"id": "train-1", "reply": " ", "summary": "x"}': "train.jsonl:2: a line needs the texts",
        "[1]": "train.jsonl:2: a line needs the texts",
        "{": r"train.jsonl:2: no valid JSON \(",
        "[" * 1000: r"train.jsonl:2: no valid JSON \(nested too deeply",
        '{"id": "train-1", "reply": "\\ud83d", "summary": "x"}': r"train.jsonl:2: .* is half of a character",
    }.items():
        path.write_text('{"id": "train-0", "reply": "On its way.", "summary": "Where is it?"}\n' + line + "\n")
        with pytest.raises(CourseError, match=sentence):
            data.replies(colours, "train")
