"""Answers to chapter 4's exercises: what its checks take, and what looks right to them and is not."""

from slmops_lab.course.stand_ins.chapter_4 import CHAPTER  # noqa: F401

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
