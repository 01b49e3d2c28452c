"""Is the new version worse? How many judged answers tell, when to stop before that, and how often either goes wrong.

Answers are taken as independent draws: people who correct one answer after the other of the same message, or only those
that annoy them (see `as_corrected`), break that. A test costs microseconds, 10,000 simulated rollouts a second or two.
"""

import math

import numpy
import pandas
from scipy.stats import norm

from slmops_lab.errors import CourseError
from slmops_lab.evaluation import intervals


def messages_needed(before, drop, alpha=0.05, power=0.9, ratio=1.0):
    """Judged answers of the new version that show a drop of the share of right ones, from `before`, by `drop`.

    ratio: answers of the old version for each of the new one. 1 is groups of equal size; a canary of 2 % of the fleet
    has 49, and needs little more than half as many of its own. Two proportions, one-sided, normal approximation
    without continuity correction (Fleiss, Tytun and Ury 1980, https://doi.org/10.2307/2529990; of equal groups Fleiss,
    Levin and Paik 2003, chapter 4). Raises CourseError where there is no such drop, no answer of the old version, or
    alpha and power leave nothing to plan.
    """
    if not 0 < alpha < power < 1:
        raise CourseError(f"Give 0 < alpha < power < 1, not an alpha of {alpha:g} and a power of {power:g}.")
    if not 0 < drop < before < 1:
        raise CourseError(f"A share of {before:g} cannot drop by {drop:g}: give 0 < drop < before < 1.")
    if not 0 < ratio < math.inf:
        raise CourseError(f"Give the old version's answers for each of the new one, more than 0, not {ratio:g}.")
    after = before - drop
    middle = (after + ratio * before) / (1 + ratio)  # the share of all answers together
    sure, found = norm.ppf(1 - alpha), norm.ppf(power)
    spread = sure * math.sqrt((1 + 1 / ratio) * middle * (1 - middle))
    spread += found * math.sqrt(after * (1 - after) + before * (1 - before) / ratio)
    return math.ceil((spread / drop) ** 2)


def p_worse(new_right, new_all, old_right, old_all):
    """p-value of 'the new version is not worse', two proportions, one-sided; 1.0 without any answers.

    Counts of right and of all answers of either version, numbers or arrays; pooled variance, normal approximation (as
    in `messages_needed`). It keeps its promise at ONE look that was planned before; for many see `evidence`.
    Raises CourseError where more are right than there are.
    """
    new_right, new_all, old_right, old_all = counts = _counts(new_right, new_all, old_right, old_all)
    with numpy.errstate(divide="ignore", invalid="ignore"):
        pooled = (new_right + old_right) / (new_all + old_all)
        spread = numpy.sqrt(pooled * (1 - pooled) * (1 / new_all + 1 / old_all))
        p = norm.cdf((new_right / new_all - old_right / old_all) / spread)
    p = numpy.where(numpy.isnan(p), 1.0, p)
    return p if counts.ndim > 1 else float(p)


def evidence(past, fresh):
    """How much more the answers since the last look speak for 'worse' than for any 'not worse': a natural logarithm.

    past, fresh: (new right, new all, old right, old all), numbers or arrays, counted until the last look and since
    then. From the past ones we guess how often each version is right; the likelihood of the fresh ones under this guess
    is divided by that under the best guess in which both are equally often right. Where the new version seems no worse,
    nothing is claimed: 0.

    That ratio is an e-value (Turner, Ly and Gruenwald 2024, https://doi.org/10.1016/j.jspi.2023.106116), exact for any
    number of answers: its mean is at most 1 for every pair of shares with the new version not worse, because the mean's
    logarithm is concave in the two shares, is 0 where both are the best common one, and rises from there only
    towards 'worse'. So, by Ville's inequality, the sum over all looks reaches log(1 / a) with a probability of at
    most a, however often one looks, if the new version is worse in none of them; messages may become harder for
    both. A look that has answers of one version only adds nothing. Raises CourseError where more are right
    than there are.
    """
    past, fresh = _counts(*past), _counts(*fresh)
    old = (past[2] + 0.5) / (past[3] + 1)  # as after half a right and half a wrong answer: never certain
    new = numpy.minimum((past[0] + 0.5) / (past[1] + 1), old)
    alike = old + (new - old) * fresh[1] / numpy.maximum(1, fresh[1] + fresh[3])
    told = sum(
        right * numpy.log(guess / alike) + (answers - right) * numpy.log((1 - guess) / (1 - alike))
        for guess, right, answers in ((new, fresh[0], fresh[1]), (old, fresh[2], fresh[3]))
    )
    return told if numpy.ndim(told) else float(told)


def as_corrected(share, wrong_more):
    """The share of right answers among the judged ones, where people judge wrong ones more often: a float or an array.

    share: of right ones among all answers. wrong_more: how many times as likely a wrong answer is to be judged as a
    right one; 1 is a random sample. Assumes that nothing but being right or wrong decides who is judged. The odds of
    'right' are divided by wrong_more, so two versions that are judged alike keep their order and the ratio of their
    odds (Cornfield 1951, https://doi.org/10.1093/jnci/11.6.1269), but neither their shares nor the points between them.
    Judged differently they can change places: only a random sample that is judged whole tells. Raises CourseError for
    what is no share or no such factor.
    """
    share, wrong_more = numpy.asarray(share, float), numpy.asarray(wrong_more, float)
    if not ((share >= 0) & (share <= 1)).all():
        raise CourseError(f"A share of right answers lies between 0 and 1: {share} does not.")
    if not ((wrong_more > 0) & (wrong_more < math.inf)).all():
        raise CourseError(f"Give how many times likelier a wrong answer is judged, more than 0, not {wrong_more}.")
    seen = share / (share + wrong_more * (1 - share))
    return seen if seen.ndim else float(seen)


def simulate(plan, new, old, every=25, wrong_more=(1.0, 1.0), rollouts=10_000, seed=0):
    """Many rollouts of one version: a DataFrame, a row per rollout.

    plan: a `rollout.Plan`; its groups, alarm and looks at the answers are those of `rollout.Controller`. new, old:
    shares of right answers. every: judged answers of the new version between two looks of the canary; later groups are
    larger and get more. Either version is judged as often as it has devices; a group without `messages` passes at
    once. wrong_more: of the new and of the old version, see `as_corrected`. Columns: stopped (was it), by ('alarm',
    'look' of a group, or ''), answers (judged ones of the new version until it was stopped or done). SIMULATED:
    nothing fails but answers. Raises CourseError where that is no such rollout.
    """
    if len(wrong_more) != 2 or every < 1 or rollouts < 1 or not any(group.messages for group in plan.groups):
        raise CourseError(
            "To simulate, give a plan with messages, every and rollouts from 1, and wrong_more of new and old."
        )
    rates, rng = as_corrected([new, old], wrong_more), numpy.random.default_rng(seed)
    total, opened, told = numpy.zeros((4, rollouts)), 0, numpy.zeros(rollouts)
    by, answers = numpy.full(rollouts, "", dtype="U5"), numpy.zeros(rollouts, int)
    limit = -math.log(plan.alarm) if plan.alarm else math.inf
    running = numpy.ones(rollouts, bool)
    for size, others, closes in _looks(plan, every):
        right = rng.binomial(size, rates[0], rollouts), rng.binomial(others, rates[1], rollouts)
        fresh = _counts(right[0], size, right[1], others)
        told += evidence(total, fresh) if plan.alarm else 0.0
        total += fresh
        answers[running] = total[1, 0]
        for name, found in (("alarm", told >= limit), ("look", closes and _failed(total, opened, plan.alpha))):
            by[running & found] = name
            running &= ~numpy.asarray(found)
        if closes:
            opened = total[:2].copy()
    return pandas.DataFrame({"stopped": by != "", "by": by, "answers": answers})


def error_rates(plans, old, versions, **more):
    """How often each plan stops each version, and after how many answers: a DataFrame, a row per plan and version.

    plans: {name: `rollout.Plan`}, such as one with and one without an alarm. versions: {name: share of right answers}.
    Everything else as in `simulate`, which also says what is raised. Columns: stopped (share of the rollouts: of a
    version as good as the old one the false alarms, of a worse one the power), low and high (its 95 % interval), by
    alarm (share), and the 10 %, 50 % and 90 % quantiles of the new version's judged answers until the end.
    """
    rows = {}
    for plan_name, plan in plans.items():
        for version, new in versions.items():
            runs = simulate(plan, new, old, **more)
            stopped = intervals.proportion(runs["stopped"])
            row = {"stopped": stopped["share"], "low": stopped["low"], "high": stopped["high"]}
            row["by alarm"] = (runs["by"] == "alarm").mean()
            row |= {f"answers, {100 * q:.0f} %": int(runs["answers"].quantile(q)) for q in (0.1, 0.5, 0.9)}
            rows[plan_name, version] = row
    return pandas.DataFrame.from_dict(rows, orient="index").rename_axis(["plan", "version"])


def _looks(plan, every):
    """(fresh answers of the new, of the old version, whether a group's own look follows) of each look of a rollout."""
    share, old_all, due = 0.0, 0, 0.0  # due: answers of the old version, before they are rounded
    for group in plan.groups:
        share += group.share
        step, seen = max(1, round(every * share / plan.groups[0].share)), 0
        while min(seen, old_all) < group.messages:
            if seen >= group.messages and share > 1 - 1e-9:
                raise CourseError(f"{group.name} leaves no device on the old version to compare with.")
            size = min(step, group.messages - seen) if seen < group.messages else step
            due += size * max(0.0, 1 / share - 1)
            others = round(due) - old_all
            seen, old_all = seen + size, old_all + others
            yield size, others, min(seen, old_all) >= group.messages


def _failed(total, opened, alpha):
    """Of each rollout: does a group's own look say 'worse'? Its answers are those since it opened."""
    return p_worse(*(total[:2] - opened), *total[2:]) < alpha


def _counts(*counts):
    """The four as one array (4, ...) of floats."""
    counts = numpy.array(numpy.broadcast_arrays(*counts), float)
    wrong = ~((counts[::2] >= 0) & (counts[::2] <= counts[1::2]) & (counts < math.inf)[1::2]).all(axis=0)
    if wrong.any():
        new_right, new_all, old_right, old_all = counts.reshape(4, -1)[:, wrong.argmax()]
        raise CourseError(
            f"Right answers are some of all answers, not {new_right:g} of {new_all:g}, {old_right:g} of {old_all:g}."
        )
    return counts
