"""Compare answers with what they should be."""

from dataclasses import dataclass

import pandas

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
        """Share of records with every field right."""
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
    """Compare model texts with the records' answers. An unreadable text is wrong in every field."""
    readings = [task.read(text) for text in texts]
    rows = []
    for record, reading in zip(records, readings, strict=True):
        got, want = reading.answer or {}, record["answer"]
        right = {name: name in got and got[name] == want[name] for name in task.fields}
        rows.append({"exact": all(right.values()), **right, "valid": reading.answer is not None})
    return Scores(pandas.DataFrame(rows), readings)


def outcomes(name, records, readings):
    """What one field should be and what was read, a DataFrame with the text columns `truth` and `said`.

    None becomes 'null', an answer that could not be read '(unreadable)'.
    """
    truth = [record["answer"][name] or "null" for record in records]
    said = [(reading.answer[name] or "null") if reading.answer else "(unreadable)" for reading in readings]
    return pandas.DataFrame({"truth": truth, "said": said})


def confusions(pairs, top=6):
    """The commonest mistakes of `outcomes`: a DataFrame of truth, said and how many times."""
    wrong = pairs[pairs["truth"] != pairs["said"]]
    return wrong.value_counts().rename("times").reset_index().head(top)
