# %% [markdown]
# # 2 Distillation: a teacher, a pool of messages, a small student
#
# Tuning makes the base model good at one job. But it still has 30 layers, and each of them is paid for in every
# message. Distillation {cite}`hinton2015distilling` moves the skill into a model with a fraction of them.
#
# **You will be able to**
#
# - tune a teacher, and measure it before you trust it;
# - let it label a pool of messages, and keep its mistakes out;
# - cut a student out of the teacher and train it on the teacher's text *and* its doubts;
# - say with an interval how much of the teacher is left.
#
# **You need** chapter 1. Training takes most of the time here: watch the bars, or make a tea.

# %% tags=["parameters"]
dataset = "support_desk"
base_model = "smollm2-135m"
profile = None  # None: "full", or what SLMOPS_PROFILE says
seed = 0
student_layers = 9

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


def example_of(record):
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
# Every weight is trained, in one pass over the labelled messages. **Predict:** the first loss is that of a
# model that has never seen our JSON. How many steps until it is halved?

# %%
labelled = desk.train[: run.pick(full=960, quick=240)]
epochs = 1
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

figure, axis = plots.pyplot.subplots()
axis.plot(history["step"], history["loss"], marker=".")
axis.set(xlabel="training step", ylabel="loss per answer token (nats)", ylim=(0, None))
plots.show(
    figure,
    takeaway="The form is learned at once, the judgement slowly",
    alt="Line plot of the teacher's training loss: a steep fall in the first steps, then a slow decline.",
)

# %% [markdown]
# ## 2.3 Measure the teacher first
#
# A student copies its teacher's mistakes too. So the teacher is scored on messages it has never seen, before it may
# teach. From here on it only reads and writes, which it does in half the time with 16-bit weights where the processor
# computes with them. The rivals are the keyword baseline of chapter 1 and a stronger one that counts word pairs, both fitted
# on the same labelled messages. The gain is in points of exact match, with its 95 % interval.

# %%
import copy

import torch
from slmops_lab import evaluate

tests = desk.test[: run.pick(full=None, quick=160)]
chats = [desk.task.messages(record["text"]) for record in tests]
reader = copy.deepcopy(teacher).to(torch.bfloat16) if training.fast_bf16() else teacher
said = evaluate.generate(reader, tokenizer, chats)
teacher_scores = evaluate.score(desk.task, tests, said)
teacher_scores.table().round(3)

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
# If an interval reaches below zero, stop and think: a teacher that does not clearly beat word counting is not worth copying,
# and needs more labelled messages or more training.
#
# ## 2.4 The teacher labels the pool
#
# Labelled messages are dear, unlabelled ones cheap: every desk has an archive. The teacher answers the pool. What it
# says must be valid JSON with known values, and an order number must really stand in the message. Whatever fails is
# counted and left out.

# %%
from slmops_lab import distill

pool = desk.pool[: run.pick(full=320, quick=96)]
answers = distill.label(reader, tokenizer, desk.task, pool)
usable = [a for a in answers if a.problem is None]
print(f"{len(answers)} answered, {len(usable)} usable")
for bad in [a for a in answers if a.problem][:3]:
    print("left out:", bad.problem, "<-", bad.said[:80])

# %% [markdown]
# Labels are one thing. The teacher also knows how sure it was of every token, and that is worth more than the label alone.
# One pass over all examples collects its last hidden states; they are kept and used again in every epoch.

# %%
lessons = [example_of(record) for record in labelled]
lessons += [example_of({"text": a.text, "answer": a.answer}) for a in usable]
lessons, _ = distill.study(reader, tokenizer, lessons)
print("states of the first example:", tuple(lessons[0]["teacher_states"].shape), "(answer tokens, hidden size)")

# %% [markdown]
# Is the teacher's confidence worth anything? Look at the test messages, where we know the truth.

# %%
given = [(r["text"], a.answer, r["answer"]) for r, a in zip(tests, teacher_scores.readings) if a.answer][:200]
_, sure = distill.study(reader, tokenizer, [example_of({"text": t, "answer": a}) for t, a, _ in given])
doubtful_first = [answer == truth for _, (_, answer, truth) in sorted(zip(sure, given), key=lambda pair: pair[0])]
half = len(given) // 2
halves = {"less sure half": doubtful_first[:half], "surer half": doubtful_first[half:]}
shares = {name: 100 * sum(right) / max(1, len(right)) for name, right in halves.items()}
plots.show(
    plots.bars(shares, "exact match of the teacher in %"),
    takeaway="When the teacher is sure, it is more often right",
    alt="Two bars: the half of the test messages where the teacher was surer has the higher exact match.",
)

# %% tags=["nbval-check-output"]
print("the surer half is right more often:", shares["surer half"] > shares["less sure half"])

# %% [markdown]
# ## 2.5 Cut the student out of the teacher
#
# The student keeps the teacher's embeddings, its first layers and its very last one. **Predict:** what does it answer
# before any training?

# %%
from slmops_lab import compress

depth = teacher.config.num_hidden_layers
keep = compress.first_and_last(depth, min(student_layers, depth))
student = compress.keep_layers(teacher, keep)
print("layers kept:", keep)
evaluate.generate(student, tokenizer, chats[:1], max_new_tokens=20, label=None)[0]


# %%
def millions(model):
    return sum(weight.numel() for weight in model.parameters()) / 1e6


print(f"teacher {millions(teacher):.1f} million parameters, student {millions(student):.1f} million")

# %% [markdown]
# Rubble. The layers that are left have never worked without the others; the skill has to be grown again. The embeddings know
# their words already, so they stay as they are: that saves time and memory, and keeps the vocabulary head the teacher's.

# %%
student.get_input_embeddings().weight.requires_grad_(False)
trained = sum(weight.numel() for weight in student.parameters() if weight.requires_grad)
print(f"{trained / 1e6:.1f} million weights of the student are trained")

# %% [markdown]
# ## 2.6 Train it on text and doubts
#
# The loss has two halves. The first is the ordinary one: the next token of the teacher's answer. The second
# asks the student for the teacher's whole distribution over the vocabulary, its doubts included. The teacher's
# distribution comes from the states kept above.

# %%
from torch.nn.functional import cross_entropy

teacher_head = reader.get_output_embeddings()


def distillation_loss(model, states, targets, batch):
    logits = model.get_output_embeddings()(states).float()
    with torch.no_grad():
        doubts = teacher_head(batch["teacher_states"].to(teacher_head.weight.dtype)).float().softmax(-1)
    return 0.5 * cross_entropy(logits, targets) + 0.5 * cross_entropy(logits, doubts)


# %%
student_history = training.train(
    student,
    tokenizer,
    lessons,
    label="student",
    loss=distillation_loss,
    num_train_epochs=3,
    learning_rate=5e-4,
    seed=run.seed,
)
student_scores = evaluate.score(desk.task, tests, evaluate.generate(student, tokenizer, chats))
student_scores.table().round(3)

# %% [markdown]
# ## 2.7 What is left of the teacher?
#
# Both answered the same messages, so compare them message by message. The interval of the ratio comes from
# resampling the messages, both answers together (a paired bootstrap {cite}`efron1979bootstrap`).

# %%
kept = evaluate.ratio(student_scores.rows["exact"], teacher_scores.rows["exact"], run.seed)
print(
    f"the student keeps {100 * kept['ratio']:.1f} % of the teacher's exact match "
    f"(95 % interval {100 * kept['low']:.1f} to {100 * kept['high']:.1f}, n = {len(tests)})"
)

# %%
rivals |= {"teacher": teacher_scores, "student": student_scores}
ends = {name: evaluate.proportion(s.rows["exact"]) for name, s in rivals.items()}
plots.show(
    plots.bars(
        {name: 100 * e["share"] for name, e in ends.items()},
        "exact match in % (line: 95 % interval)",
        low={name: 100 * e["low"] for name, e in ends.items()},
        high={name: 100 * e["high"] for name, e in ends.items()},
    ),
    takeaway=f"{len(keep)} of {depth} layers keep {100 * kept['ratio']:.0f} % of the teacher's exact match",
    alt="Bar chart of exact match with intervals for the two word-counting baselines, the teacher and the student.",
)

# %% tags=["nbval-check-output"]
print("the student has fewer than half of the weights:", millions(student) < millions(teacher) / 2)
print("its answers are JSON nine times in ten:", student_scores.rows["valid"].mean() > 0.9)

# %% [markdown]
# ## 2.8 Keep both
#
# The next chapters ask for the teacher and the student by name. Each folder carries a manifest: what it was made
# from, how, and how good it was.

# %%
from slmops_lab import artifacts

for name, model, scores in [("teacher", teacher, teacher_scores), ("student", student, student_scores)]:
    how = {
        "learning_rate": learning_rate,
        "epochs": epochs,
        "examples": len(labelled),
        "layers": model.config.num_hidden_layers,
    }
    with artifacts.save(run, name, settings=how, metrics={"exact_match": scores.exact, "n": len(tests)}) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        scores.save(folder / "test_scores.json")
artifacts.manifest(run, "student")["metrics"]

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
    why="The share of weights is larger, because the embeddings stay whole.",
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
logits = torch.tensor([[2.0, 0.0, -1.0]])
check(
    "2.4",
    soften,
    lambda f: torch.allclose(f(logits, 1.0), logits.softmax(-1)) and float(f(logits, 100.0).max()) < 0.35,
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
# - Score the teacher first; then filter what it says.
# - Depth can go. The student keeps most of the skill with a fraction of the layers.
# - Compare on the same messages, with an interval of the ratio.

# %%
from slmops_lab import measure

print(f"This chapter took {run.minutes:.1f} minutes and at most {measure.peak_memory() / 1e9:.1f} GB.")

# %% [markdown]
# **Next:** [chapter 3](03_fine_tuning.ipynb) asks whether every weight had to be trained.
