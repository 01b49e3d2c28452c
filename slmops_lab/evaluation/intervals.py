"""How sure a score is: 95 % intervals and paired comparisons."""

import numpy
import pandas
from scipy import stats


def proportion(successes):
    """{'share', 'low', 'high'} with the 95 % Wilson interval (Wilson 1927, scipy's).

    Of no records nothing is known: share nan, interval from 0 to 1.
    """
    hits = numpy.asarray(successes, bool)
    if not len(hits):
        return {"share": numpy.nan, "low": 0.0, "high": 1.0}
    interval = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return {"share": hits.mean(), "low": interval.low, "high": interval.high}


def ratio(ours, theirs, seed=0):
    """Mean of ours over mean of theirs on the same records, with a paired 95 % bootstrap interval.

    Both are (records,) arrays; records are resampled together (scipy.stats.bootstrap, percentile).
    Returns {'ratio', 'low', 'high'}.
    """
    ours, theirs = numpy.asarray(ours, float), numpy.asarray(theirs, float)

    def statistic(a, b, axis):
        return a.mean(axis) / numpy.maximum(b.mean(axis), 1e-12)

    result = stats.bootstrap(
        (ours, theirs),
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=2000,
        method="percentile",
        random_state=numpy.random.default_rng(seed),
    )
    interval = result.confidence_interval
    return {"ratio": statistic(ours, theirs, 0), "low": interval.low, "high": interval.high}


def difference(ours, theirs, seed=0):
    """Mean of ours minus mean of theirs, paired as in `ratio`. Returns {'points', 'low', 'high'}."""
    gap = numpy.asarray(ours, float) - numpy.asarray(theirs, float)
    if numpy.ptp(gap) == 0:
        return {"points": gap[0], "low": gap[0], "high": gap[0]}
    result = stats.bootstrap(
        (gap,),
        numpy.mean,
        vectorized=True,
        n_resamples=2000,
        method="percentile",
        random_state=numpy.random.default_rng(seed),
    )
    interval = result.confidence_interval
    return {"points": gap.mean(), "low": interval.low, "high": interval.high}


def paired_test(ours, theirs):
    """Do two models differ on the same records? McNemar's exact test (McNemar 1947), two-sided.

    Both are (records,) booleans: right or wrong. Returns {'only_ours', 'only_theirs', 'p'}: how many
    records only one of them gets right, and the probability of a split at least as uneven if both
    were equally good.
    """
    ours, theirs = numpy.asarray(ours, bool), numpy.asarray(theirs, bool)
    only_ours, only_theirs = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    p = stats.binomtest(only_ours, only_ours + only_theirs).pvalue if only_ours + only_theirs else 1.0
    return {"only_ours": only_ours, "only_theirs": only_theirs, "p": p}


def macro_f1(pairs, seed=0):
    """F1 of each class of `outcomes`, averaged over classes (scikit-learn's), with a 95 % bootstrap interval.

    Rare classes count as much as common ones. Returns {'f1', 'low', 'high'}.
    """
    from sklearn.metrics import f1_score

    classes = sorted(pairs["truth"].unique())
    truth, said = (pandas.Index(classes).get_indexer(pairs[column]) for column in ("truth", "said"))

    def statistic(rows):
        return f1_score(truth[rows], said[rows], labels=range(len(classes)), average="macro", zero_division=0)

    rows = numpy.arange(len(pairs))
    drawn = numpy.random.default_rng(seed)
    spread = [statistic(drawn.choice(rows, len(rows))) for _ in range(500)]
    low, high = numpy.percentile(spread, [2.5, 97.5])
    return {"f1": statistic(rows), "low": low, "high": high}
