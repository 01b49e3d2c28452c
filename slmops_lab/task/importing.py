"""A data folder out of a CSV file: one message and one label per row, one enum field.

The csv module reads and pandas counts. Texts and labels lose the white space and invisible characters around them
and, where asked, HTML; nothing else is changed, and each row that is left out is counted with its reason.
Holds the file in memory, about ten times its size.
"""

import csv
import io
import json
import random
import re
import unicodedata
import warnings
from dataclasses import dataclass
from pathlib import Path

import bs4
import pandas

from slmops_lab.errors import CourseError
from slmops_lab.files import atomic_folder, write_json
from slmops_lab.task import data

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
AS_CSV = "open it in a spreadsheet and save it as 'CSV UTF-8'"
FIRST_BYTES = {
    b"PK\x03\x04": f"a ZIP archive, as .xlsx workbooks are: {AS_CSV}",
    b"\xd0\xcf\x11\xe0": f"an old Excel workbook (.xls): {AS_CSV}",
    b"\x1f\x8b": "compressed by gzip: unpack it first (gunzip)",
    b"\xff\xfe": f"UTF-16, which Excel calls 'Unicode Text': {AS_CSV}",
    b"\xfe\xff": f"UTF-16, which Excel calls 'Unicode Text': {AS_CSV}",
}
INVISIBLE = "\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff"
AROUND = re.compile(rf"^[\s{INVISIBLE}]+|[\s{INVISIBLE}]+\Z")
TAG = re.compile(r"</?(p|div|br|span|table|td|li|a|b|strong|html|body)\b[^<>]*>", re.IGNORECASE)


@dataclass(frozen=True)
class Imported:
    """A data folder that was just made, and what whoever made it should know."""

    dataset: data.Dataset
    labels: pandas.DataFrame  # messages per label (index) in train, test and pool
    notes: list  # sentences: what was read, left out, changed, and what looks wrong


def import_csv(
    path, text_column, label_column, out, test=None, labelled=None, seed=0, html=False, name=None, unlabelled=False
):
    """Make a data folder with one enum field out of a CSV file, whole or not at all; returns an `Imported`.

    path, test: CSV files with a header, UTF-8; the header line tells the separator. Without `test`, a fifth of
    the messages is held out, some of every label. `labelled` keeps that many labelled messages for training,
    spread over the labels; the others become the pool. unlabelled: so do rows of `path` without a label.
    html: the texts are HTML, keep their words. name: of the task, else the folder's.
    Left out are rows without a text or a label, with more cells than the header or a text longer than
    `data.LONGEST` bytes, all rows of a text that has two labels, repetitions, and what the test has, too.
    Raises CourseError where a file cannot be read, a column is missing, labels are too few or too many for
    this, `labelled` does not fit, and where `out` exists.
    """
    out, notes, held_out, without = Path(out), [], None, [] if unlabelled else None
    if out.exists():
        raise CourseError(f"{out} exists already: remove it or give another --out.")
    if text_column == label_column:
        raise CourseError(f"The text and the label cannot be the same column '{text_column}'.")
    if test:
        held_out = _read(test, text_column, label_column, html, notes, seed)
    taken = () if held_out is None else held_out["key"]
    rows = _read(path, text_column, label_column, html, notes, seed, taken, without)
    if problem := _problem(rows, label_column, held_out):
        raise CourseError(f"{problem}. {notes[-1].replace(': imported', ': kept')}")
    if held_out is None:
        held_out, rows = _spread(rows, max(len(rows) // 5, rows["label"].nunique()))
    values = sorted(rows["label"].unique())
    if labelled is not None and not len(values) <= labelled <= len(rows):
        told = f"the {len(values)} labels need one message each, and {len(rows)} are left to train on"
        raise CourseError(f"--labelled must be from {len(values)} to {len(rows)}: {told}.")
    train, pool = _spread(rows, labelled or len(rows))
    pool = pandas.concat([pool, *(without or ())])
    # again, because whoever takes from every label in turn leaves both parts with another mixture at either end
    splits = {split: _shuffled(part, seed) for split, part in {"train": train, "test": held_out, "pool": pool}.items()}
    field = AROUND.sub("", label_column) or "label"
    with atomic_folder(out) as folder:
        write_json(
            folder / "schema.json", {"name": name or out.name, "fields": {field: {"type": "enum", "values": values}}}
        )
        for split, part in splits.items():
            _write(folder, split, part, field)
        if problems := data.check(folder):
            raise CourseError(f"{path} makes no data folder that can be used: {problems[0]}.")
    labels = pandas.DataFrame({split: part["label"].value_counts() for split, part in splits.items()}, index=values)
    labels = labels.fillna(0).astype(int).rename_axis("label")
    return Imported(data.load(out), labels, [*notes, *_warnings(labels, [*rows["text"], *held_out["text"]], html)])


def _read(path, text_column, label_column, html, notes, seed, taken=(), without=None):
    """The rows to keep, shuffled: a frame with line, text, label and key. Adds to the notes.

    without: a list that gains one such frame, of the rows without a label, which count as kept then.
    """
    frame = pandas.DataFrame(
        _rows(path, text_column, label_column, notes), columns=["line", "text", "label", "why"], dtype=object
    )
    if html:
        with warnings.catch_warnings(action="ignore", category=bs4.MarkupResemblesLocatorWarning):  # an address
            frame["text"] = [bs4.BeautifulSoup(text, "html.parser").get_text(" ", strip=True) for text in frame["text"]]
    given = frame["label"]
    frame["text"], frame["label"] = (frame[name].map(lambda cell: AROUND.sub("", cell)) for name in ("text", "label"))
    if (changed := frame["label"].ne(given) & frame["label"].ne("")).any():
        where = _lines(frame["line"][changed])
        notes.append(
            f"{path}: {changed.sum():,} labels lost white space or invisible characters around them ({where})."
        )
    frame["key"] = frame["text"].map(data.text_key)
    for reason, hit in {
        "without a text": frame["text"].eq(""),
        "without a label": frame["label"].eq(""),
        f"longer than {data.LONGEST:,} bytes": frame["text"].map(lambda text: len(text.encode()) > data.LONGEST),
        "in the test file, too": frame["key"].isin(taken),
    }.items():
        frame.loc[hit & frame["why"].eq(""), "why"] = reason
    labels = frame[frame["why"].eq("")].groupby("key")["label"]
    for reason, hit in {
        "repeated": labels.cumcount().gt(0),
        "with two labels": labels.transform("nunique").gt(1),
    }.items():
        frame.loc[hit.index[hit], "why"] = reason
    kept = frame[frame["why"].eq("")]
    if without is not None:
        more = frame[frame["why"].eq("without a label")].drop_duplicates("key")
        without.append(_shuffled(more[~more["key"].isin([*kept["key"], *taken])], seed))
    left_out = frame[frame["why"].ne("")].drop(without[0].index if without else []).groupby("why", sort=False)["line"]
    said = f"{len(kept):,} of {len(frame):,} rows" + (f" and {len(without[0]):,} without a label" if without else "")
    if len(left_out):
        said += ": " + ", ".join(f"{len(lines):,} {why}" for why, lines in left_out)
        said += "; left out " + ", ".join(f"{_lines(lines)} ({why})" for why, lines in left_out)
    if kept.empty:
        raise CourseError(f"{path} has no row to learn from: kept {said}.")
    notes.append(f"{path}: imported {said}.")
    return _shuffled(kept, seed)


def _shuffled(frame, seed):
    return frame.loc[random.Random(seed).sample(list(frame.index), len(frame))]


def _rows(path, text_column, label_column, notes):
    """[(line, text, label, "" or why the row is left out)], cells as they are in the file."""
    csv.field_size_limit(2**31 - 1)  # a long cell is left out with its reason
    body, first = _text_of(path), 1
    if given := re.match(r'"?sep=([^\w\s"]|\t)"?(\r\n|\r|\n)', body, re.IGNORECASE):
        body, first = body[given.end() :], 2
    lines = list(io.StringIO(body, newline=""))
    columns = [text_column, label_column]
    headers = {s: next((row for row in csv.reader(lines, delimiter=s) if any(row)), []) for s in SEPARATORS}
    best = max(headers, key=lambda s: (sum(column in headers[s] for column in columns), len(headers[s])))
    separator = given[1] if given else best
    if separator != ",":
        notes.append(f"{path} is read with the separator {SEPARATORS.get(separator, repr(separator))}.")
    reader, rows, header, places, done = csv.reader(lines, delimiter=separator, strict=True), [], None, [], 0
    try:
        for cells in reader:
            line, done = first + done, reader.line_num
            if header is not None and cells:
                text, label = (cells[place] if place < len(cells) else "" for place in places)
                rows.append((line, text, label, "with more cells than the header" if any(cells[len(header) :]) else ""))
            elif any(cells):
                header, places = cells, [_place(path, cells, column) for column in columns]
    except csv.Error:
        cells = next(csv.reader(lines[done : reader.line_num], delimiter=separator))
        breaks = [len(re.findall(r"\r\n|\r|\n", cell)) for cell in cells]
        culprit = max((place for place, count in enumerate(breaks) if count), default=0)
        line = first + done + sum(breaks[:culprit])
        cure = "end it before a separator or a line's end, and write a quote inside of a cell twice"
        raise CourseError(f"{path}: the quote that opens a cell in line {line} is not closed well: {cure}.") from None
    if not rows:
        raise CourseError(f"{path} {'has a header and no rows' if header else 'is empty'}: export it again.")
    return rows


def _text_of(path):
    """The file as text, or what its bytes show instead."""
    try:
        raw = Path(path).read_bytes()
    except FileNotFoundError:
        raise CourseError(f"There is no file {path}.") from None
    except OSError as error:
        raise CourseError(f"{path} cannot be read: {error.strerror}.") from None
    for first, what in FIRST_BYTES.items():
        if raw.startswith(first):
            raise CourseError(f"{path} is no CSV text. Its first bytes show that it is {what}.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raw, at = error.object, error.start
        wrong = f"the byte 0x{raw[at]:02X}, in Windows-1252 '{raw[at : at + 1].decode('cp1252', 'replace')}'"
    else:
        if (at := raw.find(b"\0")) < 0:
            return text
        wrong = "a NUL byte, as UTF-16 has"
    raise CourseError(f"{path} is not UTF-8 text: line {len(raw[: at + 1].splitlines())} holds {wrong}; {AS_CSV}.")


def _place(path, header, column):
    """Index of the column in the header, which has to have it exactly once."""
    if (count := header.count(column)) == 1:
        return header.index(column)
    if count:
        raise CourseError(f"{path} has {count} columns '{column}': rename all but one.")
    alike = [name for name in header if _look(name) == _look(column)]
    hint = f" Did you mean '{alike[0]}', as it is written there?" if alike else ""
    raise CourseError(f"{path} has no column '{column}': it has {', '.join(map(repr, header))}.{hint}")


def _lines(numbers):
    numbers = list(numbers)
    return f"line{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers[:3]))}" + ", ..." * (len(numbers) > 3)


def _problem(rows, column, test):
    """Why these labels cannot be told apart, trained and tested, or None."""
    counts = rows["label"].value_counts()
    if len(counts) < 2:
        return f"The column '{column}' has one value only, {counts.index[0]!r}: nothing to tell apart"
    if 2 * len(counts) > len(rows) and (test is None or len(rows) > 20):
        every = "every message has its own label" if len(counts) == len(rows) else f"there are {len(counts)} labels"
        return f"Of {len(rows)} messages, {every}: is '{column}' an id? A label needs two messages"
    once = rows[rows["label"].map(counts).eq(1)].sort_values("line")
    if test is None and len(once):
        told = f"The label {once['label'].iloc[0]!r} occurs once, in line {once['line'].iloc[0]}"
        such = f" ({len(once)} such labels)" if len(once) > 1 else ""
        return f"{told}{such}: a label needs two messages, one to train on and one to test; add one or take its row out"
    if test is not None and len(strange := test[~test["label"].isin(counts.index)]):
        told = f"The test has the label {strange['label'].iloc[0]!r} (line {strange['line'].iloc[0]})"
        return f"{told}, which no message that is left to train on has: add one or take the row out"
    return None


def _spread(rows, count):
    """Split rows into (count of them, the rest), taking from every label in turn."""
    labels = rows.groupby("label")["label"]
    turn = labels.cumcount() / labels.transform("size")
    chosen = rows.index.isin(turn.sort_values(kind="stable").index[:count])
    return rows[chosen], rows[~chosen]


def _warnings(labels, texts, html):
    """Sentences about what may be wrong in a folder that can be used."""
    alike = {}
    for label in labels.index:
        alike.setdefault(_look(label), []).append(label)
    for group in (group for group in alike.values() if len(group) > 1):
        shown = ", ".join(repr(x) if unicodedata.is_normalized("NFKC", x) else ascii(x) for x in group)
        yield f"Warning: these labels look alike: {shown}. If they are one, write them alike in the CSV."
    if untested := labels.index[labels["test"].eq(0)].tolist():
        yield f"Warning: the test has no message with the label {', '.join(map(repr, untested))}."
    if not html and (tagged := sum(bool(TAG.search(text)) for text in texts)):
        yield f"Warning: {tagged:,} texts hold HTML tags; --html keeps the words only."


def _look(label):
    """What labels share that look alike: case, white space, `_`, invisible characters, `.0` are left out."""
    plain = re.sub(rf"[\s_{INVISIBLE}]", "", unicodedata.normalize("NFKC", label).casefold())
    return re.sub(r"(?<=\d)\.0+$", "", plain)


def _write(folder, split, rows, field):
    records = [
        {"id": f"{split}-{number:05d}", "text": text} | ({} if split == "pool" else {"answer": {field: label}})
        for number, (text, label) in enumerate(zip(rows["text"], rows["label"], strict=True), 1)
    ]
    if records:
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")
