"""Answers to chapter 1's exercises: what its checks take, and what looks right to them and is not."""

from slmops_lab.course.stand_ins.chapter_1 import CHAPTER  # noqa: F401

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
