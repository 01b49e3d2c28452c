"""What the exercises of chapter 2 find in its place: small, and nothing is trained, served or loaded."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy
import pandas
import torch
from torch.nn.functional import kl_div

from slmops_lab.course.stand_ins.cells import Chapter
from slmops_lab.evaluation import intervals, scoring
from slmops_lab.task import encoding, schema
from slmops_lab.training import teachers

# Messages that all three have answered: how many there are, how sure the teacher is, and what the teacher, word pairs
# and words say of each; R is the right value, w and v are wrong ones.
ANSWERED = [
    (2, 0.99, "RRR"),
    (7, 0.9, "RRR"),
    (1, 0.7, "RRR"),
    (4, 0.8, "Rwv"),
    (2, 0.3, "RRw"),
    (1, 0.9, "wwR"),
    (1, 0.2, "wRv"),
    (2, 0.2, "wvR"),
]


def labelling():
    """What 2.4 has assigned. The teacher is right 16 times in 20: the bar is at 85 %, and 10 messages have to stay."""
    values = {"R": "refund", "w": "late", "v": "lost"}
    task = schema.Task(schema.Schema(name="desk", fields={"intent": {"type": "enum", "values": [*values.values()]}}))
    rows = [(sure, said) for count, sure, said in ANSWERED for _ in range(count)]

    def of(member):
        return [teachers.Said(task.write({"intent": values[said[member]]}), sure) for sure, said in rows]

    return {
        "desk": SimpleNamespace(task=task),
        "held_out": [{"text": "?", "answer": {"intent": "refund"}} for _ in rows],
        "told": [of(0), of(1), of(2)],
        "clean": {"all it says": intervals.proportion([said[0] == "R" for _, said in rows])},
    }


def model(layers):
    """What the check of 2.4 looks at of a model: how many layers, and one matrix of each."""
    return SimpleNamespace(config=SimpleNamespace(num_hidden_layers=len(layers)), model=SimpleNamespace(layers=layers))


def layer():
    """One layer of such a model."""
    return SimpleNamespace(self_attn=SimpleNamespace(o_proj=torch.nn.Linear(3, 2)))


def keep_layers(whole, keep):
    """As `compression.keep_layers`."""
    return model([whole.model.layers[i] for i in keep])


def training():
    """What 2.7 and 2.8 have assigned. A step takes a second, and twice as many halve what the right answers cost."""
    torch.manual_seed(0)
    small_teacher = model([layer() for _ in range(6)])
    untrained = keep_layers(small_teacher, [0, 1, 3, 5])

    def learned(label, examples, loss, start=untrained, max_steps=12, **how):
        lower, upper = start.model.layers[:2], start.model.layers[2:]
        pupil = model([*lower, *(layer() for _ in upper)])  # the lower ones are frozen
        measured = {"nats": [24 / max_steps] * 4, "seconds": float(max_steps)}
        return {"model": pupil, "start": start, "examples": examples, **measured}

    trials = {name: {"nats": [2.0] * 4, "seconds": 12.0} for name in ("text", "all three")}  # without their models
    return {
        "small_teacher": small_teacher,
        "untrained": untrained,
        "fitted": keep_layers(small_teacher, [0, 1, 3, 5]),
        "start": untrained,
        "keep": [0, 1, 3, 5],
        "compression": SimpleNamespace(keep_layers=keep_layers),
        "learned": learned,
        "distillation_loss": lambda **parts: None,
        "usual": {"max_steps": 12},
        **{"long": {}, "size": 2, "loss": None},
        "ways": {"text": (untrained, {}), "all three": (untrained, {"hidden": 2.0})},
        "way": "all three",
        "trials": trials,
        "settings_tried": {"as it was": trials["all three"], "batches of 4": trials["text"]},
        "students": {"gold alone": learned("gold alone", [], None, max_steps=48)},
        "trial": [{"input_ids": [1]}] * 2,
        "mixed": [{"input_ids": [1]} for _ in range(8)],
        "judges": [{"input_ids": [1]} for _ in range(4)],  # they may look like one of the others
    }


def systems():
    """What 2.12 has assigned."""
    speed = pandas.DataFrame(
        {
            "ms, p50": [500.0, 90.0, 80.0, 30.0, 70.0],
            "model files, MB": [540.0, 541.0, 450.0, 50.0, 90.0],
            "exact match, %": [80.0, 80.0, None, 78.0, 81.0],
        },
        index=["teacher", "runtime", "vocabulary", "student, 4 bits", "teacher, 4 bits"],
    )
    results = dict.fromkeys(speed["exact match, %"].dropna().index)
    return {"speed": speed, "results": results}


def stand_ins():
    """Names that the chapter has assigned where an exercise begins."""
    known = {
        **{"Counter": Counter, "replace": replace, "kl_div": kl_div, "numpy": numpy, "pandas": pandas, "torch": torch},
        **{"encoding": encoding, "scoring": scoring, "teachers": teachers},
        # one token stands in the prompt and in the answer
        "example": {"input_ids": [5, 6, 3, 4, 9, 6, 2], "labels": [*[encoding.IGNORE] * 4, 9, 6, 2]},
        **labelling(),
        **training(),
        **systems(),
    }
    exec(CHAPTER.functions("leave", "answer_in", "if_sure", "if_agreed", "vote", "judged", "soft_loss"), known)
    return known


CHAPTER = Chapter("02_distillation", stand_ins)
