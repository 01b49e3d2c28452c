# %% [markdown]
# # 3 Fine-tuning: does every weight have to move?
#
# The teacher of chapter 2 was tuned in full: every weight was trained, and a second copy of every weight would be
# needed for a second task. LoRA ([Hu et al. 2021](https://arxiv.org/abs/2106.09685)) leaves the weights alone and learns a small correction to them.
#
# **You will be able to**
#
# - say what LoRA adds to a layer, and count it;
# - tune the same model on the same budget both ways;
# - compare the two with an interval, and decide what the difference is worth.
#
# **You need** chapter 2 (its teacher is made first where it is missing).

# %% tags=["parameters"]
dataset = "support_desk"
base_model = "smollm2-135m"
profile = None  # None: "full", or what SLMOPS_PROFILE says
seed = 0
rank = 16

# %%
from slmops_lab import artifacts, data, settings
from slmops_lab import base_model as models

run = settings.start(dataset, base_model, profile, seed)
desk = data.load(run.dataset)
teacher_folder = artifacts.need(run, "teacher")
budget = artifacts.manifest(run, "teacher")["settings"]
budget

# %% [markdown]
# That is the budget of the full tuning: LoRA gets the same messages, as many times.
#
# ## 3.1 One layer, one correction
#
# A linear layer multiplies by a matrix $W$. LoRA trains two thin matrices beside it and uses
#
# $$ W' = W + \frac{\alpha}{r} B A, \qquad B: d_{out} \times r, \quad A: r \times d_{in} $$
#
# The rank $r$ sets how much can be learned, $\alpha$ only scales it; for a small rank there is little to train. Take one layer of the real model. **Predict:** how many numbers
# has its $W$, and how many have $A$ and $B$ together?

# %%
model, tokenizer = models.open_model(models.fetch(run.base_model))
layer = model.model.layers[0].mlp.up_proj
out_size, in_size = layer.weight.shape
print(f"W: {out_size} x {in_size} = {out_size * in_size:,} numbers")
print(f"A and B with rank {rank}: {rank * (in_size + out_size):,} numbers")

# %% [markdown]
# The same thing by hand: $B$ starts at zero, so that the first step starts from the model as it was.

# %%
import torch

A = torch.randn(rank, in_size) / in_size**0.5
B = torch.zeros(out_size, rank)
x = torch.randn(4, in_size)
by_hand = layer(x) + (16 / rank) * (x @ A.T @ B.T)
print("before training LoRA changes the output by at most", (by_hand - layer(x)).abs().max().item())

# %% [markdown]
# ## 3.2 The same for the whole model
#
# PEFT ([Mangrulkar et al. 2022](https://github.com/huggingface/peft)) puts such a pair beside every linear layer but the vocabulary head and freezes the rest.

# %%
from peft import LoraConfig, get_peft_model

config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
lora = get_peft_model(model, config)
trained = sum(weight.numel() for weight in lora.parameters() if weight.requires_grad)
total = sum(weight.numel() for weight in model.parameters() if not weight.requires_grad)
print(
    f"{trained / 1e6:.2f} million weights are trained beside {total / 1e6:.1f} million frozen ones: {100 * trained / total:.1f} %"
)

# %% tags=["nbval-check-output"]
print("LoRA trains at most 4 % of the weights:", trained / total <= 0.04)

# %% [markdown]
# ## 3.3 Train on the same budget
#
# The learning rate is higher than in full tuning: few numbers have to do all the moving, and $B$ starts at zero.
# Run this cell once: a second run would train on from where the first one ended.

# %%
from slmops_lab import training

labelled = desk.train[: budget["examples"]]
examples = [
    training.encode(tokenizer, desk.task.messages(record["text"]), desk.task.write(record["answer"]))
    for record in labelled
]
history = training.train(
    lora,
    tokenizer,
    examples,
    label="LoRA",
    num_train_epochs=budget["epochs"],
    learning_rate=2e-3,
    seed=run.seed,
)

# %%
from slmops_lab import plots

plots.show(
    plots.curve(history),
    takeaway="A few per cent of the weights are enough to learn the form at once",
    alt="Line plot of the LoRA training loss: steep at first, then a slow decline.",
)

# %% [markdown]
# ## 3.4 Full against LoRA
#
# The same test messages for both, so the difference is compared message by message.

# %%
from slmops_lab import evaluate

count = run.pick(full=300, quick=120)
full_scores = evaluate.Scores.load(teacher_folder / "test_scores.json").first(count)  # measured in chapter 2
tests = desk.test[: len(full_scores.rows)]
chats = [desk.task.messages(record["text"]) for record in tests]

# %%
import copy

with artifacts.save(run, "adapter", settings={"rank": rank}) as folder:
    lora.save_pretrained(folder)
merged = copy.deepcopy(lora).merge_and_unload()
reader = merged.to(torch.bfloat16) if training.fast_bf16() else merged
lora_scores = evaluate.score(desk.task, tests, evaluate.generate(reader, tokenizer, chats))
lora_scores.table().round(3)

# %%
gap = evaluate.difference(lora_scores.rows["exact"], full_scores.rows["exact"], run.seed)
points = {key: 100 * value for key, value in gap.items()}
print(f"full {100 * full_scores.exact:.1f} %, LoRA {100 * lora_scores.exact:.1f} % exact match")
print(f"LoRA minus full: {points['points']:.1f} points (95 % interval {points['low']:.1f} to {points['high']:.1f})")

# %%
rivals = {"full fine-tuning": full_scores, f"LoRA, rank {rank}": lora_scores}
plots.show(
    plots.shares({name: s.rows["exact"] for name, s in rivals.items()}),
    takeaway=f"The same budget: LoRA {points['points']:+.1f} points against full fine-tuning",
    alt="Two bars with intervals: exact match of full fine-tuning and of LoRA on the same test messages.",
)

# %% [markdown]
# Read the interval, not only the point. If it holds zero, this test cannot tell the two apart. And it covers the choice of test messages only: another
# seed or learning rate may move either model.
#
# ## 3.5 What you ship
#
# After a full tuning you ship the whole model again. After LoRA you ship the adapter, and many adapters share one base.

# %%
from slmops_lab import measure

adapter_bytes, full_bytes = (
    measure.weight_bytes(run.artifacts / "adapter"),
    measure.weight_bytes(teacher_folder),
)
print(f"adapter {adapter_bytes / 1e6:.1f} MB, full model {full_bytes / 1e6:.1f} MB")

# %% tags=["nbval-check-output"]
print("the adapter is at least 20 times smaller:", full_bytes / adapter_bytes >= 20)

# %% [markdown]
# ## The ledger

# %%
from slmops_lab import claims

claims.record(run, "lora-params", 100 * trained / total)
claims.record(run, "lora-quality", points["points"], points["low"], points["high"], len(tests))
claims.table(run.build, "03_fine_tuning")

# %% [markdown]
# ## Exercises
#
# ### Exercise 3.1: change one number
#
# How many numbers do $A$ and $B$ of the layer above have together with rank 32?

# %% tags=["exercise"]
numbers_rank_32 = ...

# %% tags=["check"]
from slmops_lab.exercises import check

check(
    "3.1",
    numbers_rank_32,
    lambda n: n == 32 * (in_size + out_size),
    hint="rank * (in_size + out_size).",
    why="The cost of LoRA grows with the rank, not with the product of the two sizes.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# numbers_rank_32 = 32 * (in_size + out_size)
# ```
# </details>
#
# ### Exercise 3.2: when does it stop paying?
#
# At which rank do $A$ and $B$ have as many numbers as $W$ itself? Give a number, rounded down.

# %% tags=["exercise"]
break_even_rank = ...

# %% tags=["check"]
check(
    "3.2",
    break_even_rank,
    lambda r: r == in_size * out_size // (in_size + out_size),
    hint="Solve r * (in_size + out_size) = in_size * out_size.",
    why="Far beyond the ranks in use.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# break_even_rank = in_size * out_size // (in_size + out_size)
# ```
# </details>
#
# ### Exercise 3.3: which field pays?
#
# For which field is full tuning ahead of LoRA the most (or behind the least)? Give its name.

# %% tags=["exercise"]
field_ahead = ...

# %% tags=["check"]
fields = list(desk.task.fields)
check(
    "3.3",
    field_ahead,
    lambda name: name == (full_scores.rows[fields].mean() - lora_scores.rows[fields].mean()).idxmax(),
    hint="Subtract the means of the field columns of both rows tables, then idxmax.",
    why="A total hides where the difference sits.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# fields = list(desk.task.fields)
# field_ahead = (full_scores.rows[fields].mean() - lora_scores.rows[fields].mean()).idxmax()
# ```
# </details>
#
# ### Exercise 3.4: write it
#
# Write `merge(weight, A, B, scale)`: the single matrix that does the work of the layer and its correction.

# %% tags=["exercise"]
merge = ...

# %% tags=["check"]
toy_W, toy_A, toy_B = torch.randn(6, 5), torch.randn(2, 5), torch.randn(6, 2)
check(
    "3.4",
    merge,
    lambda f: torch.allclose(f(toy_W, toy_A, toy_B, 2.0), toy_W + 2.0 * toy_B @ toy_A),
    hint="weight + scale * B @ A: the shapes leave only one order.",
    why="After merging, LoRA costs nothing at inference.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def merge(weight, A, B, scale):
#     return weight + scale * B @ A
# ```
# </details>
#
# ## Quiz
#
# 1. Why does $B$ start at zero?
# 2. Does LoRA make the tuned model answer faster?
# 3. Ten tasks on one device: what do you store, in full and with LoRA?
#
# <details><summary>Answers</summary>
#
# 1. So that training starts from the model as it was, not from noise on top of it.
# 2. No. Merged it is as fast as before, unmerged a little slower.
# 3. Ten models; or one model and ten adapters.
#
# </details>
#
# ## Take-aways
#
# - LoRA leaves the weights alone and trains new ones, a few per cent as many.
# - Compare methods on one budget and one test, with the interval of the difference.
# - What you gain is in what you store and ship, not in speed.

# %%
print(f"This chapter took {run.minutes:.1f} minutes and at most {measure.peak_memory() / 1e9:.1f} GB.")

# %% [markdown]
# **Next:** [chapter 4](04_deployment.ipynb) takes the student out of the training room.
