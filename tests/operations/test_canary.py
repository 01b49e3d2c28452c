"""Error rates of a canary: as published or planned, exact where they can be added up, by simulation where not."""

import math

import numpy
import pytest
from scipy.stats import binom, binomtest, chi2_contingency, fisher_exact

from slmops_lab.errors import CourseError
from slmops_lab.operations import canary, rollout

GOOD, WORSE = 0.71, 0.66
THIRD = 0.05 / 3


def plan(alpha=0.04 / 3, alarm=0.01, messages=None, shares=(0.02, 0.18, 0.8)):
    messages = messages or canary.messages_needed(GOOD, GOOD - WORSE, alpha, ratio=49)
    groups = [{"name": f"group {i}", "share": share, "messages": messages} for i, share in enumerate(shares)]
    return rollout.Plan(groups=groups, alpha=alpha, alarm=alarm)


def at_most(share, hits, runs):
    return binomtest(int(hits), int(runs), share, alternative="greater").pvalue > 0.001


def at_least(share, hits, runs):
    return binomtest(int(hits), int(runs), share, alternative="less").pvalue > 0.001


# how many answers


@pytest.mark.parametrize("ratio, answers", [(1, 2_015), (49, 1_015), (50, 1_015), (1e9, 995)])
def test_a_canary_beside_a_large_fleet_needs_half_as_many_answers(ratio, answers):
    assert canary.messages_needed(0.7073, 0.05, THIRD, ratio=ratio) == pytest.approx(answers, abs=1)


def test_groups_of_equal_size_are_what_one_gets_without_a_ratio():
    # by hand: (1.6449 * sqrt(2 * 0.675 * 0.325) + 1.2816 * sqrt(0.7 * 0.3 + 0.65 * 0.35))^2 / 0.05^2 = 1501.8
    assert canary.messages_needed(0.7, 0.05) == canary.messages_needed(0.7, 0.05, ratio=1) == 1_502
    assert rollout.messages_needed is canary.messages_needed


@pytest.mark.parametrize("ratio", [0.5, 1, 49])
@pytest.mark.parametrize("before, drop, alpha, power", [(0.7, 0.06, 0.05, 0.9), (0.9, 0.05, 0.05 / 3, 0.8)])
def test_so_many_messages_show_a_drop_as_often_as_planned(before, drop, alpha, power, ratio):
    needed = canary.messages_needed(before, drop, alpha, power, ratio)
    others, runs = round(ratio * needed), 10_000
    rng = numpy.random.default_rng(0)
    worse, same = rng.binomial(needed, [[before - drop], [before]], (2, runs))
    old = rng.binomial(others, before, runs)
    found = (canary.p_worse(worse, needed, old, others) < alpha).mean()
    alarms = (canary.p_worse(same, needed, old, others) < alpha).mean()
    assert found == pytest.approx(power, abs=0.015) and alarms == pytest.approx(alpha, abs=0.006)


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ((0.7, 0.8), "cannot drop by 0.8"),
        ((0.7, -0.1), "cannot drop by -0.1"),
        ((1.7, 0.1), "A share of 1.7 cannot drop"),
        ((0.7, 0.1, 0), "not an alpha of 0"),
        ((0.7, 0.1, 0.05, 1), "a power of 1"),
        ((0.7, 0.1, 0.5, 0.1), "not an alpha of 0.5"),
        ((0.7, 0.1, 0.05, 0.9, 0), "for each of the new one, more than 0, not 0"),
        ((0.7, 0.1, 0.05, 0.9, math.inf), "more than 0, not inf"),
    ],
)
def test_a_drop_that_cannot_be_planned_for(wrong, sentence):
    with pytest.raises(CourseError, match=sentence):
        canary.messages_needed(*wrong)


# one look


@pytest.mark.parametrize("new, old", [((600, 1_000), (700, 1_000)), ((9, 20), (500, 900)), ((50, 80), (48, 80))])
def test_p_worse_is_that_of_scipy(new, old):
    table = [[new[0], new[1] - new[0]], [old[0], old[1] - old[0]]]
    both_sides = chi2_contingency(table, correction=False).pvalue
    worse = new[0] / new[1] < old[0] / old[1]
    assert canary.p_worse(*new, *old) == pytest.approx(both_sides / 2 if worse else 1 - both_sides / 2)
    assert canary.p_worse(*new, *old) <= fisher_exact(table, alternative="less").pvalue  # which is conservative


def test_p_worse_of_nothing_and_of_many():
    assert canary.p_worse(0, 0, 5, 10) == canary.p_worse(10, 10, 10, 10) == canary.p_worse(0, 5, 0, 5) == 1.0
    many = canary.p_worse(numpy.array([0, 600, 10]), numpy.array([0, 1_000, 10]), 700, 1_000)
    assert many.tolist() == [1.0, canary.p_worse(600, 1_000, 700, 1_000), canary.p_worse(10, 10, 700, 1_000)]


@pytest.mark.parametrize("counts", [(11, 10, 5, 10), (5, 10, -1, 10), (5, 10, 11, 10), (math.nan, 10, 5, 10)])
def test_more_right_answers_than_answers(counts):
    past = (7, 10, 70, 100)
    for test in (canary.p_worse, lambda *counts: canary.evidence(past, counts), lambda *c: canary.evidence(c, past)):
        with pytest.raises(CourseError, match="^Right answers are some of all answers, not .* of 10, .* of 10.$"):
            test(*counts)
    with pytest.raises(CourseError, match="not 11 of 10, 5 of 10"):
        canary.p_worse(numpy.array([5, 11]), 10, 5, 10)


# every look


def mean_evidence(past, news, olds, new, old):
    """The mean of exp(evidence) over everything that news and olds answers can be: exact."""
    right, others = numpy.meshgrid(numpy.arange(news + 1), numpy.arange(olds + 1), indexing="ij")
    chance = binom.pmf(right, news, new) * binom.pmf(others, olds, old)
    return float((chance * numpy.exp(canary.evidence(past, (right, news, others, olds)))).sum())


@pytest.mark.parametrize("news, olds", [(1, 1), (3, 20), (20, 3), (1, 49)])
@pytest.mark.parametrize("past", [(1, 12, 70, 100), (60, 100, 6, 8), (0, 3, 0, 2), (0, 30, 900, 900)])
def test_whatever_was_guessed_a_version_that_is_not_worse_gathers_no_evidence(past, news, olds):
    for old in numpy.linspace(0, 1, 21):
        for new in numpy.linspace(old, 1, 5):
            assert mean_evidence(past, news, olds, new, old) <= 1 + 1e-9


def test_a_version_that_is_worse_does():
    past = (12, 25, 700, 1_000)
    assert mean_evidence(past, 10, 100, 0.48, 0.7) > 2
    guess = numpy.array([12.5 / 26, 700.5 / 1001])
    alike = (10 * guess[0] + 100 * guess[1]) / 110
    assert mean_evidence(past, 10, 100, alike, alike) == pytest.approx(1)  # no claim is wasted
    by_hand = 3 * math.log(guess[0] / alike) + 7 * math.log((1 - guess[0]) / (1 - alike))
    by_hand += 70 * math.log(guess[1] / alike) + 30 * math.log((1 - guess[1]) / (1 - alike))
    assert canary.evidence(past, (3, 10, 70, 100)) == pytest.approx(by_hand)


@pytest.mark.parametrize(
    "past, fresh",
    [
        ((8, 10, 70, 100), (0, 10, 70, 100)),  # seemed better so far
        ((0, 0, 0, 0), (0, 10, 70, 100)),  # nothing known before
        ((1, 10, 70, 100), (0, 0, 0, 0)),
        ((1, 10, 70, 100), (0, 10, 0, 0)),
        ((1, 10, 70, 100), (0, 0, 70, 100)),
    ],
)
def test_looks_that_claim_nothing(past, fresh):
    assert canary.evidence(past, fresh) == pytest.approx(0, abs=1e-12)


def test_however_often_one_looks_false_alarms_keep_their_level_and_a_p_value_does_not():
    often, runs, every, looks = plan(alpha=1e-12, alarm=0.05, messages=2_000, shares=(0.1, 0.9)), 4_000, 10, 200
    alarms = canary.simulate(often, GOOD, GOOD, every, rollouts=runs)
    assert set(alarms["by"]) == {"", "alarm"}
    assert alarms["by"].any() and at_most(0.05, alarms["stopped"].sum(), runs)
    rng = numpy.random.default_rng(0)
    new, old = (rng.binomial(size, GOOD, (looks, runs)).cumsum(axis=0) for size in (every, 9 * every))
    answers = every * numpy.arange(1, looks + 1)[:, None]
    peeked = (canary.p_worse(new, answers, old, 9 * answers) < 0.05).any(axis=0)
    assert not at_most(0.05, peeked.sum(), runs) and peeked.mean() > 0.2


def test_error_rates_of_a_whole_rollout_with_and_without_an_alarm():
    plans = {"look": plan(THIRD, 0.0), "alarm": plan()}
    versions = {"as good": GOOD, "better": 0.76, "5 points": WORSE, "20 points": 0.51, "never": 0.0}
    runs = 4_000
    rates = canary.error_rates(plans, GOOD, versions, rollouts=runs)
    assert list(rates.index) == [(p, v) for p in plans for v in versions]
    for name, whole in plans.items():
        stopped = (rates.loc[name, "stopped"] * runs).round()
        assert at_most(0.05, stopped["as good"], runs) and stopped["better"] == 0
        assert at_least(0.9, stopped["5 points"], runs) and stopped["never"] == runs
        assert rates.loc[(name, "as good"), "answers, 50 %"] == 3 * whole.groups[0].messages  # done, mostly
    assert 0.035 < rates.loc[("look", "as good"), "stopped"] < 0.06  # three looks of a third
    assert (rates.loc["look", "by alarm"] == 0).all()
    assert (rates.loc[("look", "never"), "answers, 10 %":] == plans["look"].groups[0].messages).all()
    assert rates.loc[("alarm", "never"), "answers, 90 %"] == 50  # the second look
    assert rates.loc[("alarm", "20 points"), "answers, 90 %"] <= 200
    assert rates.loc[("alarm", "5 points"), "answers, 10 %"] < 500
    inside = rates["low"].le(rates["stopped"]) & rates["stopped"].le(rates["high"])
    assert inside.all() and (rates["high"] - rates["low"] > 0).all()


def test_a_canary_stops_a_drop_at_its_own_look_as_often_as_planned():
    alone = plan(0.05, 0.0, shares=(0.02, 0.98))
    alone.groups[1].messages = 0  # a group that passes at once
    runs = canary.simulate(alone, WORSE, GOOD)
    assert runs["stopped"].mean() == pytest.approx(0.9, abs=0.015)
    assert set(runs["answers"]) == {canary.messages_needed(GOOD, GOOD - WORSE, ratio=49)}
    assert runs.equals(canary.simulate(alone, WORSE, GOOD))
    assert not runs.equals(canary.simulate(alone, WORSE, GOOD, seed=1))


def test_a_group_is_judged_by_its_own_answers():
    runs = canary.simulate(plan(0.3, 0.0, messages=500), GOOD, GOOD)
    passed = runs[runs["answers"] > 500]  # what the canary's look said of them says nothing of the next group
    assert (passed["answers"] == 1_000).mean() == pytest.approx(0.3, abs=0.02)


def test_looks_have_answers_as_the_versions_have_devices():
    looks = list(canary._looks(plan(messages=1_000), every=25))
    assert looks[:40] == [(25, 1_225, False)] * 39 + [(25, 1_225, True)]
    assert looks[40:44] == [(250, 1_000, False)] * 3 + [(250, 1_000, True)]
    assert looks[44:] == [(1_000, 0, True)]  # nobody is left on the old version


def test_where_few_are_on_the_old_version_its_answers_are_waited_for():
    late = canary.simulate(plan(0.05, 0.0, messages=100, shares=(0.8, 0.2)), GOOD, GOOD, every=10, rollouts=10)
    assert set(late["answers"]) <= {400, 500}  # 4 of 5 devices run the new version: 100 of the old take 400 of the new


# who is judged


def test_corrections_show_a_smaller_share_and_keep_the_odds():
    assert canary.as_corrected(0.71, 1) == pytest.approx(0.71)
    assert canary.as_corrected(0.75, 3) == 0.5  # 75 right, 3 * 25 wrong
    assert [canary.as_corrected(share, 5) for share in (0.0, 1.0)] == [0, 1]
    seen = canary.as_corrected([GOOD, WORSE], 4)
    odds = seen / (1 - seen)
    assert odds[0] / odds[1] == pytest.approx((GOOD / (1 - GOOD)) / (WORSE / (1 - WORSE)))
    rng = numpy.random.default_rng(0)  # and by drawing who is judged
    right = rng.random(200_000) < GOOD
    judged = rng.random(200_000) < numpy.where(right, 0.1, 0.4)
    assert right[judged].mean() == pytest.approx(seen[0], abs=0.01)


def test_bias_that_is_alike_harms_no_good_version_and_bias_that_is_not_decides():
    def stopped(new, wrong_more):
        return canary.simulate(plan(), new, GOOD, wrong_more=wrong_more, rollouts=2_000)["stopped"].sum()

    for alike in ((4, 4), (0.5, 0.5)):
        assert at_most(0.05, stopped(GOOD, alike), 2_000)
    assert at_least(0.9, stopped(WORSE, (4, 4)), 2_000)
    assert stopped(GOOD, (1.5, 1)) > 1_990  # its mistakes are looked for: a good version is stopped
    assert stopped(WORSE, (1, 1.5)) < 10  # its mistakes look right: a worse one passes


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({"new": 1.2}, r"A share of right answers lies between 0 and 1: \[1.2  ?0.71\] does not."),
        ({"old": -0.1}, "lies between 0 and 1"),
        ({"new": math.nan}, "lies between 0 and 1"),
        ({"wrong_more": (0, 1)}, r"a wrong answer is judged, more than 0, not \[0. 1.\]"),
        ({"wrong_more": (1, math.inf)}, "more than 0"),
        ({"wrong_more": (1,)}, "^To simulate, give a plan with messages, .* wrong_more of new and old"),
        ({"every": 0}, "^To simulate, give"),
        ({"rollouts": 0}, "^To simulate, give"),
        ({"plan": rollout.Plan(groups=[{"name": "all", "share": 1}])}, "^To simulate, give a plan with messages"),
        ({"plan": plan(messages=9, shares=(1,))}, "group 0 leaves no device on the old version to compare with"),
    ],
)
def test_rollouts_that_cannot_be_simulated(wrong, sentence):
    with pytest.raises(CourseError, match=sentence) as error:
        canary.simulate(**{"plan": plan(), "new": GOOD, "old": GOOD, "rollouts": 5} | wrong)
    assert "\n" not in str(error.value)


def test_shares_that_are_none():
    with pytest.raises(CourseError, match="1.5 does not"):
        canary.as_corrected(1.5, 2)
    with pytest.raises(CourseError, match="more than 0, not -2.0"):
        canary.as_corrected(0.5, -2)
