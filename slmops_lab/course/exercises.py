"""Checks for the exercises: they tell wrong from right, and why.

They never raise: whatever a learner's value does is told in one sentence. Importing this module in a notebook sets
IPython's handler for NameError, so that a check of a name without a value is one sentence, too.
"""

import inspect
import reprlib
import textwrap

import IPython

_passed = {}
_short = reprlib.Repr()
_short.maxother = _short.maxstring = 80


def check(name, value, test, hint, why, wanted=None):
    """Say whether an exercise's result is right.

    value: the learner's result, `...` while untried. test: function value -> bool; an exception counts as wrong,
    but for a NameError: then a cell has not been run. hint is shown where the result is wrong, beside what was found
    and wanted (a right value, or words for it), why where it is right.
    """
    _passed[name] = False
    if value is ...:
        print(f"Exercise {name}: not tried yet. Replace the ... above and run both cells.")
        return
    found = f"found {_told(value)} ({type(value).__name__})"
    found += "" if wanted is None else f", wanted {wanted}"
    try:
        _passed[name] = bool(test(value))
    except NameError as error:
        print(f"Exercise {name}: cannot be checked yet: {error}. Run the cells that assign it, then both cells again.")
        return
    except Exception as error:  # a learner's value may be of any type
        found += f"; the check ended with {type(error).__name__}: {_one_line(error)}"
    print(f"Exercise {name}: right. {why}" if _passed[name] else f"Exercise {name}: not yet: {found}. {hint}")


def passed(name):
    """Whether the last `check` of this exercise found it right."""
    return _passed.get(name, False)


def _told(value):
    """What a value is, on one line: of a function its name, not where it lies in memory."""
    named = getattr(value, "__name__", None) if inspect.isroutine(value) else None
    return named if isinstance(named, str) else _one_line(_short.repr(value))


def _one_line(value):
    return textwrap.shorten(str(value), 90, placeholder=" ...")


def _one_sentence(shell, kind, error, trace, tb_offset=None):
    """IPython's handler for NameError: a sentence in the cell of a check, the usual traceback elsewhere."""
    if "check(" in shell.user_ns["In"][-1]:
        sentence = f"{error}: run the cell above that assigns it, then this one again."
        error._render_traceback_ = lambda: [sentence[0].upper() + sentence[1:]]
    shell.showtraceback((kind, error, trace), tb_offset=tb_offset)


if shell := IPython.get_ipython():
    shell.set_custom_exc((NameError,), _one_sentence)
