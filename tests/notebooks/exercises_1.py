"""The checks of chapter 1's exercises: they take the solution and refuse what looks right and is not.

Each check is the cell of the notebook, run on small stand-ins for what the chapter has computed before; nothing is
trained and no model is loaded.
"""

from types import SimpleNamespace

import numpy
import sympy
import torch
from exercise_cells import Chapter


def tiny():
    """What the checks look at of a model: one matrix of one layer."""
    torch.manual_seed(0)
    down = torch.nn.Linear(64, 8, bias=False)
    return SimpleNamespace(model=SimpleNamespace(layers=[SimpleNamespace(mlp=SimpleNamespace(down_proj=down))]))


def change_matrices(model, change):
    other = tiny()
    matrix = model.model.layers[0].mlp.down_proj.weight.detach()
    other.model.layers[0].mlp.down_proj.weight = torch.nn.Parameter(change(matrix))
    return other


def stand_ins():
    """Names that the chapter has assigned where an exercise begins."""
    truth = ["refund", "exchange", "refund", "late", "cancel"]
    names = "messages read written price_read price_written years device watts kwh"
    messages, t_read, t_written, p_read, p_written, years, price, watts, kwh = sympy.symbols(names)
    cloud = messages * 365 * years * (t_read * p_read + t_written * p_written) / 1_000_000
    owned = price + years * 365 * 24 * watts / 1000 * kwh
    assumed = {t_read: 190, t_written: 22, years: 3, price: 80, watts: 12, kwh: 0.29}
    cheap, older = {p_read: 0.15, p_written: 0.6}, {p_read: 0.27, p_written: 1.10}

    def break_even(prices):
        return float(sympy.solve((cloud - owned).subs({**assumed, **prices}), messages)[0])

    return locals() | {
        "desk": SimpleNamespace(test=[{"answer": {"intent": value}} for value in truth]),
        "guesses": [{"intent": value} for value in ["late", "wrong", "late", "lost", "refund"]],
        "field": "intent",
        "missed": [0, 1, 2, 3, 4],
        "torch": torch,
        "numpy": numpy,
        "sympy": sympy,
        "model": tiny(),
        "base": None,
        "change_matrices": change_matrices,
        "judge_model": lambda model: None,
        "perplexity_ratio": lambda judged, other: {},
    }


CHAPTER = Chapter("01_introduction", stand_ins)


RIGHT = {
    "1.1": ["my_labels = ('refund', 'exchange', 'refund', 'late', 'lost')"],  # one message may be disputed
    "1.2": ["memory_for = lambda p, b, n, w, t, u: p * b // 8 + 4 * n * w * t * u"],
    "1.4": ["refused = lambda f, m: {n for n in m if not (f.get(n) is not None and f[n] <= m[n])}"],
}

ROUNDING = """
def rounded(weight, bits, block=32):
    steps = 2 ** (bits - 1) - 1
    blocks = weight.reshape(-1, block)
    scale = blocks.abs().amax(1, keepdim=True) / steps
    return (blocks / scale).round().mul(scale).reshape(weight.shape)
three_bits = change_matrices(model, lambda weight: rounded(weight, 3))
"""

WRONG = {
    "1.1": [
        "my_labels = [guess['intent'] for guess in guesses]",  # what counting words said
        "my_labels = ['refund'] * 5",
        "my_labels = ['refund', 'exchange', 'refund']",
        "my_labels = ['refund', 'exchange', 'refund', 'late', 'cancel', 'late']",
        "my_labels = sorted(record['answer']['intent'] for record in desk.test)",
        "my_labels = 'refund'",
        "my_labels = []",
    ],
    "1.2": [
        "memory_for = lambda p, b, n, w, t, u: max(p * b / 8, 4 * n * w * t * u)",
        "memory_for = lambda p, b, n, w, t, u: p * b / 8 + 4 * n * w * t",  # one user
        "memory_for = lambda p, b, n, w, t, u: u * (p * b / 8 + 4 * n * w * t)",  # weights for each user
        "memory_for = lambda p, b, n, w, t, u: p * b / 8 + 2 * n * w * t * u",  # keys without values
        "memory_for = lambda p, b, n, w, t, u: p * b / 8 + 2 * b / 8 * n * w * t * u",  # a cache in the weights' bits
        "memory_for = lambda p, b, n, w, t, u: p * b + 4 * n * w * t * u",
        "memory_for = lambda p, b, n, w, t, u: p * 4 + 4 * n * w * t * u",
        "memory_for = 90_850_000",
    ],
    "1.3": [
        ROUNDING.replace("(-1, block)", "(1, -1)"),  # one scale for all
        ROUNDING.replace(".reshape(-1, block)", ""),  # one for each row
        ROUNDING.replace(".round()", ".trunc()"),
        ROUNDING.replace(".round()", ".floor()"),
        ROUNDING.replace(".round()", ""),
        ROUNDING.replace("2 ** (bits - 1) - 1", "7"),
        ROUNDING.replace("2 ** (bits - 1) - 1", "2 ** bits - 1"),
        ROUNDING.replace(".abs().amax", ".amax"),  # a large negative weight is cut
        ROUNDING.replace(".mul(scale)", ""),  # whole numbers, not read back
        ROUNDING.replace(".reshape(weight.shape)", ""),
        ROUNDING.replace("rounded(weight, 3)", "weight"),  # a copy that nobody changed
        ROUNDING.replace("rounded(weight, 3)", "rounded(weight, 4)"),
        ROUNDING.replace("three_bits =", "four_bits ="),
        "three_bits = model",
    ],
    "1.4": [
        "refused = lambda facts, at_most: [n for n in at_most if facts[n] > at_most[n]]",
        "refused = lambda facts, at_most: [n for n in at_most if facts.get(n, 0) > at_most[n]]",
        "refused = lambda facts, at_most: [n for n in at_most if (facts.get(n) or 0) > at_most[n]]",
        "refused = lambda facts, at_most: [n for n in at_most if n not in facts or facts[n] > at_most[n]]",
        "refused = lambda facts, at_most: [n for n in at_most if not (facts.get(n) or 0) <= at_most[n]]",
        "refused = lambda facts, at_most: [n for n in at_most if not (facts.get(n) or 1e9) < at_most[n]]",
        "refused = lambda facts, at_most: [n for n in facts if facts[n] > at_most.get(n, 0)]",
        "refused = lambda facts, at_most: all((facts.get(n) or 1e9) <= at_most[n] for n in at_most)",
        "refused = lambda facts, at_most: list(at_most)",
        "refused = lambda facts, at_most: []",
        "refused = ['p95_ms']",
    ],
    "1.5": [
        "messages_a_day = break_even(cheap)",
        "messages_a_day = break_even({**cheap, price: 0})",
        "messages_a_day = break_even({**cheap, watts: 3})",
        "messages_a_day = break_even({**cheap, price: 0, watts: 15})",  # three watts more than assumed
        "messages_a_day = break_even({**older, price: 0, watts: 3})",
        "messages_a_day = break_even({price: 0, watts: 3, **cheap}) * 3",  # in three years
        "messages_a_day = 300",
        "messages_a_day = 0",
        "messages_a_day = cloud - owned",
    ],
}
