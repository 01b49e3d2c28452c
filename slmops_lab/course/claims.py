"""The claims ledger: what people say about small models, next to what this run measured.

The claims are in claims.yaml. Rows are written by the run, never typed: `record` computes the verdict from the goal
and the measurement and keeps the row in claims.json. How good an interval is, its caller has to know.
"""

import json
import math
from dataclasses import asdict, dataclass
from importlib import resources

import pandas
import yaml

from slmops_lab.errors import CourseError
from slmops_lab.files import write_json


@dataclass(frozen=True)
class Claim:
    """One row's fixed part. goal is in `unit`; better says on which side of it success lies."""

    id: str
    chapter: str
    claim: str
    source: str
    goal: float
    unit: str
    better: str = "higher"


_ROWS = yaml.safe_load(resources.files(__package__).joinpath("claims.yaml").read_text(encoding="utf-8"))
LEDGER = {row["id"]: Claim(**row) for row in _ROWS}


def verdict(claim, measured, ci_low=None, ci_high=None):
    """'held' where the goal is reached, 'missed' where it is not, 'cannot tell' where the interval holds both.

    measured and the ends of its 95 % interval, if it has one, are in the claim's unit; where one of them is not a
    number, nobody can tell either. Raises ValueError for an interval with one end, or with its ends interchanged.
    """
    if (ci_low is None) != (ci_high is None) or (ci_low is not None and ci_low > ci_high):
        raise ValueError(f"{ci_low} to {ci_high} is no interval")
    values = [value for value in (measured, ci_low, ci_high) if value is not None]
    reached = {value >= claim.goal if claim.better == "higher" else value <= claim.goal for value in values}
    if len(reached) > 1 or any(map(math.isnan, values)):
        return "cannot tell"
    return "held" if reached.pop() else "missed"


def record(run, id, measured, ci_low=None, ci_high=None, n=None):
    """Write one measured row to the run's claims.json and return it as a dict.

    measured and the interval are in the claim's unit, n is the number of cases; see `verdict`. Rows of runs on other
    data, with another base model or seed are dropped: one ledger, one run. Raises CourseError for an id that is not
    in `LEDGER`. A number that is infinite or not defined, such as the ratio to a teacher that is never right, is null.
    """
    if id not in LEDGER:
        raise CourseError(f"The ledger has no row '{id}': it has {', '.join(LEDGER)}.")
    ci_low, ci_high = (None if end is None else float(end) for end in (ci_low, ci_high))
    told = verdict(LEDGER[id], float(measured), ci_low, ci_high)
    numbers = {"measured": float(measured), "ci_low": ci_low, "ci_high": ci_high}
    numbers = {k: v if v is not None and math.isfinite(v) else None for k, v in numbers.items()}  # JSON has no others
    row = asdict(LEDGER[id]) | numbers | {"n": n, "verdict": told, "run": run.identity}
    rows = {r["id"]: r for r in read(run.build) if r.get("run") == run.identity} | {id: row}
    write_json(run.build / "claims.json", [rows[key] for key in LEDGER if key in rows])
    return row


def read(build):
    """Rows of a build folder's claims.json, [] where there is none. Raises CourseError where it is damaged."""
    path = build / "claims.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except ValueError:
        raise CourseError(f"{path} is damaged: delete it and run the chapters again.") from None


def table(build, chapter=None):
    """The ledger as a DataFrame, of one chapter or of all; the claims are its index, so no row number is shown."""
    rows = [r for r in read(build) if chapter in (None, r["chapter"])]
    columns = {
        "measured here": [f"{_number(r['measured'])} {r['unit']}" for r in rows],
        "95 % interval": [_interval(r) for r in rows],
        "goal": [("at least " if r["better"] == "higher" else "at most ") + f"{r['goal']:g}" for r in rows],
        "verdict": [r["verdict"] for r in rows],
    }
    made = pandas.DataFrame(columns, index=[r["claim"] for r in rows])
    return made.rename_axis(columns="claim")  # the heading above the index


def _number(value):
    return "no number of" if value is None else f"{value:.1f}"


def _interval(row):
    ends = [row["ci_low"], row["ci_high"]]
    if ends == [None, None]:
        return ""
    low, high = (end if end is None else f"{end:.1f}" for end in ends)
    return f"{low or 'no lower end'} to {high or 'no upper end'}" + (f" (n = {row['n']})" if row["n"] else "")
