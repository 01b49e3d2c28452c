"""What the exercises of chapter 4 find in its place: small, and nothing is trained, served or loaded."""

import json
import math
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pandas
from packaging.version import Version

from slmops_lab import settings
from slmops_lab.course.stand_ins.cells import Chapter
from slmops_lab.operations import canary, rollout

GENAI = {"context_length": 1024, "eos_token_id": 2, "vocab_size": 12_145, "decoder": {"head_size": 64}}


def deployment():
    """Folders of 4.5: a deployed student, one that somebody has edited, and the trained one that says what is right."""
    place = Path(tempfile.mkdtemp())
    for name, told in (("int4", GENAI), ("broken", {**GENAI, "context_length": 96, "eos_token_id": 0})):
        (place / name).mkdir()
        (place / name / "genai_config.json").write_text(json.dumps({"model": told}), encoding="utf-8")
    (place / "student").mkdir()
    trained = {"max_position_embeddings": 1024, "eos_token_id": 2, "vocab_size": 12_145}
    (place / "student" / "config.json").write_text(json.dumps(trained), encoding="utf-8")
    return {
        "onnx_folders": {"int4": place / "int4"},
        "broken": place / "broken",
        "student_folder": place / "student",
        "scratch": place,
    }


def packages():
    """4.9 with a package that only says its version. A foreign file in it, or no package at all, is refused."""

    def verify(folder, key, newer_than=None, name=None):
        if key != "public key" or (folder / "helper.py").exists() or not (folder / "package.json").is_file():
            raise settings.CourseError(f"{folder.name} is refused.")
        told = json.loads((folder / "package.json").read_text(encoding="utf-8"))
        versions = [Version(version) for version in (told["version"], newer_than or "0.0.0")]
        if newer_than is not None and versions[0] <= versions[1]:
            raise settings.CourseError(f"{folder.name} is refused: not newer.")
        return told

    release = Path(tempfile.mkdtemp())
    first = release / "desk-1.0.0"
    first.mkdir()
    (first / "package.json").write_text('{"version": "1.0.0"}', encoding="utf-8")
    return {
        "first": first,
        "release": release,
        "public": "public key",
        "package": SimpleNamespace(verify=verify),
        "settings": settings,
        "shutil": shutil,
    }


def rolling_out():
    """What 4.11 has assigned: a version that is right in 70 %, and the plan for it."""
    before = 0.7
    needed = rollout.messages_needed(before, 0.05, alpha=0.04 / 3, ratio=49)
    groups = [{"name": "canary", "share": 0.02, "messages": needed}, {"name": "everybody", "share": 0.98}]
    plan = rollout.Plan(alpha=0.04 / 3, alarm=0.01, groups=groups)
    return {"before": before, "needed": needed, "plan": plan, "canary": canary}


def training():
    """What 4.13 has assigned. A higher rate and more epochs, up to a point, make the right answers cheaper."""

    def records(first, count):
        return [{"text": f"message {i}"} for i in range(first, first + count)]

    learn_from, choose_by, judge_by = records(0, 6), records(10, 4), records(20, 4)

    def learned_again(label, records, learning_rate, epochs=3):
        cost = 1e-3 / (learning_rate * epochs * len(records))
        seconds = len(records) * epochs / 2
        return {"model": object(), "records": records, "nats": [cost] * len(choose_by), "seconds": seconds}

    old_ones = records(100, 12)
    tries = {rate: learned_again("", [*learn_from, *old_ones], rate) for rate in (1e-4, 3e-4, 1e-3)}
    mean_nats = {f"{rate:g}": sum(one["nats"]) / len(choose_by) for rate, one in tries.items()}
    return {
        **{"learn_from": learn_from, "choose_by": choose_by, "judge_by": judge_by, "old_ones": old_ones},
        **{"learned_again": learned_again, "tries": tries, "mean_nats": mean_nats, "chosen": 1e-3},
        "desk": SimpleNamespace(train=records(100, 80)),
    }


def stand_ins():
    """Names that the chapter has assigned where an exercise begins."""
    known = {"json": json, "math": math, "pandas": pandas}
    known |= {**deployment(), **packages(), **rolling_out(), **training()}
    exec(CHAPTER.functions("harmed"), known)
    return known


CHAPTER = Chapter("04_deployment", stand_ins)
