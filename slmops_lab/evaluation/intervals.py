"""How sure a score is: 95 % intervals and paired comparisons.

The intervals claim no certainty at 0 or 100 %, nor with few records. They take the records as independent draws of
what will be asked; how far a test set is from that they cannot know. Each costs milliseconds, `macro_f1` about a
second for 150 classes.
"""

import math

import numpy
import pandas
from scipy import stats

from slmops_lab.errors import CourseError

SURE = 0.975  # of each side
Z = stats.norm.ppf(SURE)


def proportion(successes):
    """{'share', 'low', 'high'} with the 95 % Wilson interval (Wilson 1927, scipy's).

    successes: (records,) booleans. Of no records nothing is known: share nan, interval from 0 to 1.
    """
    hits = _values(successes, judged=True)
    if not len(hits):
        return {"share": numpy.nan, "low": 0.0, "high": 1.0}
    interval = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return {"share": hits.mean(), "low": interval.low, "high": interval.high}


def ratio(ours, theirs, seed=0):
    """Mean of ours over mean of theirs on the same records: {'ratio', 'low', 'high'}.

    Both are (records,) arrays. Right or wrong (booleans): the hybrid Wilson interval of Bonett and
    Price 2006 (https://doi.org/10.1002/sim.2440). Positive measurements, such as times: a paired bootstrap, drawn with
    `seed`. Where theirs are never right the upper end is infinite, and so it is for fewer than 5 measurements.
    Raises CourseError where the two are not of the same records, or a value is missing.
    """
    ours, theirs, judged = _pairs(ours, theirs)
    with numpy.errstate(divide="ignore", invalid="ignore"):
        middle = ours.sum() / theirs.sum()
    if judged:
        low, high = _ratio_of_shares((ours * theirs).sum(), ours.sum(), theirs.sum())
    else:
        low, high = _resampled(lambda a, b, axis: a.mean(axis) / b.mean(axis), (ours, theirs), seed) or (0.0, math.inf)
    return {"ratio": float(middle), "low": float(low), "high": float(high)}


def _ratio_of_shares(both, ours, theirs):
    """Of the records that one of the two gets right, as `ratio` says."""
    any_ = ours + theirs - both
    if not any_:
        return 0.0, math.inf
    a, b = ours + 1, theirs + 1
    spread = math.sqrt((ours + theirs - 2 * both + 2) / (a * b))
    spread /= math.sqrt((1 - a / (any_ + 2)) / a) + math.sqrt((1 - b / (any_ + 2)) / b)
    (low, high), (their_low, their_high) = (_wilson(right / any_, any_, Z * spread) for right in (ours, theirs))
    return low / their_high, high / their_low if their_low > 0 else math.inf


def difference(ours, theirs, seed=0):
    """Mean of ours minus mean of theirs, paired as in `ratio`: {'points', 'low', 'high'}.

    Right or wrong: the adjusted Wald interval of Bonett and Price 2012 (https://doi.org/10.3102/1076998611411915). It
    counts one record more for either side, so few records without a disagreement prove nothing. Measurements: a
    paired bootstrap, without bounds for fewer than 5. Raises as `ratio` does.
    """
    ours, theirs, judged = _pairs(ours, theirs)
    gap, records = ours - theirs, len(ours)
    if judged:
        won, lost = ((gap == 1).sum() + 1) / (records + 2), ((gap == -1).sum() + 1) / (records + 2)
        half = Z * math.sqrt((won + lost - (won - lost) ** 2) / (records + 2))
        low, high = max(-1.0, won - lost - half), min(1.0, won - lost + half)
    else:
        low, high = _resampled(lambda gap, axis: gap.mean(axis), (gap,), seed) or (-math.inf, math.inf)
    return {"points": float(gap.mean()) if records else math.nan, "low": float(low), "high": float(high)}


def paired_test(ours, theirs):
    """Do two models differ on the same records? McNemar's exact test (McNemar 1947), two-sided.

    Both are (records,) booleans: right or wrong. Returns {'only_ours', 'only_theirs', 'p'}: how many
    records only one of them gets right, and the probability of a split at least as uneven if both
    were equally good.
    """
    gap = numpy.subtract(*_pairs(ours, theirs, judged=True)[:2])
    only_ours, only_theirs = int((gap > 0).sum()), int((gap < 0).sum())
    p = stats.binomtest(only_ours, only_ours + only_theirs).pvalue if only_ours + only_theirs else 1.0
    return {"only_ours": only_ours, "only_theirs": only_theirs, "p": p}


def macro_f1(pairs, seed=0):
    """F1 of each true class of `outcomes`, averaged over classes, with a 95 % interval: {'f1', 'low', 'high'}.

    pairs: a DataFrame of the columns 'truth' and 'said'. Rare classes count as much as common ones.
    Confusion matrices are drawn from the Dirichlet posterior (Goutte and Gaussier 2005,
    https://doi.org/10.1007/978-3-540-31865-1_25). Its prior is worth one record, half right and half wrong, so no
    class disappears and no matrix is certain. The variance of their scores says how many records a Wilson interval may
    rest on, as in surveys (Korn and Graubard 1998, Survey Methodology 24:193); their mean tells the bias, which is
    taken off. Student's t with the records per class as degrees of freedom widens it. In simulations it covers
    the true score about 93 % of the time or more, and 90 % where a class has 2 records.
    """
    classes = sorted(pairs["truth"].unique())
    if not classes:
        return {"f1": math.nan, "low": 0.0, "high": 1.0}
    truth, said = (pandas.Index(classes).get_indexer(pairs[column]) for column in ("truth", "said"))
    many = len(classes)
    counts, prior = numpy.zeros((many, many + 1)), numpy.full((many, many + 1), 0.5 / many**2)
    numpy.add.at(counts, (truth, said), 1)  # -1, the last column: what is none of the classes
    numpy.fill_diagonal(prior, 0.5 / many)
    rng = numpy.random.default_rng(seed)
    drawn = [_f1(rng.dirichlet((counts + prior).ravel()).reshape(prior.shape)) for _ in range(1000)]
    middle, found = numpy.mean(drawn), _f1(counts)
    records = middle * (1 - middle) / numpy.var(drawn)
    centre = numpy.clip(found + _f1(counts + prior) - middle, 0, 1)
    low, high = _wilson(centre, records, stats.t.ppf(SURE, max(3, len(pairs) / many)))
    return {"f1": float(found), "low": float(min(low, found)), "high": float(max(high, found))}


def _f1(matrix):
    return (2 * numpy.diagonal(matrix) / (matrix.sum(axis=1) + matrix[:, :-1].sum(axis=0))).mean()


def _wilson(share, records, z):
    """Ends of the score interval of a share; records need not be whole, z is the normal's quantile or wider."""
    half = z * math.sqrt(share * (1 - share) / records + (z / records) ** 2 / 4)
    middle, whole = share + z**2 / records / 2, 1 + z**2 / records
    return max(0.0, middle - half) / whole, min(whole, middle + half) / whole


def _resampled(statistic, samples, seed):
    """Ends of a bootstrap's percentile interval, expanded for few records (Hesterberg 2015, The American
    Statistician 69:371), None of fewer than 5 records."""
    records = len(samples[0])
    if records < 5:
        return None
    level = 2 * stats.norm.cdf(math.sqrt(records / (records - 1)) * stats.t.ppf(SURE, records - 1)) - 1
    how = {"paired": True, "vectorized": True, "n_resamples": 2000, "method": "percentile", "confidence_level": level}
    return stats.bootstrap(samples, statistic, **how, rng=numpy.random.default_rng(seed)).confidence_interval


def _values(values, judged=False):
    try:
        numbers = numpy.asarray(values, float)
    except (TypeError, ValueError):
        numbers = numpy.array([math.nan])
    if numbers.ndim != 1 or not numpy.isfinite(numbers).all() or (judged and not _are_judged(numbers)):
        what = "right or wrong (True or False)" if judged else "a number, or right or wrong,"
        raise CourseError(f"A comparison needs {what} for each record: a value is missing or is something else.")
    return numbers


def _are_judged(numbers):
    return bool(numpy.isin(numbers, (0, 1)).all())


def _pairs(ours, theirs, judged=False):
    """Both as (records,) arrays, and whether they hold nothing but right and wrong."""
    ours, theirs = _values(ours, judged), _values(theirs, judged)
    if len(ours) != len(theirs):
        raise CourseError(f"Compare on the same records: here are {len(ours)} results against {len(theirs)}.")
    return ours, theirs, _are_judged(ours) and _are_judged(theirs)
