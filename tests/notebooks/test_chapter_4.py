"""The checks of chapter 4's exercises: they take the solution and refuse what looks right and is not.

Each check is the cell of the notebook, run on small stand-ins for what the chapter has computed before; nothing is
trained, served or signed, and no model is loaded.
"""

import json
import math
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pandas
import pytest
from exercise_cells import Chapter, listed
from packaging.version import Version

from slmops_lab import settings
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
passes = CHAPTER.passes


def test_there_are_six():
    assert CHAPTER.names == ["4.1", "4.2", "4.3", "4.4", "4.5", "4.6"] and set(WRONG) == set(CHAPTER.names)


@pytest.mark.parametrize("name", CHAPTER.names)
def test_the_solution_passes_and_the_stub_does_not(name):
    assert passes(name, CHAPTER.solution(name))
    assert not passes(name, "")


PER_TOKEN = """
def read_per_token(table):
    looked_up = table["used by"].map(lambda users: all(user.startswith("Gather") for user in users.split(", ")))
    whole = table[~looked_up & (table["used by"] != "")]["bytes"].sum()
    return whole + (table[looked_up]["bytes"] / table[looked_up]["rows"]).sum()
"""

ACCEPT = """
def accept(folder, installed):
    try:
        package.verify(folder, public, newer_than=installed)
    except settings.CourseError:
        return False
    return True
"""

BY_TEXT = """
def accept(folder, installed):
    try:
        return package.verify(folder, public)["version"] > installed
    except settings.CourseError:
        return False
"""

ALARM = "    if evidence >= -math.log(plan.alarm):\n        return 'roll back'\n"
WAIT = "    if min(new_all, old_all) < needed:\n        return 'wait'\n"
LOOK = "    worse = canary.p_worse(new_right, new_all, old_right, old_all) < plan.alpha\n"
END = "    return 'roll back' if worse else 'next group'\n"
DECIDE = "def decide(new_right, new_all, old_right, old_all, evidence):\n" + ALARM + WAIT + LOOK + END

MINE = "my_version = learned_again('mine', [*learn_from, *old_ones], 1e-3, epochs=4)"

RIGHT = {
    "4.1": [PER_TOKEN, PER_TOKEN.replace("whole +", "float(whole) +")],
    "4.2": [
        "repairs = {'context_length': 1024, 'eos_token_id': 2}",
        "repairs = dict(eos_token_id=2, context_length=1024)",
    ],
    "4.3": [
        "retry_after = lambda waiting, seconds_each: math.ceil(waiting * seconds_each) or 1",
        "retry_after = lambda waiting, seconds_each: max(1, int(-(-waiting * seconds_each // 1)))",
    ],
    "4.4": [ACCEPT],
    "4.5": [DECIDE, DECIDE.replace("evidence >= -math.log(plan.alarm)", "math.exp(evidence) >= 1 / plan.alarm")],
    "4.6": [MINE, "my_version = learned_again('mine', desk.train[:20], 1e-3)"],
}

WRONG = {
    "4.1": [
        "read_per_token = lambda table: table['bytes'].sum()",  # the size of the file
        "read_per_token = lambda table: table[table['used by'] != 'Gather']['bytes'].sum()",  # no row at all
        "read_per_token = lambda table: (table['bytes'] / table['rows']).sum()",
        "read_per_token = lambda table: table[~table['used by'].str.contains('Gather')]['bytes'].sum()",
        PER_TOKEN.replace("all(", "any("),  # a head that shares its table is read as a whole
        PER_TOKEN.replace('startswith("Gather")', '__eq__("Gather")'),
        PER_TOKEN.replace(' & (table["used by"] != "")', ""),
        "read_per_token = 1350",
        "read_per_token = lambda table: 1350",
    ],
    "4.2": [
        "repairs = {'context_length': 1024}",
        "repairs = {'eos_token_id': 2}",
        "repairs = {'context_length': 1024, 'eos_token_id': 0}",
        "repairs = {'context_length': 2048, 'eos_token_id': 2}",
        "repairs = {'context_length': '1024', 'eos_token_id': '2'}",
        "repairs = {'context_length': 1024, 'eos_token_id': 2, 'vocab_size': 12_145}",  # this one was right
        "repairs = json.loads((onnx_folders['int4'] / 'genai_config.json').read_text())['model']",
        "repairs = {'max_position_embeddings': 1024, 'eos_token_id': 2}",
        "repairs = ['context_length', 'eos_token_id']",
        "repairs = {}",
    ],
    "4.3": [
        "retry_after = lambda waiting, seconds_each: waiting * seconds_each",
        "retry_after = lambda waiting, seconds_each: math.ceil(waiting * seconds_each)",  # 0 for an empty queue
        "retry_after = lambda waiting, seconds_each: max(1, round(waiting * seconds_each))",
        "retry_after = lambda waiting, seconds_each: max(1, int(waiting * seconds_each))",
        "retry_after = lambda waiting, seconds_each: int(waiting * seconds_each) + 1",
        "retry_after = lambda waiting, seconds_each: waiting * math.ceil(seconds_each)",
        "retry_after = lambda waiting, seconds_each: max(1, math.ceil(seconds_each))",
        "retry_after = lambda waiting, seconds_each: 1 + math.ceil(waiting * seconds_each)",
        "retry_after = 2",
    ],
    "4.4": [
        BY_TEXT,
        BY_TEXT.replace("> installed", ">= installed"),
        ACCEPT.replace(", newer_than=installed", ""),
        ACCEPT.replace("return False", "return True"),
        ACCEPT.replace("return True", "return False"),
        "accept = lambda folder, installed: bool(package.verify(folder, public, newer_than=installed))",  # it raises
        "accept = lambda folder, installed: folder.name.split('-')[-1] > installed",
        "accept = lambda folder, installed: True",
        "accept = lambda folder, installed: False",
        "accept = True",
    ],
    "4.5": [
        DECIDE.replace(ALARM, ""),
        DECIDE.replace(WAIT, ""),  # every look counts
        DECIDE.replace(ALARM + WAIT, WAIT + ALARM),  # the alarm waits, too
        DECIDE.replace(END, "    return 'next group'\n"),
        DECIDE.replace("-math.log(plan.alarm)", "1 / plan.alarm"),  # the product, and not its logarithm
        DECIDE.replace("-math.log(plan.alarm)", "math.log(plan.alarm)"),
        DECIDE.replace("min(new_all, old_all)", "new_all"),
        DECIDE.replace("min(new_all, old_all)", "old_all"),
        DECIDE.replace("< plan.alpha", "> plan.alpha"),
        DECIDE.replace("< plan.alpha", "< 0.5"),
        DECIDE.replace(LOOK, "    worse = new_right / new_all < old_right / old_all\n"),
        "decide = lambda *counts: 'wait'",
        "decide = lambda *counts: 'roll back'",
        "decide = lambda *counts: 'next group'",
        "decide = 'roll back'",
    ],
    "4.6": [
        "my_version = tries[chosen]",
        "my_version = {**tries[chosen], 'records': learn_from}",
        "my_version = learned_again('mine', [*learn_from, *old_ones], 1e-4)",
        "my_version = learned_again('mine', [*learn_from, *choose_by, *old_ones], 1e-3)",
        "my_version = learned_again('mine', [*learn_from, *judge_by, *old_ones], 1e-3)",
        "my_version = learned_again('mine', desk.train[:60], 1e-3, epochs=3)",  # longer than a minute
        "my_version = learned_again('mine', [*learn_from, *old_ones], 1e-3)['model']",
        "my_version = learned_again('mine', [*learn_from, *old_ones], 1e-3)['nats']",
        "my_version = chosen",
        MINE + "\nmy_version['nats'] = my_version['nats'][:1]",
    ],
}


@pytest.mark.parametrize(("name", "answer"), listed(RIGHT))
def test_more_than_one_way_is_right(name, answer):
    assert passes(name, answer)


@pytest.mark.parametrize(("name", "answer"), listed(WRONG))
def test_a_plausible_wrong_answer_is_refused(name, answer):
    assert not passes(name, answer)
