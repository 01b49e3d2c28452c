# %% [markdown]
# # 3 Fine-tuning: how much of the model has to move?
#
# Training a pretrained model further on one task is called [*fine-tuning*](../book/glossary.md#fine-tuning), and it is *full* fine-tuning where every weight
# may change. Chapter 2 tuned its teacher in this way in the upper half of the layers, and we call that full tuning, too. Full tuning needs memory for each
# weight that is trained, and each task needs its own copy of the model. [*LoRA*](../book/glossary.md#lora) ([Hu et al. 2021](https://arxiv.org/abs/2106.09685))
# leaves the weights as they are and trains a small [*adapter*](../book/glossary.md#adapter) beside them. In this chapter you find out when LoRA is enough, when
# a good prompt is enough, and what else decides whether a fine-tuning works.
#
# **You will be able to**
#
# - check training messages for copies, leaks and wrong labels, and split them fairly;
# - decide between prompting, full tuning, LoRA and QLoRA, with measurements of your own;
# - build LoRA from its formula, put it into a whole model, and say what its rank, its scale and its place in the model do;
# - compute how much memory a fine-tuning needs before you start it, even for a model that does not fit on your machine;
# - tune one base for several jobs, judge each by a measure that fits, and serve several adapters on one base;
# - run Microsoft Olive from a command and from a workflow file, and notice when it fails;
# - search for settings without looking at the test messages, and write a loss that counts some mistakes more than others;
# - recognise overfitting and stop in time, resume a training that was killed, and mend one that needs too much memory or time.
#
# **You need** chapter 2 (its teacher is made first where it is missing), two processor cores and about 6 GB of free memory. Words of the field are in
# *italics* where they appear for the first time; the [glossary](../book/glossary.md) has all of them.

# %% tags=["parameters"]
dataset = "support_desk"
base_model = "smollm2-135m"
profile = None  # None: "full", or what SLMOPS_PROFILE says
seed = 0
rank = 16  # of the adapters
costly_value = "high"  # missing this value costs most, see 3.11

# %%
from slmops_lab import settings
from slmops_lab.course import artifacts, chapters
from slmops_lab.task import data
from slmops_lab.training import base_model as models
from slmops_lab.training import compression

run = settings.start(dataset, base_model, profile, seed, rank=rank)
sections = chapters.Sections(run, "03_fine_tuning")
sections.begin("3.1")
desk = data.load(run.dataset)
teacher_folder = artifacts.need(run, "teacher")
budget = artifacts.manifest(run, "teacher")["settings"]
plain_folder = models.fetch(run.base_model)
base, tokenizer = compression.add_phrases(*models.open_model(plain_folder), desk.task.phrases(values=True))
depth, still = base.config.num_hidden_layers, budget["frozen layers"]
gold = desk.train[: budget["examples"]]
held_out = (desk.train[len(gold) :] or desk.test)[: run.pick(full=200, quick=48)]
tests = desk.test[: run.pick(full=None, quick=120)]
print(f"{len(gold)} messages to learn from, {len(held_out)} to choose by, {len(tests)} to judge by")
print("the full tuning of chapter 2:", budget)

# %% [markdown]
# ## 3.1 What a training example is worth
#
# *You look at what the loss counts, look for copies and leaks, split fairly, and spoil labels on purpose.*
#
# These are the messages of chapter 2. The teacher learned from `gold`; `held_out` is for choosing settings, and `tests` are for the final scores. The base has
# the teacher's added tokens (2.1), so both write the same short answers. Before you train anything, look at the data: a model learns the mistakes in its
# examples, too.
#
# ### What the loss sees
#
# Decode a training example around the place where the answer begins, and at its end. A star stands before each token that counts in the
# [*loss*](../book/glossary.md#loss).

# %%
from slmops_lab.task import encoding


def example_of(record):
    return encoding.encode(tokenizer, desk.task.messages(record["text"]), desk.task.write(record["answer"]))


shown = example_of(gold[0])
begins = shown["labels"].count(encoding.IGNORE)  # so many tokens of the prompt
tokens = list(zip(shown["input_ids"], shown["labels"]))
for token, label in [*tokens[begins - 6 : begins + 3], *tokens[-2:]]:
    print(" " if label == encoding.IGNORE else "*", repr(tokenizer.decode([token])))

# %% [markdown]
# The lines without a star belong to the [*chat template*](../book/glossary.md#chat-template), which opens the assistant's turn. The last line is the mark that
# ends the answer. It has to count: a model that never learns this mark does not know when to stop.
#
# ### Copies and leaks
#
# A test message that is also in the training set is a [*leak*](../book/glossary.md#leak): the model may know it by heart, and the score no longer says how well
# it does on new messages. The course's data check looks for leaks. It ignores case and spaces, so it should find the copy in capitals that we plant.
#
# A copy in which a word was changed gets past this check. So we also measure similarity: we count groups of three to five characters, give rare groups more
# weight (*tf-idf*), and take the cosine of the counts of two texts. It is 1 for equal texts and 0 for texts that share no group.
#
# How much does a leak raise a score? The counter of word pairs (2.3) is trained in seconds, so we try it there: once on the gold messages alone, and once on
# these and half of the test messages. Both times it then answers this half.

# %%
import json
import shutil
import tempfile

from sklearn.feature_extraction.text import TfidfVectorizer

with tempfile.TemporaryDirectory() as scratch:
    leaky = shutil.copytree(run.dataset, f"{scratch}/leaky")
    stolen = {**desk.test[0], "id": "planted", "text": "  " + desk.test[0]["text"].upper()}
    with open(f"{leaky}/train.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(stolen) + "\n")
    print(*data.check(leaky), sep="\n")
counter = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
known = counter.fit_transform([record["text"] for record in desk.train])
asked_about = counter.transform([record["text"] for record in desk.test])
altered = counter.transform(["Hello there, " + desk.test[0]["text"].replace(".", " !")])
print(f"a test and a training message are at most {(asked_about @ known.T).max():.2f} alike,")
print(f"an altered copy and its original {(altered @ asked_about[0].T).toarray().item():.2f}")

# %%
from slmops_lab.course import plots
from slmops_lab.evaluation import baselines, intervals, scoring


def counted(known, asked):
    answers, _ = baselines.word_counter(desk.task, known, [record["text"] for record in asked], pairs=True)
    return scoring.score(desk.task, asked, [desk.task.write(answer) for answer in answers]).rows["exact"]


def ahead(ours, theirs):  # in points, on the same messages, with the ends of the 95 % interval
    return {key: 100 * value for key, value in intervals.difference(ours, theirs, run.seed).items()}


def in_words(gap):
    return f"{gap['points']:+.1f} points (95 % interval {gap['low']:+.1f} to {gap['high']:+.1f})"


leaked = tests[: len(tests) // 2]
honest, flattered = counted(gold, leaked), counted(gold + leaked, leaked)
lift = ahead(flattered, honest)
plots.show(
    plots.shares({"learned from gold": honest, "learned from gold and from these": flattered}),
    takeaway=f"The leak changes the score by {lift['points']:+.0f} points, which no new message will confirm",
    alt="Two bars with intervals: exact match of counting word pairs on the same messages, without and with these messages among the training messages.",
)

# %% [markdown]
# A threshold between the two similarities of the first cell would find the altered copy. The second cell shows how much too high a score can be if nobody looks
# for leaks.
#
# ### A fair split
#
# If a rare value happens to be missing from the held-out part, that part cannot tell how well a model does on it. A [*stratified
# split*](../book/glossary.md#stratified-split) gives each part its share of every value.

# %%
import pandas
from sklearn.model_selection import train_test_split

listed = [name for name, kind in desk.task.fields.items() if getattr(kind, "values", None)]
field = (listed or list(desk.task.fields))[0]  # in support_desk: what the customer wants
label_of = pandas.Series([str(record["answer"][field]) for record in desk.train])
label_of = label_of[label_of.map(label_of.value_counts()) > 1]  # a value that is there once cannot be shared out
size = max(len(label_of) // 10, label_of.nunique())
whole = 100 * label_of.value_counts(normalize=True)
for name, by in {"a random tenth": None, "a stratified tenth": label_of}.items():
    part = train_test_split(label_of, test_size=size, random_state=run.seed, stratify=by)[1]
    off = (100 * part.value_counts(normalize=True).reindex(whole.index, fill_value=0) - whole).abs()
    print(f"{name}: the share of '{off.idxmax()}' is off by {off.max():.1f} points, the most of all values")

# %% [markdown]
# ### Exercise 3.1: a split that keeps copies together
#
# If two copies of a message end up on both sides of a split, that is a leak as well. Write `split(records, part)`. It returns two lists of records, one to
# learn from and one to hold out. Every record is in exactly one of them. Records whose texts have the same `data.text_key(text)` (which ignores case and
# spaces) are in the same list. The second list has about the share `part` of the records, taken from all over the file and not from one end.

# %% tags=["exercise"]
split = ...

# %% tags=["check"]
from slmops_lab.course.exercises import check

doubled = [{**one, "id": i, "text": (one["text"], one["text"].upper())[i % 2]} for i, one in enumerate(gold[:99] * 2)]
doubled += [{**one, "id": i, "text": " " + one["text"]} for i, one in enumerate(gold[:50], len(doubled))]


def fair(parts, part):
    keys = [{data.text_key(one["text"]) for one in some} for some in parts]
    places = sorted(one["id"] % len(gold[:99]) / len(gold[:99]) for one in parts[1])
    everyone = sorted(one["id"] for some in parts for one in some) == list(range(len(doubled)))
    near = abs(len(parts[1]) / len(doubled) - part) < 0.08
    return everyone and near and not keys[0] & keys[1] and places[0] < 0.25 and places[-1] > 0.75


check(
    "3.1",
    split,
    lambda f: fair(f(doubled, 0.2), 0.2) and fair(f(doubled, 0.5), 0.5),
    hint="Split the keys, not the records: choose some of the different keys at random, and give each record to the side of its key.",
    why="The same holds for the messages of one customer: what belongs together stays on one side.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# import random
#
#
# def split(records, part):
#     keys = sorted({data.text_key(record["text"]) for record in records})
#     chosen = set(random.Random(0).sample(keys, round(part * len(keys))))
#     sides = [], []
#     for record in records:
#         sides[data.text_key(record["text"]) in chosen].append(record)
#     return sides
# ```
# </details>
#
# ### Wrong labels
#
# People who write labels make mistakes. What do these cost? We train the upper half of the base in full, as chapter 2 did, but for a few steps only: once with
# the right tickets, once with 40 % of the tickets wrong, and once without those that look wrong. The lower half is [*frozen*](../book/glossary.md#frozen), so
# what it computes for a message never changes. We compute it once per message, and most trainings of this chapter start from it. We judge by the loss on
# held-out messages, in [*nats*](../book/glossary.md#nat), summed over the tokens of the right answer. 0 would mean that the model is certain of it.
#
# Can we find the wrong tickets without reading them all? We ask a classifier that has not learned from them (*out-of-sample* prediction, [Northcutt et al.
# 2021](https://arxiv.org/abs/1911.00068)). We cut the labelled messages into five parts. The classifier, which works on the character counts from above, learns
# from four parts and says how likely it finds each label of the fifth. We repeat this until each part has been left out once. We suspect the labels that it
# finds least likely, as many as are wrong. Guessing would find 40 of 100.

# %%
import copy

import torch

from slmops_lab.evaluation import generation
from slmops_lab.training import adapters, frozen, trainer

lower = frozen.read(base, tokenizer, [example_of(record) for record in gold + held_out], still)
gold_read, held_read = lower.examples[: len(gold)], lower.examples[len(gold) :]
judges = held_read[: run.pick(full=80, quick=24)]
usual = {"max_steps": run.pick(full=48, quick=32), "per_device_train_batch_size": 2, "warmup_steps": 0.1}
usual |= {"learning_rate": budget["learning_rate"], "seed": run.seed}


def trained(label, examples, config=None, loss=trainer.answer_loss, judges=judges, **how):
    settings.set_seed(run.seed)  # so that adapters (3.4) begin alike
    model = copy.deepcopy(base)  # without the config of an adapter its whole upper half is trained
    model = model if config is None else adapters.attach(model, config)
    with frozen.upper(model, lower):
        history = trainer.train(model, tokenizer, examples, label, loss, **{**usual, **how})
        nats = generation.nats(model, tokenizer, judges)
    return {"model": model, "nats": nats, "history": history, "examples": examples, "judges": judges}


# %%
import random

from slmops_lab.course import widgets

rng = random.Random(run.seed)
wrong = set(rng.sample(range(len(gold)), 2 * len(gold) // 5))  # the places of the wrong tickets


def mistaken(record):  # the listed values of a ticket that belongs to another message
    ticket = rng.choice([one["answer"] for one in gold if one["answer"][field] != record["answer"][field]])
    return {**record, "answer": record["answer"] | {name: ticket[name] for name in listed}}


labelled = [mistaken(record) if i in wrong else record for i, record in enumerate(gold)]
one = min(wrong)
print(gold[one]["text"], f"\n   right: {desk.task.write(gold[one]['answer'])}")
print(f"   wrong: {desk.task.write(labelled[one]['answer'])}")
print(f"{len(wrong)} of {len(gold)} tickets are wrong now.")
suspect_guess = widgets.predict("How many of 100 suspected tickets are really wrong?", "in 100")

# %%
import numpy
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold

words = counter.transform([record["text"] for record in gold])
labels = numpy.array([str(record["answer"][field]) for record in labelled])
likely = numpy.zeros(len(gold))
for four, fifth in KFold(5, shuffle=True, random_state=run.seed).split(labels):
    counting = LogisticRegression(C=10, max_iter=1000).fit(words[four], labels[four])
    chances = pandas.DataFrame(counting.predict_proba(words[fifth]), index=fifth, columns=counting.classes_)
    likely[fifth] = [chances.loc[i].get(labels[i], 0) for i in fifth]
suspects = set(numpy.argsort(likely)[: len(wrong)].tolist())
suspect_guess.answer(100 * len(suspects & wrong) / len(wrong))
left = [record for i, record in enumerate(labelled) if i not in suspects]
still_wrong = 100 * sum(i not in suspects for i in wrong) / len(left)
print(f"Of the {len(left)} tickets that are left, {still_wrong:.0f} % are wrong.")


# %%
def compared(costs, what):  # each with the first, message by message: {name: mean nats}
    nats = pandas.DataFrame(costs)
    first = nats.columns[0]
    gap = nats.sub(nats[first], axis=0).drop(columns=first)
    middle, reach = gap.mean(), 2.6 * gap.sem()  # 2.6, not 1.96: up to five comparisons at once
    words = {"more": middle[middle > reach].index, "fewer": middle[middle < -reach].index}
    words = "; ".join(f"clearly {word} with {', '.join(names)}" for word, names in words.items() if len(names))
    unit = f"nats more per right answer than '{first}' (line: 95 % interval, all at once)"
    plots.show(
        plots.dots(middle, unit, middle - reach, middle + reach, mark=0),
        takeaway=f"Nats: {words}" if words else f"None clearly differs from '{first}'",
        alt=f"Points with intervals: how many nats more or less the right answer costs than with '{first}', for {what}.",
    )
    return nats.mean().to_dict()


# %%
lots = {"all right": gold, "40 % wrong": labelled, "suspects left out": left}
longer = {"max_steps": min(run.pick(full=120, quick=32), len(left) // 2), "judges": held_read}
costs = {}
for name, records in lots.items():
    read = frozen.read(base, tokenizer, [example_of(record) for record in records[: 2 * longer["max_steps"]]], still)
    costs[name] = trained(name, read.examples, **longer)["nats"]
after_labels = compared(costs, "a training with 40 % wrong tickets, and one without the suspected tickets")
print({name: f"{cost:.2f} nats" for name, cost in after_labels.items()})
print(f"All three made {longer['max_steps']} steps and saw each of {len(read.examples)} messages once.")

# %% [markdown]
# The three trainings see equally many messages, and differ in how many of the tickets are wrong. In a real data set nobody knows how many are. So do not simply
# leave out the suspects: let a person read them, the least likely first. Rare values and hard messages look suspicious, too, and a model needs them. The
# intervals say how much other held-out messages would change the result, not how much another seed would.
#
# ## 3.2 Prompt or tune?
#
# *You let the base read the rules and a few solved messages, and compare it with the tuned model.*
#
# The base was trained to follow instructions. A prompt can tell it all fields and values ([*zero-shot*](../book/glossary.md#zero-shot)), and show it some
# solved messages as well ([*few-shot*](../book/glossary.md#few-shot), [Brown et al. 2020](https://arxiv.org/abs/2005.14165)). Nothing is trained for that.

# %%
from slmops_lab import measure

sections.begin("3.2")
asked = tests[: run.pick(full=24, quick=8)]


def prompted(text, shots):
    instruction, question = desk.task.messages(text, explain=True)
    solved = []
    for record in gold[:shots]:
        solved.append({"role": "user", "content": record["text"]})
        solved.append({"role": "assistant", "content": desk.task.write(record["answer"])})
    return [instruction, *solved, question]


def examined(model, its_tokenizer, chats):
    with measure.timed() as elapsed:
        said = generation.generate(model, its_tokenizer, chats, max_new_tokens=40, batch_size=8)
    read = sum(len(encoding.prompt_ids(its_tokenizer, chat)) for chat in chats) / len(chats)
    written = sum(len(its_tokenizer(text)["input_ids"]) for text in said) / len(said)
    cost = {"ms per message": 1000 * elapsed.seconds / len(chats), "tokens read": read, "tokens written": written}
    return scoring.score(desk.task, asked, said).rows["exact"], cost


prompt_guess = widgets.predict("With the best prompt, how many messages of 100 does the base get right?", "in 100")

# %%
plain_base, plain_tokenizer = models.open_model(plain_folder)
tuned, its_tokenizer = models.open_model(teacher_folder)


def as_reader(model):  # to read and write, 16 bits are enough where the processor is fast with them
    return copy.deepcopy(model).to(torch.bfloat16) if settings.fast_bf16() else model


ways, reader = {}, as_reader(plain_base)
for shots in run.pick(full=(0, 1, 4), quick=(0, 1)):
    shots_chats = [prompted(record["text"], shots) for record in asked]
    ways[f"prompt with {shots} solved"] = examined(reader, plain_tokenizer, shots_chats)
best_prompt = max(ways, key=lambda name: ways[name][0].mean())
prompt_guess.answer(100 * ways[best_prompt][0].mean())
ways["tuned"] = examined(as_reader(tuned), its_tokenizer, [desk.task.messages(record["text"]) for record in asked])
gap = ahead(ways["tuned"][0], ways[best_prompt][0])
plots.show(
    plots.shares({name: exact for name, (exact, _) in ways.items()}),
    takeaway=f"Tuned against the best prompt: {gap['points']:+.0f} points on {len(asked)} messages",
    alt="Bars with intervals: exact match of the base with prompts that hold different numbers of solved messages, and of the tuned model.",
)
print(f"Message by message: {in_words(gap)}.")
pandas.DataFrame({name: cost for name, (_, cost) in ways.items()}).T.round(0)

# %% [markdown]
# The time has two parts: reading the prompt, and writing the answer. The beginning that all prompts of a row share is read only once here, so a longer prompt
# costs less than its length suggests. Without a solved message the model often writes up to the limit, and each token that it writes takes a pass through all
# layers. That is how the shortest prompt can take longer than one with a solved message.
#
# You pay for a prompt with every message, and for a tuning once. Prompting suits large models, few messages, and jobs that change every week.
#
# ## 3.3 What full tuning moves, and what it needs
#
# *You see which weights chapter 2 changed, and compute how much memory that takes.*
#
# Compare the tuned model with the base: which layers are still the same, and how far did the others move?
#
# The memory depends on how many weights are trained. For each of them there is a gradient, and the [*optimizer*](../book/glossary.md#optimizer) Adam ([Kingma
# and Ba 2015](https://arxiv.org/abs/1412.6980)) keeps two running averages, one of the gradient and one of its square. Each of these three numbers takes four
# bytes, like the weight itself. [*Activations*](../book/glossary.md#activation) come on top; they grow with the batch (3.14).


# %%
def moved(before, after):  # in % of the length of the weights
    pairs = list(zip(before.parameters(), after.parameters()))
    return 100 * (sum((b - a).square().sum() for a, b in pairs) / sum(a.square().sum() for a, _ in pairs)).sqrt().item()


def training_bytes(weights, trained, bits=32):
    """All weights in so many bits; for the trained ones a gradient and Adam's two averages, four bytes each."""
    return weights * bits / 8 + trained * (4 + 4 + 4)


sections.begin("3.3")
with torch.inference_mode():
    moves = [moved(*pair) for pair in zip(base.model.layers, tuned.model.layers)]
print(f"{sum(one == 0 for one in moves)} of {depth} layers did not move, the others by {max(moves):.1f} % at most.")
count = sum(weight.numel() for weight in base.parameters())
above = sum(weight.numel() for weight in base.model.layers[still:].parameters()) + base.model.norm.weight.numel()
for name, trains in {"every weight": count, "the upper half": above}.items():
    print(f"{name}: {trains / 1e6:.1f} million of {count / 1e6:.1f} move,", end=" ")
    print(f"{training_bytes(count, trains) / 1e9:.2f} GB before any message is read")
full_scores = scoring.Scores.load(teacher_folder / "test_scores.json").first(len(tests))  # measured in chapter 2
tests = tests[: len(full_scores.rows)]
full_scores.table().round(3)

# %% [markdown]
# The table shows the scores of the full tuning on the test messages. 3.6 compares LoRA with them.
#
# ## 3.4 LoRA: the formula, a layer, a whole model
#
# *You write LoRA in three drafts, train the last one, and show that the library PEFT does the same.*
#
# A linear layer multiplies its input by a matrix $W$. LoRA leaves $W$ alone and trains two thin matrices beside it:
#
# $$ W' = W + \frac{\alpha}{r} B A, \qquad A: r \times d_{in}, \quad B: d_{out} \times r $$
#
# The number $r$ is the [*rank*](../book/glossary.md#rank), and $\alpha / r$ is the *scale*.
#
# ```text
#                 x   (d_in numbers)
#                 |
#        +--------+---------+
#        |                  |
#        |            +-----+-----+
#   +----+----+       |  A, thin  |   trained, random at first
#   |         |       +-----+-----+
#   |    W    |             |   r numbers
#   |         |       +-----+-----+
#   | frozen  |       |  B, thin  |   trained, zero at first
#   +----+----+       +-----+-----+
#        |                  |   times alpha / r
#        +------>(+)<-------+
#                 |
#                 y   (d_out numbers)
# ```
#
# First draft: numbers that you can check by hand, with rank 1 and scale 1. It makes no difference whether the correction is added to the output or to $W$.
#
# Second draft: a layer. $B$ starts at zero, so that training starts from the model as it was.

# %%
sections.begin("3.4")
toy_W = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])  # reads 2 numbers, writes 3
toy_A = torch.tensor([[1.0, 2.0]])
toy_B = torch.tensor([[1.0], [0.0], [-1.0]])
toy_x = torch.tensor([1.0, 1.0])
print("B A =", (toy_B @ toy_A).tolist())
print("W x + B (A x) =", (toy_W @ toy_x + toy_B @ (toy_A @ toy_x)).tolist())
print("(W + B A) x   =", ((toy_W + toy_B @ toy_A) @ toy_x).tolist())
layer = base.model.layers[-1].mlp.up_proj
out_size, in_size = layer.weight.shape
print(f"In a layer of the base, W has {out_size} x {in_size} = {out_size * in_size:,} numbers.")
numbers_guess = widgets.predict(f"A and B of that layer with rank {rank}: how many numbers, in % of W?", "%")


# %%
class LoRALinear(torch.nn.Module):
    def __init__(self, linear, rank, scale):
        super().__init__()
        self.linear, self.scale = linear, scale
        self.A = torch.nn.Parameter(torch.randn(rank, linear.in_features) / linear.in_features**0.5)
        self.B = torch.nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x):
        return self.linear(x) + self.scale * (x @ self.A.T @ self.B.T)


thin_layer, x = LoRALinear(layer, rank, scale=8), torch.randn(4, in_size)
thin_numbers = thin_layer.A.numel() + thin_layer.B.numel()
numbers_guess.answer(100 * thin_numbers / (out_size * in_size))
print(f"{rank} x ({in_size} + {out_size}) = {thin_numbers:,} numbers")
print("before training it changes the output by", (thin_layer(x) - layer(x)).abs().max().item())

# %% [markdown]
# ### Exercise 3.2: merge
#
# After the training, $B A$ times the scale can be added to $W$ once and for all. Write `merge(layer)`: it gets a `LoRALinear` and returns an ordinary
# `torch.nn.Linear` that computes the same. The `LoRALinear` must stay as it was.

# %% tags=["exercise"]
merge = ...


# %% tags=["check"]
def merges(f, reads, writes, rank, scale, bias):
    torch.manual_seed(reads)
    layer = LoRALinear(torch.nn.Linear(reads, writes, bias=bias), rank, scale)
    torch.nn.init.normal_(layer.B)
    x, before = torch.randn(5, reads), layer.linear.weight.detach().clone()
    wanted, made = layer(x), f(layer)
    kept = torch.equal(layer.linear.weight, before) and torch.equal(layer(x), wanted)
    return kept and type(made) is torch.nn.Linear and torch.allclose(made(x), wanted, atol=1e-5)


check(
    "3.2",
    merge,
    lambda f: merges(f, 5, 6, 2, 3.0, False) and merges(f, 4, 3, 1, 0.5, True) and merges(f, 4, 4, 3, 8.0, False),
    hint="Copy layer.linear (copy.deepcopy), then change the copy's weight inside torch.no_grad(). The shapes leave one order for A and B.",
    why="A merged model answers as fast as the base. PEFT calls it merge_and_unload.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def merge(layer):
#     merged = copy.deepcopy(layer.linear)
#     with torch.no_grad():
#         merged.weight += layer.scale * layer.B @ layer.A
#     return merged
# ```
# </details>
#
# ### A whole model
#
# Third draft: every linear layer of the upper half gets such a pair, and everything else is frozen. The lower half stays as it is, as in the full tuning, so
# that the two can be compared. The library PEFT ([Mangrulkar et al. 2022](https://github.com/huggingface/peft)) does the same from a configuration. PEFT takes
# $\alpha$. Our `lora_config` takes the scale and computes $\alpha$ from it, so that a change of the rank does not change the scale as well.
#
# Then both get the same random $A$ and learn from the same messages for a few steps. If PEFT does what the formula says, the losses are the same.

# %%
from peft import LoraConfig
from peft.tuners.lora import LoraLayer

linear = {name: m for name, m in base.model.layers[0].named_modules() if isinstance(m, torch.nn.Linear)}
per_rank = {name.rpartition(".")[2]: sum(m.weight.shape) for name, m in linear.items()}  # numbers that a rank costs
upper_half = list(range(still, depth))


def with_lora(model, rank, scale, layers):
    grown = copy.deepcopy(model).requires_grad_(False)
    for i in layers:
        for name in linear:
            parent, own_name = grown.model.layers[i].get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]
            setattr(parent, own_name, LoRALinear(getattr(parent, own_name), rank, scale))
    return grown


def lora_config(rank=rank, scale=8, modules=tuple(per_rank), layers=upper_half, **more):
    where = {"target_modules": list(modules), "layers_to_transform": layers}
    return LoraConfig(r=rank, lora_alpha=scale * rank, task_type="CAUSAL_LM", **where, **more)


# %%
settings.set_seed(run.seed)
by_hand = with_lora(base, rank, 8, upper_half)
by_peft = adapters.attach(copy.deepcopy(base), lora_config())  # get_peft_model, and a sentence where it cannot be
ours = [module for module in by_hand.modules() if isinstance(module, LoRALinear)]
theirs = [module for module in by_peft.modules() if isinstance(module, LoraLayer)]
for one, other in zip(ours, theirs, strict=True):
    other.lora_A.default.weight.data = one.A.data.clone()
trains, frozen_weights = adapters.weights(by_peft)
first_steps = {"max_steps": run.pick(full=10, quick=6), "learning_rate": 1e-3, "logging_steps": 1}
losses = {}
for name, model in {"by hand": by_hand, "PEFT": by_peft}.items():
    with frozen.upper(model, lower):
        history = trainer.train(model, tokenizer, gold_read[:20], name, **{**usual, **first_steps})
    losses[name] = history["loss"]
del by_hand, by_peft, model, ours, theirs, one, other  # two more copies of the base
apart = ((losses["by hand"] - losses["PEFT"]).abs() / losses["PEFT"]).max()
print({name: one.head(4).round(4).tolist() for name, one in losses.items()}, "...")
print(f"largest difference: {100 * apart:.4f} % of a loss")

# %% [markdown]
# ### Is the change thin?
#
# LoRA assumes that a change of low rank is enough. The full tuning had no such limit: its change of a matrix is the teacher's matrix minus the base's. Every
# matrix is a sum of matrices of rank 1, here called directions, and its *singular values* say how large each of them is. The best approximation of rank $r$
# keeps the $r$ largest ([Eckart and Young 1936](https://doi.org/10.1007/BF02288367)). We measure how much that keeps by the squares of the singular values.
# Move the slider.

# %%
share_trained = 100 * trains / frozen_weights
print(
    f"LoRA: {trains / 1e6:.2f} million weights, {share_trained:.1f} % of the model's, {100 * trains / above:.1f} % of"
)
print(f"the {above / 1e6:.1f} million that the full tuning moved.")
middle = (still + depth) // 2
with torch.inference_mode():
    pair = [model.model.layers[middle] for model in (tuned, base)]
    changes = {"attention (o_proj)": pair[0].self_attn.o_proj.weight - pair[1].self_attn.o_proj.weight}
    changes["MLP (up_proj)"] = pair[0].mlp.up_proj.weight - pair[1].mlp.up_proj.weight
    spectra = {name: torch.linalg.svdvals(change.float()) for name, change in changes.items()}
kept = {name: (s**2).cumsum(0) / (s**2).sum() for name, s in spectra.items()}
thin_guess = widgets.predict(
    f"How much of the full tuning's change (its squared numbers) does rank {rank} keep (MLP, up_proj)?", "%"
)


# %%
def spectrum(name, rank):
    values, share = spectra[name] / spectra[name][0], 100 * kept[name][rank - 1].item()
    figure, axis = plots.pyplot.subplots()
    colours = [plots.COLOURS[1] if i < rank else "#BBBBBB" for i in range(len(values))]
    axis.bar(range(1, len(values) + 1), values, width=1.0, color=colours)
    axis.set(xlabel="direction, strongest first", ylabel="singular value (first = 1)")
    told = f"Rank {rank}: {rank * sum(changes[name].shape):,} of {changes[name].numel():,} numbers keep {share:.0f} %"
    return plots.png(figure, told), f"Bars of the singular values of the change of {name}. {told} of the change."


thin_guess.answer(100 * kept["MLP (up_proj)"][rank - 1].item())
ranks = [r for r in (1, 4, 16, 64, 256) if r <= min(len(s) for s in spectra.values())]
widgets.flip_book({name: {r: spectrum(name, r) for r in ranks} for name in spectra}, over="matrix", along="rank")

# %% [markdown]
# If a few directions hold much of the change and a long tail holds the rest, the full tuning did not make a change of low rank. LoRA can work all the same: it
# only needs *some* change of low rank that does the job as well. 3.6 tries whether training finds one.
#
# ## 3.5 Rank, scale, place
#
# *You change one setting at a time in short trials.*
#
# Each trial starts from the same base and takes the same steps on the same messages; held-out messages judge. The first has the default settings of this
# chapter. The next three change one thing each: a quarter of the rank at the same scale, a quarter of the scale at the same rank, adapters in the attention
# only. The last has these, too, but with a higher rank, so that it has about as many weights as the default.

# %%
sections.begin("3.5")
attention = [name.rpartition(".")[2] for name in linear if "attn" in name]
thick = round(rank * sum(per_rank.values()) / sum(per_rank[name] for name in attention))
dials = {
    f"rank {rank}, scale 8, everywhere": lora_config(),
    f"rank {max(1, rank // 4)}": lora_config(max(1, rank // 4)),
    "scale 2": lora_config(scale=2),
    "attention only": lora_config(modules=attention),
    f"attention only, rank {thick}": lora_config(thick, modules=attention),
}
for name, config in dials.items():
    numbers = config.r * sum(per_rank[module] for module in config.target_modules) * len(upper_half)
    print(f"{name}: {numbers / 1e6:.2f} million weights")
dial_guess = widgets.predict("Which of these changes makes the right answers least likely?", list(dials)[1:])

# %%
trial = {"max_steps": run.pick(full=28, quick=12), "learning_rate": 1e-3}
trial_messages = gold_read[: 2 * trial["max_steps"]]
dial_costs = {name: trained(name, trial_messages, config, **trial)["nats"] for name, config in dials.items()}
after_dials = compared(dial_costs, "four changed settings of LoRA")
worst = sorted(dial_guess.options, key=after_dials.get)[-2:]
dial_guess.answer(worst[1])
close = intervals.difference(dial_costs[worst[1]], dial_costs[worst[0]], run.seed)
if close["low"] <= 0:
    print(
        f"'{worst[0]}' cannot be told from it ({close['points']:+.2f} nats, {close['low']:+.2f} to {close['high']:+.2f})."
    )

# %% [markdown]
# Three things to take from this:
#
# - Rank and scale do different things. PEFT's `lora_alpha` is scale times rank. If you lower `r` and leave `lora_alpha` alone, you also raise the scale, and
#   cannot say afterwards which of the two made the difference.
# - The scale multiplies what $B$ has learned. Early in a training, a larger scale acts much like a higher [*learning rate*](../book/glossary.md#learning-rate).
# - The last row separates the place from the number of weights: it has about as many weights as the default, but only in the attention.
#
# These are few steps and one seed, and a longer training may bring the rows closer. Rows whose intervals overlap widely cannot be ranked.
#
# ### Exercise 3.3: an adapter of your own
#
# Train an adapter in under a minute that gives the right answers a higher probability than the best of these trials does. It may have at most as many weights
# as the default. Call `trained("mine", examples, config, ...)` with a `lora_config(...)` of your choice. You may take other messages from `gold_read`, and
# another `max_steps`, `learning_rate` or `per_device_train_batch_size`. Put what it returns into `my_adapter`.

# %% tags=["exercise"]
my_adapter = ...

# %% tags=["check"]
bar = min(after_dials.values())
check(
    "3.3",
    my_adapter,
    lambda mine: (
        mine["judges"] is judges
        and len(mine["nats"]) == len(judges)
        and sum(mine["nats"]) / len(judges) < bar
        and mine["history"].attrs["seconds"] < 60
        and 0 < adapters.weights(mine["model"])[0] <= trains
        and not any(one is judge for one in mine["examples"] for judge in judges)
    ),
    hint=f"The bar is {bar:.2f} nats, with at most {trains:,} weights. The trials saw {len(trial_messages)} of {len(gold_read)} messages, once.",
    why="You chose it on these held-out messages, so on others it will look a little worse.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# more = {**trial, "max_steps": 3 * trial["max_steps"]}
# my_adapter = trained("mine", gold_read[: 2 * more["max_steps"]], lora_config(), **more)
# ```
# </details>
#
# ## 3.6 LoRA against full tuning
#
# *You give LoRA the messages and the steps of the full tuning, and plot the difference.*
#
# A comparison is fair if the two models differ in one thing only. So LoRA gets the same gold messages, two in each step, as many steps as the teacher was
# allowed, and the same frozen lower half. It also has the same rule for stopping: twice in each [*epoch*](../book/glossary.md#epoch) the loss on the same
# held-out messages is computed, and the weights with the lowest loss are kept ([*early stopping*](../book/glossary.md#early-stopping)). Only the learning rate
# differs. It is higher, as is usual for LoRA, because few weights have to make the whole change. Neither rate is chosen here. The rate of the full tuning was
# chosen in earlier trials on held-out messages. LoRA's was not, which may cost LoRA something.
#
# Then the test messages judge. Neither model was chosen with them. Both answer all of them, so we look at the difference message by message. The ledger's claim
# is that LoRA performs "on par" with full fine-tuning. We read that as at most one point of exact match less, and the interval decides.

# %%
import math

from transformers import EarlyStoppingCallback

sections.begin("3.6")
per_epoch = math.ceil(len(gold) / 2)
every = max(1, per_epoch // 2)
long = {"max_steps": max(every, round(budget["epochs allowed"] * per_epoch)), "learning_rate": 7e-4, "warmup_steps": 10}
long |= {"eval_steps": every, "save_steps": every, "save_only_model": True, "logging_steps": max(1, every // 8)}
long |= {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": False}
watched = held_read[: run.pick(full=120, quick=24)]
long |= {"held_out": watched, "callbacks": [EarlyStoppingCallback(early_stopping_patience=2)]}
with artifacts.save(run, "base") as folder:  # with the tokens that the tickets use
    base.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
verdicts = ["full tuning is clearly better", "LoRA is clearly better", "cannot tell"]
full_guess = widgets.predict("On the test messages, after equal steps?", verdicts)

# %%
with tempfile.TemporaryDirectory() as folder:
    lora = trained("LoRA", gold_read, lora_config(), folder=folder, **long)
with artifacts.save(run, "adapter", settings={"rank": rank, "scale": 8, "steps": long["max_steps"]}) as folder:
    lora["model"].save_pretrained(folder)
history = lora["history"]
del lora["model"]  # a copy of the base
watch = history.dropna(subset="held_out")
after_start = history[history["step"] >= per_epoch / 4].dropna(subset="loss")  # the steep beginning would hide the rest
series = {"gold": (after_start["step"] / per_epoch, after_start["loss"])}
series["held-out"] = (watch["step"] / per_epoch, watch["held_out"])
best_epoch = watch.loc[watch["held_out"].idxmin(), "step"] / per_epoch
plots.show(
    plots.lines(series, "epochs", "loss per answer token (nats)"),
    takeaway=f"LoRA: on held-out messages the loss is lowest after {best_epoch:.1f} epochs",
    alt="Two curves over the epochs from a quarter of the first on: LoRA's loss on the gold messages and on held-out messages.",
)
print(f"{long['max_steps']} steps were allowed; they took {history.attrs['seconds'] / 60:.1f} minutes.")
adapter_bytes, full_bytes = (measure.weight_bytes(folder) for folder in (run.artifacts / "adapter", teacher_folder))
print(f"To keep and ship: adapter {adapter_bytes / 1e6:.1f} MB, full model {full_bytes / 1e6:.1f} MB")

# %%
from slmops_lab.course import claims

chats = [desk.task.messages(record["text"]) for record in tests]
reader = as_reader(adapters.open_adapter(copy.deepcopy(base), run.artifacts / "adapter").merge_and_unload())
lora_scores = scoring.score(desk.task, tests, generation.generate(reader, tokenizer, chats))
gaps = {name: ahead(lora_scores.rows[name], full_scores.rows[name]) for name in full_scores.rows.columns}
gap, ends = gaps["exact"], pandas.DataFrame(gaps).T
better = verdicts[0] if gap["high"] < 0 else verdicts[1] if gap["low"] > 0 else verdicts[2]
full_guess.answer(better)
unit = "LoRA minus full tuning, points (line: 95 % interval)"
plots.show(
    plots.dots(ends["points"], unit, ends["low"], ends["high"], mark=0),
    takeaway=f"LoRA minus full tuning, whole ticket: {gap['points']:+.1f} points, {better}",
    alt="Points with intervals: LoRA minus full tuning on the same test messages, for the whole ticket (exact), each field, and valid JSON.",
)
print(
    f"full {100 * full_scores.exact:.1f} %, LoRA {100 * lora_scores.exact:.1f} %, {len(tests)} messages: {in_words(gap)}"
)
claims.record(run, "lora-params", share_trained)
entry = claims.record(run, "lora-quality", gap["points"], gap["low"], gap["high"], len(tests))
print(f"At least {claims.LEDGER['lora-quality'].goal:+.0f}? The verdict: {entry['verdict']}.")

# %% [markdown]
# "Cannot tell" would mean that the interval lies on both sides of the border (0 in your prediction, the goal in the ledger): more test messages would be
# needed. The interval only says what other test messages would change. Another seed or another learning rate may change either model as well.
#
# ## 3.7 Memory: QLoRA and other methods
#
# *You measure what four methods need, check the memory formula, and forecast models that do not fit here.*
#
# The frozen base is only read, so it may be stored in fewer bits while the adapter is trained in full precision: [*QLoRA*](../book/glossary.md#qlora)
# ([Dettmers et al. 2023](https://arxiv.org/abs/2305.14314)). Its four-bit format NF4 has sixteen levels, which lie closer together where a network has more
# weights, and one scale for each block of weights. Each layer of the base then computes with a rounding error, and the adapter is trained with this error
# present.
#
# We compare four methods, each in a process of its own, so that we can measure its memory. *Full* trains every weight of all layers, the embedding table
# included. *LoRA* and *QLoRA* have adapters in all layers. *IA3* ([Liu et al. 2022](https://arxiv.org/abs/2205.05638)) trains no matrix, only factors by which
# the keys, the values and the activations inside a layer's MLP are multiplied. All take the same few steps.

# %%
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from peft import IA3Config
from transformers import BitsAndBytesConfig

sections.begin("3.7")
matrix = base.model.layers[middle].mlp.up_proj.weight.detach().float()
packed, scales = quantize_4bit(matrix, quant_type="nf4", blocksize=64)
back = dequantize_4bit(packed, scales)
nf4_bytes = (packed.numel() + 4 * scales.absmax.numel()) / matrix.numel()  # for each weight
print(f"{4 * matrix.numel():,} bytes become {packed.numel():,} and {4 * scales.absmax.numel():,} for the scales,")
print(f"{nf4_bytes:.4f} bytes a weight. The error is {100 * ((matrix - back).norm() / matrix.norm()).item():.1f} %.")
number_type = torch.bfloat16 if settings.fast_bf16() else torch.float32
four_bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=number_type)
everywhere = lora_config(layers=None)
methods = {
    "full": {"config": None, "learning_rate": 1.5e-4, "train_embeddings": True},
    "LoRA": {"config": everywhere, "learning_rate": 1e-3},
    "QLoRA": {"config": everywhere, "learning_rate": 1e-3, "quantization": four_bits},
    "IA3": {"config": IA3Config(task_type="CAUSAL_LM"), "learning_rate": 3e-2},
}
memory_guess = widgets.predict("Which has the lowest peak of memory?", list(methods))

# %%
from tqdm import tqdm

few = [example_of(record) for record in gold[: run.pick(full=24, quick=8)]]
others = [example_of(record) for record in held_out[: run.pick(full=24, quick=8)]]
results, needs = {}, {}
with tempfile.TemporaryDirectory() as scratch:
    for name, method in tqdm(methods.items(), desc="methods", leave=False):
        how = {**usual, "max_steps": run.pick(full=10, quick=3), **method, "folder": f"{scratch}/{name}"}
        one = results[name] = adapters.tune_apart(run.artifacts / "base", examples=few, judges=others, chats=[], **how)
        needs[name] = {"peak, GB": one["peak"] / 1e9, "seconds": one["seconds"]}
        needs[name]["nats per answer"] = sum(one["nats"]) / len(one["nats"])
needs = pandas.DataFrame(needs).T
memory_guess.answer(needs["peak, GB"].idxmin())
plots.show(
    plots.panels(*({"values": needs[column], "unit": column} for column in needs)),
    takeaway=f"LoRA peaks at {needs['peak, GB']['LoRA']:.1f} GB, full tuning at {needs['peak, GB']['full']:.1f} GB",
    alt="Three panels of points, one row for each method: peak memory in GB, seconds of training, and nats per right answer.",
)

# %% [markdown]
# After so few steps, at one learning rate each, the nats show that a method learns, not which method is best. Does the formula of 3.3 hold? It leaves out
# activations, but full tuning and LoRA have about the same activations, so their *difference* can be checked. And what should QLoRA save? It stores only the
# matrices of the layers in four bits; the embedding table stays as it is.

# %%
full, thin, packed_thin = (results[name] for name in ("full", "LoRA", "QLoRA"))
formula = training_bytes(count, count) - training_bytes(count + thin["trained"], thin["trained"])
print(f"full minus LoRA: {formula / 1e9:.2f} GB by the formula, {(full['peak'] - thin['peak']) / 1e9:.2f} GB measured")
in_matrices = sum(m.weight.numel() for layer in base.model.layers for m in layer.modules() if hasattr(m, "in_features"))
formula = in_matrices * (4 - nf4_bytes)
saved = {when: (thin[when] - packed_thin[when]) / 1e6 for when in ("loaded", "peak")}
grew = {name: (results[name]["peak"] - results[name]["loaded"]) / 1e6 for name in ("LoRA", "QLoRA")}
print(f"LoRA minus QLoRA: {formula / 1e6:.0f} MB by the formula; measured {saved['loaded']:.0f} MB after loading")
print(f"and {saved['peak']:.0f} MB at the peak, because from loading to the peak LoRA grew by {grew['LoRA']:.0f} MB")
print(f"and QLoRA by {grew['QLoRA']:.0f} MB.")

# %% [markdown]
# The last lines show how much of the computed saving was measured. Two things can use up the rest. A process that reads a model in 32 bits and then packs it
# may keep parts of the file in memory, and a training on packed weights unpacks each matrix whenever it is used. With a model as small as ours, these can weigh
# as much as the saving.
#
# ### A model that does not fit here
#
# With a large model they weigh little, but we cannot measure one here, so we compute. How large is the adapter? A pair for one matrix has
# $r \times (d_{in} + d_{out})$ numbers, so we only need the shapes, and a model on the [*meta device*](../book/glossary.md#meta-device) has shapes without
# numbers. (Do not take the adapter's *share* from a small model: a matrix grows with the product of its sides, a pair only with their sum.) For our base the
# count can be checked against what PEFT trained. The shapes are those of [Phi-4-mini](https://arxiv.org/abs/2503.01743) and
# [Phi-4](https://arxiv.org/abs/2412.08905).

# %%
from transformers import AutoModelForCausalLM, Phi3Config


def lora_numbers(model, rank=rank):  # of the adapter, and of the matrices that get one
    named = [m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and not name.endswith("lm_head")]
    return rank * sum(sum(m.weight.shape) for m in named), sum(m.weight.numel() for m in named)


def tuning_gb(model):
    (adapter, matrices), count = lora_numbers(model), sum(weight.numel() for weight in model.parameters())
    row = {"full, 32 bits": training_bytes(count, count)}
    row["LoRA, base in 16 bits"] = 2 * count + training_bytes(adapter, adapter)
    row["QLoRA"] = nf4_bytes * matrices + 2 * (count - matrices) + training_bytes(adapter, adapter)
    shape = {"billion weights": count / 1e9, "adapter, % of them": 100 * adapter / count}
    return shape | {f"{name}: GB": size / 1e9 for name, size in row.items()}


# %%
def on_meta(width, inner, layers, heads, key_heads, vocabulary, tied):  # as in 1.1
    names = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers, "pad_token_id": 0}
    names |= {"num_attention_heads": heads, "num_key_value_heads": key_heads, "tie_word_embeddings": tied}
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(Phi3Config(vocab_size=vocabulary, **names))


phi_4_mini = on_meta(3_072, 8_192, 32, 24, 8, 200_064, tied=True)
phi_4 = on_meta(5_120, 17_920, 40, 40, 10, 100_352, tied=False)
forecast = {"our base": base, "Phi-4-mini": phi_4_mini, "Phi-4": phi_4}
print("for our base the formula counts as many weights as PEFT trained:", lora_numbers(base)[0] == thin["trained"])
pandas.DataFrame({name: tuning_gb(model) for name, model in forecast.items()}).round(2)

# %% [markdown]
# Activations come on top of these numbers. In a large model the adapter's share is much smaller than in ours, so the memory of LoRA and QLoRA depends almost
# only on the bits in which the base is stored.
#
# ### Exercise 3.4: before you rent a machine
#
# Write `largest_rank(model, gigabytes)`: the largest rank (a whole number) with which QLoRA fits into that much memory. Count as `tuning_gb` does: adapters
# beside every linear layer but the head, 16 bytes for each of their numbers, the packed base, no activations. Return 0 if not even the base fits.

# %% tags=["exercise"]
largest_rank = ...


# %% tags=["check"]
def needed_gb(model, rank):
    (adapter, matrices), count = lora_numbers(model, rank), sum(weight.numel() for weight in model.parameters())
    return (nf4_bytes * matrices + 2 * (count - matrices) + training_bytes(adapter, adapter)) / 1e9


def largest(f, model, wanted):
    enough, too_little = needed_gb(model, wanted + 0.01), needed_gb(model, wanted - 0.01)
    return f(model, enough) == wanted and f(model, too_little) == wanted - 1 and f(model, needed_gb(model, 0) / 2) == 0


check(
    "3.4",
    largest_rank,
    lambda f: largest(f, phi_4_mini, 7) and largest(f, phi_4, 40) and largest(f, base, 3),
    hint="What is left after the base, divided by the bytes that one more rank costs, rounded down. lora_numbers(model, 1) has two of the numbers.",
    why="Activations come on top, and they may be larger than the adapter: leave room for them (3.14).",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def largest_rank(model, gigabytes):
#     one_rank, matrices = lora_numbers(model, 1)
#     count = sum(weight.numel() for weight in model.parameters())
#     left = 1e9 * gigabytes - nf4_bytes * matrices - 2 * (count - matrices)
#     return max(0, int(left // (16 * one_rank)))
# ```
# </details>
#
# ## 3.8 One base, several jobs
#
# *You tune the base for two more jobs, judge each by a measure that fits, and serve all adapters on one base in four bits.*
#
# Triage is *extraction*: values are read out of a message. A desk has other jobs: to answer the customer (*generation*), to tell a colleague in one sentence
# what the message is about (*summarization*), and to sort messages by one value (*classification*). For some messages the data folder holds a reply and a
# summary; the data card says how they were made.

# %%
sections.begin("3.8")
written = {part: data.replies(run.dataset, part) for part in ("train", "test")}


def job_pairs(name, records, part):  # (chat, right text)
    known = [record for record in records if record["id"] in written[part]]
    chats = [[{"role": "system", "content": f"Task: {name}"}, desk.task.messages(one["text"])[1]] for one in known]
    return list(zip(chats, [written[part][one["id"]][name] for one in known]))


jobs = {}
for name in ("reply", "summary"):
    material = job_pairs(name, gold, "train")[: run.pick(full=72, quick=16)]
    trial_pairs = job_pairs(name, tests, "test")[: run.pick(full=24, quick=6)]
    if material and trial_pairs:  # not every data folder has them
        jobs[name] = {"material": material, "trial": trial_pairs}
print({name: f"{len(job['material'])} to learn from, {len(job['trial'])} to judge by" for name, job in jobs.items()})


# %%
def learn(name, job):  # trains, keeps and tries an adapter; its copy of the base is freed at the end
    read = frozen.read(base, tokenizer, [encoding.encode(tokenizer, *pair) for pair in job["material"]], still)
    steps = {"max_steps": len(read.examples) // 2, "learning_rate": 1e-3}
    own = trained(name, read.examples, lora_config(), judges=judges[:2], **steps)["model"]
    with artifacts.save(run, f"adapter_{name}", settings={"rank": rank, "scale": 8}) as folder:
        own.save_pretrained(folder)
    right_texts = [encoding.encode(tokenizer, *pair) for pair in job["trial"]]
    length = sum(label != encoding.IGNORE for example in right_texts for label in example["labels"])
    for who, model in {"base": base, "adapter": own}.items():
        job[f"perplexity, {who}"] = math.exp(sum(generation.nats(model, tokenizer, right_texts)) / length)
    questions = [chat for chat, _ in job["trial"]]
    reader = as_reader(own.merge_and_unload())
    job["said"] = generation.generate(reader, tokenizer, questions, max_new_tokens=80, label=name)


for name, job in jobs.items():
    learn(name, job)
    for (chat, wanted), said in list(zip(job["trial"], job["said"]))[:2]:
        print(f"{name}: {chat[1]['content'][:110]}\n   wanted: {wanted}\n   said:   {said}\n")

# %% [markdown]
# Read the replies before you look at numbers. Would you send them?
#
# ### Measures for texts
#
# There is more than one right reply, so exact match does not fit. [*Perplexity*](../book/glossary.md#perplexity) says among how many equally likely tokens the
# model seems to choose at each place of the given reply; only models with the same tokenizer can be compared by it. [*BLEU* and
# *ROUGE*](../book/glossary.md#bleu-and-rouge) measure how much a text shares with the given one: BLEU counts common groups of words ([Papineni et al.
# 2002](https://aclanthology.org/P02-1040)), ROUGE-L takes the longest common sequence ([Lin 2004](https://aclanthology.org/W04-1013)). For comparison, a
# baseline without a model answers with the text that belongs to the most similar training message.

# %%
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import corpus_bleu

rouge = RougeScorer(["rougeL"])


def overlap(wanted, said):
    each = [rouge.score(one, other)["rougeL"].fmeasure for one, other in zip(wanted, said)]
    return {"ROUGE-L (0 to 1)": sum(each) / len(each), "BLEU (0 to 100)": corpus_bleu(said, [wanted]).score}


rows = {}
for name, job in jobs.items():
    seen, new = ([chat[1]["content"] for chat, _ in job[part]] for part in ("material", "trial"))
    nearest = (counter.transform(new) @ counter.transform(seen).T).toarray().argmax(axis=1)
    wanted = [text for _, text in job["trial"]]
    rows[f"{name}, adapter"] = {"perplexity": job["perplexity, adapter"], **overlap(wanted, job["said"])}
    rows[f"{name}, base"] = {"perplexity": job["perplexity, base"]}
    rows[f"{name}, text of the most similar"] = overlap(wanted, [job["material"][i][1] for i in nearest])
pandas.DataFrame(rows).T.map(lambda value: "" if math.isnan(value) else f"{value:.2f}")

# %% [markdown]
# What do these measures miss? We compare one reply with two others: the first repeats its words with wrong facts, the second says the same in other words.
#
# We also check one kind of fact directly: a reply must hold no number that the message does not hold. The given replies were written under this rule, so if the
# count works, it finds nothing in them.

# %%
import re

reference = "Your tent left our warehouse on Monday, order TT-48213, and the courier has it. I am asking him today why it is late."
facts_wrong = "Your tent left our warehouse on Friday, order TT-99999, and the courier lost it. I am asking him never why it is late."
other_words = "I can see that TT-48213 was shipped at the start of the week, so I will chase the driver about the delay this afternoon."
judged = {"facts wrong": overlap([reference], [facts_wrong]), "other words": overlap([reference], [other_words])}
for name, marks in judged.items():
    print(f"{name}:", {measure_of: round(mark, 2) for measure_of, mark in marks.items()})


def invented(chat, text):  # whole numbers, so that 34 is not found in 340
    return set(re.findall(r"\d+", text)) - set(re.findall(r"\d+", chat[1]["content"]))


for name, job in jobs.items():
    for who, texts in {"given": [text for _, text in job["trial"]], "ours": job["said"]}.items():
        bad = sum(bool(invented(chat, text)) for (chat, _), text in zip(job["trial"], texts))
        print(f"{name}, {who}: {bad} of {len(texts)} hold a number that the customer did not write,", end=" ")
        print(f"{sum('{' in text for text in texts)} a piece of a ticket")

# %% [markdown]
# A text may hold a piece of a ticket, because the base knows these pieces as single tokens (2.1) and the training here is short. And a reply can pass both
# checks and still be nonsense. For free text, somebody who knows the job has to read a sample. Perplexity and overlap can only warn that
# something has become worse.
#
# ### Classification without writing
#
# To sort messages by one value, a model need not write text. For each token of a message the frozen lower half computes a list of numbers, its hidden state. We
# average these lists over the prompt and train a linear classifier on the averages, a *head*, which takes seconds. We choose on held-out messages how strongly
# the head's weights are kept small (*regularization*). Then we compare the head, on the same test messages, with the value in LoRA's tickets and with counting
# word pairs.

# %%
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def averaged(examples):  # over the tokens before the answer
    prompts = [example["lower_states"][: example["labels"].count(encoding.IGNORE)] for example in examples]
    return torch.stack([states.float().mean(0) for states in prompts]).numpy()


def value_of(records):
    return [str(record["answer"][field]) for record in records]


sorted_out = tests[: run.pick(full=160, quick=60)]
their_states = averaged(frozen.read(base, tokenizer, [example_of(one) for one in sorted_out], still).examples)
learn_states, choose_states = averaged(gold_read), averaged(held_read)
heads = [LogisticRegression(C=strength, max_iter=2000) for strength in (0.001, 0.01, 0.1)]
heads = [make_pipeline(StandardScaler(), head).fit(learn_states, value_of(gold)) for head in heads]
head = max(heads, key=lambda one: one.score(choose_states, value_of(held_out)))

# %%
truth = value_of(sorted_out)
by_counting, _ = baselines.word_counter(desk.task, gold, [one["text"] for one in sorted_out], pairs=True)
by_lora = [reading.answer[field] if reading.answer else "(unreadable)" for reading in lora_scores.readings]
said_of = {"a head on the lower half": head.predict(their_states), "LoRA's tickets": by_lora[: len(truth)]}
said_of["counting word pairs"] = [answer[field] for answer in by_counting]
outcomes = {name: pandas.DataFrame({"truth": truth, "said": list(map(str, said))}) for name, said in said_of.items()}
hits = {name: one["truth"] == one["said"] for name, one in outcomes.items()}
gap = ahead(hits["LoRA's tickets"], hits["a head on the lower half"])
plots.show(
    plots.shares(hits, f"{field} right in % (line: 95 % interval)"),
    takeaway=f"{field}: LoRA's tickets against the head {gap['points']:+.0f} points",
    alt=f"Three bars with intervals: share of test messages with the right {field}, for a head on the lower half, LoRA's tickets, and counting word pairs.",
)
print(f"LoRA's tickets against the head, message by message: {in_words(gap)}.")
for name, one in outcomes.items():
    f1 = intervals.macro_f1(one, run.seed)
    print(f"{name}: macro-F1 {f1['f1']:.2f} (95 % interval {f1['low']:.2f} to {f1['high']:.2f})")

# %% [markdown]
# In [*macro-F1*](../book/glossary.md#macro-f1) a rare value weighs as much as a frequent one, so report it beside the share that is right. A head is the
# cheapest fine-tuning of this chapter: it writes no tokens, and needs only half of the layers.
#
# ### Several adapters on one base
#
# Now the triage adapter and the others share *one* base in four bits, and each request names the adapter that it wants. They were trained on a base that was
# not rounded: does triage still work on the rounded one? And what does it cost to change the adapter between two requests? We measure the time until the first
# token, after a request with the same adapter and after one with another.

# %%
from slmops_lab.deployment import export, runtime

folders = {"triage": run.artifacts / "adapter"} | {name: run.artifacts / f"adapter_{name}" for name in jobs}
files = export.with_adapters(run.artifacts / "base", folders, run.artifacts / "multi_int4", "int4")
base_mb = measure.weight_bytes(run.artifacts / "multi_int4") / 1e6
print(
    f"base {base_mb:.0f} MB;", ", ".join(f"{name} {file.stat().st_size / 1e6:.0f} MB" for name, file in files.items())
)
served = runtime.GenAIRuntime(run.artifacts / "multi_int4", files)
print("customer:", tests[0]["text"])
for name in folders:
    question = [{"role": "system", "content": f"Task: {name}"}, chats[0][1]] if name in jobs else chats[0]
    print(f"{name}: {served.generate(question, adapter=name)[:160]}")
some = tests[: run.pick(full=80, quick=8)]
said = [served.generate(chat, adapter="triage") for chat in tqdm(chats[: len(some)], leave=False)]
gap = ahead(scoring.score(desk.task, some, said).rows["exact"], lora_scores.rows["exact"][: len(some)])
print(f"triage on the int4 base against PyTorch, {len(some)} test messages: {in_words(gap)}")
switch_guess = widgets.predict("How much longer does the first token take after a change of the adapter?", "ms")

# %%
import time

second = next(iter(jobs), "triage")


def first_token_ms(adapter):
    begun = time.perf_counter()
    served.generate(chats[0], max_new_tokens=1, adapter=adapter)
    return 1000 * (time.perf_counter() - begun)


waits = {"other": [], "same": []}
for _ in range(run.pick(full=20, quick=5)):  # the chat is the same, only the adapter changes
    first_token_ms(second)
    waits["other"].append(first_token_ms("triage"))
    waits["same"].append(first_token_ms("triage"))
served.close()
change = intervals.difference(waits["other"], waits["same"], run.seed)
switch_guess.answer(change["points"])
print(f"With the same adapter a first token takes {numpy.median(waits['same']):.0f} ms, after a change", end=" ")
print(f"{change['points']:+.1f} ms (95 % interval {change['low']:+.1f} to {change['high']:+.1f}).")

# %% [markdown]
# All adapters are in memory beside the base, so a change loads nothing. But the runtime keeps what it has computed for the system prompt only for a next
# request with the *same* adapter. With another one it computes this again. If the interval holds zero, no cost was found.
#
# A rounded base computes other numbers, so the texts may differ from PEFT's. Where a text above is worse than the one that PyTorch wrote earlier in this
# section, rounding is the likely cause: the adapters were trained on weights that were not rounded. (With QLoRA, 3.7, they are trained on rounded ones.) In 32
# bits the texts should be the same:

# %%
with tempfile.TemporaryDirectory() as scratch:
    files = export.with_adapters(run.artifacts / "base", folders, f"{scratch}/multi", "fp32")
    exactly = runtime.GenAIRuntime(f"{scratch}/multi", files)
    same = []
    for name, folder in folders.items():
        questions = [chat for chat, _ in jobs[name]["trial"]][:3] if name in jobs else chats[:3]
        reader = adapters.open_adapter(copy.deepcopy(base), folder)
        in_torch = generation.generate(reader, tokenizer, questions, batch_size=1, label=None)
        same += [exactly.generate(chat, adapter=name) == told for chat, told in zip(questions, in_torch)]
    exactly.close()
print(f"{sum(same)} of {len(same)} texts are the same as PEFT's")

# %% [markdown]
# ## 3.9 Microsoft Olive
#
# *You run a fine-tuning and a whole workflow from files, and check what came out.*
#
# Olive ([Microsoft](https://microsoft.github.io/Olive/)) tunes, converts and quantizes models from commands and configuration files, which suits a pipeline.
# The first command trains an adapter. It is printed below as you would type it at a terminal, with the folder of the base model in place of `BASE`;
# `messages.jsonl` holds one chat per line. (The course sets `CI=1`, so that Olive reports nothing to its makers, and `HF_HUB_OFFLINE=1`, so that nothing is
# downloaded.)
#
# The course's `olive.command` runs it in a process of its own and checks that the expected file is there, because Olive ends with exit code 0 even after some
# failures. The result is an adapter in PEFT's format. We put it on the base and compute what the right answers of held-out messages cost. (It is the base
# without our added tokens, so an answer has more tokens here than elsewhere in this chapter.)

# %%
from slmops_lab.deployment import olive

sections.begin("3.9")
place = run.artifacts / "olive"
place.mkdir(parents=True, exist_ok=True)
with open(place / "messages.jsonl", "w", encoding="utf-8") as file:
    for record in gold[: run.pick(full=64, quick=16)]:
        answer = {"role": "assistant", "content": desk.task.write(record["answer"])}
        file.write(json.dumps({"messages": [*desk.task.messages(record["text"]), answer]}) + "\n")
precision = "bfloat16" if settings.fast_bf16() else "float32"
command = f"""finetune --method lora -m BASE
  -d json --data_files messages.jsonl --use_chat_template --max_seq_len 128
  --lora_r {rank} --lora_alpha {8 * rank} --target_modules {",".join(per_rank)} --torch_dtype {precision}
  --max_steps {run.pick(full=10, quick=3)} --per_device_train_batch_size 2 --learning_rate 1e-3 -o tuned"""
print("olive", command.replace("\n", " \\\n"))
words = [str(plain_folder) if word == "BASE" else word for word in command.split()]
made = olive.command(*words, makes="tuned/adapter/adapter_model.safetensors", folder=place)

# %%
asked_plain = held_out[: run.pick(full=24, quick=8)]
plain = [(desk.task.messages(record["text"]), desk.task.write(record["answer"])) for record in asked_plain]
plain = [encoding.encode(plain_tokenizer, *pair) for pair in plain]
olive_costs = {"the base": generation.nats(plain_base, plain_tokenizer, plain)}
reader = adapters.open_adapter(copy.deepcopy(plain_base), made.parent)
olive_costs["by olive finetune"] = generation.nats(reader, plain_tokenizer, plain)
gap = intervals.difference(olive_costs["by olive finetune"], olive_costs["the base"], run.seed)
print({name: f"{sum(one) / len(one):.1f} nats per right answer" for name, one in olive_costs.items()})
print(f"Message by message: {gap['points']:+.1f} nats (95 % interval {gap['low']:+.1f} to {gap['high']:+.1f}).")
counts = sum(label != encoding.IGNORE for example in plain for label in example["labels"])
share = 100 * counts / sum(len(example["labels"]) for example in plain)
print(f"Of the tokens of a chat {share:.0f} % are the answer; Olive's loss counts all of them.")

# %% [markdown]
# So Olive's command also trains the model to write customers' messages, because its loss has no mask. Look for such things before you trust a tool.
#
# A [*workflow file*](../book/glossary.md#workflow-file) chains steps, which Olive calls passes. Ours is `notebooks/olive_workflow.json`: tune, merge the
# adapter into the base, quantize to ONNX in four bits (`k_quant_mixed` keeps some layers in eight), and measure. At a terminal:
#
# ```bash
# olive run --config workflow.json
# ```

# %%
workflow = json.loads((settings.ROOT / "notebooks/olive_workflow.json").read_text(encoding="utf-8"))
workflow["input_model"]["model_path"] = str(plain_folder)
workflow["data_configs"][1]["load_dataset_config"]["model_name"] = str(plain_folder)
tune = workflow["passes"]["tune"]
tune |= {"torch_dtype": precision, "r": rank, "alpha": 8 * rank, "target_modules": list(per_rank)}
tune["training_args"]["max_steps"] = run.pick(full=28, quick=3)
print(json.dumps(workflow["passes"], indent=1))
olive_model, olive_metrics = olive.run(workflow, place)
served = runtime.GenAIRuntime(olive_model)
said = [served.generate(desk.task.messages(record["text"])) for record in asked_plain]
served.close()
size, pace = olive_metrics["size-bytes"] / 1e6, olive_metrics["latency-avg"]
print(f"Olive's evaluators: {size:.0f} MB, {pace:.1f} ms per token. A first answer: {said[0][:120]}")
by_workflow = scoring.score(desk.task, asked_plain, said).rows
for name in ("valid", "exact"):
    ends = {key: 100 * value for key, value in intervals.proportion(by_workflow[name]).items()}
    print(f"{name}: {ends['share']:.0f} % of {len(said)} answers", end=" ")
    print(f"(95 % interval {ends['low']:.0f} to {ends['high']:.0f})")

# %% [markdown]
# Size and speed do not say whether the model is good; only a score does. After so few training steps, this is a working pipeline and not yet a good model.
#
# Commands change from version to version: `olive auto-opt`, which many pages still show, is now `olive optimize`. For four bits it adds a pass that calibrates
# on a data set from the Hugging Face hub. The course works offline, so this pass fails. Look at the exit code:
#
# ```bash
# olive optimize \
#   -m BASE \
#   --device cpu --provider CPUExecutionProvider --precision int4 \
#   --exporter model_builder \
#   -o optimized
# ```

# %%
optimize = "optimize -m BASE --device cpu --provider CPUExecutionProvider --precision int4"
words = [str(plain_folder) if word == "BASE" else word for word in optimize.split()]
try:
    olive.command(*words, "--exporter", "model_builder", "-o", "optimized", makes="optimized/model.onnx", folder=place)
except settings.CourseError as error:
    print(error)

# %% [markdown]
# In a pipeline, check that there is a model, and score it. The exit code alone proves nothing.
#
# ## 3.10 Let a search set the dials
#
# *You search for learning rate, rank and scale, and find out how much the winner owes to luck.*
#
# A setting that is chosen and not learned, such as the rank, is called a [*hyperparameter*](../book/glossary.md#hyperparameter). Optuna ([Akiba et al.
# 2019](https://arxiv.org/abs/1907.10902)) proposes settings, looks at the results, and proposes settings that it expects to be better. A trial is stopped
# early, or *pruned*, if its loss is higher than the median of complete trials at the same step. Nothing is pruned in the first steps, in which the learning
# rate is still rising (*warm-up*). Rank and scale are searched separately, and every trial is given the same number of steps. One part of the held-out messages
# chooses the winner; another part is kept aside.

# %%
import optuna
from transformers import TrainerCallback

sections.begin("3.10")
optuna.logging.set_verbosity(optuna.logging.ERROR)
choosers, aside = judges[: len(judges) // 3], judges[len(judges) // 3 :]
search = {"max_steps": run.pick(full=27, quick=12), "eval_steps": run.pick(full=9, quick=4)}
print(f"{math.ceil(0.1 * search['max_steps'])} steps of warm-up; the first look at step {search['eval_steps']}")


class Prune(TrainerCallback):
    def __init__(self, trial):
        self.trial, self.pruned = trial, False

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        self.trial.report(metrics["eval_loss"], state.global_step)
        self.pruned = state.global_step < state.max_steps and self.trial.should_prune()
        control.should_training_stop = self.pruned


# %%
def objective(trial):
    rate = trial.suggest_float("learning_rate", 1e-4, 5e-3, log=True)
    its_rank = trial.suggest_categorical("rank", [max(1, rank // 4), rank])
    config = lora_config(its_rank, scale=trial.suggest_int("scale", 1, 16, log=True))
    watch = Prune(trial)
    how = {"held_out": choosers, "callbacks": [watch], "learning_rate": rate, "judges": aside, **search}
    one = trained(f"trial {trial.number}", gold_read[: 2 * search["max_steps"]], config, **how)
    if watch.pruned:
        raise optuna.TrialPruned
    trial.set_user_attr("aside", sum(one["nats"]))
    return one["history"]["held_out"].dropna().iloc[-1]


sampler = optuna.samplers.TPESampler(n_startup_trials=3, seed=run.seed)
pruner = optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=search["eval_steps"])
study = optuna.create_study(sampler=sampler, pruner=pruner)
study.enqueue_trial({"learning_rate": 1e-3, "rank": rank, "scale": 8})  # the default goes first
study.optimize(objective, n_trials=run.pick(full=7, quick=3))

# %%
figure, axis = plots.pyplot.subplots()
for state, style in {"COMPLETE": ("o-", plots.COLOURS[0]), "PRUNED": ("x--", plots.COLOURS[1])}.items():
    curves = [sorted(t.intermediate_values.items()) for t in study.trials if t.state.name == state]
    for number, curve in enumerate(filter(None, curves)):
        axis.plot(*zip(*curve), style[0], color=style[1], label=None if number else state.lower())
axis.set(xlabel="training step", ylabel="loss per answer token (nats)", ylim=(0, None))
axis.legend(frameon=False)
default, best = study.trials[0], study.best_trial
plots.show(
    figure,
    takeaway=f"{sum(t.state.name == 'PRUNED' for t in study.trials)} of {len(study.trials)} trials were pruned; trial {best.number} is the best",
    alt="Lines of the held-out loss over the steps, one for each trial of the search; trials that were pruned end early, with crosses.",
)
tokens_aside = sum(label != encoding.IGNORE for example in aside for label in example["labels"])
if best.number == 0:
    print("Trial 0, the default, won: the search found nothing better.")
for name, one in {"the default": default, "the winner": best}.items():
    chosen = {key: f"{value:.2g}" for key, value in one.params.items()}
    print(f"{name}, {chosen}: {one.value:.3f} nats per token where it was chosen,", end=" ")
    print(f"{one.user_attrs['aside'] / tokens_aside:.3f} on the messages kept aside")

# %% [markdown]
# The winner is the setting that looks best on the messages that choose, and part of that is luck. Its lead over the default on the messages kept aside does not
# contain this luck. For the same reason a search must never see the test messages. If the default itself wins, the search has only confirmed a setting.
#
# A search with short trainings finds settings for short trainings: a high rate and a high scale learn fast at first, and may be too coarse in a long training.
# A higher scale has partly the same effect as a higher rate, so several pairs can be equally good.
#
# ### The same search on more machines
#
# Trials do not wait for one another, so they can share out the machines of a cluster, too. [Ray](https://arxiv.org/abs/1712.05889) Tune runs them side by
# side, and Optuna still proposes their settings, but a proposal only knows the trials that have ended by then. Each trial runs in a process of its own, so it
# opens the base itself, and the frozen lower half reads the messages again. Ray is not part of the course's installation; without it, the next cell only says
# what it would do.

# %%
from optuna.distributions import FloatDistribution, IntDistribution

from slmops_lab.operations.cluster import driver, sweeps

steps, base_folder = search["max_steps"], run.artifacts / "base"
encoded = [example_of(record) for record in [*gold[: 2 * steps], *held_out[: len(choosers)]]]


def on_a_worker(chosen):
    model, its_tokenizer = models.open_model(base_folder)
    read = frozen.read(model, its_tokenizer, encoded, still)
    model = adapters.attach(model, lora_config(scale=chosen["scale"]))
    how = {"max_steps": steps, "learning_rate": chosen["learning_rate"], "per_device_train_batch_size": 2}
    with frozen.upper(model, read):
        trainer.train(model, its_tokenizer, read.examples[: 2 * steps], None, **how)
        return numpy.mean(generation.nats(model, its_tokenizer, read.examples[2 * steps :]))


# %%
space = {"learning_rate": FloatDistribution(1e-4, 5e-3, log=True), "scale": IntDistribution(1, 16, log=True)}
if driver.installed():
    tried = sweeps.sweep(on_a_worker, space, trials=run.pick(full=4, quick=2), seed=run.seed)
    print(tried.round(4).to_string(index=False))
else:
    print(f"With Ray, a cluster would try settings of {' and '.join(space)} here. Install it with {driver.INSTALL}")

# %% [markdown]
# ## 3.11 A loss of your own
#
# *You give more weight to the mistake that costs most, and see which other mistakes that brings.*
#
# The ordinary loss counts every answer token alike. For the desk the mistakes are not alike: an urgent message that is taken for a normal one does harm, the
# reverse costs a minute. So the token that says `costly_value` shall count twice. By what should the weighted sum be divided? We compare two ways, on two
# tokens:

# %%
sections.begin("3.11")
each, weight = torch.tensor([0.5, 2.0]), torch.tensor([1.0, 2.0])  # losses of two tokens; the second counts twice
mean_weight = weight.mean()  # over all tokens of the training set: here these two
table = {}
for name, batch in {"first token alone": [0], "second token alone": [1], "both in a batch": [0, 1]}.items():
    weighted = (weight[batch] * each[batch]).sum()
    table[name] = {
        "no weights": each[batch].mean().item(),
        "divided by the batch's own weights": (weighted / weight[batch].sum()).item(),
        "divided by the tokens and the mean weight": (weighted / len(batch) / mean_weight).item(),
    }
pandas.DataFrame(table).T.round(2)

# %% [markdown]
# If we divide by the sum of the batch's own weights, the weight of a token that is alone in its batch cancels out, and among few tokens most of it is lost. So
# we divide by the number of tokens, and by the mean weight over the *whole training set*, which is a constant. Then the second token counts twice as much as
# the first, whatever else is in the batch.
#
# Which token says the value? We write the ticket with each value of the field, and look for the first token at which the tickets differ.

# %%
from torch.nn.functional import cross_entropy

weighed_field = next((name for name in listed if costly_value in desk.task.fields[name].values), field)
values = desk.task.fields[weighed_field].values
known_values = [record["answer"][weighed_field] for record in gold]
costly = costly_value if costly_value in values else min(set(known_values), key=known_values.count)


def choices(record):  # {value: the token that says it}, and its place in the answer
    tickets = {value: desk.task.write({**record["answer"], weighed_field: value}) for value in values}
    ways = {value: tokenizer(text, add_special_tokens=False)["input_ids"] for value, text in tickets.items()}
    place = next(i for i, column in enumerate(zip(*ways.values())) if len(set(column)) > 1)
    return {value: ids[place] for value, ids in ways.items()}, place


def weigh(record, example, times):
    weight = torch.ones(sum(label != encoding.IGNORE for label in example["labels"]))
    weight[choices(record)[1]] = times if record["answer"][weighed_field] == costly else 1
    return {**example, "weight": weight}


# %%
lot = slice(run.pick(full=240, quick=32))
weighed = [weigh(*pair, times=2.0) for pair in zip(gold[lot], gold_read[lot])]
mean_weight = torch.cat([example["weight"] for example in weighed]).mean()


def weighted_loss(model, done, batch):  # done: what the model computed; batch["weight"] travels with the examples
    logits = model.get_output_embeddings()(done.states).float()
    each = cross_entropy(logits, done.targets, reduction="none")
    return (batch["weight"] * each).mean() / mean_weight


weighted_loss.hidden_states = False  # it needs the last ones only


@torch.inference_mode()
def decided(model):  # which value does it find likeliest at that token?
    said, batch_of = [], encoding.collate(tokenizer)
    with frozen.upper(model, lower):
        for example, record in zip(held_read, held_out):
            tokens, place = choices(record)
            state = encoding.forward(model, batch_of([example]), hidden_states=False).states[place]
            logits = model.get_output_embeddings()(state).float()
            said.append(max(tokens, key=lambda value: logits[tokens[value]].item()))
    return pandas.Series(said)


# %%
about = {"max_steps": len(weighed) // 2, "learning_rate": 1e-3, "judges": judges[:2]}
plans = {"alike": (gold_read[lot], trainer.answer_loss), "weighted": (weighed, weighted_loss)}
decisions = {}
for name, (examples, loss) in plans.items():
    decisions[name] = decided(trained(name, examples, lora_config(), loss, **about)["model"])
is_costly = pandas.Series([record["answer"][weighed_field] == costly for record in held_out])
rates = {f"found, {name}": said[is_costly] == costly for name, said in decisions.items()}
rates |= {f"false alarms, {name}": said[~is_costly] == costly for name, said in decisions.items()}
found, alarms = (ahead(rates[f"{what}, weighted"], rates[f"{what}, alike"]) for what in ("found", "false alarms"))
plots.show(
    plots.shares(rates, f"held-out messages taken for '{costly}', in % (line: 95 % interval)"),
    takeaway=f"With the weight: found {found['points']:+.0f} points, false alarms {alarms['points']:+.0f} points",
    alt=f"Four bars with intervals: share of messages taken for {costly}, among the {is_costly.sum()} that are and among the others, without and with the weight.",
)
print("the token that counts more:", repr(tokenizer.decode(choices(gold[0])[0][costly])))
print(f"found: {in_words(found)}; false alarms: {in_words(alarms)}")

# %% [markdown]
# A weight moves the border between the values: more messages are taken for the costly value, some of them rightly, some wrongly. So the model trades one kind
# of mistake for another. Whoever pays for the mistakes has to decide which are worse.
#
# ## 3.12 Watch a training overfit
#
# *You provoke overfitting, watch it in the notebook and in TensorBoard, and find where to stop.*
#
# A model that learns its few messages by heart gets better on them and worse on all others: [*overfitting*](../book/glossary.md#overfitting). To provoke it we
# take very few messages, many passes over them, and a high learning rate that does not fall. The trainer writes the same numbers into files for
# [*TensorBoard*](../book/glossary.md#tensorboard); while a training runs, `tensorboard --logdir FOLDER` draws them in a browser.

# %%
import os

sections.begin("3.12")
handful = gold_read[: run.pick(full=12, quick=8)]
per_pass, passes = len(handful) // 4, run.pick(full=24, quick=12)  # four messages a step: smoother curves
watch_folder = run.artifacts / "watched"
shutil.rmtree(watch_folder, ignore_errors=True)
os.environ["TENSORBOARD_LOGGING_DIR"] = str(watch_folder / "tensorboard")
live = plots.LiveCurve(
    takeaway="Loss on a handful of messages, and on held-out ones",
    alt="Two curves over the training steps, drawn while the training runs: the loss on a handful of messages and on held-out messages.",
)
print(f"{len(handful)} messages, {passes} passes of {per_pass} steps")
pass_guess = widgets.predict("After how many passes is the loss on held-out messages lowest?", "passes")

# %%
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

how = {"max_steps": passes * per_pass, "learning_rate": 2e-3, "lr_scheduler_type": "constant", "callbacks": [live]}
how |= {"logging_steps": per_pass, "eval_steps": per_pass, "report_to": "tensorboard"}
four = {"per_device_train_batch_size": 4, "held_out": judges[:32], "judges": judges[:2]}
curve = trained("by heart", handful, lora_config(), **how, **four)["history"].dropna(subset="held_out")
held_losses, own_losses = curve["held_out"].tolist(), curve["loss"].tolist()
lowest = held_losses.index(min(held_losses))
pass_guess.answer(lowest + 1)
print(f"on the {len(handful)} messages: {own_losses[0]:.2f} in the first pass, {own_losses[-1]:.3f} in the last one")
print(
    f"held-out: {held_losses[0]:.2f} after the first, {held_losses[lowest]:.2f} at best, {held_losses[-1]:.2f} at last"
)
worse = held_losses[-1] > held_losses[lowest] and own_losses[-1] < own_losses[lowest]
print("One loss still falls while the other rises: it overfits." if worse else "It does not overfit in this run.")
events = EventAccumulator(str(watch_folder / "tensorboard"))
events.Reload()
noted = [event.value for event in events.Scalars("eval/loss")]
print("TensorBoard has", ", ".join(events.Tags()["scalars"][:5]), end=" ")
print("- the held-out losses are the same:", bool(numpy.allclose(noted, held_losses, atol=1e-4)))
shutil.rmtree(watch_folder)

# %% [markdown]
# The training loss alone would have looked fine. To prevent overfitting, stop early, or take more messages, fewer passes, a lower rate or fewer weights. The
# long training of 3.6 was watched in this way.
#
# ### Exercise 3.5: when would it have stopped?
#
# Early stopping with a *patience* of $p$ ends a training when $p$ checks in a row have brought no new lowest loss. Then the weights of the check with the
# lowest loss are taken. Write `stops(losses, patience)`. It returns two numbers: the index of the check at which the training ends (the last one if it never
# stops early), and the index of the check whose weights are taken. Then try `stops(held_losses, 2)`.

# %% tags=["exercise"]
stops = ...

# %% tags=["check"]
cases = [([3, 2, 1, 2, 3, 0], 2, (4, 2)), ([3, 2, 1, 2, 3, 0], 3, (5, 5)), ([5, 4, 3], 1, (2, 2)), ([1, 2], 1, (1, 0))]
cases += [
    ([1, 3, 2, 2.5], 2, (2, 0)),
    ([3, 4, 2, 3, 1, 5, 6, 0], 2, (6, 4)),
    ([2, 2, 2, 1], 2, (2, 0)),
    ([4], 2, (0, 0)),
    ([1, 2, 3, 4], 2, (2, 0)),
]
check(
    "3.5",
    stops,
    lambda f: all(tuple(f(list(losses), patience)) == wanted for losses, patience, wanted in cases),
    hint="Go through the losses once. Remember where the lowest was, and end where the distance to it reaches the patience. An equal loss is not a new lowest one.",
    why="transformers' EarlyStoppingCallback does this; load_best_model_at_end=True takes the best weights.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def stops(losses, patience):
#     best = 0
#     for i, loss in enumerate(losses):
#         if loss < losses[best]:
#             best = i
#         if i - best >= patience:
#             return i, best
#     return len(losses) - 1, best
# ```
# </details>
#
# ## 3.13 Killed and resumed
#
# *You kill a training process and let another one finish its work.*
#
# Long trainings get killed: the memory runs out, somebody closes the laptop, a rented machine expires. A [*checkpoint*](../book/glossary.md#checkpoint) holds
# what is needed to go on: the weights, the optimizer's averages, the schedule of the learning rate, the place in the data, and the state of the random
# generators. If nothing is missing, the resumed training ends with exactly the weights of one that was never interrupted.
#
# We try it with a script that saves a checkpoint every second step, and run it in three processes. The first runs to its end. We watch the second, and kill it
# as soon as its checkpoint of step 4 is complete: the signal `SIGKILL` ends it at once, so it cannot save anything more. The third is started by the same
# command as the second, and goes on from that checkpoint.

# %%
import subprocess
import sys

sections.begin("3.13")
script = """
import json, sys
from peft import LoraConfig
from safetensors.torch import save_file
from slmops_lab import settings
from slmops_lab.training import adapters, base_model, trainer

base, job, folder = sys.argv[1:]
job = json.load(open(job))
settings.set_seed(job["how"]["seed"])
model, tokenizer = base_model.open_model(base)
model = adapters.attach(model, LoraConfig(**job["adapter"]))
trainer.train(model, tokenizer, job["examples"], label=None, folder=folder, **job["how"])
weights = {name: one.detach().clone() for name, one in model.named_parameters() if one.requires_grad}
save_file(weights, folder + "/ended.safetensors")
"""

# %%
from pathlib import Path

work = Path(tempfile.mkdtemp())
adapter = {"r": rank, "lora_alpha": 8 * rank, "target_modules": list(per_rank), "layers_to_transform": upper_half}
job = {"adapter": {**adapter, "lora_dropout": 0.1, "task_type": "CAUSAL_LM"}}
job["examples"] = [example_of(record) for record in gold[:16]]
job["how"] = {**usual, "learning_rate": 1e-3, "max_steps": 8, "save_steps": 2}
(work / "job.json").write_text(json.dumps(job), encoding="utf-8")
quietly = {"cwd": settings.ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}


def begin(name):
    command = [sys.executable, "-c", script, run.artifacts / "base", work / "job.json", work / name]
    return subprocess.Popen(list(map(str, command)), **quietly)


def finish(process):
    complaints = process.communicate()[1]
    if process.returncode:
        raise RuntimeError(complaints[-1000:])


# %%
from safetensors.torch import load_file

finish(begin("whole"))
doomed = begin("killed")
while doomed.poll() is None and not (work / "killed" / "checkpoint-4" / trainer.SEAL).is_file():
    time.sleep(0.01)
doomed.kill()
doomed.communicate()
last = Path(trainer.last_checkpoint(work / "killed"))
print(f"exit code {doomed.returncode}; {last.name} is whole: {', '.join(sorted(path.name for path in last.iterdir()))}")
finish(begin("killed"))
ended, resumed = (load_file(work / name / "ended.safetensors") for name in ("whole", "killed"))
print("largest difference of a weight:", max((ended[name] - resumed[name]).abs().max().item() for name in ended))
os.truncate(Path(trainer.last_checkpoint(work / "killed")) / "optimizer.pt", 1000)  # and if the disk was full?
try:
    trainer.last_checkpoint(work / "killed")
except settings.CourseError as error:
    print(str(error).replace(str(work), "..."))
shutil.rmtree(work)

# %% [markdown]
# The adapter even has *dropout*: in each step some numbers, drawn at random, are set to zero. The resumed training draws the same ones. The last line is the
# refusal of a checkpoint that we damaged on purpose.
#
# ## 3.14 Too little memory, too slow
#
# *You measure what lowers the memory of a training, and which mistakes make it slow.*
#
# *Out of memory.* Activations grow with the [*batch*](../book/glossary.md#batch). Two cures leave the result as it is. *Accumulation* adds up the gradients of
# several small batches before each step. *Activation checkpointing* keeps few activations and computes the rest again in the backward pass ([Chen et al.
# 2016](https://arxiv.org/abs/1604.06174)). Each row makes the same steps with the same messages.

# %%
sections.begin("3.14")
all_of_them = 10**9  # megabytes of activations that may be kept
cures = {
    "8 at once": {"per_device_train_batch_size": 8, "kept": all_of_them},
    "2 at a time, 4 times": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "kept": all_of_them},
    "8 at once, checkpointing": {"per_device_train_batch_size": 8, "kept": 0},
}
needed = {}
with tempfile.TemporaryDirectory() as scratch:
    for number, (name, how) in enumerate(tqdm(cures.items(), desc="memory", leave=False)):
        how = {**usual, "max_steps": run.pick(full=3, quick=1), **how}
        one = adapters.tune_apart(run.artifacts / "base", everywhere, few, others[:2], [], f"{scratch}/{number}", **how)
        needed[name] = {"peak, GB": one["peak"] / 1e9, "seconds": one["seconds"]}
needed = pandas.DataFrame(needed).T
lean = needed["peak, GB"].idxmin()
plots.show(
    plots.panels(*({"values": needed[column], "unit": column} for column in needed)),
    takeaway=f"Least memory: {lean}, {needed['peak, GB'][lean]:.1f} instead of {needed['peak, GB'].iloc[0]:.1f} GB",
    alt="Two panels of points, one row for each way: peak memory in GB and seconds, for eight messages at once and for two cures.",
)

# %% tags=["nbval-check-output"]
print("a leak flatters the score:", lift["low"] > 0)
print("the suspects are wrong more often than chance:", len(suspects & wrong) / len(wrong) > len(wrong) / len(gold))
print("the tuned model is not behind any prompt:", ways["tuned"][0].mean() >= ways[best_prompt][0].mean())
print("by hand and with PEFT the losses are the same within one per cent:", bool(apart < 0.01))
print("LoRA trains at most 4 % as many weights as the model has:", share_trained <= 4)
print("the adapter is at least 20 times smaller:", full_bytes / adapter_bytes >= 20)
print("LoRA needs less memory than full tuning:", results["LoRA"]["peak"] < results["full"]["peak"])
print(
    "the wrong reply overlaps more:",
    judged["facts wrong"]["ROUGE-L (0 to 1)"] > judged["other words"]["ROUGE-L (0 to 1)"],
)
print("text with fp32 weights equals PEFT's:", all(same))
print("it was killed before its end:", doomed.returncode != 0)
print("the same weights to the last bit:", all(torch.equal(ended[name], resumed[name]) for name in ended))
print("checkpointing saves memory:", bool(needed["peak, GB"].iloc[2] < needed["peak, GB"].iloc[0]))

# %% [markdown]
# *Too slow.* Real training scripts contain mistakes like these. We make each one alone, and time the forward and backward pass of one batch: padding every
# message to a fixed length (`padding="max_length"` in many tutorials); computing a frozen lower half in every step; using one thread only; starting more
# threads than there are cores, as two programs on one machine do; and, where the processor has fast 16-bit arithmetic, computing in 32 bits.

# %%
mistakes = {
    "as it is": {},
    "padded to 256 tokens": {"length": 256},
    "lower half in every step": {"whole": True},
    "one thread": {"threads": 1},
    "8 threads for each core": {"threads": 8 * settings.threads()},
}
if settings.fast_bf16():
    mistakes["32 bits instead of 16"] = {"fast": False}
slow_guess = widgets.predict("Which of these costs the most time?", list(mistakes)[1:])


def padded_to(batch, length):
    room = (0, max(0, length - batch["input_ids"].shape[1]))
    blanks = {"input_ids": tokenizer.pad_token_id, "labels": encoding.IGNORE, "attention_mask": 0}
    return batch | {key: torch.nn.functional.pad(batch[key], room, value=value) for key, value in blanks.items()}


# %%
import contextlib

batch_of, slow_model = encoding.collate(tokenizer), adapters.attach(copy.deepcopy(base), lora_config())


def seconds_of(length=0, whole=False, threads=None, fast=True):
    examples = few[:2] if whole else handful[:2]  # the same messages
    batch = padded_to(batch_of(examples), length)
    torch.set_num_threads(threads or settings.threads())
    with contextlib.nullcontext() if whole else frozen.upper(slow_model, lower), measure.timed() as elapsed:
        with torch.autocast("cpu", torch.bfloat16, enabled=fast and settings.fast_bf16()):
            done = encoding.forward(slow_model, batch, hidden_states=False)
            loss = trainer.answer_loss(slow_model, done, batch)
        loss.backward()
    torch.set_num_threads(settings.threads())
    return elapsed.seconds


seconds = []
for _ in range(run.pick(full=6, quick=3)):  # in turns, so that a busy machine hits all alike
    seconds.append({name: seconds_of(**how) for name, how in mistakes.items()})

# %%
medians = pandas.DataFrame(seconds).iloc[1:].median()  # the first turn warms up
slower = (medians / medians["as it is"]).drop("as it is")
slow_guess.answer(slower.idxmax())
plots.show(
    plots.dots(slower, "times the time of one step (median)", mark=1),
    takeaway=f"Worst: {slower.idxmax()}, {slower.max():.1f} times the time",
    alt="Points: how many times longer the forward and backward pass of one batch takes with each mistake than without.",
)

# %% [markdown]
# A factor near 1 means that this mistake costs nothing on this machine. Measure one step before you start a thousand.
#
# ## Quiz
#
# One option of each question is right. Choose, and read why.

# %%
from slmops_lab.course import quiz

quiz.ask(3)

# %% [markdown]
# ## Take-aways
#
# - Look at the data first: copies, leaks, the split, and the labels that the model finds least likely.
# - Use a prompt while the job still changes; tune when it stays the same.
# - LoRA trains only a few per cent of the weights, and saves memory and storage. A paired interval says whether it is as good.
# - Compute memory from shapes before you start, and check the formula where you can measure.
# - Change one setting at a time. Do not judge a setting on the messages that chose it.
# - Judge each job by a measure that fits it. Overlap with a given text does not check facts.
# - Try out that a training can be resumed before you need it. Check that a tool has left a model; its exit code is not enough.

# %%
print(
    f"This chapter took {run.minutes:.1f} minutes and at most {measure.peak_memory() / 1e9:.1f} GB. Minutes per section:"
)
print(", ".join(f"{section}: {minutes:.1f}" for section, minutes in sections.end().items()))
claims.table(run.build, "03_fine_tuning")

# %% [markdown]
# **Further reading:** finding wrong labels ([Northcutt et al. 2021](https://arxiv.org/abs/1911.00068)); a LoRA that trains the length of the weight vectors
# apart from their direction ([Liu et al. 2024](https://arxiv.org/abs/2402.09353)); a loss for rare cases ([Lin et al. 2017](https://arxiv.org/abs/1708.02002)).
#
# **Next:** in [chapter 4](04_deployment.ipynb) you deploy the student.
