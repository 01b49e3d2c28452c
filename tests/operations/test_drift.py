import numpy
import pandas
import pytest

from slmops_lab.errors import CourseError
from slmops_lab.operations import drift


def test_missing_values_are_drift_too():
    rng = numpy.random.default_rng(3)
    whole, holes = rows(rng, 200), rows(rng, 100)
    holes.loc[:60, ["length", "label"]] = None
    assert drift.compare(whole, holes)["drifted"].all()


def rows(rng, count, mean=0.0, likely="a"):
    return pandas.DataFrame(
        {
            "length": rng.normal(mean, 1, count),
            "label": rng.choice(
                ["a", "b", "c", "rare"], count, p=[0.69, 0.2, 0.1, 0.01] if likely == "a" else [0.3, 0.5, 0.1, 0.1]
            ),
        }
    )


def test_drift_is_found_in_the_column_where_it_is():
    rng = numpy.random.default_rng(0)
    before = rows(rng, 400)
    longer = drift.compare(before, rows(rng, 150, mean=0.8))
    assert longer["drifted"].to_dict() == {"length": True, "label": False}
    other = drift.compare(before, rows(rng, 150, likely="b"))
    assert other["drifted"].to_dict() == {"length": False, "label": True}
    assert other["test"].to_dict() == {"length": "Kolmogorov-Smirnov", "label": "chi-squared"}


def test_false_alarms_stay_rare():
    rng = numpy.random.default_rng(1)
    alarms = sum(drift.compare(rows(rng, 300), rows(rng, 100))["drifted"].any() for _ in range(200))
    assert alarms <= 20  # 10 expected at most: 20 would be 3 standard deviations more


def test_drift_of_nothing():
    rng = numpy.random.default_rng(2)
    with pytest.raises(CourseError, match="give two tables with the same columns"):
        drift.compare(rows(rng, 10), rows(rng, 10)[["length"]])
    for few in (0, 1, 4):  # too few to tell, on either side
        for sides in ((rows(rng, 100), rows(rng, few, mean=9)), (rows(rng, few, mean=9), rows(rng, 100))):
            assert not drift.compare(*sides)["drifted"].any()
    same = pandas.DataFrame({"label": ["a"] * 30})
    assert drift.compare(same, same)["p"].item() == 1.0
