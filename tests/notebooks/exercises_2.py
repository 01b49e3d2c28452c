"""Answers to chapter 2's exercises: what its checks take, and what looks right to them and is not."""

from slmops_lab.course.stand_ins.chapter_2 import CHAPTER  # noqa: F401

BETWEEN = """
def between(student_logits, teacher_logits):
    p, q = teacher_logits.softmax(-1), student_logits.softmax(-1)
    m = (p + q) / 2
    rows = ((p * (p / m).log()).sum(-1) + (q * (q / m).log()).sum(-1)) / 2
    return rows.mean()
"""

KL_DIV = """
def between(student_logits, teacher_logits):
    p, q = teacher_logits.softmax(-1), student_logits.softmax(-1)
    m = ((p + q) / 2).log()
    return (kl_div(m, p, reduction="batchmean") + kl_div(m, q, reduction="batchmean")) / 2
"""

SCIPY = """
from scipy.spatial.distance import jensenshannon
def between(student_logits, teacher_logits):
    return (jensenshannon(student_logits.softmax(-1), teacher_logits.softmax(-1), axis=1) ** 2).mean()
"""

LOST = "size[b] <= size[a] and hits[b] >= hits[a] and (size[b] < size[a] or hits[b] > hits[a])"
FRONTIER = f"""
def frontier(table):
    table = table.dropna()
    size, hits = table["model files, MB"], table["exact match, %"]
    lost = [any({LOST} for b in table.index) for a in table.index]
    return table.index[~numpy.array(lost)]
"""

SWEEP = """
def frontier(table):
    best, names = 0, []
    order = table.dropna().sort_values(["model files, MB", "exact match, %"], ascending=[True, False])
    for name, row in order.iterrows():
        if row["exact match, %"] > best:
            best = row["exact match, %"]
            names.append(name)
    return names
"""

RIGHT = {
    "2.1": [
        "labels_of = lambda prompt, answer: [-100 for _ in prompt] + answer",
        "labels_of = lambda prompt, answer: (*[encoding.IGNORE] * len(prompt), *answer)",
        "labels_of = lambda prompt, answer: numpy.array([encoding.IGNORE] * len(prompt) + answer)",
        "labels_of = lambda prompt, answer: torch.tensor([encoding.IGNORE] * len(prompt) + answer)",
    ],
    "2.2": [
        "my_rule = lambda one, other, third: one if answer_in(one) == answer_in(other) else leave(one)",
        "my_rule = lambda one, other, third: if_agreed(one, other, third) if one.confidence < 0.5 else one",
        "my_rule = lambda one, other, third: one if one == other == third else leave(one)",  # 10, a half
        "my_rule = lambda one, other, third: one if one.confidence >= 0.5 else other",  # 5 points, not a hair more
    ],
    "2.3": [
        BETWEEN,
        BETWEEN.replace("rows.mean()", "float(rows.mean())"),
        BETWEEN.replace("rows.mean()", "rows.numpy().mean()"),
        KL_DIV,
        SCIPY,
    ],
    "2.4": [
        "my_student = learned('mine', mixed, None, max_steps=59)",
        "my_student = learned('mine', mixed, None, fitted, max_steps=24)",
        "my_student = learned('mine', mixed, None, compression.keep_layers(untrained, [0, 1, 3]), max_steps=24)",
    ],
    "2.5": [
        FRONTIER,
        FRONTIER.replace("table.index[~numpy.array(lost)]", "tuple(table.index[~numpy.array(lost)])"),
        FRONTIER.replace("table.index[~numpy.array(lost)]", "set(table.index[~numpy.array(lost)])"),
    ],
}

WRONG = {
    "2.1": [
        "labels_of = lambda prompt, answer: prompt + answer",  # the prompt counts, too
        "labels_of = lambda prompt, answer: prompt + [encoding.IGNORE] * len(answer)",
        "labels_of = lambda prompt, answer: [0] * len(prompt) + answer",
        "labels_of = lambda prompt, answer: [0] * len(prompt) + [1] * len(answer)",
        "labels_of = lambda prompt, answer: [encoding.IGNORE] * (len(prompt) - 1) + answer + [encoding.IGNORE]",
        "labels_of = lambda prompt, answer: [encoding.IGNORE] * (len(prompt) + 1) + answer[:-1]",
        "labels_of = lambda prompt, answer: [encoding.IGNORE] * len(answer) + answer",
        "labels_of = lambda prompt, answer: [encoding.IGNORE] * short + answer",  # as long as that one prompt
        "labels_of = lambda prompt, answer: [encoding.IGNORE] + answer",
        "labels_of = lambda prompt, answer: [encoding.IGNORE if t in prompt else t for t in prompt + answer]",
        "labels_of = lambda prompt, answer: [t if t in answer else encoding.IGNORE for t in prompt + answer]",
        "labels_of = lambda prompt, answer: [[encoding.IGNORE] * len(prompt), answer]",
        "labels_of = lambda prompt, answer: answer",
        "labels_of = example['labels']",
    ],
    "2.2": [
        "my_rule = lambda one, other, third: one",
        "my_rule = lambda one, other, third: leave(one)",
        "my_rule = lambda one, other, third: other",
        "my_rule = lambda one, other, third: third",
        "my_rule = vote",
        "my_rule = lambda one, other, third: one if one.confidence > 0.95 else leave(one)",  # a tenth of them
        "my_rule = lambda one, other, third: one if one == other == third and one.confidence > 0.8 else leave(one)",
        "my_rule = lambda one, other, third: leave(one) if one.confidence >= 0.5 else one",
        "my_rule = lambda one, other, third: one if one.confidence >= 0.5 else third",
        "my_rule = lambda one, other, third: leave(one) if answer_in(one) == answer_in(other) else one",
        "my_rule = lambda one, other, third: one if answer_in(one) else leave(one)",  # every answer can be read
        "my_rule = lambda one, other, third: one if one.confidence >= 0.5 else None",
        "my_rule = lambda one, other, third: one.text if one.confidence >= 0.5 else leave(one)",
        "my_rule = lambda one, other, third: one.confidence >= 0.5",
        "my_rule = 'if a counter agrees'",
    ],
    "2.3": [
        "between = soft_loss",
        "between = lambda student, teacher: soft_loss(student, teacher, reverse=True)",
        "between = lambda a, b: (soft_loss(a, b) + soft_loss(b, a)) / 2",  # no mixture
        BETWEEN.replace("(p + q) / 2", "((student_logits + teacher_logits) / 2).softmax(-1)"),
        BETWEEN.replace("(p + q) / 2", "p + q"),
        BETWEEN.replace("(-1)) / 2", "(-1))"),  # the sum of the two divergences
        BETWEEN.replace("(q * (q", "(p * (p"),  # the teacher's twice
        BETWEEN.replace("(p * (p / m)", "(m * (m / p)").replace("(q * (q / m)", "(m * (m / q)"),
        BETWEEN.replace("softmax(-1)", "softmax(0)"),
        BETWEEN.replace("rows.mean()", "rows.sum()"),
        BETWEEN.replace("rows.mean()", "rows.mean() / 3"),  # over the tokens, too
        BETWEEN.replace("rows.mean()", "rows.mean().sqrt()"),
        BETWEEN.replace("rows.mean()", "rows.mean() / numpy.log(2)"),  # bits
        BETWEEN.replace("rows.mean()", "-rows.mean()"),
        BETWEEN.replace("rows.mean()", "rows"),
        KL_DIV.replace("batchmean", "sum"),
        KL_DIV.replace(".log()", ""),
        SCIPY.replace(" ** 2", ""),
        "between = 0.165",
    ],
    "2.4": [
        "my_student = trials['all three']",
        "my_student = {**students['gold alone'], **trials['all three']}",
        "my_student = settings_tried['batches of 4']",
        "my_student = students['gold alone']",
        "my_student = {**students['gold alone'], 'start': untrained}",
        "my_student = learned('mine', mixed, None)",  # as good as the trials
        "my_student = learned('mine', mixed, None, max_steps=6)",
        "my_student = learned('mine', mixed, None, max_steps=60)",  # a minute
        "my_student = learned('mine', mixed, None, max_steps=100)",
        "my_student = learned('mine', mixed, None, small_teacher, max_steps=24)",
        "my_student = learned('mine', mixed, None, compression.keep_layers(untrained, [0, 1, 2, 2, 3]), max_steps=24)",
        "my_student = learned('mine', mixed, None, compression.keep_layers(small_teacher, [0, 2, 4]), max_steps=24)",
        "my_student = learned('mine', judges, None, max_steps=24)",
        "my_student = learned('mine', [*mixed, judges[0]], None, max_steps=24)",
        "my_student = learned('mine', mixed, None, students['gold alone']['model'], max_steps=24)",
        "my_student = learned('mine', mixed, None, max_steps=24)['model']",
        "my_student = learned('mine', mixed, None, max_steps=24)['nats']",
        "my_student = [learned('mine', mixed, None, max_steps=24)]",
    ],
    "2.5": [
        FRONTIER.replace(LOST, "size[b] < size[a] and hits[b] > hits[a]"),
        FRONTIER.replace(LOST, "size[b] < size[a] or hits[b] > hits[a]"),
        FRONTIER.replace(LOST, "size[b] < size[a]"),
        FRONTIER.replace(LOST, "hits[b] > hits[a]"),
        FRONTIER.replace(LOST, "a != b and size[b] <= size[a] and hits[b] >= hits[a]"),  # twins drop each other
        FRONTIER.replace("size[b] <", "size[b] >"),
        FRONTIER.replace("hits[b] >", "hits[b] <"),
        FRONTIER.replace("[~numpy.array(lost)]", "[lost]"),
        FRONTIER.replace("return table.index[~numpy.array(lost)]", "return ~numpy.array(lost)"),
        FRONTIER.replace(".dropna()", ""),
        FRONTIER.replace("dropna()", "fillna(0)"),
        FRONTIER.replace("dropna()", "fillna(100)"),
        FRONTIER.replace("model files, MB", "ms, p50"),
        SWEEP,  # of twins only one
        SWEEP.replace("> best", ">= best"),  # a larger one that is only as good stays
        SWEEP.replace("ascending=[True, False]", "ascending=True"),
        "frontier = lambda table: table.index",
        "frontier = lambda table: table.dropna().index",
        "frontier = lambda table: table.sort_values('exact match, %').index",
        "frontier = lambda table: table.sort_values('model files, MB').index[:3]",
        "frontier = lambda table: table.dropna().groupby('model files, MB')['exact match, %'].idxmax()",
        "frontier = lambda table: list('bde')",
        "frontier = ['student, 4 bits', 'teacher, 4 bits']",
    ],
}
