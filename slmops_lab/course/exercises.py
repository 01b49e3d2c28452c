"""Checks for the exercises: they tell wrong from right, and why."""

_passed = {}


def check(name, value, test, hint, why):
    """Say whether an exercise's result is right.

    value: the learner's result, `...` while untried. test: function value -> bool; an exception
    counts as wrong. hint is shown where the result is wrong, why where it is right.
    """
    tried = value is not ...
    try:
        _passed[name] = bool(tried and test(value))
    except Exception:  # a learner's value may be of any type
        _passed[name] = False
    if _passed[name]:
        print(f"Exercise {name}: right. {why}")
    elif tried:
        print(f"Exercise {name}: not yet. {hint}")
    else:
        print(f"Exercise {name}: not tried yet. Replace the ... above and run both cells.")


def passed(name):
    """Whether the last `check` of this exercise found it right."""
    return _passed.get(name, False)
