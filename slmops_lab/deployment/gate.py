"""The release gate: may this package go to devices of that kind?

Budgets are a YAML file, one profile per kind of device:

    till:
      at_least: {exact_match_low: 0.6}                 # the lower end of an interval, not a point
      at_most: {megabytes: 40, p95_ms: 300, peak_memory_mb: 400}
"""

import math
from pathlib import Path

import pandas
import pydantic
import yaml

from slmops_lab.errors import CourseError


class Budget(pydantic.BaseModel, extra="forbid"):
    """What a package must reach and may cost on one kind of device; the names are those of its metrics."""

    at_least: dict[str, float] = {}
    at_most: dict[str, float] = {}

    @pydantic.model_validator(mode="after")
    def _one_side_each(self):
        if both := sorted(set(self.at_least) & set(self.at_most)):
            raise ValueError(f"{both[0]} has two budgets: give it one")
        return self


def load(path):
    """Budget file -> {profile: Budget}. Raises CourseError where it cannot be read or says nothing."""
    try:
        told = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        budgets = pydantic.TypeAdapter(dict[str, Budget]).validate_python(told)
    except OSError as error:
        raise CourseError(f"{path}: {error.strerror}.") from None
    except yaml.YAMLError as error:
        raise CourseError(f"{path} is no YAML: {str(error).splitlines()[0]}.") from None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise CourseError(f"{path}: {'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}.") from None
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
            known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            passed = known and (value >= limit if sign == "at least" else value <= limit)
            measured = float(value) if known else math.nan
            rows[name] = {"measured": measured, "budget": f"{sign} {limit:g}", "passed": passed}
    return pandas.DataFrame.from_dict(rows, orient="index")


def passes(metrics, budgets, profile):
    """Whether every budget of the profile is kept."""
    return bool(check(metrics, budgets, profile)["passed"].all())
