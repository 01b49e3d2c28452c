"""Has what comes in changed?

Looks at each column by itself: a change of how two columns go together is not seen, and neither is whether a
change does any harm. A look at thousands of rows costs milliseconds.
"""

from slmops_lab.errors import CourseError

FEW = 5  # rows or values on a side, below which nothing can be told


def compare(reference, window, alpha=0.05):
    """Compare what comes in now with what came in before, column by column.

    reference, window: DataFrames with the same columns, a row per message. Numbers and times are compared by the
    Kolmogorov-Smirnov test, missing ones left out (infinite ones are kept), everything else by the chi-squared
    test, rare values together and missing ones as a value of their own. Where numbers are missing on a side,
    Fisher's exact test asks whether more of them are than before. Every p-value is multiplied by the number of tests
    (Bonferroni), so that all of them together raise a false alarm with a probability of at most about alpha.
    Returns a DataFrame, a row per column: of the test with the smallest p its name, statistic and p, and
    drifted. The set-up follows Rabanser et al. 2019, https://arxiv.org/abs/1810.11953.
    Fewer than 5 rows on a side cannot tell: p is 1. Raises CourseError where the columns differ.
    """
    import pandas  # here, so that an endpoint does not carry it

    names = reference.columns
    if not len(names) or not names.is_unique or sorted(map(str, names)) != sorted(map(str, window.columns)):
        raise CourseError("To find drift, give two tables with the same columns, each once.")
    tests = {column: _tests(reference[column], window[column]) for column in names}
    looks, rows = max(1, sum(map(len, tests.values()))), {}
    for column, done in tests.items():
        test, statistic, p = min(done, key=lambda one: one[2], default=("too few rows", 0.0, 1.0))
        p = min(1.0, float(p) * looks)
        rows[column] = {"test": test, "statistic": float(statistic), "p": p, "drifted": p < alpha}
    return pandas.DataFrame.from_dict(rows, orient="index")


def _tests(before, now):
    """[(name, statistic, p)] of one column."""
    from scipy import stats

    if min(len(before), len(now)) < FEW:
        return []
    old, new = _numbers(before), _numbers(now)
    if old is None or new is None:
        return [("chi-squared", *_chi_squared(before, now))]
    tests = []
    if min(len(old), len(new)) >= FEW:
        tests.append(("Kolmogorov-Smirnov", *stats.ks_2samp(old, new)))
    gone = [int(part.isna().sum()) for part in (before, now)]
    if any(gone):
        table = [[gone[0], len(old)], [gone[1], len(new)]]
        tests.append(("missing values", abs(now.isna().mean() - before.isna().mean()), stats.fisher_exact(table)[1]))
    return tests


def _numbers(column):
    """The values that are there, as floats; None where they are of another kind."""
    import pandas

    there = column.dropna().infer_objects()
    kind = pandas.api.types
    if kind.is_timedelta64_dtype(there.dtype):
        return there.dt.total_seconds().to_numpy()
    if kind.is_datetime64_any_dtype(there.dtype):
        return pandas.to_datetime(there, utc=True).dt.as_unit("ns").astype("int64").to_numpy(float)
    if len(there) and (not kind.is_numeric_dtype(there.dtype) or kind.is_bool_dtype(there.dtype)):
        return None
    return there.to_numpy(float)


def _chi_squared(before, now):
    import pandas
    from scipy import stats

    words = [("=" + part.astype(str)).where(part.notna(), "missing") for part in (before, now)]
    counts = pandas.DataFrame({side: part.value_counts() for side, part in enumerate(words)}).fillna(0)
    expected = counts.sum(axis=1) * min(len(before), len(now)) / (len(before) + len(now))
    rare = expected < 5  # below that the test's distribution is not the one it assumes
    pooled = pandas.concat([counts[~rare], counts[rare].sum().to_frame("rare").T])
    pooled = pooled[pooled.sum(axis=1) > 0]
    return stats.chi2_contingency(pooled)[:2] if len(pooled) > 1 else (0.0, 1.0)
