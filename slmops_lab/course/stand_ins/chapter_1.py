"""What the exercises of chapter 1 find in its place: small, and nothing is trained, served or loaded."""

from types import SimpleNamespace

import numpy
import sympy
import torch

from slmops_lab.course.stand_ins.cells import Chapter


def tiny():
    """What the checks look at of a model: one matrix of one layer."""
    torch.manual_seed(0)
    down = torch.nn.Linear(64, 8, bias=False)
    return SimpleNamespace(model=SimpleNamespace(layers=[SimpleNamespace(mlp=SimpleNamespace(down_proj=down))]))


def change_matrices(model, change):
    """As `compression.change_matrices`, of the one matrix."""
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
