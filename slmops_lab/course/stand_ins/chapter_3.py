"""What the exercises of chapter 3 find in its place: small, and nothing is trained, served or loaded."""

import copy
import math
import random
from types import SimpleNamespace

import numpy
import torch

from slmops_lab.course.stand_ins.cells import Chapter
from slmops_lab.task import data


class Model(torch.nn.Module):
    """What the check of 3.4 looks at: two matrices that get an adapter, a table and a head that get none."""

    def __init__(self, width, inner, words):
        super().__init__()
        self.embed_tokens = torch.nn.Embedding(words, width)
        self.up_proj = torch.nn.Linear(width, inner, bias=False)
        self.down_proj = torch.nn.Linear(inner, width, bias=False)
        self.lm_head = torch.nn.Linear(width, words, bias=False)


def training():
    """What 3.5 has assigned. A step takes a second; twice as many, or twice the rank, halve what the answers cost."""
    judges = [{"input_ids": [1]} for _ in range(4)]  # they may look like one of the others

    def trained(label, examples, config=None, loss=None, judges=judges, max_steps=12, **how):
        rank = config["rank"] if config else 50
        measured = [24 / max_steps / rank] * len(judges)
        history = SimpleNamespace(attrs={"seconds": float(max_steps)})
        about = {"model": SimpleNamespace(rank=rank), "examples": examples, "judges": judges}
        return {**about, "nats": measured, "history": history}

    return {
        "judges": judges,
        "trained": trained,
        "lora_config": lambda rank=2, **more: {"rank": rank},
        "adapters": SimpleNamespace(weights=lambda model: (1000 * model.rank, 0)),
        "trains": 2000,
        "trial": {"max_steps": 12},
        "trial_messages": [{"input_ids": [1]}] * 2,
        "after_dials": {"default": 1.0, "a higher scale": 0.9},
        "gold_read": [{"input_ids": [1]} for _ in range(100)],
    }


def stand_ins():
    """Names that the chapter has assigned where an exercise begins."""
    known = {
        **{"copy": copy, "math": math, "numpy": numpy, "random": random, "torch": torch, "data": data},
        "gold": [{"id": f"train-{i}", "text": f"Message {i:03}, please", "answer": {}} for i in range(120)],
        **training(),
        **{"rank": 16, "nf4_bytes": 0.5625},
        **{"base": Model(64, 96, 200), "phi_4_mini": Model(96, 128, 400), "phi_4": Model(128, 256, 300)},
    }
    exec(CHAPTER.functions("LoRALinear", "training_bytes", "lora_numbers"), known)
    return known


CHAPTER = Chapter("03_fine_tuning", stand_ins)
