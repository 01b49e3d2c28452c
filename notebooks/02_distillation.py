# %% [markdown]
# # 2 Distillation: a teacher, a pool of messages, a small student
#
# Tuning makes the base model good at one job. But it still has 30 layers, and each of them is paid for in every
# message. Distillation ([Hinton et al. 2015](https://arxiv.org/abs/1503.02531)) moves the skill into a model with a fraction of them.
#
# **You will be able to**
#
# - tune a teacher, measure it, and say whether it is worth copying;
# - let it, or any model behind an OpenAI-compatible address, label a pool, and keep the mistakes out that can be seen;
# - let several teachers vote, and see where the first one is likely to be wrong;
# - cut tokens and layers away, one way that ruins the model and one that does not;
# - compare ways to teach what is left: text, doubts (two divergences, two temperatures), inner states, and the student's own words;
# - turn the dials one at a time, and train for the four bits in which the student will be deployed;
# - say with an interval and a paired test how much of the teacher is left, and where it was lost;
# - draw how small it can go: bytes and time against exact match, and what an answer costs;
# - write down the same job for a cloud service, without a key in it.
#
# **You need** chapter 1. Training takes most of the time here: watch the bars, or make a tea.

# %% tags=["parameters"]
dataset = "support_desk"
base_model = "smollm2-135m"
profile = None  # None: "full", or what SLMOPS_PROFILE says
seed = 0
student_layers = None  # None: a third of the teacher's
labelled_messages = 960  # the teacher is tuned on so many
pool_messages = 160  # and answers so many more
own_words = 160  # the student answers so many in 2.8, under the teacher's eyes
submit_to_azure = False  # needs a workspace, and costs money

# %%
from slmops_lab.training import base_model as models
from slmops_lab import settings
from slmops_lab.task import data
from slmops_lab.training import compression

chosen = {"student_layers": student_layers, "labelled_messages": labelled_messages, "pool_messages": pool_messages}
run = settings.start(dataset, base_model, profile, seed, own_words=own_words, **chosen)
desk = data.load(run.dataset)
teacher, tokenizer = models.open_model(models.fetch(run.base_model))
depth = teacher.config.num_hidden_layers
keep = compression.spread(depth, student_layers or max(2, round(depth / 3)))  # see 2.6

# %% [markdown]
# ## 2.1 What the model learns from
#
# A training example is a chat with its answer. The *loss mask* decides which tokens count: the model
# should learn to write the answer, not the customer's message. Check it by decoding both parts of one example.

# %%
from slmops_lab import settings
from slmops_lab.task import encoding
from slmops_lab.training import trainer


def example_of(record, tokenizer=tokenizer):
    return encoding.encode(tokenizer, desk.task.messages(record["text"]), desk.task.write(record["answer"]))


example = example_of(desk.train[0])
counted = [token for token in example["labels"] if token != encoding.IGNORE]
print("all tokens:\n" + tokenizer.decode(example["input_ids"]))
print("\ncounted in the loss:\n" + tokenizer.decode(counted))

# %% [markdown]
# Only the JSON line and the end mark are left. If the second part showed anything of the message, everything below
# would be worth nothing.
#
# ## 2.2 Tune the teacher
#
# Every weight is trained, on one part of the labelled messages; at least a fifth of them is kept back to judge by. **Predict:** the first loss is that of a
# model that has never seen our JSON. How many steps until it is halved?

# %%
most = max(2, len(desk.train) * 4 // 5)
labelled = desk.train[: min(most, run.pick(full=labelled_messages, quick=200))]
others = desk.train[len(labelled) :] or desk.test  # a small data set of your own may have none left
held_out = others[: run.pick(full=240, quick=40)]
epochs = run.pick(full=1, quick=2)
learning_rate = 1.5e-4
history = trainer.train(
    teacher,
    tokenizer,
    [example_of(record) for record in labelled],
    label="teacher",
    num_train_epochs=epochs,
    learning_rate=learning_rate,
    seed=run.seed,
    train_embeddings=True,
)

# %%
from slmops_lab.course import plots

plots.show(
    plots.curve(history),
    takeaway="The form is learned at once, the judgement slowly",
    alt="Line plot of the teacher's training loss: a steep fall in the first steps, then a slow decline.",
)

# %% [markdown]
# ## 2.3 Measure the teacher first
#
# A student copies its teacher's mistakes too. So the teacher is scored on messages it has never seen, before it may
# teach. From here on it only reads and writes, which is faster with 16-bit weights where the processor
# computes with them.

# %%
import copy
import math
import random

import torch
from slmops_lab import measure
from slmops_lab.evaluation import generation, intervals, scoring

tests = desk.test[: run.pick(full=None, quick=120)]
chats = [desk.task.messages(record["text"]) for record in tests]
reader = copy.deepcopy(teacher).to(torch.bfloat16) if settings.fast_bf16() else teacher
said, log_probs = generation.generate_scored(reader, tokenizer, chats)
sure = [math.exp(log_prob) for log_prob in log_probs]  # how likely it finds its own answer
teacher_scores = scoring.score(desk.task, tests, said)
teacher_scores.table().round(3)

# %% [markdown]
# The rivals are the keyword baseline of chapter 1 and a stronger one that counts word pairs, both fitted
# on the same labelled messages. The gain is in points of exact match, with its 95 % interval.

# %%
import pandas
from slmops_lab.training import teachers

texts = [record["text"] for record in tests]
words = teachers.WordCounter(labelled, name="keyword baseline")
pairs = teachers.WordCounter(labelled, pairs=True, name="word pairs, tf-idf")
rivals, gains = {}, {}
for rival in (words, pairs):
    told = [one.text for one in rival.ask(desk.task, texts)]
    rivals[rival.name] = scoring.score(desk.task, tests, told)
    gains[rival.name] = intervals.difference(teacher_scores.rows["exact"], rivals[rival.name].rows["exact"], run.seed)
(100 * pandas.DataFrame(gains).T).round(1).rename_axis("teacher minus ...")

# %% [markdown]
# A teacher that does not clearly beat word counting is not worth copying: it needs more labelled messages or more
# training first.

# %%
print("clearly better than word counting:", bool(min(gain["low"] for gain in gains.values()) > 0))

# %% [markdown]
# One number hides much. Which values does it confuse? Macro-F1 counts each value alike, so rare ones weigh as much as common ones.

# %%
field = next(iter(desk.task.fields))  # the first one: in support_desk, what the customer wants
teacher_pairs = scoring.outcomes(field, tests, teacher_scores.readings)
f1 = intervals.macro_f1(teacher_pairs, run.seed)
print(f"macro-F1 of {field}: {f1['f1']:.3f} (95 % interval {f1['low']:.3f} to {f1['high']:.3f})")
scoring.confusions(teacher_pairs)

# %% [markdown]
# Would you have sorted these messages better? A teacher's confusions are the student's curriculum.
#
# This took minutes, so it is put away at once. The folder carries a manifest: what it was made from, how, and how good it was.

# %%
from slmops_lab.course import artifacts

how = {"learning_rate": learning_rate, "epochs": epochs, "examples": len(labelled)}
marks = {"exact_match": teacher_scores.exact, "n": len(tests)}
with artifacts.save(run, "teacher", settings=how, metrics=marks) as folder:
    teacher.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    teacher_scores.save(folder / "test_scores.json")
del teacher  # its 32-bit weights are on the disk now, what follows is the work of `reader`

# %% [markdown]
# When the teacher is sure of an answer, is it more often right?

# %%
answered = [i for i, reading in enumerate(teacher_scores.readings) if reading.answer]
by_doubt = sorted(answered, key=lambda i: sure[i])
exact = teacher_scores.rows["exact"]
half = len(answered) // 2
halves = {"less sure half": exact[by_doubt[:half]], "surer half": exact[by_doubt[half:]]}
plots.show(
    plots.shares(halves, "exact match of the teacher in % (line: 95 % interval)"),
    takeaway="When the teacher is sure, it is more often right",
    alt="Two bars: the half of the test messages where the teacher was surer has the higher exact match.",
)

# %% tags=["nbval-check-output"]
print("the surer half is right more often:", halves["surer half"].sum() > halves["less sure half"].sum())

# %% [markdown]
# So its doubts carry knowledge. They will be used twice: to choose labels (next), and as a lesson of their own (2.7).
#
# ## 2.4 Who labels the pool?
#
# Labelled messages are dear, unlabelled ones cheap: every desk has an archive. The teacher can answer a part of it.
#
# It need not be ours. Set `SLMOPS_TEACHER_MODEL`, `OPENAI_BASE_URL` and `OPENAI_API_KEY`, and any
# model behind an OpenAI-compatible address takes its place: a larger one in the cloud, or one on the machine next door.
#
# And it need not be alone. A second teacher, even a weaker one, can tell where the first is wrong. We have two that cost nothing: the word counters.
# All of them answer labelled messages that nobody was trained on.

# %%
ours = teachers.LocalTeacher(reader, tokenizer, name="the tuned teacher")
labeller = teachers.RemoteTeacher.from_environment(run.artifacts / "remote_answers.sqlite") or ours
judged = [record["text"] for record in held_out]
told = [teacher.ask(desk.task, judged) for teacher in (labeller, pairs, words)]
print(f"{labeller.name}, word pairs and single words answered {len(judged)} messages")

# %% [markdown]
# Two of them can *filter* (a label counts only where they agree), the *surer* one can decide, or all can *vote*, field by field.
# **Predict:** which rule gives the cleanest labels, and which gives clean labels for every message?

# %%
nothing = teachers.Said(None, problem="left out by the rule")


def answer_in(said):  # None where it cannot be read
    return desk.task.read(said.text or "").answer


def sure_enough(one, *others):
    return one if (one.confidence or 0) >= 0.5 else nothing  # not every endpoint tells how sure it is


def agreed(one, other, third):
    return one if answer_in(one) == answer_in(other) else nothing


def surer(one, other, third):
    return other if one.confidence is not None and one.confidence < other.confidence else one


# %%
from collections import Counter


def vote(*said):  # field by field; the first teacher decides where all differ
    heard = [answer_in(one) for one in said if answer_in(one)]
    if not heard:
        return nothing
    most = {name: Counter(answer[name] for answer in heard).most_common(1)[0][0] for name in heard[0]}
    return teachers.Said(desk.task.write(most))


# %%
rules = {
    "the teacher": lambda one, *others: one,
    "the teacher, where it is sure": sure_enough,
    "the teacher, where word pairs agree": agreed,
    "the surer of these two": surer,
    "vote of all three": vote,
}

# %%
labels = {rule: [choose(*said) for said in zip(*told, strict=True)] for rule, choose in rules.items()}
right = {rule: scoring.score(desk.task, held_out, [one.text or "" for one in said]) for rule, said in labels.items()}
quality = pandas.DataFrame(
    {rule: intervals.proportion(s.rows["exact"][s.rows["valid"]]) for rule, s in right.items()}
).T
quality.insert(0, "labels kept", [s.rows["valid"].mean() for s in right.values()])
quality.rename(columns={"share": "right"}).round(3)

# %% [markdown]
# The rules that keep every message, measured against the teacher alone, on the same messages:

# %%
for rule in list(rules)[3:]:
    gain = intervals.difference(right[rule].rows["exact"], right["the teacher"].rows["exact"], run.seed)
    low, high = 100 * gain["low"], 100 * gain["high"]
    print(f"{rule}: {100 * gain['points']:+.1f} points (95 % interval {low:+.1f} to {high:+.1f})")

# %% [markdown]
# A filter buys cleaner labels with fewer of them. Unlabelled messages are cheap, so a strict rule can be had for a larger pool. A vote
# keeps every message: why can it make labels worse? And which messages does a filter keep, the easy or the hard ones? (The confidences are not the same
# thing: the teacher's is about every token of its answer, the counter's about the fields with listed values, and neither was calibrated.)
# Where teachers differ is also where a person's label is worth most.
#
# ### Label it
#
# The rule that was right most often, all messages counted, labels a part of the pool (`pool_messages`). What comes out must be
# valid JSON with known values, an order number must really stand in the message, and an answer less sure than even is left out, too.

# %%
from slmops_lab.training import distillation

rule = max(rules, key=lambda rule: right[rule].exact)
panel = teachers.Panel([labeller, pairs, words], rules[rule], name=rule)
pool = desk.pool[: run.pick(full=pool_messages, quick=64)]
answers = distillation.label(panel, desk.task, pool, least_sure=0.5) if pool else []
print(f"asked {rule}: {len(pool)} of {len(desk.pool):,} messages", "" if labeller is ours else labeller.usage)
pandas.Series([a.problem or "usable" for a in answers]).value_counts().rename("answers").to_frame()

# %%
usable = [a for a in answers if a.problem is None]
for bad in [a for a in answers if a.problem][:2]:
    print("left out:", bad.problem, "<-", bad.text[:60], "->", (bad.said or "")[:80])

# %%
lessons = labelled + [{"text": a.text, "answer": a.answer} for a in usable]
print(len(lessons), "lessons, the last one of them:")
lessons[-1]

# %% [markdown]
# ## 2.5 Cut away the tokens nobody uses
#
# Before the layers, look at the vocabulary. **Predict:** what share of the teacher's weights is its table of token vectors, and
# how many of those tokens does a support desk ever need?


# %%
def millions(model):
    return sum(weight.numel() for weight in model.parameters()) / 1e6


vectors = reader.get_input_embeddings().weight.numel() / 1e6
full_size = millions(reader)
used = {token for lesson in lessons for token in example_of(lesson)["input_ids"]}
print(f"{len(tokenizer):,} tokens are {100 * vectors / full_size:.0f} % of all weights; the lessons use {len(used):,}")

# %% [markdown]
# Two ways to choose. Keep the tokens that the training messages and the pool use, and the commonest of all; or, simpler, as many of the
# tokens that the tokenizer merged first: it learned the frequent ones first, did it not? A word that is cut is not lost:
# it is spelled in smaller pieces ([Sennrich et al. 2016](https://arxiv.org/abs/1508.07909)).

# %%
seen = [record["text"] for record in desk.train + desk.pool]
seen += [tokenizer.decode(example_of(record)["input_ids"]) for record in labelled]
small_teacher, small_tokenizer, kept_ids = compression.keep_vocabulary(reader, tokenizer, seen)
first_teacher, first_tokenizer, _ = compression.keep_vocabulary(reader, tokenizer, [], first=len(kept_ids))
print(f"{len(kept_ids):,} tokens kept: {millions(small_teacher):.1f} of {full_size:.1f} million weights are left")

gone = sorted(set(range(len(tokenizer))) - set(kept_ids.tolist()))
for word in tokenizer.batch_decode([[i] for i in gone[:: len(gone) // 5 + 1]]):
    pieces = small_tokenizer(word)["input_ids"]
    print(repr(word), "is now spelled", [small_tokenizer.decode(i) for i in pieces])

# %% [markdown]
# Nothing else was touched, so the teacher should answer as before. **Predict** for both ways: how many of its answers stay the
# same, on messages that were not used to choose the tokens?

# %%
few = range(min(48, len(chats)))
cuts = {"tokens in use": (small_teacher, small_tokenizer), "first merges": (first_teacher, first_tokenizer)}
outcome = {}
for name, (model, words) in cuts.items():
    again = generation.generate(model, words, [chats[i] for i in few], label=name)
    scores = scoring.score(desk.task, [tests[i] for i in few], again)
    outcome[name] = {"answers unchanged": sum(again[i] == said[i] for i in few) / len(few), "exact match": scores.exact}
outcome["no cut"] = {"answers unchanged": 1.0, "exact match": teacher_scores.first(len(few)).exact}
del cuts, model, first_teacher
pandas.DataFrame(outcome).T.round(2)

# %% tags=["nbval-check-output"]
print(
    "the tokens in use disturb fewer answers:",
    outcome["tokens in use"]["answers unchanged"] > outcome["first merges"]["answers unchanged"],
)

# %% [markdown]
# The same number of weights is gone, but not the same words. What a model has learned hangs on its own spelling of the words that matter here; spelled in
# pieces, they are strangers, in the message as in its own answer. So look at your data before you cut, not at the tokenizer's list.
#
# ## 2.6 Cut away layers
#
# The student keeps evenly spaced layers of the teacher, the first and the very last among them. **Predict:** what does it
# answer before any training?

# %%
student = compression.keep_layers(small_teacher, keep).float()  # it will be trained, with 32 bits
print("layers kept:", keep)
generation.generate(student, small_tokenizer, chats[:1], max_new_tokens=20, label=None)[0]

# %%
print(f"teacher {full_size:.1f} million weights, student {millions(student):.1f} million")

# %% [markdown]
# Rubble. Why? Each layer that is left reads what it has never seen before, because the layers in front of it are gone. The
# skill has to be grown again. The token vectors are not trained: that saves time and memory.

# %%
student.get_input_embeddings().weight.requires_grad_(False)
trained = sum(weight.numel() for weight in student.parameters() if weight.requires_grad)
print(f"{trained / 1e6:.1f} million weights of the student are trained")

# %% [markdown]
# One more thing can go. A deployed model carries a table of angles for every position that it may ever read. Messages are short: room for
# twice the longest is plenty, and 1,024 at least.

# %%
longest = max(len(small_tokenizer(text)["input_ids"]) for text in seen + texts)
room = max(1024, 2 * longest)
print(f"positions: {student.config.max_position_embeddings:,}", end=" -> ")
student.config.max_position_embeddings = min(room, student.config.max_position_embeddings)
print(f"{student.config.max_position_embeddings:,}")

# %% [markdown]
# ## 2.7 Ways to learn
#
# The student can be told *what* the answer is (the text; for most lessons a person's, for the pool the teacher's), *how sure* it was (its distribution over the tokens), and *how it
# got there* ([Romero et al. 2015](https://arxiv.org/abs/1412.6550)): inside the teacher, each kept layer used to read something
# sensible. Doubts can be compared only token by token, so both must have the same tokens. The teacher as it was, with all its tokens, cannot serve:

# %%
try:
    distillation.study(reader, tokenizer, [example], student_tokenizer=small_tokenizer)
except settings.CourseError as refusal:
    print(refusal)
del reader, ours, labeller, panel  # 16 bits or not, the whole teacher has done its work

# %% [markdown]
# That is why the vocabulary was cut in the teacher, too. It reads every lesson once; its states before every second kept layer and at the end
# are kept for all that follows.

# %%
inside = list(range(2, len(keep), 2))  # every second of the kept layers: half of the memory
studied, _ = distillation.study(
    small_teacher,
    small_tokenizer,
    [example_of(lesson, small_tokenizer) for lesson in lessons],
    layers=[*(keep[i] for i in inside), -1],
)
print("teacher states of the first lesson:", tuple(studied[0]["teacher_states"].shape), "(tokens, places, size)")

# %% [markdown]
# How far is the student's distribution from the teacher's? The Kullback-Leibler divergence depends on whose eyes you look through.
# *Forward* asks where the teacher has probability and the student has none; *reverse* the other way round. A *temperature*
# divides the logits before the softmax: above 1 it spreads the doubts. (Its square undoes what the division does to the gradient,
# [Hinton et al. 2015](https://arxiv.org/abs/1503.02531).)


# %%
def divergence(student_logits, teacher_logits, temperature=1, reverse=False):
    ours, theirs = ((x / temperature).log_softmax(-1) for x in (student_logits, teacher_logits))
    here, there = (ours, theirs) if reverse else (theirs, ours)
    return temperature**2 * (here.exp() * (here - there)).sum(-1).mean()


toy = torch.tensor([[4.0, 3.9, 0.0]]), torch.tensor([[4.0, 0.0, 0.0]])  # the teacher wavers, the student does not
print(f"forward {divergence(toy[1], toy[0]):.2f}, reverse {divergence(toy[1], toy[0], reverse=True):.2f} nats")

# %% [markdown]
# Three losses, and a weight for each. The last place, from which the answer is read, counts extra.
# What the teacher would say next is read from its states with its own head.

# %%
from torch.nn.functional import cosine_similarity, cross_entropy

# layer of the student -> column of what the teacher read there; the last state is the last column
places = {layer: column for column, layer in enumerate(inside)} | {-1: -1}


def distillation_loss(text, sure, path, temperature=1, reverse=False, places=places):
    teacher_head = small_teacher.get_output_embeddings()

    def loss(model, done, batch):
        logits, told = model.get_output_embeddings()(done.states).float(), batch["teacher_states"]
        with torch.no_grad():
            last = told[:, -1][done.answer].to(teacher_head.weight.dtype)
            teacher_logits = teacher_head(last).float()
        total = text * cross_entropy(logits, done.targets)
        total = total + sure * divergence(logits, teacher_logits, temperature, reverse)
        if path:
            own = torch.stack([done.layer(layer) for layer in places], dim=1).float()
            alike = cosine_similarity(own, told[:, list(places.values())].float(), dim=-1)
            apart = 1 - alike.mean(dim=0)  # one number per place
            total = total + path * (4 * apart.mean() + 2 * apart[-1])
        return total

    return loss


# %% [markdown]
# Which of them is worth its cost? Each way gets the same student, the same lessons and the same few steps. The judge is a set of
# labelled messages that nobody was trained on (not the test, as long as the data hold any others): how many nats does the right answer cost? (Zero: it is
# certain. Each 0.7 more: half as likely. It is the measure that the text loss itself makes small.) **Predict** the order.

# %%
ways = {
    "text": {"text": 1, "sure": 0, "path": 0},
    "text and doubts, forward KL": {"text": 0.5, "sure": 0.5, "path": 0},
    "text and doubts, reverse KL": {"text": 0.5, "sure": 0.5, "path": 0, "reverse": True},
    "text and doubts, temperature 2": {"text": 0.5, "sure": 0.5, "path": 0, "temperature": 2},
    "text and path": {"text": 1, "sure": 0, "path": 1},
    "text, doubts and path": {"text": 0.5, "sure": 0.5, "path": 1},
}
student_rate = 1e-3
trial = random.Random(run.seed).sample(studied, min(len(studied), run.pick(full=160, quick=96)))


# %%
def nats(model, records):
    _, chances = distillation.study(model, small_tokenizer, [example_of(record, small_tokenizer) for record in records])
    return [-math.log(max(chance, 1e-300)) for chance in chances]


def attempt(label, way, examples=trial, **dials):
    pupil = copy.deepcopy(student)
    usual = {"num_train_epochs": 1, "learning_rate": student_rate, "seed": run.seed, "warmup_steps": 0.25}  # of all
    history = trainer.train(pupil, small_tokenizer, examples, label, distillation_loss(**way), **(usual | dials))
    return {"cost": nats(pupil, held_out[:120]), "seconds": history.attrs["seconds"]}


attempts = {name: attempt(name, way) for name, way in ways.items()}


# %%
def compared(attempts):
    rows = pandas.DataFrame({name: attempt["cost"] for name, attempt in attempts.items()})
    reach = 1.96 * rows.sem()
    gap = rows.sub(rows.iloc[:, 0], axis=0)  # on the same messages, so their differences vary less than they do
    columns = {"nats per answer": rows.mean(), "low": rows.mean() - reach, "high": rows.mean() + reach}
    columns |= {"more than the first": gap.mean(), "plus or minus": 1.96 * gap.sem()}
    return pandas.DataFrame(columns | {"seconds": {name: attempt["seconds"] for name, attempt in attempts.items()}})


table = compared(attempts)
table.round(1)

# %%
with_path = [way for way in ways if "path" in way]
print(
    "the path is ahead of the text alone:",
    bool(table["nats per answer"][with_path].min() < table["nats per answer"]["text"]),
)

# %% [markdown]
# A small trial picks the way; the same for all lessons costs minutes. It is one seed and a few dozen steps: where a difference is smaller than its interval,
# the choice is a matter of taste.

# %%
best = table["nats per answer"].idxmin()
print("chosen:", best)

# %% [markdown]
# ### The dials
#
# The same trial, one dial turned at a time: the learning rate, two passes over half of the lessons, larger batches, a higher temperature. **Predict:** which of
# them hurts most? All of them see as many lessons; batches of 8 make half of the steps. (The last bar brings the doubts with it, where the chosen way has none.)

# %%
dials = {
    "learning rate / 3": {"learning_rate": student_rate / 3},
    "learning rate x 3": {"learning_rate": student_rate * 3},
    "half the lessons, twice": {"examples": trial[: len(trial) // 2], "num_train_epochs": 2},
    "batches of 8, not 4": {"per_device_train_batch_size": 8},
}
turned = {"as chosen": attempts[best]} | {name: attempt(name, ways[best], **dial) for name, dial in dials.items()}
softer = ways[best] | {"text": 0.5, "sure": 0.5, "temperature": 3}
turned["doubts at temperature 3"] = attempt("temperature 3", softer)
sweep = compared(turned)
plots.show(
    plots.bars(
        dict(sweep["nats per answer"]),
        "nats per right answer (line: 95 % interval), less is better",
        dict(sweep["low"]),
        dict(sweep["high"]),
    ),
    takeaway=f"Best of this short trial: {sweep['nats per answer'].idxmin()}",
    alt="Bar chart of the cost of a right answer for six settings of learning rate, passes, batch size and temperature, with intervals.",
)

# %% [markdown]
# What is best for so few steps need not be best for many more: the long run keeps its learning rate. **Try it:** change
# `student_rate`, and let the whole chapter decide.
#
# ### All lessons

# %%
student_history = trainer.train(
    student,
    small_tokenizer,
    studied,
    label="student",
    loss=distillation_loss(**ways[best]),
    num_train_epochs=run.pick(full=3, quick=1),
    learning_rate=student_rate,
    seed=run.seed,
)
plots.show(
    plots.curve(student_history, unit="weighted sum of the losses"),
    takeaway="The way back is longer than the cut was",
    alt="Line plot of the student's distillation loss over its training steps, falling fast, then slowly.",
)

# %% [markdown]
# ## 2.8 In its own words
#
# So far the student only continued the lessons' answers. In use it continues its own, mistakes included. *On-policy* distillation
# ([Agarwal et al. 2024](https://arxiv.org/abs/2306.13649)) lets it answer first, unlabelled messages too, and moves its distribution towards the
# teacher's on the very tokens it wrote; here with the trainer of TRL ([Hugging Face](https://huggingface.co/docs/trl)) and the reverse divergence.

# %%
import tempfile

from datasets import Dataset
from trl import DistillationConfig, DistillationTrainer

late_rate = student_rate / 10
longest = max(sum(label != encoding.IGNORE for label in lesson["labels"]) for lesson in studied)
config = trainer.arguments(
    tempfile.gettempdir(),  # nothing is saved there
    DistillationConfig,
    num_train_epochs=1,
    learning_rate=late_rate,
    beta=1.0,  # 0: forward KL, 1: reverse KL
    max_completion_length=longest + 8,
    activation_checkpointing=False,
    seed=run.seed,
)

# %%
strangers = [r["text"] for r in desk.pool[len(pool) :]] or [lesson["text"] for lesson in lessons]
strangers = strangers[: run.pick(full=own_words, quick=8)]
questions = Dataset.from_list([{"prompt": desk.task.messages(text)} for text in strangers])
speaker = copy.deepcopy(student)
distiller = DistillationTrainer(speaker, small_teacher, config, questions, processing_class=small_tokenizer)
spoken = trainer.run(distiller, label="its own words")
del distiller

# %% [markdown]
# As many steps, spent as before on lessons, are the rival. Two things differ, then: whose words they are, and that the lessons are no longer new.
# **Predict:** is the student's own voice worth its price in seconds?

# %%
listener = copy.deepcopy(student)
more = {"num_train_epochs": 1, "learning_rate": late_rate, "seed": run.seed}
again = random.Random(run.seed).choices(studied, k=len(strangers))
heard = trainer.train(listener, small_tokenizer, again, "more lessons", distillation_loss(**ways[best]), **more)
later = {"no more": (student, 0), "more lessons": (listener, heard), "its own words": (speaker, spoken)}


# %%
def exam(model, records=held_out):
    chats = [desk.task.messages(record["text"]) for record in records]
    pupil = copy.deepcopy(model).to(small_teacher.dtype)  # it reads and writes as the teacher did
    return scoring.score(desk.task, records, generation.generate(pupil, small_tokenizer, chats, label="exam"))


exams = {name: exam(model).rows["exact"] for name, (model, _) in later.items()}
standing = pandas.DataFrame({name: intervals.proportion(right) for name, right in exams.items()}).T
standing["nats per answer"] = [pandas.Series(nats(model, held_out)).mean() for model, _ in later.values()]
standing["seconds"] = [0 if name == "no more" else history.attrs["seconds"] for name, (_, history) in later.items()]
standing.rename(columns={"share": "exact match"}).round(2)

# %%
gap = intervals.difference(exams["its own words"], exams["more lessons"], run.seed)
print(
    f"its own words minus more lessons: {100 * gap['points']:+.1f} points of exact match ({100 * gap['low']:+.1f} to {100 * gap['high']:+.1f})"
)

# %% [markdown]
# Read the intervals before you call a winner. One of the three has to go on: the one that finds the right answers most likely, tie or not.

# %%
winner = standing["nats per answer"].idxmin()
goes_on = later[winner][0]
print("goes on:", winner)
del later, speaker

# %% [markdown]
# ## 2.9 Get used to four bits
#
# The student will be deployed with 4-bit weights. **Predict:** what does it cost to round them after training? And if it
# computes with rounded weights while it learns (quantization-aware training, [Jacob et al. 2018](https://arxiv.org/abs/1712.05877))?
# Both ways get the lessons of `more lessons`, at the same learning rate.

# %%
bits = {"not rounded": exams["more lessons"]}
rounded = copy.deepcopy(listener)
with compression.four_bits(rounded):
    pass  # no training: the weights are only rounded
bits["rounded afterwards"] = exam(rounded).rows["exact"]
del rounded

# %%
used_to_it = copy.deepcopy(student)
with compression.four_bits(used_to_it):
    trainer.train(used_to_it, small_tokenizer, again, "four bits", distillation_loss(**ways[best]), **more)
bits["rounded while it learned"] = exam(used_to_it).rows["exact"]
del used_to_it
plots.show(
    plots.shares(bits, "exact match on held-out messages in % (line: 95 % interval)"),
    takeaway="What rounding costs, afterwards and while it learns",
    alt="Bar chart of exact match on held-out messages for the student not rounded, rounded afterwards, rounded while it learned.",
)

# %% [markdown]
# A few steps, and intervals to match. What is deployed may as well learn on for a whole pass with every weight on its four-bit grid:

# %%
student = goes_on
del listener, goes_on
with compression.four_bits(student):
    trainer.train(
        student,
        small_tokenizer,
        studied,
        label="all lessons, four bits",
        loss=distillation_loss(**ways[best]),
        num_train_epochs=1,
        learning_rate=student_rate / 3,
        seed=run.seed + 1,
    )

# %%
row = student.model.layers[0].mlp.up_proj.weight[0, :32]  # one block of weights
print(len(row.unique()), "different numbers among 32 weights; four bits can tell 16 apart")

# %% tags=["nbval-check-output"]
print("this block can be stored in four bits:", len(row.unique()) <= 16)

# %%
student_scores = exam(student, tests)
student_scores.table().round(3)

# %% [markdown]
# ## 2.10 Look at one doubt
#
# Where is the teacher least sure of a test message? There, both have a distribution over the next token. A student trained on the forward divergence
# covers all that the teacher thinks possible; on the reverse one it settles for one thing
# ([Gu et al. 2024](https://arxiv.org/abs/2306.08543)).

# %%
hard = min(answered, key=lambda i: sure[i], default=0)
answer = teacher_scores.readings[hard].answer or tests[hard]["answer"]
batch = encoding.collate(small_tokenizer)([example_of({"text": texts[hard], "answer": answer}, small_tokenizer)])
with torch.inference_mode():
    logits = {
        name: model.get_output_embeddings()(encoding.forward(model, batch).states).float()
        for name, model in {"teacher": small_teacher, "student": student}.items()
    }
chance = logits["teacher"].softmax(-1)
place = torch.special.entr(chance).sum(-1).argmax()
top = chance[place].topk(5).indices
print(texts[hard])
print("so far:", small_tokenizer.decode(batch["labels"][batch["labels"] != encoding.IGNORE][:place]))

# %%
from slmops_lab.course import widgets


def page(forward, temperature):
    soft = {name: values[place] / temperature for name, values in logits.items()}
    distance = divergence(soft["student"], soft["teacher"], reverse=not forward)
    names = [repr(small_tokenizer.decode(token)) for token in top]
    heights = {name: 100 * values.softmax(-1)[top] for name, values in soft.items()}
    title = f"Temperature {temperature}: {'forward' if forward else 'reverse'} KL {distance:.2f} nats"
    picture = plots.png(plots.columns(names, heights, "probability of the next token in %"), title)
    return picture, f"Columns of the five likeliest tokens, teacher beside student. {title}."


temperatures = [0.5, 0.7, 1, 1.5, 2, 4, 8]
pictures = {kind: {t: page(kind == "forward", t) for t in temperatures} for kind in ("forward", "reverse")}
widgets.flip_book(pictures, over="KL", along="temperature")

# %% [markdown]
# (The columns are those of this one student; the buttons only change how their distance is counted.) **Try it:** at which temperature do the two look
# most alike, and why does that say little?
#
# ## 2.11 What is left of the teacher?
#
# Both answered the same messages, so compare them message by message. The interval of the ratio is made for such
# pairs, and claims no certainty where nearly all answers are right ([Bonett and Price 2006](https://doi.org/10.1002/sim.2440)).

# %%
kept = intervals.ratio(student_scores.rows["exact"], teacher_scores.rows["exact"], run.seed)
print(
    f"the student keeps {100 * kept['ratio']:.1f} % of the teacher's exact match "
    f"(95 % interval {100 * kept['low']:.1f} to {100 * kept['high']:.1f}, n = {len(tests)})"
)

# %% [markdown]
# Is the student worse at all, or is that chance? Only messages that one of the two gets right and the other does not can tell
# ([McNemar 1947](https://doi.org/10.1007/BF02295996)).

# %%
split = intervals.paired_test(student_scores.rows["exact"], teacher_scores.rows["exact"])
print(f"only the teacher is right {split['only_theirs']} times, only the student {split['only_ours']} times;")
print(f"two equally good models would split at least this unevenly with probability {split['p']:.2f}")

# %%
rivals |= {"teacher": teacher_scores, "student": student_scores}
plots.show(
    plots.shares({name: s.rows["exact"] for name, s in rivals.items()}),
    takeaway=f"{len(keep)} of {depth} layers keep {100 * kept['ratio']:.0f} % of the teacher's exact match",
    alt="Bar chart of exact match with intervals for the two word-counting baselines, the teacher and the student.",
)

# %% [markdown]
# The average may hide a victim. Look at each value by itself, the most frequent on top. **Predict:** who pays, the frequent or the rare?

# %%
student_pairs = scoring.outcomes(field, tests, student_scores.readings)
counts = dict(teacher_pairs["truth"].value_counts().head(16))
found = {
    who: 100 * pairs["said"].eq(pairs["truth"]).groupby(pairs["truth"]).mean()
    for who, pairs in {"teacher": teacher_pairs, "student": student_pairs}.items()
}
plots.show(
    plots.pairs(found, counts, f"share of the messages whose {field} is found, in %"),
    takeaway="What each value lost or won on the way from teacher to student",
    alt="For each value one line with two marks: the share found by the teacher and by the student.",
)

# %% [markdown]
# With so few messages for each value, a difference of one or two is noise. A value that falls far and is rare is a warning:
# label more of it before you deploy.

# %%
how = {"learning_rate": student_rate, "examples": len(lessons), "layers": len(keep), "vocabulary": len(kept_ids)}
marks = {"exact_match": student_scores.exact, "n": len(tests)}
with artifacts.save(run, "student", settings=how, metrics=marks) as folder:
    student.save_pretrained(folder)
    small_tokenizer.save_pretrained(folder)
    student_scores.save(folder / "test_scores.json")
artifacts.manifest(run, "student")["metrics"]

# %% [markdown]
# ## 2.12 How small can it go?
#
# Cut again, this time from the student: every second of its layers, and then every second of those. Each smaller student learns all lessons once more, with
# rounded weights. **Predict:** what do fewer layers cost in points, and what do they save in milliseconds?


# %%
def cut_again(layers):
    smaller = compression.keep_layers(student, layers)
    smaller.get_input_embeddings().weight.requires_grad_(False)
    known = {new: places[old] for new, old in enumerate(layers) if old in places} | {-1: -1}
    loss = distillation_loss(**ways[best], places=known)
    more = {"num_train_epochs": 1, "learning_rate": student_rate, "seed": run.seed}
    with compression.four_bits(smaller):
        trainer.train(smaller, small_tokenizer, studied, f"{len(layers)} layers", loss, **more)
    return smaller


# %%
folders, fp32 = {len(keep): run.artifacts / "student"}, {len(keep): student_scores}
layers = list(range(len(keep)))
while len(folders) < 3 and len(layers) > 3:
    layers = [0, *layers[2:-1:2], layers[-1]]
    name, smaller = f"student-{len(layers)}-layers", cut_again(layers)
    fp32[len(layers)] = exam(smaller, tests)
    with artifacts.save(run, name) as folder:
        smaller.save_pretrained(folder)
        small_tokenizer.save_pretrained(folder)
    folders[len(layers)] = run.artifacts / name
del studied  # the largest thing in memory, and done with

# %% [markdown]
# Each of them also as it will be deployed, with four bits in ONNX Runtime GenAI (chapter 4 looks into that). The int4 file answers
# every test message itself.

# %%
from slmops_lab.deployment import export, runtime
from tqdm import tqdm

int4 = {}
for count, folder in folders.items():
    with artifacts.save(run, f"{folder.name}-int4") as out:
        export.to_onnx(folder, out, "int4")
    served = runtime.open_runtime("genai", run.artifacts / f"{folder.name}-int4")
    written = [served.generate(chat) for chat in tqdm(chats, desc=f"{count} layers, int4", leave=False)]
    served.close()
    int4[count] = scoring.score(desk.task, tests, written)

# %% [markdown]
# Time and memory: one message at a time, each model in a fresh process of its own, taking turns. (With so few messages, the 95th
# percentile is hardly less than the slowest. The exact match of the fp32 rows was read with 16-bit arithmetic, as the teacher's.)

# %%
systems = {f"{depth} layers (teacher), fp32": ("torch", run.artifacts / "teacher")}
for count, folder in folders.items():
    systems[f"{count} layers, fp32"] = ("torch", folder)
    systems[f"{count} layers, int4"] = ("genai", run.artifacts / f"{folder.name}-int4")
race, memory = runtime.race(systems, chats[: run.pick(full=20, quick=4)])
milliseconds = race.pivot(index="message", columns="system", values="ms")[list(systems)]
speed = milliseconds.quantile([0.5, 0.95]).T.set_axis(["ms, p50", "ms, p95"], axis=1)
speed["process, MB"] = pandas.Series(memory) / 1e6
speed["model files, MB"] = [measure.weight_bytes(folder) / 1e6 for _, folder in systems.values()]
results = [teacher_scores, *(s for count in folders for s in (fp32[count], int4[count]))]
speed["exact match, %"] = [100 * result.exact for result in results]
speed.round(1)


# %%
def point(system, result):
    ends = intervals.proportion(result.rows["exact"])
    return *speed.loc[system, ["model files, MB", "ms, p50"]], *(100 * ends[key] for key in ("share", "low", "high"))


first = next(iter(systems))
points = {f"teacher, {depth} layers": {"fp32": point(first, teacher_scores)}}
for count in folders:
    both = {"fp32": fp32[count], "int4": int4[count]}
    points[f"{count} layers"] = {kind: point(f"{count} layers, {kind}", result) for kind, result in both.items()}
plots.show(
    plots.frontier(points, ["model files, MB", "ms per message (median)"], "exact match in %"),
    takeaway=f"Left is cheaper, up is better: the course deploys {len(keep)} layers with int4",
    alt="Two scatter plots of exact match with intervals against model size and time per message, "
    "for the teacher and students of several depths, each with 32 and with 4 bits.",
)

# %% [markdown]
# A point is on the *frontier* if no other is both cheaper and better: which of these are? The students hold four-bit values in both forms, so from square to
# circle only the storage and the runtime change; what the rounding cost was in 2.9. The smaller students had one pass each: more lessons would lift them.
# Whether the last points of exact match are worth twice the layers is not for the engineer alone to say.
#
# ## 2.13 The case study, and what an answer costs
#
# The numbers that people repeat about distillation come from a case study with DeepSeek-V3 as teacher and Phi-4-mini as student
# ([Microsoft](https://github.com/microsoft/edgeai-for-beginners), module 5). Beside them stands what this machine just measured. Chapter 4
# repeats it with more messages, and settles it in the ledger.

# %%
from slmops_lab.course import claims

last = f"{len(keep)} layers, int4"
kept_int4 = intervals.ratio(int4[len(keep)].rows["exact"], teacher_scores.rows["exact"], run.seed)
gone = 100 * (1 - speed.loc[last] / speed.loc[first])
here = {
    "inference-time": f"{gone['ms, p50']:.1f} % less time per message",
    "memory": f"{gone['model files, MB']:.1f} % fewer bytes, {gone['process, MB']:.1f} % less process memory",
    "accuracy-kept": f"{100 * kept_int4['ratio']:.1f} % ({100 * kept_int4['low']:.1f} to {100 * kept_int4['high']:.1f})",
}
claimed = [claims.LEDGER[name].claim for name in here]
pandas.DataFrame({"claimed": claimed, "here": here.values()}, index=list(here))

# %% [markdown]
# Before you hold two such numbers side by side, ask of each: which teacher, which task, how many messages at a time, which runtime, and
# what was counted as time? Ours counts the new runtime and the bits, too.
#
# Here, an answer costs time on a machine; behind an address, it costs tokens (counted here with our own tokenizer). The prices are round figures, in any currency,
# without a source. **Try it:** put in your own.

# %%
machine_hour = 0.10  # one hour of this machine
input_price, output_price = 0.50, 1.50  # a million tokens of a hosted model


def asked(record):  # a hosted model has to be told the fields each time
    return encoding.prompt_ids(tokenizer, desk.task.messages(record["text"], explain=True))


# %%
tokens_in = sum(len(asked(record)) for record in tests) / len(tests)
tokens_out = sum(len(tokenizer(text)["input_ids"]) for text in said) / len(said)
hours = milliseconds[[first, last]].mean() / 1000 / 3600
million = {system: 1e6 * machine_hour * spent for system, spent in hours.items()}
million["hosted model"] = tokens_in * input_price + tokens_out * output_price
print(f"{tokens_in:.0f} tokens to the hosted model and {tokens_out:.0f} back, for each message")
print(f"the student's answer costs {100 * (1 - million[last] / million[first]):.0f} % less than the teacher's")
pandas.Series(million, name="a million messages cost").round(1).to_frame()

# %% tags=["nbval-check-output"]
print("the student's answer costs less than the teacher's:", bool(million[last] < million[first]))
print("the student has fewer than half of the weights:", millions(student) < full_size / 2)
print("its answers are JSON nine times in ten:", bool(student_scores.rows["valid"].mean() > 0.9))

# %% [markdown]
# ## 2.14 The same in the cloud
#
# Azure Machine Learning sells these two stages as one job: a teacher behind an endpoint labels, a student is tuned. Here is the
# request for our task, built with Microsoft's own library. Nothing is sent, and no key stands in it: the service knows the
# teacher by the name of a connection.

# %%
from slmops_lab.operations import cloud

job = cloud.distillation_job(
    name="support-desk",
    teacher="DeepSeek-V3-2",
    teacher_url="https://my-endpoint.example/v1/chat/completions",
    student="azureml://registries/azureml/models/Phi-4-mini-instruct/versions/1",
    training_data="azureml:support-desk-train:1",
    validation_data="azureml:support-desk-validation:1",
    hyperparameters={"learning_rate": 2e-5, "num_train_epochs": 3},
)
cloud.what_is_sent(job)["properties"]

# %%
answer = (cloud.submit(job) or "no workspace is configured") if submit_to_azure is True else "nothing was sent"
print("sent as:", answer)

# %% [markdown]
# Names age. The pair that many tutorials still show, Meta-Llama-3.1-405B-Instruct as teacher of Meta-Llama-3.1-8B-Instruct, was
# announced to retire on 13 June 2026 without a named replacement, and DeepSeek-V3-0324 on 13 July 2026 in favour of DeepSeek-V4-Flash
# ([Microsoft's schedule](https://github.com/MicrosoftDocs/azure-ai-docs/blob/main/articles/foundry/openai/includes/concepts-model-retirement-schedule-content.md),
# as of July 2026). The package azure-ai-inference was to retire on 26 August 2026; the `openai` client
# takes its place ([Microsoft](https://learn.microsoft.com/en-us/azure/foundry-classic/foundry-models/supported-languages)). So the
# teacher and the student above are arguments: look up what is offered on the day.

# %% [markdown]
# ## Exercises
#
# ### Exercise 2.1: change one number
#
# What share of the teacher's layers did the student keep? Give it in per cent, computed from `keep` and `depth`.

# %% tags=["exercise"]
layers_kept = ...

# %% tags=["check"]
from slmops_lab.course.exercises import check

check(
    "2.1",
    layers_kept,
    lambda share: abs(share - 100 * len(keep) / depth) < 0.1,
    hint="keep is a list of indices, depth the number of all layers.",
    why="Weights went with the tokens, too: of those it kept a smaller share.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# layers_kept = 100 * len(keep) / depth
# ```
# </details>
#
# ### Exercise 2.2: read the mask
#
# How many tokens of `example` count in the loss? Give the number, computed from its labels.

# %% tags=["exercise"]
counted_tokens = ...

# %% tags=["check"]
check(
    "2.2",
    counted_tokens,
    lambda n: n == len(counted),
    hint="Count the labels that are not encoding.IGNORE.",
    why="The prompt costs time in training, but only the answer teaches.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# counted_tokens = sum(label != encoding.IGNORE for label in example["labels"])
# ```
# </details>
#
# ### Exercise 2.3: who lost what?
#
# In how many test messages was the teacher right in every field and the student not? `rows["exact"]` of the two
# scores has the answer.

# %% tags=["exercise"]
lost = ...

# %% tags=["check"]
check(
    "2.3",
    lost,
    lambda n: n == int((teacher_scores.rows["exact"] & ~student_scores.rows["exact"]).sum()),
    hint="Combine the two boolean columns with & and ~, then sum.",
    why="There are messages the other way round, too: a student is not just a worse teacher.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# lost = int((teacher_scores.rows["exact"] & ~student_scores.rows["exact"]).sum())
# ```
# </details>
#
# ### Exercise 2.4: write it
#
# Between the forward and the reverse divergence lies a third: compare each distribution with their *mixture*, half of the one and half of
# the other, and take the mean of the two divergences (Jensen-Shannon). Write `between(student_logits, teacher_logits)` that returns it, in nats.

# %% tags=["exercise"]
between = ...

# %% tags=["check"]
from scipy.spatial.distance import jensenshannon  # the root of it

toys = torch.tensor([[4.0, 0.0, 0.0]]), torch.tensor([[0.0, 3.0, 1.0]])
apart = jensenshannon(*(toy[0].softmax(-1) for toy in toys)) ** 2
check(
    "2.4",
    between,
    lambda f: abs(float(f(*toys)) - apart) < 1e-4 and abs(float(f(toys[0], toys[0]))) < 1e-5,
    hint="Softmax both, average them to the mixture; then sum p * (log p - log mixture), for each of the two.",
    why="It never becomes infinite and treats both alike; TRL's trainer in 2.8 calls it beta = 0.5.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def between(student_logits, teacher_logits):
#     both = [student_logits.softmax(-1), teacher_logits.softmax(-1)]
#     mixture = (both[0] + both[1]) / 2
#     return sum((p * (p.log() - mixture.log())).sum(-1).mean() for p in both) / 2
# ```
# </details>
#
# ### Exercise 2.5: who is on the frontier?
#
# A system is on the frontier of 2.12 if no other has smaller model files *and* a better exact match. Collect the names of those
# that are, from the table `speed`.

# %% tags=["exercise"]
on_the_frontier = ...

# %% tags=["check"]
rows = list(zip(speed.index, speed["model files, MB"], speed["exact match, %"], strict=True))
unbeaten = {name for name, size, hits in rows if not any(s < size and h > hits for _, s, h in rows)}
check(
    "2.5",
    on_the_frontier,
    lambda names: set(names) == unbeaten,
    hint="For each row of speed: is there a row with fewer MB and a higher exact match? If not, keep its name.",
    why="Everything else can be dropped from the meeting: somebody offers more for less.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# size, hits = speed["model files, MB"], speed["exact match, %"]
# on_the_frontier = [name for name in speed.index if not ((size < size[name]) & (hits > hits[name])).any()]
# ```
# </details>
#
# ## Quiz
#
# 1. Why must a copied order number stand in the message before the label is used?
# 2. What would a student learn from a teacher that is right half of the time and always sure?
# 3. Why does the student start from the teacher's layers and not from random numbers?
# 4. Three teachers vote, and the labels get worse than the best one's alone. How can that be?
# 5. Two cuts of the vocabulary keep equally many tokens. Why does one ruin the model?
#
# <details><summary>Answers</summary>
#
# 1. A made-up number is a mistake that can be seen without knowing the truth. Filter what you can see.
# 2. To be wrong half of the time, and sure of it: there are no doubts to learn from.
# 3. Embeddings and early layers already know the language; only the way from there to the answer must be learned again.
# 4. Two weaker teachers that err in the same place outvote a stronger one. A vote needs teachers of like strength and unlike errors.
# 5. It cuts words that this desk needs, and the model never learned to read or write them in pieces.
#
# </details>
#
# ## Take-aways
#
# - Score the teacher first; then filter what it says. A second teacher, even a weak one, makes a good filter.
# - Tokens can go for almost nothing, if those in use stay. Layers cost a second training, and answers.
# - There is more to copy than the answer: how sure the teacher was, and how it got there. Try each way small before you pay for it.
# - Measure the model that you deploy, bits and runtime included, not the one that you trained.
# - Compare on the same messages, with an interval of the ratio, and value by value.

# %%
print(f"This chapter took {run.minutes:.1f} minutes and at most {measure.peak_memory() / 1e9:.1f} GB.")

# %% [markdown]
# **Next:** [chapter 3](03_fine_tuning.ipynb) asks whether every weight had to be trained.
