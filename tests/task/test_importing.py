import codecs
import collections
import csv
import gzip
import io
import itertools
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops_lab.errors import CourseError
from slmops_lab.task import data, importing

ROWS = [(f"text number {i}, \u00fcber\nall", f"label {i % 4}") for i in range(40)]
GOOD = "message,label\n" + "".join(f"text {i},l{i % 2}\n" for i in range(20))


def table(rows, header=("message", "label"), **how):
    made = io.StringIO(newline="")
    csv.writer(made, **how).writerows([header, *rows])
    return made.getvalue()


@pytest.fixture
def imported(tmp_path):
    """Function: content of a CSV file -> the `Imported` of a folder that `data check` accepts."""
    numbers = iter(range(100))

    def make(content, columns=("message", "label"), **how):
        source, out = tmp_path / "in.csv", tmp_path / f"mine-{next(numbers)}"
        source.write_bytes(content if isinstance(content, bytes) else content.encode())
        if "test" in how:
            (tmp_path / "test.csv").write_text(how["test"], encoding="utf-8")
            how["test"] = tmp_path / "test.csv"
        made = importing.import_csv(source, *columns, out, **how)
        assert data.check(out) == []
        sizes = made.dataset.sizes()["records"]
        assert made.labels.sum().to_dict() == {split: sizes[split] for split in ("train", "test", "pool")}
        return made

    return make


@pytest.fixture
def refused(tmp_path, imported):
    """Function: content of a CSV file -> the one sentence; nothing is left behind."""

    def make(content, *columns, **how):
        with pytest.raises(CourseError) as caught:
            imported(content, *columns, **how)
        assert {path.name for path in tmp_path.iterdir()} <= {"in.csv", "test.csv"}
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return make


def messages(made, split="train"):
    (field,) = made.dataset.task.fields
    return {record["text"]: record["answer"][field] for record in getattr(made.dataset, split)}


def test_import_makes_a_valid_folder(imported):
    made = imported(table(ROWS))
    assert made.labels.to_dict("list") == {"train": [8] * 4, "test": [2] * 4, "pool": [0] * 4}
    assert {**messages(made), **messages(made, "test")} == dict(ROWS)
    assert (
        made.notes == [n for n in made.notes if n.endswith("in.csv: imported 40 of 40 rows.")] and len(made.notes) == 1
    )


def test_import_with_test_file_and_pool(imported):
    content = table([*ROWS, ROWS[0], ("", "label 1"), ("lonely", "")])
    made = imported(content, test=table([*ROWS[:3], ("brand new", "label 2")]), labelled=12)
    assert made.labels.sum().to_dict() == {"train": 12, "test": 4, "pool": 25}
    assert made.labels["train"].tolist() == [3] * 4, "spread over the labels"
    assert all(set(r) == {"id", "text"} for r in made.dataset.pool)
    assert any("4 in the test file, too" in note for note in made.notes)


def test_import_is_seeded(imported):
    a, b, c = (imported(table(ROWS), seed=seed).dataset.test for seed in (1, 1, -2))
    assert a == b != c


@pytest.mark.parametrize("labelled", [None, 1000])
def test_no_end_of_a_split_has_another_mixture_of_labels(imported, labelled):
    made = imported(table((f"text {i}", f"l{i % 20:02}") for i in range(5000)), labelled=labelled)
    for split, end in itertools.product(["train", "test"], [slice(200), slice(-200, None)]):
        counts = collections.Counter(record["answer"]["label"] for record in getattr(made.dataset, split)[end])
        assert len(counts) == 20 and max(counts.values()) < 30, "about 10 each"


def test_a_sorted_test_file_is_shuffled(imported):
    made = imported(table(ROWS), test=table((f"new {i}", f"label {i // 50}") for i in range(200)))
    assert len({record["answer"]["label"] for record in made.dataset.test[:20]}) == 4


@pytest.mark.parametrize(
    ("content", "separator"),
    [
        (codecs.BOM_UTF8 + GOOD.encode(), None),
        (GOOD.replace("\n", "\r"), None),
        (GOOD.replace("\n", "\r\n"), None),
        ("\n\n" + GOOD, None),
        (GOOD.replace(",", ";"), "semicolon"),
        (GOOD.replace(",", "\t"), "tab"),
        (GOOD.replace(",", "|"), "bar"),
        ("sep=;\r\n" + GOOD.replace(",", ";").replace("\n", "\r\n"), "semicolon"),
        (codecs.BOM_UTF8 + b"sep=^\n" + GOOD.replace(",", "^").encode(), "'^'"),
        ("sep=,\n" + GOOD, None),
        (GOOD.replace(",", ";").replace("text", "a, b, c, d,"), "semicolon"),
        (GOOD.replace(",", ";").replace("label", "label;a,b,c,d,e"), "semicolon"),
    ],
)
def test_separators_and_line_ends(imported, content, separator):
    made = imported(content)
    assert made.labels.sum().sum() == 20
    assert [n.split(" the separator ")[1] for n in made.notes if " the separator " in n] == [f"{separator}."] * bool(
        separator
    )


@pytest.mark.parametrize(
    "text",
    [
        "two\r\nlines",
        "a \u2028 b \x85 c \x0b d",
        "\u05e9\u05dc\u05d5\u05dd \u202eabc",
        "\u0928\u092e\u0938\u094d\u0924\u0947",
        "\U0001f469\u200d\U0001f4bb",
        'a 5" disk, "quoted"',
        "<|im_start|>system",
        "= 1 + 1",
    ],
)
def test_a_message_stays_as_it_is(imported, text):
    made = imported(GOOD + table([(text, "l1")], header=(text + "!", "l0")))
    both = messages(made) | messages(made, "test")
    assert (both[text], both[text + "!"], len(both)) == ("l1", "l0", 22)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"PK\x03\x04\x14\x00", "Its first bytes show that it is a ZIP archive, as .xlsx workbooks are: open it in"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "an old Excel workbook (.xls): open it in a spreadsheet"),
        (gzip.compress(GOOD.encode(), mtime=0), "compressed by gzip: unpack it first (gunzip)"),
        (GOOD.replace(",", "\t").encode("utf-16"), "UTF-16, which Excel calls 'Unicode Text': open it"),
        (codecs.BOM_UTF16_BE + GOOD.encode("utf-16-be"), "UTF-16, which Excel calls"),
        (GOOD.encode("utf-16-le"), "line 1 holds a NUL byte, as UTF-16 has; open it"),
        (GOOD.encode() + b"a\0b,l1\n", "line 22 holds a NUL byte"),
        ((GOOD + "caf\u00e9,l1\n").encode("cp1252"), "line 22 holds the byte 0xE9, in Windows-1252 '\u00e9'; open it"),
        (codecs.BOM_UTF8 + GOOD.replace("\n", "\r").encode() + b"\x81", "line 22 holds the byte 0x81, in Windows-1252"),
        ("", "is empty: export it again"),
        ("\ufeff\n \n", "has no column 'message'"),
        ("message,label\n", "has a header and no rows"),
        (GOOD.replace("message", "text"), "has no column 'message': it has 'text', 'label'."),
        (GOOD.replace("message", " Message "), "it has ' Message ', 'label'. Did you mean ' Message ', as it"),
        (GOOD.replace("message,label", "message,label,label"), "has 2 columns 'label': rename all but one"),
        (GOOD + '"open,l1\n' + GOOD, "the quote that opens a cell in line 22 is not closed well"),
        (GOOD + '"open,l1\n' + GOOD + '"closed",l2\n', "the quote that opens a cell in line 22 is not closed well"),
        (GOOD + '"two\nlines","open\n' + GOOD, "the quote that opens a cell in line 23 is not closed well"),
        ("sep=,\n" + GOOD + '"a"b,l1\n', "the quote that opens a cell in line 23 is not closed well"),
        ('"message,label\n' + GOOD, "the quote that opens a cell in line 1 is not closed well"),
        ("message,label\n,\nx,\n,y\n", "no row to learn from: kept 0 of 3 rows: 2 without a text, 1 without a label"),
        (table((text, "same") for text, _ in ROWS), "The column 'label' has one value only, 'same'"),
        (GOOD + "lonely,rare\n", "The label 'rare' occurs once, in line 22: a label needs two messages"),
        (GOOD + "a,rare\nb,rarer\nb,rarer\n", "The label 'rare' occurs once, in line 22 (2 such labels): a"),
        (GOOD + "a,rare\nA ,rare\n", "occurs once, in line 22: ... kept 21 of 22 rows: 1 repeated"),
        (table((f"text {i}", f"#{i}") for i in range(300)), "every message has its own label: is 'label' an id?"),
        (
            table((f"text {i}", f"#{i % 200}") for i in range(300)),
            "Of 300 messages, there are 200 labels: is 'label' an id?",
        ),
        ("message,label\na,x\nb,y\n", "Of 2 messages, every message has its own label"),
    ],
)
def test_import_refuses(refused, content, sentence):
    said = refused(content)
    assert [part for part in sentence.split(" ... ") if part not in said] == [], said


def test_import_refuses_what_is_no_file(tmp_path):
    with pytest.raises(CourseError, match="There is no file"):
        importing.import_csv(tmp_path / "none.csv", "message", "label", tmp_path / "mine")
    with pytest.raises(CourseError, match="cannot be read: Is a directory"):
        importing.import_csv(tmp_path, "message", "label", tmp_path / "mine")
    (tmp_path / "mine").mkdir()
    with pytest.raises(CourseError, match="exists already"):
        importing.import_csv(tmp_path / "none.csv", "message", "label", tmp_path / "mine")


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"labelled": 99}, "--labelled must be from 2 to 16: the 2 labels need one message each"),
        ({"labelled": 1}, "--labelled must be from 2 to 16"),
        ({"labelled": 0}, "--labelled must be from 2 to 16"),
        ({"columns": ("label", "label")}, "The text and the label cannot be the same column 'label'"),
        (
            {"test": "message,label\nx,l0\ny,l9\n"},
            "The test has the label 'l9' (line 3), which no message that is left",
        ),
        ({"test": GOOD}, "no row to learn from: kept 0 of 20 rows: 20 in the test file, too"),
        ({"test": "text,label\nx,l0\n"}, "test.csv has no column 'message'"),
        ({"test": "message,label\n" + "".join(f"text {i},l1\n" for i in range(1, 20, 2))}, "one value only, 'l0'"),
    ],
)
def test_import_refuses_what_does_not_fit(refused, how, sentence):
    assert sentence in refused(GOOD, **how)


def test_every_row_left_out_is_counted_with_its_reason_and_line(imported):
    extra = (
        'Text  1,l1\ntext 2,l1\n,l0\n\u200b,l1\nno label,\nshort\n\na,b,c,d\n"x, y",l1,,\n' + "long " * 60_000 + ",l1\n"
    )
    made = imported(GOOD + extra)
    (said,) = made.notes
    counts, lines = said.split(": imported ")[1].split("; left out ")
    assert counts == (
        "20 of 29 rows: 2 with two labels, 1 repeated, 2 without a text, 2 without a label, "
        "1 with more cells than the header, 1 longer than 4,000 bytes"
    )
    assert lines.startswith(
        "lines 4, 23 (with two labels), line 22 (repeated), lines 24, 25 (without a text), lines 26, 27 "
    )
    assert lines.endswith("line 29 (with more cells than the header), line 31 (longer than 4,000 bytes).")
    assert "text 2" not in messages(made) | messages(made, "test")


def test_only_the_first_lines_are_named(imported):
    made = imported("sep=,\n" + GOOD + 5 * "text 1,l1\n")
    assert made.notes[0].endswith("imported 20 of 25 rows: 5 repeated; left out lines 23, 24, 25, ... (repeated).")


def test_a_message_as_long_as_may_be_is_kept(imported):
    made = imported(GOOD + "\u00e9" * 2000 + ",l1\n" + "\u00e8" * 2000 + "x,l1\n")
    assert "20 of 22" not in made.notes[0] and "imported 21 of 22 rows: 1 longer" in made.notes[0]


def test_labels_that_other_readers_take_for_nothing_are_text(imported):
    names = ["null", "NA", "None", "NaN", "0", "1", "true", "-"]
    made = imported(table((f"text {i} {name}", name) for name in names for i in range(3)))
    assert made.dataset.task.fields["label"].values == sorted(names) == made.labels.index.tolist()
    assert [n for n in made.notes if "Warning" in n] == []


def test_what_stands_around_a_label_is_taken_off_and_counted(imported):
    labels = ["billing", "billing ", "\u200bbilling", "billing\ufeff", "\u00a0other", "other"]
    made = imported(table((f"text {i} {x!a}", x) for x in labels for i in range(3)))
    assert made.labels.index.tolist() == ["billing", "other"]
    assert made.notes[0].endswith(
        "12 labels lost white space or invisible characters around them (lines 5, 6, 7, ...)."
    )


@pytest.mark.parametrize(
    ("twins", "shown"),
    [
        (["billing", "Billing"], "'Billing', 'billing'"),
        (["bill ing", "bill_ing", "bill  ing"], "'bill  ing', 'bill ing', 'bill_ing'"),
        (["billing", "bil\u200bling"], r"'billing', 'bil\u200bling'"),
        (["caf\u00e9", "cafe\u0301"], "'cafe\\u0301', 'caf\u00e9'"),
        (["0", "0.0"], "'0', '0.0'"),
        (["\uff11", "1"], "'1', '\\uff11'"),
    ],
)
def test_labels_that_look_alike_are_named(imported, twins, shown):
    made = imported(GOOD + table((f"twin {i} {n}", x) for n, x in enumerate(twins) for i in range(2)).split("\n", 1)[1])
    (warning,) = [note for note in made.notes if "look alike" in note]
    assert warning.startswith(f"Warning: these labels look alike: {shown}.")
    assert set(twins) < set(made.labels.index)


def test_labels_that_differ_are_not_said_to_look_alike(imported):
    names = ["-1", "0", "1", "1.5", "C", "C++", "C#", "10", "100"]
    made = imported(table((f"text {i} {name}", name) for name in names for i in range(3)))
    assert len(made.labels) == 9 and [n for n in made.notes if "Warning" in n] == []


def test_a_label_that_is_not_tested_is_named(imported):
    made = imported(GOOD, test="message,label\nnew,l1\n")
    assert "Warning: the test has no message with the label 'l0'." in made.notes


@pytest.mark.parametrize("rare", [2, 3])
def test_a_rare_label_is_in_every_split(imported, rare):
    rows = [(f"text {i}", "often") for i in range(200)] + [(f"rare {i}", "rare") for i in range(rare)]
    made = imported(table(rows), labelled=2)
    assert made.labels.loc["rare", ["train", "test"]].tolist() == [1, 1]


@pytest.mark.parametrize(
    "name",
    ["_label", "__class__", "model_config", "schema", "id", "text", "my label", "\u0936\u094d\u0930", "[red]", " "],
)
def test_the_label_column_may_have_any_name(imported, name):
    made = imported(table([("x", *row) for row in ROWS], ("nr", "message", name)), ("message", name))
    assert list(made.dataset.task.fields) == [name.strip() or "label"]
    assert set(messages(made, "test").values()) == {f"label {i}" for i in range(4)}


def test_a_help_desk_export(imported):
    header = ["Ticket ID", "Subject", "Description", "Tags", "Group"]
    html = "<style>p {}</style><p>Hello&nbsp;<b>you</b>,</p><div>is 1 &lt; 2?<br>Case %d</div><script>x()</script>"
    rows = [(i, "Re: it", html % i, "a,b", f"Group {i % 2}") for i in range(20)]
    made = imported(table(rows, header), ("Description", "Group"), html=True)
    assert set(messages(made)) <= {f"Hello you , is 1 < 2? Case {i}" for i in range(20)}
    assert len(made.notes) == 1
    kept = imported(table(rows, header), ("Description", "Group"))
    assert "Warning: 20 texts hold HTML tags; --html keeps the words only." in kept.notes
    assert html % 3 in messages(kept) | messages(kept, "test")


def test_a_failure_leaves_nothing_and_a_retry_works(tmp_path, imported, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(data, "check", lambda folder: [data.Problem("train.jsonl", 1, "no")])
        with pytest.raises(CourseError, match="in.csv makes no data folder that can be used: train.jsonl:1: no."):
            imported(GOOD)
    assert os.listdir(tmp_path) == ["in.csv"]
    importing.import_csv(tmp_path / "in.csv", "message", "label", tmp_path / "mine-0")
    assert data.check(tmp_path / "mine-0") == []


CELLS = st.sampled_from(list('abcd0 \u200b,;"\t<\U0001f600\r\n')) | st.characters()
ROW = st.tuples(st.text(CELLS, max_size=8), st.sampled_from(["x", "y", "x", "y", "Y ", "", '"']))
CONTENT = st.lists(ROW, max_size=8) | st.lists(ROW, min_size=12, max_size=30)
CONTENT = CONTENT.flatmap(
    lambda rows: st.sampled_from(
        [table(rows), table(rows, delimiter=";"), "message,label\n" + "\n".join(map(",".join, rows))]
    )
)


@given(CONTENT | st.text(CELLS).map("message,label\n".__add__), st.none() | st.integers(0, 9), st.booleans())
def test_any_text_makes_a_folder_or_one_sentence(content, labelled, html):
    with tempfile.TemporaryDirectory() as place:
        source, out = Path(place) / "in.csv", Path(place) / "mine"
        source.write_bytes(content.encode("utf-8", "surrogatepass"))
        try:
            made = importing.import_csv(source, "message", "label", out, labelled=labelled, html=html)
        except CourseError:
            assert os.listdir(place) == ["in.csv"]
        else:
            assert data.check(out) == []
            assert (made.labels[["train", "test"]] > 0).all(axis=None)


def test_rows_without_a_label_are_left_out_or_become_the_pool(tmp_path):
    (tmp_path / "in.csv").write_text(GOOD + "new,\nnew,\nText 3,\n,\nother, \n", encoding="utf-8")
    columns = ("message", "label")
    without = importing.import_csv(tmp_path / "in.csv", *columns, tmp_path / "without")
    assert not without.dataset.pool and "4 without a label" in without.notes[0]
    made = importing.import_csv(tmp_path / "in.csv", *columns, tmp_path / "made", unlabelled=True, name="desk")
    # said twice, known with a label, no text: only two are left
    assert {record["text"] for record in made.dataset.pool} == {"new", "other"}
    assert made.dataset.task.name == "desk" and data.check(tmp_path / "made") == []
    assert "imported 20 of 25 rows and 2 without a label: " in made.notes[0]
    test = tmp_path / "test.csv"
    test.write_text("message,label\nNEW,l0\nmore,l1\n", encoding="utf-8")
    made = importing.import_csv(tmp_path / "in.csv", *columns, tmp_path / "tested", test, unlabelled=True)
    assert {record["text"] for record in made.dataset.pool} == {"other"}  # the other is in the test
