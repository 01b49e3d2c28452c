"""A data folder out of a CSV file."""

import csv
import json
import random
import sys
from pathlib import Path

from slmops_lab.errors import CourseError
from slmops_lab.files import atomic_folder, write_json
from slmops_lab.task import data


def import_csv(path, text_column, label_column, out, test=None, labelled=None, seed=0):
    """Make a data folder with one enum field out of a CSV file; returns its `Dataset`.

    path, test: CSV files with a header, UTF-8. Without `test`, a fifth of the messages of every
    label is held out. `labelled` keeps that many labelled messages for training, spread over the
    labels; the others become the pool. Messages that repeat a text are left out, test first kept.
    Raises CourseError on a missing file or column, an empty file, text that is not UTF-8, a label
    that only the test has, and an `out` that exists.
    """
    out = Path(out)
    if out.exists():
        raise CourseError(f"{out} exists already: remove it or give another --out.")
    rows = _csv_rows(path, text_column, label_column)
    rng = random.Random(seed)
    rng.shuffle(rows)
    if test:
        held_out = _csv_rows(test, text_column, label_column)
    else:
        held_out, rows = _spread(rows, max(1, len(rows) // 5))
    rows = _without(rows, held_out)
    if labelled is not None and not 1 <= labelled <= len(rows):
        raise CourseError(f"--labelled must be from 1 to {len(rows)}, the messages left to train on.")
    train, pool = _spread(rows, labelled) if labelled else (rows, [])
    values = sorted({label for _, label in train})
    if unknown := {label for _, label in held_out} - set(values):
        raise CourseError(f"No training message has the label '{sorted(unknown)[0]}' of the test.")
    if len(values) < 2:
        raise CourseError(f"The column '{label_column}' has one value only: nothing to tell apart.")
    schema = {"name": out.name, "fields": {label_column: {"type": "enum", "values": values}}}
    with atomic_folder(out) as folder:
        write_json(folder / "schema.json", schema)
        _write(folder, "train", train, label_column)
        _write(folder, "test", held_out, label_column)
        if pool:
            _write(folder, "pool", [(text, None) for text, _ in pool], label_column)
    return data.load(out)


def _csv_rows(path, text_column, label_column):
    """[(text, label)] without repeated texts."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            for column in (text_column, label_column):
                if column not in (reader.fieldnames or []):
                    found = ", ".join(reader.fieldnames or []) or "no header"
                    raise CourseError(f"{path} has no column '{column}': it has {found}.")
            pairs = [(row[text_column] or "", row[label_column] or "") for row in reader]
    except FileNotFoundError:
        raise CourseError(f"There is no file {path}.") from None
    except UnicodeDecodeError:
        raise CourseError(f"{path} is not UTF-8 text: save it as UTF-8.") from None
    except (OSError, csv.Error) as error:
        raise CourseError(f"{path} cannot be read as CSV: {error}.") from None
    rows, seen = [], set()
    for text, label in ((text.strip(), label.strip()) for text, label in pairs):
        key = " ".join(text.split()).casefold()
        if text and label and key not in seen:
            seen.add(key)
            rows.append((text, label))
    if not rows:
        raise CourseError(f"{path} has no line with both a text and a label.")
    return rows


def _spread(rows, count):
    """Split rows into (count of them, the rest), taking from every label in turn."""
    by_label = {}
    for row in rows:
        by_label.setdefault(row[1], []).append(row)
    turns = sorted(
        (turn / len(group), label, row) for label, group in by_label.items() for turn, row in enumerate(group)
    )
    chosen = {row for _, _, row in turns[:count]}
    return [r for r in rows if r in chosen], [r for r in rows if r not in chosen]


def _without(rows, others):
    taken = {" ".join(text.split()).casefold() for text, _ in others}
    return [row for row in rows if " ".join(row[0].split()).casefold() not in taken]


def _write(folder, split, rows, field):
    with open(folder / f"{split}.jsonl", "w", encoding="utf-8") as file:
        for number, (text, label) in enumerate(rows, 1):
            record = {"id": f"{split}-{number:05d}", "text": text}
            if label is not None:
                record["answer"] = {field: label}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
