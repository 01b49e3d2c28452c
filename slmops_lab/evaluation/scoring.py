"""Compare answers with what they should be: exact match, each field, valid JSON.

An answer is right or wrong, there is no credit for a near miss. Costs nothing next to making the answers.
"""

from dataclasses import dataclass

import pandas

from slmops_lab.errors import CourseError
from slmops_lab.evaluation import intervals


@dataclass(frozen=True)
class Scores:
    """Per-record results: columns `exact`, one per field, and `valid`, all boolean."""

    rows: pandas.DataFrame
    readings: list

    def save(self, path):
        """Keep the per-record results as JSON, for a later paired comparison."""
        self.rows.to_json(path, orient="split")

    @classmethod
    def load(cls, path):
        """`Scores` saved before; their readings are not kept."""
        return cls(pandas.read_json(path, orient="split").astype(bool), [])

    @property
    def exact(self):
        """Share of records with every field right, nan of no records."""
        return float(self.rows["exact"].mean())

    def first(self, count):
        """`Scores` of the first records only."""
        return Scores(self.rows[:count], self.readings[:count])

    def table(self):
        """One row per measure: share right, 95 % interval, number of records."""
        table = pandas.DataFrame({name: intervals.proportion(self.rows[name]) for name in self.rows}).T
        table["n"] = len(self.rows)
        return table.rename(index={"exact": "exact match", "valid": "valid JSON"})


def score(task, records, texts):
    """Compare model texts with the records' answers; returns `Scores`.

    An unreadable text is wrong in every field, and so is None, an answer that was never given. Raises CourseError
    where there is not one text for each record, or a record has no answer to compare with.
    """
    if len(records) != len(texts):
        raise CourseError(
            f"There must be one text for each record: here are {len(texts)} texts, {len(records)} records."
        )
    readings = [task.read(text or "") for text in texts]
    rows = []
    for want, reading in zip(map(_answer, records), readings, strict=True):
        got = reading.answer or {}
        right = {name: name in got and got[name] == want[name] for name in task.fields}
        rows.append({"exact": all(right.values()), **right, "valid": reading.answer is not None})
    return Scores(pandas.DataFrame(rows, columns=["exact", *task.fields, "valid"], dtype=bool), readings)


def _answer(record):
    if record.get("answer") is None:
        raise CourseError(f"The record {record.get('id', record)!r} has no answer to compare with: label it first.")
    return record["answer"]


def outcomes(name, records, readings):
    """What one field should be and what was read, a DataFrame with the text columns `truth` and `said`.

    None becomes '(none)', an answer that could not be read '(unreadable)'. Raises CourseError like `score`.
    """
    if len(records) != len(readings):
        raise CourseError(
            f"There must be one reading for each record: {len(readings)} readings, {len(records)} records."
        )
    found = [(_answer(record)[name], reading.answer) for record, reading in zip(records, readings, strict=True)]
    rows = [(_shown(truth), _shown(answer[name]) if answer else "(unreadable)") for truth, answer in found]
    return pandas.DataFrame(rows, columns=["truth", "said"], dtype=str)


def _shown(value):
    return "(none)" if value is None else value


def confusions(pairs, top=6):
    """The commonest mistakes of `outcomes`: a DataFrame of truth, said and how many times, at most `top` rows."""
    wrong = pairs[pairs["truth"] != pairs["said"]]
    return wrong.value_counts().rename("times").reset_index().head(top)
