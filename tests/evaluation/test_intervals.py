"""Intervals that are honest at 0 and 100 % and with few records, by simulation, and against published examples."""

import math

import numpy
import pandas
import pytest
from scipy.stats import binomtest

from slmops_lab.errors import CourseError
from slmops_lab.evaluation import intervals

RUNS = 2_000


def pairs(both, ours, theirs, neither):
    """Right and wrong of two models: on how many records both, one or none of them is right."""
    counts = [both, ours, theirs, neither]
    return numpy.repeat([True, True, False, False], counts), numpy.repeat([True, False, True, False], counts)


def holds(interval, truth):
    return interval["low"] - 1e-9 <= truth <= interval["high"] + 1e-9


def covers(held, runs=RUNS):
    """Is 93 % compatible with so many hits?"""
    return binomtest(int(held), runs, 0.93, alternative="less").pvalue > 0.001


def test_proportions_as_published():
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3: 81 of 263
    interval = intervals.proportion([True] * 81 + [False] * 182)
    assert (round(interval["low"], 4), round(interval["high"], 4)) == (0.2553, 0.3662)
    assert (intervals.proportion([])["low"], intervals.proportion([])["high"]) == (0, 1)


def test_paired_intervals_as_published():
    # Fagerland, Lydersen and Laake 2014, Statistics in Medicine 33:2850: complete response, 59 + 6 + 16 + 80 patients
    shares = intervals.ratio(*pairs(59, 6, 16, 80))
    assert [round(shares[key], 3) for key in ("ratio", "low", "high")] == [0.867, 0.758, 0.991]
    gap = intervals.difference(*pairs(59, 6, 16, 80))
    assert [round(gap[key], 3) for key in ("points", "low", "high")] == [-0.062, -0.119, -0.003]
    # the example of ci.ratio.prop.ps in Bonett's statpsych, https://cran.r-project.org/package=statpsych
    shares = intervals.ratio(*pairs(6, 26, 4, 12))
    assert [round(shares[key], 6) for key in ("ratio", "low", "high")] == [3.2, 1.766544, 5.796628]


# both right, only ours, only theirs
TRUE_SHARES = [
    (0.5, 0.0, 0.0),
    (0.4, 0.3, 0.1),
    (0.85, 0.05, 0.05),
    (0.6, 0.3, 0.05),
    (0.97, 0.01, 0.01),
    (0.02, 0.1, 0.02),
    (0.9, 0.1, 0.0),
    (1.0, 0.0, 0.0),
]


@pytest.mark.parametrize("records", [10, 40, 450])
@pytest.mark.parametrize("shares", TRUE_SHARES)
def test_paired_intervals_cover_the_truth(shares, records):
    both, ours, theirs = shares
    rng = numpy.random.default_rng(records)
    gaps = ratios = 0
    for counts in rng.multinomial(records, [*shares, max(0.0, 1 - sum(shares))], RUNS):
        sides = pairs(*counts)
        gaps += holds(intervals.difference(*sides), ours - theirs)
        ratios += holds(intervals.ratio(*sides), (both + ours) / (both + theirs))
    assert covers(gaps), gaps
    assert covers(ratios), ratios


@pytest.mark.parametrize("records", [1, 8, 450])
def test_nobody_is_certain_that_two_models_are_alike(records):
    for alike in (numpy.ones(records, bool), numpy.zeros(records, bool)):
        gap = intervals.difference(alike, alike)
        assert gap["low"] < 0 == gap["points"] < gap["high"]
        assert 0 <= intervals.ratio(alike, alike)["low"] < 1 < intervals.ratio(alike, alike)["high"]
    winner = intervals.difference(numpy.ones(records, bool), numpy.zeros(records, bool))
    assert winner["low"] < winner["points"] == winner["high"] == 1


def test_a_ratio_to_almost_nothing_is_wide_and_to_nothing_unbounded():
    once = intervals.ratio(*pairs(1, 29, 0, 10))  # theirs is right 1 of 40 times
    assert 1 < once["low"] < once["ratio"] < once["high"] < 1_000
    never = intervals.ratio(*pairs(0, 4, 0, 36))
    assert never["ratio"] == never["high"] == math.inf and never["low"] > 1
    both_never = intervals.ratio(*pairs(0, 0, 0, 9))
    assert math.isnan(both_never["ratio"]) and (both_never["low"], both_never["high"]) == (0, math.inf)


def test_of_no_record_nothing_is_known():
    assert [intervals.ratio([], [])[end] for end in ("low", "high")] == [0, math.inf]
    assert [intervals.difference([], [])[end] for end in ("low", "high")] == [-1, 1]
    assert intervals.paired_test([], [])["p"] == 1
    none = intervals.macro_f1(pandas.DataFrame({"truth": [], "said": []}))
    assert math.isnan(none["f1"]) and (none["low"], none["high"]) == (0, 1)


@pytest.mark.parametrize("records", [10, 40])
def test_intervals_of_measurements_cover_the_truth(records):
    rng = numpy.random.default_rng(1)
    held = {"ratio": 0, "difference": 0}
    for _ in range(200):
        message = rng.normal(size=records)  # long messages are slow for both
        fast, slow = (scale * numpy.exp(0.3 * (message + rng.normal(size=records))) for scale in (40, 200))
        held["ratio"] += holds(intervals.ratio(fast, slow), 0.2)
        held["difference"] += holds(intervals.difference(fast, slow), (40 - 200) * math.exp(0.3**2))
    assert all(covers(hits, 200) for hits in held.values()), held


def test_of_few_measurements_nothing_is_known():
    assert intervals.ratio([2.0, 3.0], [1.0, 1.5])["high"] == math.inf
    assert intervals.difference([2.0], [1.0]) == {"points": 1.0, "low": -math.inf, "high": math.inf}


@pytest.mark.parametrize(
    "compare, sentence",
    [
        (lambda: intervals.difference([True, False], [True]), "here are 2 results against 1"),
        (lambda: intervals.ratio([True], [True, False]), "here are 1 results against 2"),
        (lambda: intervals.paired_test([True], [True, False]), "here are 1 results against 2"),
        (lambda: intervals.proportion([True, None]), "a value is missing"),
        (lambda: intervals.proportion([0.7]), "right or wrong"),
        (lambda: intervals.paired_test([1], [None]), "a value is missing"),
        (lambda: intervals.difference([1, numpy.nan], [1, 0]), "a value is missing"),
        (lambda: intervals.ratio(["yes"], ["no"]), "a number, or right or wrong"),
    ],
)
def test_what_cannot_be_compared(compare, sentence):
    with pytest.raises(CourseError, match=sentence):
        compare()


def test_paired_test_by_hand():
    ours, theirs = pairs(10, 1, 4, 0)
    found = intervals.paired_test(ours, theirs)
    assert (found["only_ours"], found["only_theirs"]) == (1, 4)
    assert found["p"] == pytest.approx(2 * (1 + 5) / 2**5)  # at most 1 of 5 coins, either way
    assert intervals.paired_test(ours, ours)["p"] == 1.0


def confused(classes, right, rng):
    """(truth, said) shares of each class's answers: mostly the right one, and a last column of unreadable ones."""
    matrix = numpy.empty((classes, classes + 1))
    for row in range(classes):
        others = rng.dirichlet([0.7] * classes)
        matrix[row] = numpy.insert((1 - right) * others, row, right)
    return matrix


def outcomes(counts):
    truth, said = counts.nonzero()
    times = counts[truth, said]
    names = pandas.DataFrame({"truth": truth, "said": said}).astype(str)
    return names.loc[numpy.repeat(names.index, times)].reset_index(drop=True)


def f1_of(shares):
    return numpy.mean(2 * numpy.diagonal(shares) / (shares.sum(axis=1) + shares[:, :-1].sum(axis=0)))


@pytest.mark.parametrize(
    "records, frequent", [(10, [0.5, 0.5]), (40, [0.4, 0.3, 0.2, 0.1]), (450, [0.15] * 4 + [0.06] * 5 + [0.1 / 3] * 3)]
)
def test_macro_f1_covers_the_truth(records, frequent):
    rng = numpy.random.default_rng(5)
    held, runs = 0, 0
    for right in (0.3, 0.8, 0.97, 1.0):
        for _ in range(40):
            shares = numpy.array(frequent)[:, None] * confused(len(frequent), right, rng)
            counts = rng.multinomial(records, shares.ravel() / shares.sum()).reshape(shares.shape)
            if counts.sum(axis=1).all():  # a class that did not occur is not asked about
                runs += 1
                held += holds(intervals.macro_f1(outcomes(counts)), f1_of(shares))
    assert runs > 100 and covers(held, runs), (held, runs)


def test_macro_f1_is_never_certain_and_misses_no_class():
    truth = [f"class {i}" for i in range(12)]
    perfect = intervals.macro_f1(pandas.DataFrame({"truth": truth * 2, "said": truth * 2}))
    assert 0.7 < perfect["low"] < 0.9 and perfect["f1"] == perfect["high"] == 1
    many = intervals.macro_f1(pandas.DataFrame({"truth": truth * 50, "said": truth * 50}))
    assert 0.98 < many["low"] < 1
    wrong = intervals.macro_f1(pandas.DataFrame({"truth": truth * 2, "said": ["?"] * 24}))
    assert wrong["low"] == wrong["f1"] == 0 < wrong["high"] < 0.4
    once = intervals.macro_f1(pandas.DataFrame({"truth": ["a"], "said": ["a"]}))
    assert once["low"] < 0.3 and once["high"] == 1


def test_macro_f1_is_that_of_scikit_learn():
    from sklearn.metrics import f1_score

    drawn = pandas.DataFrame(numpy.random.default_rng(0).choice(list("abc?"), (60, 2)), columns=["truth", "said"])
    drawn = drawn[drawn["truth"] != "?"]
    expected = f1_score(drawn["truth"], drawn["said"], labels=list("abc"), average="macro")
    found = intervals.macro_f1(drawn)
    assert found["f1"] == pytest.approx(expected) and found["low"] < expected < found["high"]
