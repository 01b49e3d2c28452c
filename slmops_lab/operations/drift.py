"""Has what comes in changed?"""

from types import SimpleNamespace

from slmops_lab.errors import CourseError


def compare(reference, window, alpha=0.05):
    """Compare what comes in now with what came in before, column by column.

    reference, window: DataFrames with the same columns, a row per message. Numbers are compared by the
    Kolmogorov-Smirnov test, everything else by the chi-squared test, rare values together and missing
    ones as a value of their own; p-values are multiplied by the number of columns (Bonferroni), so that
    all of them together raise a false alarm with a probability of at most about alpha. Returns a
    DataFrame, a row per column: test, statistic, p,
    drifted. The set-up follows Rabanser et al. 2019, https://arxiv.org/abs/1810.11953.
    Fewer than 5 rows on a side cannot tell: p is 1. Raises CourseError where the columns differ.
    """
    import pandas  # here, so that an endpoint does not carry it
    from scipy import stats

    if set(reference.columns) != set(window.columns):
        raise CourseError("To find drift, give two tables with the same columns.")
    rows = {}
    for column in reference.columns:
        before, now = reference[column], window[column]
        if min(len(before), len(now)) < 5:
            rows[column] = {"test": "too few rows", "statistic": 0.0, "p": 1.0, "drifted": False}
            continue
        numbers = pandas.api.types.is_numeric_dtype(before) and not pandas.api.types.is_bool_dtype(before)
        if numbers and not before.isna().any() and not now.isna().any():
            name, result = "Kolmogorov-Smirnov", stats.ks_2samp(before, now)
        else:  # numbers of which some are missing: whether they are is what changes first
            values = [part.isna() if numbers else part.fillna("missing") for part in (before, now)]
            name, result = "chi-squared", _chi_squared(*(part.astype(str) for part in values))
        p = min(1.0, float(result.pvalue) * len(reference.columns))
        rows[column] = {"test": name, "statistic": float(result.statistic), "p": p, "drifted": p < alpha}
    return pandas.DataFrame.from_dict(rows, orient="index")


def _chi_squared(before, now):
    import pandas
    from scipy import stats

    counts = pandas.DataFrame({"before": before.value_counts(), "now": now.value_counts()}).fillna(0)
    expected = counts.sum(axis=1) * min(len(before), len(now)) / (len(before) + len(now))
    rare = expected < 5  # below that the test's distribution is not the one it assumes
    pooled = pandas.concat([counts[~rare], counts[rare].sum().to_frame("rare").T])
    pooled = pooled[pooled.sum(axis=1) > 0]
    if len(pooled) < 2:
        return SimpleNamespace(statistic=0.0, pvalue=1.0)
    return stats.chi2_contingency(pooled)
