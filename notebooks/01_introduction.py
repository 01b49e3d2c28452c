# %% [markdown]
# # 1 Introduction: meet a small model
#
# A model that fits on a laptop is not a toy version of a large one. It is a different thing to operate: you own
# it, you tune it, you measure it, you ship it. This chapter takes the first look at the model that the whole
# course works on.
#
# **You will be able to**
#
# - say how many bytes a model needs, and check the answer against the real file;
# - measure how fast it answers on your own machine;
# - measure how good it is at *your* task before you believe anything about it;
# - say how sure that measurement is.
#
# **You need** nothing but this machine: no GPU, no account, no network.

# %% tags=["parameters"]
dataset = "support_desk"
base_model = "smollm2-135m"
profile = None  # None: "full", or what SLMOPS_PROFILE says
seed = 0

# %%
from slmops_lab import settings

run = settings.start(dataset, base_model, profile, seed)

# %% [markdown]
# ## 1.1 A first answer
#
# The course's base model is SmolLM2-135M-Instruct ([Allal et al. 2025](https://arxiv.org/abs/2502.02737)). It comes in a package with 4-bit weights
# (GGUF, Q4_1), unpacked once into 32-bit numbers: what you measure is the model after that rounding, not the original. Before you run the next cell:
# do you expect a sensible answer from a model thousands of times smaller than the famous ones?

# %%
from slmops_lab import base_model as models
from slmops_lab import evaluate

folder = models.fetch(run.base_model)
model, tokenizer = models.open_model(folder)
question = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
evaluate.generate(model, tokenizer, [question])[0]

# %% [markdown]
# It knows some things and writes decent English. Keep that in mind for the surprise in section 1.4.
#
# ## 1.2 How big is it?
#
# A model is a long list of numbers. **Predict:** if each takes four bytes, how large is the file?

# %%
from slmops_lab import measure

parameters = sum(weight.numel() for weight in model.parameters())
expected = parameters * 4
found = measure.weight_bytes(folder)
print(f"{parameters / 1e6:.1f} million parameters x 4 bytes = {expected / 1e6:.1f} MB")
print(f"the file on disk                   = {found / 1e6:.1f} MB")

# %% tags=["nbval-check-output"]
print("the formula is right to one per cent:", abs(found / expected - 1) < 0.01)

# %% [markdown]
# So size is arithmetic: parameters times bytes per parameter. Fewer bits each, or fewer parameters: the course
# does both. Where do the parameters sit?

# %%
parts = {"layers": 0, "embeddings": 0}
for name, weight in model.named_parameters():
    parts["layers" if ".layers." in name else "embeddings"] += weight.numel()
parts

# %%
from slmops_lab import plots

bits = {"fp32": 32, "bf16": 16, "int8": 8, "int4": 4}
sizes = {name: parameters * n / 8 / 1e6 for name, n in bits.items()}
plots.show(
    plots.bars(sizes, "megabytes of weights (calculated)", digits=0),
    takeaway="Half the bits, half the bytes",
    alt="Bar chart of the calculated weight size in fp32, bf16, int8 and int4; each is half of the one before.",
)

# %% [markdown]
# Real 4-bit files come out larger than four bits per weight, since every block of weights also stores its
# scale. Chapter 4 measures one.
#
# ## 1.3 How fast is it?
#
# Two numbers matter to a waiting person: the time to the first token, and the tokens per second after it.
# The first token costs one pass over the whole prompt, each further one a pass over a single token.


# %%
def seconds_for(new_tokens):
    model.generation_config.eos_token_id = None  # go on to the full length
    try:
        with measure.timed() as t:
            evaluate.generate(model, tokenizer, [question], new_tokens, label=None)
    finally:
        model.generation_config.eos_token_id = tokenizer.eos_token_id
    return t.seconds


seconds_for(2)  # warm up
first = sorted(seconds_for(1) for _ in range(5))[2]
more = sorted(seconds_for(33) for _ in range(3))[1]
print(f"time to first token {first * 1000:.0f} ms, then {32 / (more - first):.0f} tokens per second")
print(f"peak memory of this notebook so far {measure.peak_memory() / 1e9:.1f} GB")

# %% [markdown]
# These are medians of repeated runs on *this* machine, in PyTorch with 32-bit weights. Chapter 4 makes the same
# kind of answer several times faster.
#
# ## 1.4 How good is it at our job?
#
# The job of this course: the support desk of a shop for outdoor gear. A customer's message goes in, one line of
# JSON comes out, the *triage ticket*.

# %%
from slmops_lab import data

desk = data.load(run.dataset)
desk.sizes()

# %%
example = desk.test[0]
print(example["text"])
print(desk.task.write(example["answer"]))

# %% [markdown]
# The schema of the data folder says which fields there are. Everything else (the prompt, the parser, the score)
# is derived from it, so your own task is another folder, not other code. This is what the model is asked:

# %%
for message in desk.task.messages(example["text"], explain=True):
    print(f"[{message['role']}] {message['content']}\n")

# %% [markdown]
# **Predict:** in how many of a hundred messages will the base model get every field right, without having seen
# one example? This is called *zero-shot*.

# %%
count = run.pick(full=80, quick=32)
records = desk.test[:count]
chats = [desk.task.messages(r["text"], explain=True) for r in records]
texts = evaluate.generate(model, tokenizer, chats, max_new_tokens=48)
zero_shot = evaluate.score(desk.task, records, texts)
zero_shot.table().round(3)

# %% [markdown]
# A share alone says little: `low` and `high` bound the 95 % interval ([Wilson 1927](https://doi.org/10.1080/01621459.1927.10502953)). Look at the answers
# themselves before you judge:

# %%
for text in texts[:3]:
    print(repr(text[:110]))

# %% [markdown]
# The model that knew the capital of France does not do the job: general ability is not the same as reliability
# at one task.
#
# ## 1.5 What must a model beat?
#
# A score needs something to compare with. The cheapest rival only sees which words occur: logistic regression for the
# labels, and the shape of the order numbers seen in training for the rest. It takes seconds and no language model.

# %%
guesses = evaluate.keyword_baseline(desk.task, desk.train, [r["text"] for r in desk.test])
keywords = evaluate.score(desk.task, desk.test, [desk.task.write(g) for g in guesses])
keywords.table().round(3)

# %%
rivals = {"base model, zero-shot": zero_shot, "keyword baseline": keywords.first(count)}  # the same messages
plots.show(
    plots.shares({name: s.rows["exact"] for name, s in rivals.items()}),
    takeaway="Counting words beats a language model that was never tuned",
    alt="Bar chart of exact match: the keyword baseline is far above the zero-shot base model.",
)

# %% tags=["nbval-check-output"]
print("keywords beat the untuned model:", keywords.first(count).exact > zero_shot.exact)
print("keywords stay below 80 %:", keywords.exact < 0.8)

# %% [markdown]
# The messages were written for this course by a language model (see the data card) so that words alone mislead: *"They're not damaged and they're
# the right poles"*, fury without urgency, numbers that are no order number. Chapter 2 tunes the model on part of the training messages and fits the
# baseline again on the same part.
#
# ## 1.6 The loop ahead
#
# ```text
#   label (teacher) -> train a small student -> quantize -> run  -> race and judge
#        ch. 2               ch. 2               ch. 4      ch. 4        ch. 4
# ```
#
# In operation the loop closes: you watch what comes in and label again. Chapter 3 asks whether tuning itself can be cheaper.
#
# People say a lot about what this loop gains. The course keeps a ledger: each claim, a goal, and what *your* run
# measured. The rows fill up as you go.

# %%
import pandas
from slmops_lab import claims

pandas.DataFrame(
    [{"claim": c.claim, "goal": f"{c.goal:g} {c.unit}", "chapter": c.chapter} for c in claims.LEDGER.values()]
)

# %% [markdown]
# ## Exercises
#
# Replace the `...`, run the cell and the check below it.
#
# ### Exercise 1.1: change one number
#
# How many megabytes (millions of bytes) would the weights of *this* model take with 16 bits each?
# The result should be half of what you saw on disk.

# %% tags=["exercise"]
megabytes_bf16 = ...

# %% tags=["check"]
from slmops_lab.exercises import check

check(
    "1.1",
    megabytes_bf16,
    lambda mb: abs(mb - parameters * 2 / 1e6) < 1,
    hint="16 bits are 2 bytes; use `parameters` from section 1.2 and divide by a million.",
    why="Two bytes each: half of fp32.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# megabytes_bf16 = parameters * 2 / 1e6
# ```
# </details>
#
# ### Exercise 1.2: how sure is sure?
#
# 80 of 100 messages right: what is the width of the 95 % interval, in points? And for 800 of 1,000?
# Give a pair. `evaluate.proportion` takes a list of booleans. The second should be about a third of the first.

# %% tags=["exercise"]
widths = ...

# %% tags=["check"]
check(
    "1.2",
    widths,
    lambda w: 15 < w[0] < 17 and 4.5 < w[1] < 5.5,
    hint="Build [True] * 80 + [False] * 20, take high - low, times 100.",
    why="Ten times the messages, a third of the width: it shrinks with the square root.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def width(right, total):
#     interval = evaluate.proportion([True] * right + [False] * (total - right))
#     return 100 * (interval["high"] - interval["low"])
#
#
# widths = (width(80, 100), width(800, 1000))
# ```
# </details>
#
# ### Exercise 1.3: where do keywords fail?
#
# Which field does the keyword baseline get wrong most often? Give its name, computed from `keywords.rows`.

# %% tags=["exercise"]
weakest_field = ...

# %% tags=["check"]
check(
    "1.3",
    weakest_field,
    lambda name: name == keywords.rows[list(desk.task.fields)].mean().idxmin(),
    hint="Take the columns named in desk.task.fields, their mean, and the smallest one (idxmin).",
    why="The field with the lowest share right is where words mislead most.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# weakest_field = keywords.rows[list(desk.task.fields)].mean().idxmin()
# ```
# </details>
#
# ### Exercise 1.4: write it
#
# Write `memory_for(parameters, bits, layers, kv_width, tokens)`: bytes of the weights plus bytes of the KV cache.
# The cache holds, for every token and layer, a key and a value of `kv_width` numbers with 2 bytes each.

# %% tags=["exercise"]
memory_for = ...

# %% tags=["check"]
check(
    "1.4",
    memory_for,
    lambda f: (
        f(1000, 8, 0, 0, 0) == 1000 and f(1000, 4, 0, 0, 0) == 500 and f(0, 4, 30, 192, 100) == 2 * 2 * 30 * 192 * 100
    ),
    hint="weights: parameters * bits / 8; cache: 2 (key, value) * 2 bytes * layers * kv_width * tokens.",
    why="With long conversations the cache, not the weights, fills the memory.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def memory_for(parameters, bits, layers, kv_width, tokens):
#     return parameters * bits / 8 + 2 * 2 * layers * kv_width * tokens
# ```
# </details>
#
# ## Quiz
#
# 1. A model has 3.8 billion parameters. How large is it in int4?
# 2. Why compare with a keyword baseline at all?
# 3. Two models score 71 % and 73 % on 100 messages. Which one is better?
#
# <details><summary>Answers</summary>
#
# 1. About 1.9 GB, and a little more for the scales.
# 2. If counting words does the job, a language model is a waste; if it nearly does, small gains are not worth much.
# 3. Nobody knows: the two differ in two messages. And models that answered the same messages are compared message by message (chapter 2), not
#    interval with interval.
#
# </details>
#
# ## Take-aways
#
# - Size is parameters times bits; check it against the file.
# - Speed has two numbers, first token and tokens per second; measure both where the model will run.
# - Measure the task, with an interval and a baseline, before and after everything you do.

# %%
print(f"This chapter took {run.minutes:.1f} minutes and at most {measure.peak_memory() / 1e9:.1f} GB.")

# %% [markdown]
# **Next:** in [chapter 2](02_distillation.ipynb) the model learns the job and hands it on to a much smaller student.
