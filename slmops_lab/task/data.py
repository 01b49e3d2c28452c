"""Data folders: load one, check one.

A folder holds schema.json and JSON-lines files: train.jsonl and test.jsonl (records with answers), and
optionally pool.jsonl (texts without answers) and drift.jsonl (a shifted test set). Nothing is changed on the
way: records come as the lines have them, in their order. All are held in memory.
"""

import math
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pandas

from slmops_lab.errors import CourseError
from slmops_lab.task import schema

SPLITS = ("train", "pool", "test", "drift")
NEEDED = ("train", "test")
# A message may have as many bytes (UTF-8): the cost of attention grows with the square of the tokens, and a byte-level
# tokenizer makes at most one token of a byte. In English 4,000 bytes are about 1,000 tokens.
LONGEST = 4_000


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a data folder."""

    file: str
    line: int  # from 1; 0 means the file as a whole
    what: str

    def __str__(self):
        return f"{self.file}:{self.line}: {self.what}" if self.line else f"{self.file}: {self.what}"


@dataclass(frozen=True)
class Dataset:
    """A task and its records; a missing split is an empty list."""

    folder: Path
    task: schema.Task
    train: list
    test: list
    pool: list
    drift: list

    def sizes(self):
        """Records per split as a one-column DataFrame."""
        sizes = {name: len(getattr(self, name)) for name in SPLITS}
        return pandas.DataFrame({"records": sizes}).rename_axis("split")


def load(folder):
    """Folder -> `Dataset`, in the order of the files. Raises CourseError with the first problem that `check` finds."""
    folder = Path(folder)
    task, splits, problems = _read(folder)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise CourseError(f"{folder / str(problems[0])}{more}; see `slmops data check {folder}`.")
    return Dataset(folder, task, **splits)


def _sorted(records, field):
    """Whether neighbours share this field's value far more often than chance would have it."""
    values = [str(record["answer"][field]) for record in records if "answer" in record]
    chance = sum((n / len(values)) ** 2 for n in Counter(values).values())
    pairs = len(values) - 1
    shared = sum(a == b for a, b in pairwise(values))
    return pairs > 0 and shared - pairs * chance > 6 * math.sqrt(pairs * chance * (1 - chance) + 1)


def replies(folder, split):
    """Replies to some messages of a split, and what they come to: {message id: {'reply', 'summary'}}.

    Empty where the folder has no replies/SPLIT.jsonl. Raises CourseError on a line that cannot be read.
    """
    path, written = Path(folder) / "replies" / f"{split}.jsonl", {}
    if not path.is_file():
        return written
    for number, record, what in _records(path):
        texts = [record.get(key) for key in ("id", "reply", "summary")] if isinstance(record, dict) else []
        if what or not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise CourseError(f"{path}:{number}: {what or 'a line needs the texts id, reply and summary'}.")
        written[record["id"]] = {"reply": record["reply"], "summary": record["summary"]}
    return written


def check(folder):
    """Every `Problem` of a data folder, file by file. Raises CourseError only for the schema.

    A split that is sorted by a field is a problem: the chapters take the first so many records of a split, and
    those must hold every value.
    """
    return _read(Path(folder))[2]


def _read(folder):
    task = schema.load(folder)
    splits, problems = {}, []
    ids, texts = {}, {}
    for name in SPLITS:
        path = folder / f"{name}.jsonl"
        splits[name] = []
        if not path.is_file():
            if name in NEEDED:
                problems.append(Problem(path.name, 0, "the file is missing"))
            continue
        for number, record, what in _records(path):
            what = what or _record_problem(task, record, answered=name != "pool")
            what = what or _repeated(record, name, number, ids, texts)
            if what:
                problems.append(Problem(path.name, number, what))
            else:
                splits[name].append(record)
        for field in [name for name in task.fields if _sorted(splits[path.stem], name)]:
            problems.append(Problem(path.name, 0, f"the records are sorted by '{field}': shuffle the lines"))
        broken = any(p.file == path.name for p in problems)
        if not splits[name] and not broken and name in NEEDED:
            problems.append(Problem(path.name, 0, "the file is empty"))
    return task, splits, problems


def _records(path):
    """Yield (line number, record or None, problem or None)."""
    for number, raw in enumerate(path.read_bytes().splitlines(), 1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            if line.strip():
                yield number, schema.parse(line), None
        except UnicodeDecodeError as error:
            yield number, None, f"not UTF-8 text (byte {error.start + 1}): save the file as UTF-8"
        except ValueError as error:
            yield number, None, f"no valid JSON ({error})"


def _record_problem(task, record, answered):
    if not isinstance(record, dict):
        return "the line is no JSON object"
    allowed = {"id", "text", "answer"} if answered else {"id", "text"}
    for key in ("id", "text"):
        if not isinstance(record.get(key), str):
            return f"'{key}' is missing or is not text"
        if not record[key].strip():
            return f"'{key}' is empty"
        if "\0" in record[key]:
            return f"'{key}' holds a NUL character, which ends a prompt: take it out"
    if (size := len(record["text"].encode())) > LONGEST:
        return f"'text' has {size:,} bytes, more than {LONGEST:,}: shorten it"
    if extra := set(record) - allowed:
        note = " (a pool record has no answer)" if "answer" in extra else ""
        return f"unexpected key '{sorted(extra)[0]}'{note}"
    if answered:
        return task.problem(record.get("answer"), record["text"])
    return None


def _repeated(record, split, number, ids, texts):
    here = f"{split}.jsonl:{number}"
    first = ids.setdefault(record["id"], here)
    if first != here:
        return f"the id {record['id']!r} is used before, at {first}"
    first = texts.setdefault(text_key(record["text"]), here)
    return None if first.startswith(f"{split}.") else f"the text occurs in another split, at {first}"


def text_key(text):
    """What two texts share that count as the same message: case and white space do not tell them apart."""
    return " ".join(text.split()).casefold()
