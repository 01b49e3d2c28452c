import numpy
import pandas
import pytest
from scipy.stats import binomtest

from slmops_lab.errors import CourseError
from slmops_lab.operations import drift


def rows(rng, count, mean=0.0, likely="a", missing=0.0):
    shares = [0.69, 0.2, 0.1, 0.01] if likely == "a" else [0.3, 0.5, 0.1, 0.1]
    made = pandas.DataFrame(
        {"length": rng.normal(mean, 1, count), "label": rng.choice(["a", "b", "c", "rare"], count, p=shares)}
    )
    return made.mask(rng.random(made.shape) < missing)


def test_drift_is_found_in_the_column_where_it_is():
    rng = numpy.random.default_rng(0)
    before = rows(rng, 400)
    longer = drift.compare(before, rows(rng, 150, mean=0.8))
    assert longer["drifted"].to_dict() == {"length": True, "label": False}
    other = drift.compare(before, rows(rng, 150, likely="b"))
    assert other["drifted"].to_dict() == {"length": False, "label": True}
    assert other["test"].to_dict() == {"length": "Kolmogorov-Smirnov", "label": "chi-squared"}


@pytest.mark.parametrize("holed", ["reference", "window", "both"])
def test_one_missing_value_hides_no_shift(holed):
    rng = numpy.random.default_rng(3)
    before, now = rows(rng, 200), rows(rng, 100, mean=10)
    for side in {"reference": [before], "window": [now], "both": [before, now]}[holed]:
        side.loc[7, "length"] = None
    found = drift.compare(before, now).loc["length"]
    assert found["drifted"] and found["test"] == "Kolmogorov-Smirnov" and found["statistic"] > 0.9


def test_missing_values_without_a_shift_are_drift_too():
    rng = numpy.random.default_rng(3)
    before, now = rows(rng, 200, missing=0.05), rows(rng, 200, missing=0.3)
    found = drift.compare(before, now)
    assert found["drifted"].all()
    assert found["test"].to_dict() == {"length": "missing values", "label": "chi-squared"}
    assert found.loc["length", "statistic"] == pytest.approx(0.25, abs=0.1)
    assert not drift.compare(before, rows(rng, 200, missing=0.05))["drifted"].any()


@pytest.mark.parametrize("missing", [0, 0.02, 0.4])
def test_false_alarms_stay_rare(missing):
    rng = numpy.random.default_rng(1)
    drawn = [(rows(rng, 300, missing=missing), rows(rng, 100, missing=missing)) for _ in range(150)]
    alarms = sum(drift.compare(*sides)["drifted"].any() for sides in drawn)
    assert binomtest(alarms, len(drawn), 0.05, alternative="greater").pvalue > 0.001


def test_many_rare_values_raise_no_false_alarms():
    rng = numpy.random.default_rng(2)
    values, shares = numpy.arange(40).astype(str), 1 / numpy.arange(1, 41)
    drawn = [
        [pandas.DataFrame({"word": rng.choice(values, count, p=shares / shares.sum())}) for count in (300, 40)]
        for _ in range(150)
    ]
    alarms = sum(drift.compare(*sides)["drifted"].any() for sides in drawn)
    assert binomtest(alarms, len(drawn), 0.05, alternative="greater").pvalue > 0.001


HOURS = pandas.Series(pandas.date_range("2026-01-01", periods=60, freq="h"))
EVEN = pandas.Series([i % 2 == 0 for i in range(60)])


@pytest.mark.parametrize(
    "before, now, test",
    [
        (HOURS, HOURS + pandas.Timedelta(days=9), "Kolmogorov-Smirnov"),
        (HOURS.dt.tz_localize("UTC"), HOURS.dt.tz_localize("UTC") + pandas.Timedelta(days=9), "Kolmogorov-Smirnov"),
        (HOURS - HOURS[0], (HOURS - HOURS[0]) * 99, "Kolmogorov-Smirnov"),
        (pandas.Series(range(60)), pandas.Series(range(60)).astype("Int64") + 50, "Kolmogorov-Smirnov"),
        (pandas.Series(range(60)), pandas.Series([numpy.inf] * 40 + [1.0] * 20), "Kolmogorov-Smirnov"),
        (EVEN, EVEN | True, "chi-squared"),
        (EVEN.astype("boolean"), EVEN.astype("boolean") | True, "chi-squared"),
        (EVEN, EVEN.astype(object).where(EVEN), "chi-squared"),  # False went missing
        (
            pandas.Series(["a", "b"] * 30, dtype="category"),
            pandas.Series(["a", None] * 30, dtype="category"),
            "chi-squared",
        ),
        (pandas.Series(["a", "missing"] * 30), pandas.Series(["a", None] * 30), "chi-squared"),
        (pandas.Series(range(60)), pandas.Series(["unknown"] * 60), "chi-squared"),  # numbers became text
        (pandas.Series(range(60)), pandas.Series([None] * 60), "missing values"),
        (pandas.Series([numpy.nan] * 60), pandas.Series(range(60)), "missing values"),
    ],
)
def test_every_kind_of_column(before, now, test):
    found = drift.compare(before.to_frame("x"), now.to_frame("x")).loc["x"]
    assert found["drifted"] and found["test"] == test
    same = [drift.compare(side.to_frame("x"), side.to_frame("x")).loc["x"] for side in (before, now)]
    assert not any(one["drifted"] for one in same)


def test_seconds_and_nanoseconds_are_the_same_times():
    assert not drift.compare(HOURS.to_frame("x"), HOURS.dt.as_unit("s").to_frame("x"))["drifted"].item()


def test_drift_of_nothing():
    rng = numpy.random.default_rng(2)
    for few in (0, 1, 4):  # too few to tell, on either side
        for sides in ((rows(rng, 100), rows(rng, few, mean=9)), (rows(rng, few, mean=9), rows(rng, 100))):
            assert not drift.compare(*sides)["drifted"].any()
    same = pandas.DataFrame({"label": ["a"] * 30})
    assert drift.compare(same, same)["p"].item() == 1.0
    gone = pandas.DataFrame({"length": [numpy.nan] * 30})
    assert drift.compare(gone, gone)["p"].item() == 1.0


def test_tables_that_cannot_be_compared():
    whole = rows(numpy.random.default_rng(2), 10)
    twice = pandas.concat([whole, whole[["length"]]], axis=1)
    for sides in ((whole, whole[["length"]]), (whole, twice), (twice, twice), (whole[[]], whole[[]])):
        with pytest.raises(CourseError, match="give two tables with the same columns"):
            drift.compare(*sides)
