# %% [markdown]
# # 2 Distillation: a teacher, a pool of messages, a small student
#
# Tuning makes the base model good at one job. But it still has 30 layers, and each of them is paid for in every
# message. Distillation ([Hinton et al. 2015](https://arxiv.org/abs/1503.02531)) moves the skill into a model with a fraction of them.
#
# **You will be able to**
#
# - tune a teacher, measure it, and say whether it is worth copying;
# - let it, or any model behind an OpenAI-compatible address, label a pool, and keep its mistakes out;
# - ask a second, weaker teacher where the first one is likely to be wrong;
# - cut tokens and layers away, and compare four ways to teach what is left;
# - train for the four bits in which the student will be deployed;
# - say with an interval and a paired test how much of the teacher is left, where it was lost, and what an answer costs;
# - write down the same job for a cloud service, without a key in it.
#
# **You need** chapter 1. Training takes most of the time here: watch the bars, or make a tea.

# %% tags=["parameters"]
dataset = "support_desk"
base_model = "smollm2-135m"
profile = None  # None: "full", or what SLMOPS_PROFILE says
seed = 0
student_layers = 10
labelled_messages = 960  # the teacher is tuned on so many
pool_messages = 160  # and answers so many more
submit_to_azure = False  # needs a workspace, and costs money

# %%
from slmops_lab import base_model as models
from slmops_lab import data, settings

run = settings.start(dataset, base_model, profile, seed)
desk = data.load(run.dataset)
teacher, tokenizer = models.open_model(models.fetch(run.base_model))

# %% [markdown]
# ## 2.1 What the model learns from
#
# A training example is a chat with its answer. The *loss mask* decides which tokens count: the model
# should learn to write the answer, not the customer's message. Check it by decoding both parts of one example.

# %%
from slmops_lab import training


def example_of(record, tokenizer=tokenizer):
    return training.encode(tokenizer, desk.task.messages(record["text"]), desk.task.write(record["answer"]))


example = example_of(desk.train[0])
counted = [token for token in example["labels"] if token != training.IGNORE]
print("all tokens:\n" + tokenizer.decode(example["input_ids"]))
print("\ncounted in the loss:\n" + tokenizer.decode(counted))

# %% [markdown]
# Only the JSON line and the end mark are left. If the second part showed anything of the message, everything below
# would be worth nothing.
#
# ## 2.2 Tune the teacher
#
# Every weight is trained, on one part of the labelled messages. **Predict:** the first loss is that of a
# model that has never seen our JSON. How many steps until it is halved?

# %%
labelled = desk.train[: run.pick(full=labelled_messages, quick=200)]
epochs = run.pick(full=1, quick=2)
learning_rate = 1.5e-4
history = training.train(
    teacher,
    tokenizer,
    [example_of(record) for record in labelled],
    label="teacher",
    num_train_epochs=epochs,
    learning_rate=learning_rate,
    seed=run.seed,
)

# %%
from slmops_lab import plots

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

import torch
from slmops_lab import evaluate, measure

tests = desk.test[: run.pick(full=None, quick=120)]
chats = [desk.task.messages(record["text"]) for record in tests]
reader = copy.deepcopy(teacher).to(torch.bfloat16) if training.fast_bf16() else teacher
with measure.timed() as teacher_time:
    said = evaluate.generate(reader, tokenizer, chats)
teacher_scores = evaluate.score(desk.task, tests, said)
teacher_scores.table().round(3)

# %% [markdown]
# The rivals are the keyword baseline of chapter 1 and a stronger one that counts word pairs, both fitted
# on the same labelled messages. The gain is in points of exact match, with its 95 % interval.

# %%
import pandas

texts = [record["text"] for record in tests]
rivals, gains = {}, {}
for name, pairs in {"keyword baseline": False, "word pairs, tf-idf": True}.items():
    guesses = evaluate.keyword_baseline(desk.task, labelled, texts, pairs)
    rivals[name] = evaluate.score(desk.task, tests, [desk.task.write(guess) for guess in guesses])
    gains[name] = evaluate.difference(teacher_scores.rows["exact"], rivals[name].rows["exact"], run.seed)
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
teacher_pairs = evaluate.outcomes(field, tests, teacher_scores.readings)
f1 = evaluate.macro_f1(teacher_pairs, run.seed)
print(f"macro-F1 of {field}: {f1['f1']:.3f} (95 % interval {f1['low']:.3f} to {f1['high']:.3f})")
evaluate.confusions(teacher_pairs)

# %% [markdown]
# Would you have sorted these messages better? A teacher's confusions are the student's curriculum.
#
# This took minutes, so it is put away at once. The folder carries a manifest: what it was made from, how, and how good it was.

# %%
from slmops_lab import artifacts

how = {"learning_rate": learning_rate, "epochs": epochs, "examples": len(labelled)}
marks = {"exact_match": teacher_scores.exact, "n": len(tests)}
with artifacts.save(run, "teacher", settings=how, metrics=marks) as folder:
    teacher.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    teacher_scores.save(folder / "test_scores.json")
del teacher  # its 32-bit weights are on the disk now, what follows is the work of `reader`

# %% [markdown]
# ## 2.4 The teacher labels the pool
#
# Labelled messages are dear, unlabelled ones cheap: every desk has an archive. The teacher answers a part of the pool (`pool_messages`). What it
# says must be valid JSON with known values, an order number must really stand in the message, and an answer to which the
# teacher itself gives less than an even chance is left out, too.
#
# The teacher need not be ours. Set `SLMOPS_TEACHER_MODEL`, `OPENAI_BASE_URL` and `OPENAI_API_KEY`, and any
# model behind an OpenAI-compatible address does the labelling: a larger one in the cloud, or one on the machine next door.

# %%
from slmops_lab import distill, teachers

ours = teachers.LocalTeacher(reader, tokenizer, name="the tuned teacher")
labeller = teachers.RemoteTeacher.from_environment(run.artifacts / "remote_answers.jsonl") or ours
pool = desk.pool[: run.pick(full=pool_messages, quick=64)]
answers = distill.label(labeller, desk.task, pool, least_sure=0.5) if pool else []
print(f"asked {labeller.name}: {len(pool)} of {len(desk.pool):,} messages", "" if labeller is ours else labeller.usage)
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
# Labels are one thing. The teacher also knows how sure it was of every token. Is that worth anything? Look at
# test messages, where we know the truth.

# %%
given = [(r["text"], a.answer, r["answer"]) for r, a in zip(tests, teacher_scores.readings) if a.answer][:160]
_, sure = distill.study(reader, tokenizer, [example_of({"text": t, "answer": a}) for t, a, _ in given])
doubtful_first = [answer == truth for _, (_, answer, truth) in sorted(zip(sure, given), key=lambda pair: pair[0])]
half = len(given) // 2
halves = {"less sure half": doubtful_first[:half], "surer half": doubtful_first[half:]}
plots.show(
    plots.shares(halves, "exact match of the teacher in % (line: 95 % interval)"),
    takeaway="When the teacher is sure, it is more often right",
    alt="Two bars: the half of the test messages where the teacher was surer has the higher exact match.",
)

# %% tags=["nbval-check-output"]
print("the surer half is right more often:", sum(halves["surer half"]) > sum(halves["less sure half"]))

# %% [markdown]
# So the doubts carry knowledge. Whether a student can learn from them is tried in 2.7.
#
# Another way to find doubtful labels is to ask a second teacher, even a weaker one. We have one that costs nothing: the counter of word
# pairs of 2.3. **Predict:** how often do the two agree, and how often are they right when they do?

# %%
second = evaluate.keyword_baseline(desk.task, labelled, [text for text, _, _ in given], pairs=True)
right = pandas.Series([answer == truth for _, answer, truth in given], dtype=bool)
rules = {
    "every answer": right | True,
    "the teacher is sure": pandas.Series(sure, dtype=float) >= 0.5,
    "both teachers agree": pandas.Series([a == guess for (_, a, _), guess in zip(given, second)], dtype=bool),
}
keeps = {rule: {"kept": kept.mean()} | evaluate.proportion(right[kept]) for rule, kept in rules.items()}
pandas.DataFrame(keeps).T.rename(columns={"share": "right"}).round(2)

# %% tags=["nbval-check-output"]
print("agreement means more than one answer:", keeps["both teachers agree"]["share"] > keeps["every answer"]["share"])

# %% [markdown]
# Each rule buys cleaner labels with fewer of them, and the easy messages stay. Unlabelled messages are cheap, so a strict rule can be
# had for a larger pool. Where two teachers differ is also where a person's label is worth most.
#
# ## 2.5 Cut away the tokens nobody uses
#
# Before the layers, look at the vocabulary. **Predict:** what share of the teacher's weights is its table of token vectors, and
# how many of those tokens does a support desk ever need?

# %%
from slmops_lab import compress


def millions(model):
    return sum(weight.numel() for weight in model.parameters()) / 1e6


vectors = reader.get_input_embeddings().weight.numel() / 1e6
full_size = millions(reader)
used = {token for lesson in lessons for token in example_of(lesson)["input_ids"]}
print(f"{len(tokenizer):,} tokens are {100 * vectors / full_size:.0f} % of all weights; the lessons use {len(used):,}")

# %% [markdown]
# Keep the tokens that the training messages and the pool use, and the commonest of all. A rare word is not lost:
# it is spelled in smaller pieces ([Sennrich et al. 2016](https://arxiv.org/abs/1508.07909)).

# %%
seen = [record["text"] for record in desk.train + desk.pool]
seen += [tokenizer.decode(example_of(record)["input_ids"]) for record in labelled]
small_teacher, small_tokenizer, kept_ids = compress.keep_vocabulary(reader, tokenizer, seen)
print(f"{len(kept_ids):,} tokens kept: {millions(small_teacher):.1f} of {full_size:.1f} million weights are left")

gone = sorted(set(range(len(tokenizer))) - set(kept_ids.tolist()))
for word in tokenizer.batch_decode([[i] for i in gone[:: len(gone) // 5 + 1]]):
    pieces = small_tokenizer(word)["input_ids"]
    print(repr(word), "is now spelled", [small_tokenizer.decode(i) for i in pieces])

# %% [markdown]
# Nothing else was touched, so the teacher should answer as before. **Check it** on messages that were not used to choose the tokens.

# %%
again = evaluate.generate(small_teacher, small_tokenizer, chats[:96])
same = sum(one == other for one, other in zip(again, said))
print(f"{same} of {len(again)} answers are the same, letter by letter")

# %% tags=["nbval-check-output"]
print("four of five answers did not change, or more:", same / len(again) >= 0.8)

# %% [markdown]
# ## 2.6 Cut away layers
#
# The student keeps evenly spaced layers of the teacher, the first and the very last among them. **Predict:** what does it
# answer before any training?

# %%
depth = small_teacher.config.num_hidden_layers
keep = compress.spread(depth, min(student_layers, depth))
student = compress.keep_layers(small_teacher, keep).float()  # it will be trained, with 32 bits
print("layers kept:", keep)
evaluate.generate(student, small_tokenizer, chats[:1], max_new_tokens=20, label=None)[0]

# %%
print(f"teacher {full_size:.1f} million weights, student {millions(student):.1f} million")

# %% [markdown]
# Rubble. Each layer that is left reads what it has never seen before, because the layers in front of it are gone. The
# skill has to be grown again. The token vectors are not trained: that saves time and memory.

# %%
student.get_input_embeddings().weight.requires_grad_(False)
trained = sum(weight.numel() for weight in student.parameters() if weight.requires_grad)
print(f"{trained / 1e6:.1f} million weights of the student are trained")

# %% [markdown]
# One more thing can go. A deployed model carries a table of angles for every position that it may ever read. Messages are short: room for
# twice the longest is plenty.

# %%
room = max(1024, 2 * max(len(small_tokenizer(text)["input_ids"]) for text in seen))
print(f"positions: {student.config.max_position_embeddings:,}", end=" -> ")
student.config.max_position_embeddings = min(room, student.config.max_position_embeddings)
print(f"{student.config.max_position_embeddings:,}")

# %% [markdown]
# ## 2.7 Three things to copy
#
# The student can be told *what* the teacher said (the text), *how sure* it was (its distribution over the tokens), and *how it
# got there* ([Romero et al. 2015](https://arxiv.org/abs/1412.6550)): inside the teacher, each kept layer used to read something
# sensible. The teacher reads every lesson once; its states before every second kept layer and at the end are kept for all that follows.

# %%
inside = range(2, len(keep), 2)  # every second of the kept layers: half of the memory
studied, _ = distill.study(
    small_teacher,
    small_tokenizer,
    [example_of(lesson, small_tokenizer) for lesson in lessons],
    layers=[*(keep[i] for i in inside), -1],
)
print("teacher states of the first lesson:", tuple(studied[0]["teacher_states"].shape), "(tokens, places, size)")

# %% [markdown]
# Three losses, and a weight for each. The last place, from which the answer is read, counts extra.

# %%
from torch.nn.functional import cosine_similarity, cross_entropy


def distillation_loss(text, sure, path):
    def loss(model, done, batch):
        head = model.get_output_embeddings()
        logits, told = head(done.states).float(), batch["teacher_states"].float()
        with torch.no_grad():
            doubts = head(told[:, -1][done.answer]).float().softmax(-1)
        total = text * cross_entropy(logits, done.targets) + sure * cross_entropy(logits, doubts)
        if path:
            own = torch.stack([done.layer(i) for i in [*inside, -1]], dim=1).float()
            apart = 1 - cosine_similarity(own, told, dim=-1).mean(dim=0)  # one number per place
            total = total + path * (4 * apart.mean() + 2 * apart[-1])
        return total

    return loss


# %% [markdown]
# Which of them is worth its cost? Each way gets the same student, the same lessons and the same few steps. The judge is a set of
# labelled messages that nobody was trained on (not the test, as long as the data hold any others): how many nats does the right answer cost? (Zero: it is
# certain. Each 0.7 more: half as likely.) **Predict** the order.

# %%
ways = {
    "text": distillation_loss(1, 0, 0),
    "text and doubts": distillation_loss(0.5, 0.5, 0),
    "text and path": distillation_loss(1, 0, 1),
    "text, doubts and path": distillation_loss(0.5, 0.5, 1),
}
student_rate = 1e-3
trial = studied[: run.pick(full=240, quick=80)]
others = desk.train[len(labelled) :] or desk.test  # a small data set of your own may have none left
held_out = [example_of(record, small_tokenizer) for record in others[: run.pick(full=120, quick=80)]]

# %%
costs = {}
for way, loss in ways.items():
    pupil = copy.deepcopy(student)
    how = {"num_train_epochs": 1, "learning_rate": student_rate, "seed": run.seed}
    training.train(pupil, small_tokenizer, trial, label=way, loss=loss, **how)
    _, chances = distill.study(pupil, small_tokenizer, held_out)
    costs[way] = [-math.log(max(chance, 1e-300)) for chance in chances]
del pupil

# %%
rows = pandas.DataFrame(costs)
reach = 1.96 * rows.sem()
table = pandas.DataFrame({"nats per answer": rows.mean(), "low": rows.mean() - reach, "high": rows.mean() + reach})
table.round(1)

# %% tags=["nbval-check-output"]
print("the path helps:", bool(rows["text and path"].mean() < rows["text"].mean()))

# %% [markdown]
# A small trial picks the way; the same for all lessons now costs minutes. If two ways are as good as each other within their intervals,
# it is a matter of taste.

# %%
best = rows.mean().idxmin()
print("chosen:", best)
student_history = training.train(
    student,
    small_tokenizer,
    studied,
    label="student",
    loss=ways[best],
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
# ## 2.8 Get used to four bits
#
# The student will be deployed with 4-bit weights. Rounding them afterwards would spoil some of what it learned. So in its last epoch it
# computes with rounded weights while it learns (quantization-aware training, [Jacob et al. 2018](https://arxiv.org/abs/1712.05877)).

# %%
with compress.four_bits(student):
    training.train(
        student,
        small_tokenizer,
        studied,
        label="four bits",
        loss=ways[best],
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
pupil = copy.deepcopy(student).to(small_teacher.dtype)  # it reads and writes as the teacher did
with measure.timed() as student_time:
    student_said = evaluate.generate(pupil, small_tokenizer, chats)
student_scores = evaluate.score(desk.task, tests, student_said)
student_scores.table().round(3)

# %% [markdown]
# ## 2.9 Look at one doubt
#
# Of the test messages looked at in 2.4, where is the teacher least sure? There, both have a distribution over the next token. A *temperature* divides the
# logits before the softmax: below 1 it hides doubts, above 1 it spreads them. The distance from one distribution to the other
# (Kullback-Leibler divergence) depends on whose eyes you look through: *forward* asks where the teacher has probability and the
# student has none, *reverse* the other way round. A student trained on the first covers all that the teacher thinks possible; on
# the second it settles for one thing ([Gu et al. 2024](https://arxiv.org/abs/2306.08543)).

# %%
first = tests[0]["text"], tests[0]["answer"]  # if no answer could be read
hard = min(zip(sure, given), key=lambda pair: pair[0], default=(0, first))[1]
batch = training.collate(small_tokenizer)([example_of({"text": hard[0], "answer": hard[1]}, small_tokenizer)])
with torch.inference_mode():
    logits = {
        name: model.get_output_embeddings()(training.forward(model, batch).states).float()
        for name, model in {"teacher": small_teacher, "student": student}.items()
    }
chance = logits["teacher"].softmax(-1)
place = torch.special.entr(chance).sum(-1).argmax()
top = chance[place].topk(5).indices
print(hard[0])
print("so far:", small_tokenizer.decode(batch["labels"][batch["labels"] != training.IGNORE][:place]))

# %%
from slmops_lab import widgets


def page(forward, temperature):
    log_p, log_q = ((logits[name][place] / temperature).log_softmax(-1) for name in ("teacher", "student"))
    distance = (log_p.exp() * (log_p - log_q) if forward else log_q.exp() * (log_q - log_p)).sum()
    names = [repr(small_tokenizer.decode(token)) for token in top]
    heights = {"teacher": 100 * log_p.exp()[top], "student": 100 * log_q.exp()[top]}
    title = f"Temperature {temperature}: {'forward' if forward else 'reverse'} KL {distance:.2f} nats"
    picture = plots.png(plots.columns(names, heights, "probability of the next token in %"), title)
    return picture, f"Columns of the five likeliest tokens, teacher beside student. {title}."


temperatures = [0.5, 0.7, 1, 1.5, 2, 4, 8]
pictures = {kind: {t: page(kind == "forward", t) for t in temperatures} for kind in ("forward", "reverse")}
widgets.flip_book(pictures, over="KL", along="temperature")

# %% [markdown]
# **Try it:** at which temperature do the two look most alike, and why does that say little?
#
# ## 2.10 What is left of the teacher?
#
# Both answered the same messages, so compare them message by message. The interval of the ratio comes from
# resampling the messages, both answers together (a paired bootstrap, [Efron 1979](https://doi.org/10.1214/aos/1176344552)).

# %%
kept = evaluate.ratio(student_scores.rows["exact"], teacher_scores.rows["exact"], run.seed)
print(
    f"the student keeps {100 * kept['ratio']:.1f} % of the teacher's exact match "
    f"(95 % interval {100 * kept['low']:.1f} to {100 * kept['high']:.1f}, n = {len(tests)})"
)

# %% [markdown]
# Is the student worse at all, or is that chance? Only messages that one of the two gets right and the other does not can tell
# ([McNemar 1947](https://doi.org/10.1007/BF02295996)).

# %%
split = evaluate.paired_test(student_scores.rows["exact"], teacher_scores.rows["exact"])
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
student_pairs = evaluate.outcomes(field, tests, student_scores.readings)
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

# %% [markdown]
# ## 2.11 What does an answer cost?
#
# Here, an answer costs time on a machine; behind an address, it costs tokens. The prices are round figures without
# a source. **Try it:** put in your own.

# %%
machine_hour = 0.10  # one hour of this machine
input_price, output_price = 0.50, 1.50  # a million tokens of a hosted model


def asked(record):  # a hosted model has to be told the fields each time
    return training.prompt_ids(tokenizer, desk.task.messages(record["text"], explain=True))


# %%
tokens_in = sum(len(asked(record)) for record in tests) / len(tests)
tokens_out = sum(len(tokenizer(text)["input_ids"]) for text in said) / len(said)
seconds = {"teacher, here": teacher_time.seconds / len(tests), "student, here": student_time.seconds / len(tests)}
millions_cost = {who: 1e6 * took / 3600 * machine_hour for who, took in seconds.items()}
millions_cost["hosted model"] = tokens_in * input_price + tokens_out * output_price
print(f"{tokens_in:.0f} tokens to the hosted model and {tokens_out:.0f} back, for each message")
pandas.Series(millions_cost, name="a million messages cost").round(1).to_frame()

# %% [markdown]
# Both were run in PyTorch, many messages at a time. The saving that people quote belongs to one message at a time, after chapter 4 has made
# the student a file of four-bit weights; there, the published claims stand in a ledger beside what this machine measured. Before you hold two such numbers side by side, ask of
# each: which teacher, which task, how many messages at a time, and what was counted as time?

# %% tags=["nbval-check-output"]
print(
    "the student's answer costs less than the teacher's:",
    millions_cost["student, here"] < millions_cost["teacher, here"],
)
print("the student has fewer than half of the weights:", millions(student) < full_size / 2)
print("its answers are JSON nine times in ten:", student_scores.rows["valid"].mean() > 0.9)

# %%
how = {"learning_rate": student_rate, "examples": len(lessons), "layers": len(keep), "vocabulary": len(kept_ids)}
marks = {"exact_match": student_scores.exact, "n": len(tests)}
with artifacts.save(run, "student", settings=how, metrics=marks) as folder:
    student.save_pretrained(folder)
    small_tokenizer.save_pretrained(folder)
    student_scores.save(folder / "test_scores.json")
artifacts.manifest(run, "student")["metrics"]

# %% [markdown]
# ## 2.12 The same in the cloud
#
# Azure Machine Learning sells these two stages as one job: a teacher behind an endpoint labels, a student is tuned. Here is the
# request for our task, built with Microsoft's own library. Nothing is sent, and no key stands in it: the service knows the
# teacher by the name of a connection.

# %%
from slmops_lab import cloud

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
print("sent as:", (cloud.submit(job) or "no workspace is configured") if submit_to_azure else "nothing was sent")

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
from slmops_lab.exercises import check

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
    hint="Count the labels that are not training.IGNORE.",
    why="The prompt costs time in training, but only the answer teaches.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# counted_tokens = sum(label != training.IGNORE for label in example["labels"])
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
# Write `soften(logits, temperature)`: probabilities from logits divided by a temperature. With temperature 1 it is
# softmax; a high temperature makes every token nearly as likely as the next.

# %% tags=["exercise"]
soften = ...

# %% tags=["check"]
toy = torch.tensor([[2.0, 0.0, -1.0]])
check(
    "2.4",
    soften,
    lambda f: torch.allclose(f(toy, 1.0), toy.softmax(-1)) and float(f(toy, 100.0).max()) < 0.35,
    hint="Divide first, then softmax over the last dimension.",
    why="Temperature decides how much of the teacher's doubts the student gets to see.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def soften(logits, temperature):
#     return (logits / temperature).softmax(-1)
# ```
# </details>
#
# ## Quiz
#
# 1. Why must a copied order number stand in the message before the label is used?
# 2. What would a student learn from a teacher that is right half of the time and always sure?
# 3. Why does the student start from the teacher's layers and not from random numbers?
#
# <details><summary>Answers</summary>
#
# 1. A made-up number is a mistake that can be seen without knowing the truth. Filter what you can see.
# 2. To be wrong half of the time, and sure of it: there are no doubts to learn from.
# 3. Embeddings and early layers already know the language; only the way from there to the answer must be learned again.
#
# </details>
#
# ## Take-aways
#
# - Score the teacher first; then filter what it says. A second teacher, even a weak one, makes a good filter.
# - Tokens can go for nothing, if those in use stay. Layers cost a second training.
# - There is more to copy than the answer: how sure the teacher was, and how it got there. Try each way small before you pay for it.
# - If you deploy four bits, train with four bits.
# - Compare on the same messages, with an interval of the ratio, and value by value.

# %%
print(f"This chapter took {run.minutes:.1f} minutes and at most {measure.peak_memory() / 1e9:.1f} GB.")

# %% [markdown]
# **Next:** [chapter 3](03_fine_tuning.ipynb) asks whether every weight had to be trained.
