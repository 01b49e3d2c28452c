import csv
import json

import pytest
from conftest import write_records

from slmops_lab.errors import CourseError
from slmops_lab.task import data, importing


def lines(folder, split="train"):
    return (folder / f"{split}.jsonl").read_text().splitlines()


def replace_line(folder, number, line, split="train"):
    content = lines(folder, split)
    content[number - 1] = line if isinstance(line, str) else json.dumps(line)
    (folder / f"{split}.jsonl").write_text("\n".join(content) + "\n")


def write_csv(path, rows, header=("message", "label"), encoding="utf-8"):
    with open(path, "w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows([header, *rows])
    return path


ROWS = [(f"text number {i}, \u00fcber\nall", f"label {i % 4}") for i in range(40)]


def test_import_makes_a_valid_folder(tmp_path):
    source = write_csv(tmp_path / "in.csv", ROWS, encoding="utf-8-sig")
    made = importing.import_csv(source, "message", "label", tmp_path / "mine")
    assert data.check(tmp_path / "mine") == []
    assert (len(made.train), len(made.test), len(made.pool)) == (32, 8, 0)
    assert {r["answer"]["label"] for r in made.test} == {f"label {i}" for i in range(4)}


def test_import_with_test_file_and_pool(tmp_path):
    source = write_csv(tmp_path / "in.csv", [*ROWS, ROWS[0], ("", "label 1"), ("lonely", "")])
    test = write_csv(tmp_path / "test.csv", [*ROWS[:3], ("brand new", "label 2")])
    made = importing.import_csv(source, "message", "label", tmp_path / "mine", test, labelled=12)
    assert (len(made.train), len(made.test), len(made.pool)) == (12, 4, 25)
    assert all(set(r) == {"id", "text"} for r in made.pool)


def test_import_is_seeded(tmp_path):
    source = write_csv(tmp_path / "in.csv", ROWS)
    a, b, c = (
        importing.import_csv(source, "message", "label", tmp_path / n, seed=s).test
        for n, s in [("a", 1), ("b", 1), ("c", 2)]
    )
    assert a == b != c


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda p: p, "There is no file"),
        (lambda p: write_csv(p, ROWS, ("text", "label")), "has no column 'message': it has text, label"),
        (lambda p: write_csv(p, []), "has no line with both a text and a label"),
        (lambda p: (p.write_text("") and p) or p, "has no column 'message': it has no header"),
        (lambda p: write_csv(p, ROWS, encoding="latin-1"), "is not UTF-8 text"),
        (lambda p: write_csv(p, [(t, "same") for t, _ in ROWS]), "has one value only"),
    ],
)
def test_import_refuses(tmp_path, make, sentence):
    source = make(tmp_path / "in.csv")
    with pytest.raises(CourseError, match=sentence):
        importing.import_csv(source, "message", "label", tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_import_refuses_labels_and_numbers_that_cannot_be(tmp_path):
    source = write_csv(tmp_path / "in.csv", ROWS)
    test = write_csv(tmp_path / "test.csv", [("x", "label 9")])
    with pytest.raises(CourseError, match="No training message has the label 'label 9'"):
        importing.import_csv(source, "message", "label", tmp_path / "mine", test)
    with pytest.raises(CourseError, match="--labelled must be from 1 to 32"):
        importing.import_csv(source, "message", "label", tmp_path / "mine", labelled=99)
    write_records(tmp_path / "mine", [])
    with pytest.raises(CourseError, match="exists already"):
        importing.import_csv(source, "message", "label", tmp_path / "mine")
