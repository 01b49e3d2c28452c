"""The release gate: may this package go to devices of that kind?

Budgets are a YAML file, one profile per kind of device:

    till:
      at_least: {exact_match_low: 0.6}                 # the lower end of an interval, not a point
      at_most: {megabytes: 40, p95_ms: 300, peak_memory_mb: 400}

It compares numbers and measures none; whether they are this package's, its signature tells.
"""

import math
from numbers import Real
from pathlib import Path
from typing import Annotated

import pandas
import pydantic
import yaml

from slmops_lab.errors import CourseError

# infinity is no limit, and `yes` no number (as a text it is refused)
Limit = Annotated[pydantic.FiniteFloat, pydantic.BeforeValidator(lambda v: str(v) if isinstance(v, bool) else v)]


class Budget(pydantic.BaseModel, extra="forbid"):
    """What a package must reach and may cost on one kind of device; the names are those of its metrics."""

    at_least: dict[str, Limit] = {}
    at_most: dict[str, Limit] = {}

    @pydantic.model_validator(mode="after")
    def _one_side_each(self):
        if both := sorted(set(self.at_least) & set(self.at_most)):
            raise ValueError(f"{both[0]} has two budgets: give it one")
        return self


class _OnceOnly(yaml.SafeLoader):
    """YAML in which no name stands twice: the last one would win without a word."""

    def construct_mapping(self, node, deep=False):
        made, names = super().construct_mapping(node, deep), [key.value for key, _ in node.value]
        if twice := sorted({str(name) for name in names if names.count(name) > 1}):
            raise yaml.constructor.ConstructorError(None, None, f"'{twice[0]}' stands there twice", node.start_mark)
        return made


def load(path):
    """Budget file -> {profile: Budget}. Raises CourseError where it cannot be read or says nothing."""
    try:
        told = yaml.load(Path(path).read_text(encoding="utf-8"), _OnceOnly)
        budgets = pydantic.TypeAdapter(dict[str, Budget]).validate_python(told)
    except OSError as error:
        raise CourseError(f"{path}: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where, what = f", line {mark.line + 1}," if mark else "", getattr(error, "problem", None) or str(error)
        raise CourseError(f"{path}{where} is no YAML that can be used: {what.splitlines()[0]}.") from None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise CourseError(f"{path}: {'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}.") from None
    if not budgets:
        raise CourseError(f"{path} has no profile: give one per kind of device.")
    for profile, budget in budgets.items():
        if not budget.at_least and not budget.at_most:
            raise CourseError(f"{path}: the profile '{profile}' asks for nothing, so everything would pass.")
    return budgets


def check(metrics, budgets, profile):
    """Compare a package's metrics with the budget of a profile.

    Returns a DataFrame, one row per budget, with columns measured, budget and passed. What was not
    measured, or is no number, does not pass. Raises CourseError on an unknown profile.
    """
    if profile not in budgets:
        raise CourseError(f"There is no profile '{profile}': the budgets have {', '.join(budgets)}.")
    rows = {}
    for sign, limits in (("at least", budgets[profile].at_least), ("at most", budgets[profile].at_most)):
        for name, limit in limits.items():
            value = metrics.get(name)
            known = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
            passed = known and (value >= limit if sign == "at least" else value <= limit)
            measured = float(value) if known else math.nan
            rows[name] = {"measured": measured, "budget": f"{sign} {limit:g}", "passed": passed}
    return pandas.DataFrame.from_dict(rows, orient="index")


def passes(metrics, budgets, profile):
    """Whether every budget of the profile is kept."""
    return bool(check(metrics, budgets, profile)["passed"].all())
