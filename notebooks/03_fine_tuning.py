# %% [markdown]
# # 3 Fine-tuning: does every weight have to move?
#
# The teacher of chapter 2 changed every weight of its upper half, and a second task would need a second copy of the
# model. LoRA ([Hu et al. 2021](https://arxiv.org/abs/2106.09685)) leaves the weights alone and learns a small correction to them.
# When is that enough, when is a good prompt enough, and what else can go wrong?
#
# **You will be able to**
#
# - choose between prompting, full tuning, LoRA, QLoRA and other adapters, with numbers in hand;
# - build LoRA from its formula, and say what rank, scale and place of it do;
# - work out the memory of a tuning before you start it, also of a model 100 times as large;
# - tune one base for four jobs, and judge each by the measure that fits it;
# - run Microsoft Olive, from a command and from a workflow file, and notice when it failed;
# - find leaks between training and test, search settings without touching the test, and write a loss of your own;
# - watch a training, stop it early, have it killed and resume it;
# - serve two adapters on one base in four bits.
#
# **You need** chapter 2 (its teacher is made first where it is missing).

# %% tags=["parameters"]
dataset = "support_desk"
base_model = "smollm2-135m"
profile = None  # None: "full", or what SLMOPS_PROFILE says
seed = 0
rank = 16

# %%
from slmops_lab import settings
from slmops_lab.course import artifacts
from slmops_lab.task import data, encoding
from slmops_lab.training import trainer
from slmops_lab.training import base_model as models

run = settings.start(dataset, base_model, profile, seed)
desk = data.load(run.dataset)
base_folder = models.fetch(run.base_model)
teacher_folder = artifacts.need(run, "teacher")
budget = artifacts.manifest(run, "teacher")["settings"]
budget

# %% [markdown]
# That is the budget of the full tuning. Three sets of messages follow from it: `labelled` to learn from, `held_out` to choose by, and the test, which chooses
# nothing.

# %%
labelled = desk.train[: budget["examples"]]
held_out = (desk.train[len(labelled) :] or desk.test)[: run.pick(full=120, quick=24)]
tests = desk.test[: run.pick(full=None, quick=120)]
base, tokenizer = models.open_model(base_folder)
print(f"{len(labelled)} to learn from, {len(held_out)} to choose by, {len(tests)} to judge by")

# %% [markdown]
# ## 3.1 Prompt or tune?
#
# Before training anything: the base model follows instructions. Give it the whole schema, and then a few solved messages, *shots*, to read first
# ([Brown et al. 2020](https://arxiv.org/abs/2005.14165)).


# %%
def prompted(text, shots):
    instruction, question = desk.task.messages(text, explain=True)
    solved = []
    for record in labelled[:shots]:
        answer = {"role": "assistant", "content": desk.task.write(record["answer"])}
        solved += [{"role": "user", "content": record["text"]}, answer]
    return [instruction, *solved, question]


for turn in prompted("where is my tent?", shots=1):
    print(f"{turn['role']:9} {turn['content'][:90]}")

# %% [markdown]
# **Predict:** with how many shots does the base model catch up with the tuned one of chapter 2? And what do the longer prompts cost in time?

# %%
import torch
from slmops_lab import measure
from slmops_lab.evaluation import generation, intervals, scoring

asked = tests[: run.pick(full=32, quick=8)]


def as_reader(model):  # to read and write, 16 bits are enough where the processor computes with them
    return model.to(torch.bfloat16) if settings.fast_bf16() else model


def examined(reader, chats, records=asked, tokenizer=tokenizer):
    with measure.timed() as elapsed:
        said = generation.generate(reader, tokenizer, chats, batch_size=8)
    scores = scoring.score(desk.task, records, said)
    tokens = sum(len(encoding.prompt_ids(tokenizer, chat)) for chat in chats) / len(chats)
    cost = {"prompt tokens": tokens, "ms per message": 1000 * elapsed.seconds / len(chats)}
    return {"valid JSON": scores.rows["valid"].mean(), **intervals.proportion(scores.rows["exact"]), **cost}


# %%
import pandas

reader = as_reader(models.open_model(base_folder)[0])
ways = {}
for shots in run.pick(full=(0, 1, 4), quick=(0, 1)):
    ways[f"prompt, {shots} shots"] = examined(reader, [prompted(record["text"], shots) for record in asked])
tuned, its_tokenizer = models.open_model(teacher_folder)
reader = as_reader(tuned)
ways["tuned"] = examined(reader, [desk.task.messages(record["text"]) for record in asked], tokenizer=its_tokenizer)
del tuned
del reader
table = pandas.DataFrame(ways).T.rename(columns={"share": "exact match"})
table.round({"prompt tokens": 0, "ms per message": 0}).round(3)

# %%
from slmops_lab.course import plots

shares = {"valid JSON": "valid JSON", "exact match": "share"}
shares = {label: [100 * way[key] for way in ways.values()] for label, key in shares.items()}
best_prompt = max(way["share"] for name, way in ways.items() if name != "tuned")
plots.show(
    plots.columns(list(ways), shares, f"% of {len(asked)} messages"),
    takeaway=f"The best prompt is right in {100 * best_prompt:.0f} %, the tuned model in {100 * ways['tuned']['share']:.0f} %",
    alt="Columns: share of valid JSON and of exact matches, for prompts with different numbers of solved messages and for the tuned model.",
)

# %% [markdown]
# A model of this size learns the form of the answer from a prompt, hardly the judgement. Prompting is the right choice for large models, for few
# messages, and for jobs that change every week. A prompt is paid for in every message, a tuning once: exercise 3.6 finds where they meet.

# %% tags=["nbval-check-output"]
print("the tuned model is ahead of every prompt:", ways["tuned"]["share"] >= best_prompt)

# %% [markdown]
# ## 3.2 What full tuning needs
#
# Per weight that is trained there is a gradient, and Adam ([Kingma and Ba 2015](https://arxiv.org/abs/1412.6980)) remembers two averages of it. Each is
# a number of 4 bytes, as the weight itself is. **Predict** from that: how many bytes does the full tuning of this model need?


# %%
def training_bytes(weights, trained, bits=32):
    """Weights in so many bits; a gradient and Adam's two averages, 32 bits each, for the trained ones."""
    return weights * bits / 8 + trained * (4 + 4 + 4)


count = sum(weight.numel() for weight in base.parameters())
print(f"{count / 1e6:.1f} million weights: {training_bytes(count, count) / 1e9:.2f} GB, before any message is read")

# %% [markdown]
# Activations come on top; they grow with the batch, not with what is trained (3.14). What such a tuning gave us is on the disk: the teacher, with its score on every test message. (Its
# lower half stayed as it was, and it writes its tickets in fewer tokens. From here on, full tuning means this one.)

# %%
full_scores = scoring.Scores.load(teacher_folder / "test_scores.json").first(len(tests))  # measured in chapter 2
tests = tests[: len(full_scores.rows)]
full_scores.table().round(3)

# %% [markdown]
# ## 3.3 LoRA from its formula
#
# A linear layer multiplies by a matrix $W$. LoRA trains two thin matrices beside it and uses
#
# $$ W' = W + \frac{\alpha}{r} B A, \qquad B: d_{out} \times r, \quad A: r \times d_{in} $$
#
# Take one layer of the real model. **Predict:** how many numbers has its $W$, and how many have $A$ and $B$ together?

# %%
layer = base.model.layers[0].mlp.up_proj
out_size, in_size = layer.weight.shape
print(f"W: {out_size} x {in_size} = {out_size * in_size:,} numbers")
print(f"A and B with rank {rank}: {rank * (in_size + out_size):,} numbers")

# %% [markdown]
# The formula as a layer. $B$ starts at zero, so that the first step starts from the model as it was.


# %%
class LoRALinear(torch.nn.Module):
    def __init__(self, linear, rank, alpha):
        super().__init__()
        self.linear, self.scale = linear, alpha / rank
        self.A = torch.nn.Parameter(torch.randn(rank, linear.in_features) / linear.in_features**0.5)
        self.B = torch.nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x):
        return self.linear(x) + self.scale * (x @ self.A.T @ self.B.T)


ours = LoRALinear(layer, rank, alpha=2 * rank)
x = torch.randn(4, in_size)
print("before training it changes the output by", (ours(x) - layer(x)).abs().max().item())

# %% [markdown]
# Is that what PEFT ([Mangrulkar et al. 2022](https://github.com/huggingface/peft)) does? Give its layer our numbers, with a $B$ that is not zero, and compare.

# %%
from peft import LoraConfig, get_peft_model

torch.nn.init.normal_(ours.B)
alone = torch.nn.Sequential()
alone.add_module("up_proj", layer)
theirs = get_peft_model(alone, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["up_proj"]))
peft_layer = theirs.base_model.model.up_proj
peft_layer.lora_A.default.weight.data = ours.A.data
peft_layer.lora_B.default.weight.data = ours.B.data
apart = ((ours(x) - peft_layer(x)).abs().max() / ours(x).abs().max()).item()
print(f"largest difference: {apart:.1e} of the largest number")

# %% tags=["nbval-check-output"]
print("ours and PEFT's agree to the last digits:", apart < 1e-5)

# %% [markdown]
# ### Is the change thin?
#
# LoRA bets that a tuning changes a matrix in few directions. We can look: the teacher minus the base *is* such a change. Its singular values say how much of it
# each direction carries. **Predict:** what share of it does rank 16 keep?

# %%
tuned, _ = models.open_model(teacher_folder)
middle = len(base.model.layers) // 2
changes = {
    "attention (o_proj)": lambda m: m.model.layers[middle].self_attn.o_proj.weight,
    "MLP (up_proj)": lambda m: m.model.layers[middle].mlp.up_proj.weight,
}
with torch.inference_mode():
    changes = {name: (of(tuned) - of(base)).float() for name, of in changes.items()}
spectra = {name: torch.linalg.svdvals(change) for name, change in changes.items()}
del tuned
kept = {name: (s**2).cumsum(0) / (s**2).sum() for name, s in spectra.items()}
print(
    {
        name: f"{100 * share[min(rank, len(share)) - 1]:.0f} % of the change with rank {rank}"
        for name, share in kept.items()
    }
)

# %% [markdown]
# Move the slider: the best approximation of rank $r$ has the first $r$ singular values ([Eckart and Young 1936](https://doi.org/10.1007/BF02288367)).


# %%
def spectrum(name, rank):
    values = spectra[name]
    figure, axis = plots.pyplot.subplots()
    colours = ["#D55E00" if i < rank else "#BBBBBB" for i in range(len(values))]
    axis.bar(range(1, len(values) + 1), values / values[0], width=1.0, color=colours)
    axis.set(xlabel="direction, strongest first", ylabel="singular value (first = 1)")
    numbers = rank * sum(changes[name].shape)
    share = 100 * kept[name][rank - 1].item()
    told = f"Rank {rank}: {numbers:,} numbers instead of {changes[name].numel():,} keep {share:.0f} % of the change"
    return plots.png(figure, told), f"Bars of the singular values of the change of {name}. {told}."


# %%
from slmops_lab.course import widgets

ranks = [r for r in (1, 4, 16, 64, 256) if r <= min(len(s) for s in spectra.values())]
pages = {name: {r: spectrum(name, r) for r in ranks} for name in spectra}
widgets.flip_book(pages, over="matrix", along="rank")

# %% [markdown]
# A few directions carry much of the change, and a long tail carries the rest: nobody asked a full tuning to be thin. LoRA's bet is another one: that
# among the thin changes there is one that does the job as well. Only training tells.
#
# ### The whole model
#
# PEFT puts such a pair beside every linear layer but the vocabulary head, and freezes the rest.


# %%
def lora_config(rank=rank, alpha=8 * rank, modules="all-linear", **more):
    return LoraConfig(r=rank, lora_alpha=alpha, target_modules=modules, task_type="CAUSAL_LM", **more)


# %%
from slmops_lab.training import adapters

lora = adapters.attach(base, lora_config())  # PEFT's get_peft_model, and a sentence where it cannot be
trained, frozen = adapters.weights(lora)
share_trained = 100 * trained / frozen
print(
    f"{trained / 1e6:.2f} million weights are trained beside {frozen / 1e6:.1f} million frozen ones: {share_trained:.1f} %"
)

# %% tags=["nbval-check-output"]
print("LoRA trains at most 4 % of the weights:", share_trained <= 4)

# %% [markdown]
# What cannot be is refused with a reason:

# %%
base = lora.unload()
for impossible in (lora_config(rank=0), lora_config(rank=9999), lora_config(modules=["query"])):
    try:
        adapters.attach(base, impossible)
    except settings.CourseError as error:
        print(error)

# %% [markdown]
# ### Rank, scale, place, batch
#
# Short trials, always from the same base: the same lessons for all, judged by held-out messages. The judge is again what the right answer costs in nats
# (0: it is certain). **Predict:** which dial matters most: rank, $\alpha$, the layers that get a correction, or the size of a batch?


# %%
def lesson_of(record):
    return encoding.encode(tokenizer, desk.task.messages(record["text"]), desk.task.write(record["answer"]))


lessons = [lesson_of(record) for record in labelled]
judges = [lesson_of(record) for record in held_out[: run.pick(full=48, quick=12)]]
short = run.pick(full=40, quick=16)
usual = {"num_train_epochs": 1, "per_device_train_batch_size": 2, "learning_rate": 1e-3, "seed": run.seed}


def tuned_on(lessons, config=None, label="LoRA", **how):
    """The base with a new adapter that has learned the lessons; `unload` it when done."""
    settings.set_seed(run.seed)
    adapted = adapters.attach(base, config or lora_config())
    adapted.history = trainer.train(adapted, tokenizer, lessons, label, **{**usual, **how})
    return adapted


# %%
attention = ["q_proj", "k_proj", "v_proj", "o_proj"]
dials = {
    f"rank {rank}, alpha {8 * rank}, everywhere": (lora_config(), {}),
    "batches of one": (lora_config(), {"per_device_train_batch_size": 1, "learning_rate": 7e-4}),
    f"rank {rank // 4}": (lora_config(rank // 4, alpha=2 * rank), {}),
    f"alpha {rank}": (lora_config(alpha=rank), {}),
    "attention only": (lora_config(modules=attention), {}),
    "query and value only": (lora_config(modules=["q_proj", "v_proj"]), {}),
}
costs, sizes = {}, {}
for name, (config, how) in dials.items():
    pupil = tuned_on(lessons[:short], config, name, **how)
    costs[name], sizes[name] = generation.nats(pupil, tokenizer, judges), adapters.weights(pupil)[0]
    pupil.unload()


# %%
def compared(costs):
    rows = pandas.DataFrame(costs)
    gap = rows.sub(rows.iloc[:, 0], axis=0)  # on the same messages, so their differences vary less than they do
    columns = {"nats per answer": rows.mean(), "more than the first": gap.mean(), "plus or minus": 1.96 * gap.sem()}
    return pandas.DataFrame(columns)


# %%
sweep = compared(costs)
sweep.insert(0, "million weights", [sizes[name] / 1e6 for name in costs])
sweep.round(2)

# %%
plots.show(
    plots.bars(dict(sweep["nats per answer"]), "nats per right answer on held-out messages (lower is better)"),
    takeaway=f"Best in this short trial: {sweep['nats per answer'].idxmin()}",
    alt="Bars: cost of the right answer after the same few steps, for other ranks, scales and target modules.",
)

# %% [markdown]
# A large $\alpha$ is, at the start, a larger step. Compare the two thriftiest that are not the same: a thin correction everywhere, and a thick one in the attention only. Which
# trains fewer weights, and which costs less? It is one seed and a few steps: a longer training may bring them closer.
#
# ### The whole budget
#
# Now the messages of the full tuning, as many times. The learning rate is higher than in full tuning (few numbers have to do all the moving), and each message is a step of its own:
# the same words, more steps. (The full tuning had batches of four; smaller ones might help it, too.)

# %%
one_by_one = {"per_device_train_batch_size": 1, "learning_rate": 7e-4}
all_lessons = lessons[: run.pick(full=None, quick=40)]
lora = tuned_on(all_lessons, label="whole budget", num_train_epochs=budget["epochs"], **one_by_one)
plots.show(
    plots.curve(lora.history),
    takeaway="A few per cent of the weights are enough to learn the form at once",
    alt="Line plot of the LoRA training loss: steep at first, then a slow decline.",
)

# %%
import copy

marks = {"seconds": lora.history.attrs["seconds"]}
with artifacts.save(run, "adapter", settings={"rank": rank}, metrics=marks) as folder:
    lora.save_pretrained(folder)
lora_seconds = lora.history.attrs["seconds"]
base = lora.unload()
merged = adapters.open_adapter(copy.deepcopy(base), run.artifacts / "adapter").merge_and_unload()
chats = [desk.task.messages(record["text"]) for record in tests]
lora_scores = scoring.score(desk.task, tests, generation.generate(as_reader(merged), tokenizer, chats))
del merged
lora_scores.table().round(3)

# %% [markdown]
# The same test messages for both, so the difference is compared message by message.

# %%
gap = intervals.difference(lora_scores.rows["exact"], full_scores.rows["exact"], run.seed)
points = {key: 100 * value for key, value in gap.items()}
print(f"full {100 * full_scores.exact:.1f} %, LoRA {100 * lora_scores.exact:.1f} % exact match, n = {len(tests)}")
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
# What you ship is another matter: after a full tuning the whole model again, after LoRA the adapter, and many adapters share one base.

# %%
adapter_bytes, full_bytes = (measure.weight_bytes(f) for f in (run.artifacts / "adapter", teacher_folder))
print(f"adapter {adapter_bytes / 1e6:.1f} MB, full model {full_bytes / 1e6:.1f} MB")

# %% tags=["nbval-check-output"]
print("the adapter is at least 20 times smaller:", full_bytes / adapter_bytes >= 20)

# %% [markdown]
# ## 3.4 QLoRA: a frozen base needs fewer bits
#
# The base is only read, so it may be kept in four bits while the adapter learns on top of it in full precision
# ([Dettmers et al. 2023](https://arxiv.org/abs/2305.14314)). Their NF4 has 16 levels, placed where normally distributed weights are, and a scale for every 64 weights.

# %%
from bitsandbytes.functional import dequantize_4bit, quantize_4bit

matrix = base.model.layers[middle].mlp.up_proj.weight.detach().float()
packed, scales = quantize_4bit(matrix, quant_type="nf4", blocksize=64)
back = dequantize_4bit(packed, scales)
print(f"{4 * matrix.numel():,} bytes become {packed.numel():,} and {4 * scales.absmax.numel():,} for the scales")
print(f"the error is {100 * ((matrix - back).norm() / matrix.norm()).item():.1f} % of the matrix")

# %% [markdown]
# An error of that size, in every layer, changes what the base says. The adapter learns around it: that is the idea.
#
# ## 3.5 Five methods, one budget
#
# Two more for the table. DoRA ([Liu et al. 2024](https://arxiv.org/abs/2402.09353)) learns the length of each row beside LoRA's direction. IA3 ([Liu et al. 2022](https://arxiv.org/abs/2205.05638)) learns no matrix at all,
# only a factor for each number in a few places. All learn from the same lessons, each in a process of its own, so that memory can be told apart.

# %%
from peft import IA3Config
from transformers import BitsAndBytesConfig

four_bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
methods = {
    "full": {"config": None, "learning_rate": 1.5e-4, "train_embeddings": True},
    "LoRA": {"config": lora_config(), "learning_rate": 1e-3},
    "QLoRA": {"config": lora_config(), "learning_rate": 1e-3, "quantization": four_bits},
    "DoRA": {"config": lora_config(use_dora=True), "learning_rate": 1e-3},
    "IA3": {"config": IA3Config(task_type="CAUSAL_LM"), "learning_rate": 3e-2},
}

# %% [markdown]
# **Predict:** order them by memory, by time, and by what they have learned after the same few steps.

# %%
import tempfile

from tqdm import tqdm

exam = held_out[: run.pick(full=40, quick=8)]
results = {}
with tempfile.TemporaryDirectory() as scratch:
    for name, method in tqdm(methods.items(), desc="methods", leave=False):
        results[name] = adapters.tune_apart(
            base_folder,
            examples=lessons[: run.pick(full=80, quick=12)],
            judges=judges,
            chats=[desk.task.messages(record["text"]) for record in exam],
            folder=f"{scratch}/{name}",
            **{**usual, **method},
        )


# %%
def row_of(result):
    exact = intervals.proportion(scoring.score(desk.task, exam, result["texts"]).rows["exact"])
    return {
        "weights trained, millions": result["trained"] / 1e6,
        "peak GB": result["peak"] / 1e9,
        "seconds": result["seconds"],
        "MB to keep": result["stored"] / 1e6,
        "nats per answer": sum(result["nats"]) / len(result["nats"]),
        **{f"exact match, {key}": value for key, value in exact.items()},
    }


methods_table = pandas.DataFrame({name: row_of(result) for name, result in results.items()}).T
methods_table.round(2)

# %%
plots.show(
    plots.bars(dict(methods_table["peak GB"]), "peak memory of the process in GB", digits=2),
    takeaway=f"LoRA peaks at {methods_table['peak GB']['LoRA']:.1f} GB, full tuning at {methods_table['peak GB']['full']:.1f} GB",
    alt="Bars: peak memory of full tuning, LoRA, QLoRA, DoRA and IA3 on the same lessons.",
)

# %% tags=["nbval-check-output"]
print("LoRA needs less memory than full tuning:", results["LoRA"]["peak"] < results["full"]["peak"])

# %% [markdown]
# The time falls less than the memory: what is saved is the optimizer's work on every weight, the gradient still travels through every layer. After so few steps the exact matches are
# few and their intervals wide; the nats tell more. DoRA pays for its lengths in time, IA3 is thrifty and learns least.
#
# ### And with 3.8 or 14 billion weights?
#
# Does our formula hold? It leaves activations out, but they are much the same for both methods, so the *difference* between full tuning and LoRA can be checked.

# %%
full, thin = results["full"], results["LoRA"]
formula = training_bytes(count, count) - training_bytes(count, thin["trained"]) - 4 * thin["trained"]
seen = full["peak"] - thin["peak"]
print(f"full minus LoRA: {formula / 1e9:.2f} GB by the formula, {seen / 1e9:.2f} GB measured")

# %% [markdown]
# Measured peaks also hold what the optimizer needs for a moment while it steps. Good enough to look ahead:

# %%
part = thin["trained"] / count
ahead = {}
for name, weights in {"here": count, "3.8B": 3.8e9, "14B": 14e9}.items():
    lora_part = part * weights
    ahead[name] = {
        "full": training_bytes(weights, weights) / 1e9,
        "LoRA, base in 16 bits": (training_bytes(weights, 0, bits=16) + training_bytes(lora_part, lora_part)) / 1e9,
        "QLoRA, base in 4.5 bits": (training_bytes(weights, 0, bits=4.5) + training_bytes(lora_part, lora_part)) / 1e9,
    }
(pandas.DataFrame(ahead).round(2)).rename_axis("GB without activations")

# %% [markdown]
# Half a bit per weight goes to the scales. Full tuning of a large model needs several cards, LoRA one large card, QLoRA a card that people own. At 135 million weights QLoRA
# saves little: a large part of this model is its table of token vectors, which is not quantized, and unpacking takes time.
#
# ## 3.6 One base, four jobs
#
# Triage is *extraction*. A desk has more to do: sort by one field (*classification*), answer the customer (*generation*), and tell a
# colleague in one sentence what it is about (*summarization*). For some messages the last two were written by people.

# %%
written = {split: data.replies(run.dataset, split) for split in ("train", "test")}
enums = [name for name, kind in desk.task.fields.items() if hasattr(kind, "values")]
sort_by = min(enums, key=lambda name: len(desk.task.fields[name].values))
print("sort by", sort_by)


def job_records(name, records, split):
    """(chat, right text) pairs of a job; empty where nobody wrote any."""
    pairs = []
    for record in records:
        target = record["answer"][sort_by] if name == "sort" else written[split].get(record["id"], {}).get(name)
        if target:
            asked = {"role": "system", "content": f"Task: {name}"}
            pairs.append(([asked, {"role": "user", "content": record["text"]}], target))
    return pairs


# %%
jobs = {}
for name in ("sort", "reply", "summary"):
    material = job_records(name, labelled, "train")[: run.pick(full=120, quick=16)]
    trial = job_records(name, tests, "test")[: run.pick(full=32, quick=6)]
    if material and trial:
        jobs[name] = {"lessons": material, "trial": trial}
print({name: f"{len(job['lessons'])} lessons, {len(job['trial'])} tests" for name, job in jobs.items()})

# %% [markdown]
# The base stays in memory; each job gets an adapter of its own.

# %%
for name, job in jobs.items():
    pupil = tuned_on([encoding.encode(tokenizer, *pair) for pair in job["lessons"]], label=name)
    with artifacts.save(run, f"adapter_{name}", settings={"rank": rank}) as folder:
        pupil.save_pretrained(folder)
    asked_for = [encoding.encode(tokenizer, *pair) for pair in job["trial"]]
    job["nats"] = generation.nats(pupil, tokenizer, asked_for)
    job["tokens"] = [sum(token != encoding.IGNORE for token in example["labels"]) for example in asked_for]
    job["said"] = generation.generate(pupil, tokenizer, [chat for chat, _ in job["trial"]], max_new_tokens=80)
    pupil.unload()

# %%
for name, job in jobs.items():
    print(
        f"{name:8} {job['trial'][0][0][1]['content'][:100]}\n   wanted: {job['trial'][0][1]}\n   said:   {job['said'][0]}\n"
    )

# %% [markdown]
# Each job has its measure. A label is right or wrong: accuracy, and macro-F1 where rare labels count as much. For free text there is the *perplexity* of what a person wrote
# (how many tokens the model wavers between), and the overlap with it: BLEU counts shared word groups, ROUGE-L the longest shared sequence
# ([Papineni et al. 2002](https://aclanthology.org/P02-1040), [Lin 2004](https://aclanthology.org/W04-1013)).

# %%
import math

from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import corpus_bleu
from sklearn.metrics import f1_score

rouge = RougeScorer(["rougeL"])


def marks_of(name, job):
    wanted, said = [target for _, target in job["trial"]], job["said"]
    marks = {"perplexity": math.exp(sum(job["nats"]) / sum(job["tokens"]))}
    if name == "sort":
        right = [a == b.strip() for a, b in zip(wanted, said)]
        macro = f1_score(
            wanted, [text.strip() for text in said], average="macro", labels=sorted(set(wanted)), zero_division=0
        )
        return marks | {"accuracy": sum(right) / len(right), "macro-F1": macro}
    overlap = [rouge.score(a, b)["rougeL"].fmeasure for a, b in zip(wanted, said)]
    return marks | {"ROUGE-L": sum(overlap) / len(overlap), "BLEU": corpus_bleu(said, [wanted]).score / 100}


pandas.DataFrame({name: marks_of(name, job) for name, job in jobs.items()}).T.round(2)

# %% [markdown]
# Read two of the replies before you read the numbers. Would you send them? Section 3.12 shows what the overlap does not see. And compare the sorter with
# always saying the commonest label, and with that field in the table of 3.3, which comes from many more lessons: the shortest answer is not the easiest to learn.
#
# ## 3.7 Microsoft Olive
#
# Olive ([Microsoft](https://microsoft.github.io/Olive/)) does such work from commands and configuration files, which suits a pipeline. It wants chats, one in a line.

# %%
import json

kitchen = run.artifacts / "olive"
kitchen.mkdir(parents=True, exist_ok=True)
with open(kitchen / "lessons.jsonl", "w", encoding="utf-8") as file:
    for record in labelled[: run.pick(full=96, quick=16)]:
        answer = {"role": "assistant", "content": desk.task.write(record["answer"])}
        file.write(json.dumps({"messages": [*desk.task.messages(record["text"]), answer]}) + "\n")

# %% [markdown]
# `olive finetune` trains an adapter. (At a terminal it is the line printed below; `olive.command` runs it in a process of its own and looks whether an adapter came out. Olive ends with exit
# code 0 after some failures.) The chapter's template and lessons, Olive's own training loop: it cuts what is longer than 128 tokens, and counts *every* token in the loss, the customer's too.

# %%
from slmops_lab.deployment import olive

command = f"finetune --method lora -m {base_folder} -d json --data_files lessons.jsonl --use_chat_template".split()
command += f"--max_seq_len 128 --lora_r {rank} --lora_alpha {8 * rank} --torch_dtype bfloat16".split()
command += f"--max_steps {run.pick(full=24, quick=3)} --per_device_train_batch_size 2 --learning_rate 1e-3".split()
print("olive", " ".join(command).replace(str(base_folder), "BASE"), "-o tuned")
made = olive.command(*command, "-o", "tuned", makes="tuned/adapter/adapter_model.safetensors", folder=kitchen)

# %% [markdown]
# What it made is an adapter like ours: it goes onto the base, and held-out messages judge it.

# %%
by_olive = adapters.open_adapter(base, made.parent)
olive_costs = {"by olive finetune": generation.nats(by_olive, tokenizer, judges)}
base = by_olive.unload()
olive_costs["the base"] = generation.nats(base, tokenizer, judges)
{name: f"{sum(costs) / len(costs):.1f} nats per right answer" for name, costs in olive_costs.items()}

# %% [markdown]
# A *workflow* chains passes: tune, merge, quantize to ONNX int4, then measure. It is a file; ours is `notebooks/olive_workflow.json`.

# %%
workflow = json.loads((settings.ROOT / "notebooks/olive_workflow.json").read_text(encoding="utf-8"))
workflow["input_model"]["model_path"] = str(base_folder)
workflow["data_configs"][1]["load_dataset_config"]["model_name"] = str(base_folder)
workflow["passes"]["tune"]["training_args"]["max_steps"] = run.pick(full=48, quick=3)
workflow["passes"]

# %%
olive_model, olive_metrics = olive.run(workflow, kitchen)
olive_metrics

# %% [markdown]
# Latency is Olive's, in ms per token after 64 others; the size is in bytes. Its result is an ordinary folder: load it and score it, on held-out messages.

# %%
from slmops_lab.deployment import runtime

served = runtime.GenAIRuntime(olive_model)
said = [served.generate(desk.task.messages(record["text"])) for record in exam]
served.close()
scoring.score(desk.task, exam, said).table().round(2)

# %% [markdown]
# A few steps from a command line, then four bits: a working pipeline, not yet a good model.
#
# Commands change: `olive auto-opt`, which many pages still show, is now `olive optimize`. For int4 it adds a pass that
# calibrates on a data set from a hub. Here no hub is asked, so it fails. **Predict** its exit code.

# %%
optimize = f"optimize -m {base_folder} --device cpu --provider CPUExecutionProvider --precision int4".split()
optimize += ["--exporter", "model_builder", "-o", "optimized"]
try:
    olive.command(*optimize, makes="optimized/model.onnx", folder=kitchen)
except settings.CourseError as error:
    print(error)

# %% [markdown]
# Look for the model, not for the exit code.
#
# ## 3.8 Data
#
# ### What the loss sees
#
# A tuning is as good as its examples. Decode one around the place where the answer begins: `*` stands before a token that counts.

# %%
example = lessons[0]
begin = next(i for i, label in enumerate(example["labels"]) if label != encoding.IGNORE)
for token, label in list(zip(example["input_ids"], example["labels"]))[begin - 6 : begin + 9]:
    print(("  " if label == encoding.IGNORE else "* ") + repr(tokenizer.decode([token])))

# %% [markdown]
# And at its end: the mark that says the answer is over. Without it in the loss, a model never learns to stop.

# %%
print([tokenizer.decode([token]) for token in example["input_ids"][-3:]])

# %% [markdown]
# ### Leaks
#
# A test message among the lessons makes every score a lie. Plant one, with other spaces and capitals, and let the data check look.

# %%
import shutil

with tempfile.TemporaryDirectory() as scratch:
    copy_of = shutil.copytree(run.dataset, f"{scratch}/leaky")
    stolen = {**desk.test[0], "id": "planted", "text": "  " + desk.test[0]["text"].upper()}
    with open(f"{copy_of}/train.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(stolen) + "\n")
    print(*data.check(copy_of), sep="\n")

# %% [markdown]
# A message that was changed a little passes that check. Similarity finds it: character groups, weighted by how rare they are, and their cosine.

# %%
from sklearn.feature_extraction.text import TfidfVectorizer

altered = "Hello there, " + desk.test[0]["text"].replace(".", " !")
counter = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
known = counter.fit_transform([record["text"] for record in desk.train])
alike = (counter.transform([r["text"] for r in desk.test]) @ known.T).max(axis=1).toarray().ravel()
planted = (counter.transform([altered]) @ counter.transform([desk.test[0]["text"]]).T).toarray().item()
print(f"our test messages: at most {alike.max():.2f} alike a training message; the altered copy: {planted:.2f}")

# %% [markdown]
# ### A fair split
#
# Rare labels may miss a small part altogether. A stratified split gives each part its share of every label.

# %%
from sklearn.model_selection import train_test_split

field = enums[0]
label_of = pandas.Series([str(record["answer"][field]) for record in desk.train])
label_of = label_of[label_of.map(label_of.value_counts()) > 1]  # a label that is there once cannot be shared out
parts = {"all": label_of}
for name, by in {"random tenth": None, "stratified tenth": label_of}.items():
    size = max(len(label_of) // 10, label_of.nunique())
    parts[name] = train_test_split(label_of, test_size=size, random_state=run.seed, stratify=by)[1]
shares = pandas.DataFrame({name: 100 * part.value_counts(normalize=True) for name, part in parts.items()}).fillna(0)
shares.sort_values("all").round(1).rename_axis("% of messages").head(6)

# %% [markdown]
# ### Quality or quantity?
#
# The same number of steps three times: with all lessons, with half of them read twice, and with every tenth answer wrong. **Predict** the order.

# %%
import random

rng = random.Random(run.seed)
amount = run.pick(full=80, quick=16)


def mistaken(record):  # the answer of another message, in the listed values
    other = rng.choice([r for r in labelled if r["answer"] != record["answer"]])
    return {
        **record,
        "answer": {
            n: other["answer"][n] if hasattr(f, "values") else record["answer"][n] for n, f in desk.task.fields.items()
        },
    }


plain = labelled[:amount]
wrong = set(rng.sample(range(amount), amount // 10))
spoiled = [mistaken(record) if i in wrong else record for i, record in enumerate(plain)]
diets = {"all": plain, "half of them, twice": plain[: amount // 2] * 2, "every tenth wrong": spoiled}

# %%
wide_judges = [lesson_of(record) for record in held_out]
diet_costs = {}
for name, records in diets.items():
    pupil = tuned_on([lesson_of(record) for record in records], label=name)
    diet_costs[name] = generation.nats(pupil, tokenizer, wide_judges)
    pupil.unload()
compared(diet_costs).round(2)

# %% [markdown]
# One seed, few lessons: if the intervals hold zero, this budget cannot tell. What it does show is the size of the effect, against which you weigh the price of a label. Expect
# wrong labels to hurt more in a longer training: networks learn what messages have in common first, and exceptions by heart later ([Arpit et al. 2017](https://arxiv.org/abs/1706.05394)).
#
# ## 3.9 Let a search turn the dials
#
# Optuna ([Akiba et al. 2019](https://arxiv.org/abs/1907.10902)) proposes settings, sees what became of them, and proposes better ones. A trial that looks bad halfway is *pruned*. The judge is
# the held-out part; the test is not touched.

# %%
import optuna
from transformers import TrainerCallback

optuna.logging.set_verbosity(optuna.logging.ERROR)


class Prune(TrainerCallback):
    def __init__(self, trial):
        self.trial = trial

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        self.trial.report(metrics["eval_loss"], state.global_step)
        self.pruned = state.global_step < state.max_steps and self.trial.should_prune()
        control.should_training_stop = self.pruned


# %%
def objective(trial):
    settings_tried = {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 5e-3, log=True),
        "num_train_epochs": trial.suggest_int("epochs", 1, 2),
    }
    config = lora_config(trial.suggest_categorical("rank", [rank // 4, rank]))
    watch = Prune(trial)
    judged = {"held_out": judges[:24], "callbacks": [watch], "eval_steps": run.pick(full=8, quick=4)}
    pupil = tuned_on(lessons[: run.pick(full=32, quick=8)], config, f"trial {trial.number}", **judged, **settings_tried)
    pupil.unload()
    if watch.pruned:
        raise optuna.TrialPruned
    return pupil.history["held_out"].dropna().iloc[-1]


# %%
sampler = optuna.samplers.TPESampler(n_startup_trials=3, seed=run.seed)
pruner = optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=4)
study = optuna.create_study(sampler=sampler, pruner=pruner)
study.optimize(objective, n_trials=run.pick(full=8, quick=3))
trials = study.trials_dataframe(attrs=("params", "value", "state"))
trials.columns = [name.removeprefix("params_") for name in trials.columns]
trials.loc[trials["state"] != "COMPLETE", "value"] = None  # a pruned trial has no end
trials.sort_values("value").round(4)

# %%
figure, axis = plots.pyplot.subplots()
last = [max(t.intermediate_values.items(), default=(0, None))[1] for t in study.trials]
for state, colour, marker in (("COMPLETE", "#0072B2", "o"), ("PRUNED", "#D55E00", "x")):
    chosen = [i for i, t in enumerate(study.trials) if t.state.name == state]
    axis.scatter(
        [study.trials[i].params["learning_rate"] for i in chosen],
        [last[i] for i in chosen],
        c=colour,
        marker=marker,
        s=60,
        label=state.lower(),
    )
axis.set(xscale="log", xlabel="learning rate", ylabel="held-out loss per answer token (nats)", ylim=(0, None))
axis.legend(frameon=False)
plots.show(
    figure,
    takeaway=f"The best of {len(study.trials)} trials: learning rate {study.best_params['learning_rate']:.1g}, rank {study.best_params['rank']}",
    alt="Scatter plot of the trials: held-out loss at their end over the learning rate; pruned trials are crosses.",
)

# %% [markdown]
# More epochs are more steps, so they look better in a short trial. What a search finds holds for its budget: try the winner on a longer run before you trust it. And the
# winner's own score is flattered, because it was chosen for it: that is why the test stays closed.
#
# ## 3.10 Two adapters, one base, four bits
#
# The adapters of 3.3 and 3.6 on *one* quantized base, chosen per request: a desk that sorts and answers, with one model in memory.

# %%
from slmops_lab.deployment import export

second = next(name for name in ("reply", "sort") if name in jobs)
folders = {"triage": run.artifacts / "adapter", second: run.artifacts / f"adapter_{second}"}
files = export.with_adapters(base_folder, folders, run.artifacts / "multi_int4", "int4")
base_mb = measure.weight_bytes(run.artifacts / "multi_int4") / 1e6
print(f"base {base_mb:.0f} MB;", ", ".join(f"{n} {f.stat().st_size / 1e6:.0f} MB" for n, f in files.items()))

# %%
both = runtime.GenAIRuntime(run.artifacts / "multi_int4", files)
text = tests[0]["text"]
requests = {"triage": desk.task.messages(text), second: jobs[second]["trial"][0][0]}
print("customer:", text)
for name, chat in requests.items():
    print(f"{name}: {both.generate(chat, adapter=name)}")

# %% [markdown]
# What does it cost to change the adapter between two requests? The time to the first token, with the same adapter as before, and with the other one. **Predict.**

# %%
import statistics
import time


def first_token_ms(adapter):
    begun = time.perf_counter()
    both.generate(requests["triage"], max_new_tokens=1, adapter=adapter)
    return 1000 * (time.perf_counter() - begun)


waits = {"same adapter": [], "other adapter": []}
for _ in range(run.pick(full=20, quick=4)):  # the chat is the same, only the adapter changes
    first_token_ms(second)
    waits["other adapter"].append(first_token_ms("triage"))
    waits["same adapter"].append(first_token_ms("triage"))
both.close()
print(", ".join(f"{name}: {statistics.median(ms):.1f} ms" for name, ms in waits.items()), "(medians)")

# %% [markdown]
# Four bits round the base, so the words may differ from PEFT's. In 32 bits they must not:

# %%
with tempfile.TemporaryDirectory() as scratch:
    files = export.with_adapters(base_folder, folders, f"{scratch}/multi", "fp32")
    exactly = runtime.GenAIRuntime(f"{scratch}/multi", files)
    same = []
    for name, folder in folders.items():
        asked_of = [chat for chat, _ in jobs[name]["trial"]] if name in jobs else chats
        adapted = adapters.open_adapter(base, folder)
        in_torch = generation.generate(adapted, tokenizer, asked_of[:4], batch_size=1, label=None)
        base = adapted.unload()
        same += [exactly.generate(chat, adapter=name) == told for chat, told in zip(asked_of, in_torch)]
    exactly.close()
print(f"{sum(same)} of {len(same)} texts are the same as PEFT's")

# %% tags=["nbval-check-output"]
print("text with fp32 weights equals PEFT's:", all(same))

# %% [markdown]
# ## 3.11 A loss of your own
#
# The ordinary loss counts every answer token alike, so a rare label is hardly heard. Give its messages more weight. A loss gets the model, what the decoder
# computed, and the batch; further tensors of an example travel along.

# %%
from torch.nn.functional import cross_entropy


def weighted_loss(model, done, batch):
    each = cross_entropy(model.get_output_embeddings()(done.states).float(), done.targets, reduction="none")
    return (batch["weight"] * each).sum() / batch["weight"].sum()


def weigh(record, weight):  # one number per answer token
    example = lesson_of(record)
    tokens = sum(label != encoding.IGNORE for label in example["labels"])
    return {**example, "weight": torch.full((tokens,), float(weight))}


# %% [markdown]
# Which label is rare? The rarest that the lessons of 3.8 and the held-out messages both have. It gets four times the weight; the rest is as it was there.

# %%
in_both = [
    (sum(record["answer"][name] == value for record in plain), name, value)
    for name in enums
    for value in desk.task.fields[name].values
    if any(r["answer"][name] == value for r in plain) and any(r["answer"][name] == value for r in held_out)
]
times, rare_field, rare = min(in_both)
print(f"{rare_field} = {rare} stands in {times} of {len(plain)} lessons")

# %%
weighted = [weigh(record, 4 if record["answer"][rare_field] == rare else 1) for record in plain]
pupil = tuned_on(weighted, label="weighted", loss=weighted_loss)
diet_costs["rare label weighs four times"] = generation.nats(pupil, tokenizer, wide_judges)
pupil.unload()
is_rare = [record["answer"][rare_field] == rare for record in held_out]
rows = pandas.DataFrame({name: diet_costs[name] for name in ("all", "rare label weighs four times")})
rows.groupby(pandas.Series(is_rare).map({True: f"{rare}", False: "all others"})).agg(["mean", "count"]).round(2)

# %% [markdown]
# Nats per right answer again. Did the rare label gain, and did the others pay for it? So few messages swing widely; the intervals of 3.8 say how much. A weight is a
# decision about whose mistakes cost more, and should be made by whoever pays for them.
#
# ## 3.12 When a measure misleads
#
# Overlap with a reference looks like quality. Take a reply that a person wrote, spoil its facts, and compare with one that says the same in other words.

# %%
reference = "Your tent left our warehouse on Monday, order TT-48213, and the courier has it. I am asking him today why it is late."
others = {
    "facts wrong": "Your tent left our warehouse on Friday, order TT-99999, and the courier lost it. I am asking him never why it is late.",
    "other words": "I can see that TT-48213 was shipped at the start of the week, so I will chase the driver about the delay this afternoon.",
}
judged = {
    name: {
        "ROUGE-L": rouge.score(reference, text)["rougeL"].fmeasure,
        "BLEU": corpus_bleu([text], [[reference]]).score / 100,
    }
    for name, text in others.items()
}
pandas.DataFrame(judged).T.round(2)

# %% tags=["nbval-check-output"]
print("the wrong reply overlaps more:", judged["facts wrong"]["ROUGE-L"] > judged["other words"]["ROUGE-L"])

# %% [markdown]
# So check facts as facts. For this desk one can be counted: is a number in the reply also in the message?

# %%
import re

if "reply" in jobs:
    invented = 0
    for (chat, _), told in zip(jobs["reply"]["trial"], jobs["reply"]["said"]):
        invented += any(number not in chat[1]["content"] for number in re.findall(r"\d{3,}", told))
    print(f"{invented} of {len(jobs['reply']['said'])} replies of our model name a number that the customer did not")

# %% [markdown]
# Exact match for extraction, macro-F1 for labels, checks of facts and people's eyes for free text, perplexity to compare two models of one kind, overlap only as a smoke alarm.
#
# ## 3.13 Watch a training
#
# A curve that grows while it runs, files for TensorBoard, an end before it gets worse: few lessons, many passes, a high rate. **Predict:** which of the two curves turns, and when?

# %%
import os

watched = run.artifacts / "watched"
shutil.rmtree(watched, ignore_errors=True)
os.environ["TENSORBOARD_LOGGING_DIR"] = str(watched / "tensorboard")
few = lessons[: run.pick(full=16, quick=8)]
often = len(few) // 2  # steps in a pass
curve = plots.LiveCurve(
    takeaway="Few lessons, many passes: the two curves part",
    alt="Line plot: the loss on the lessons falls towards zero, the loss on held-out messages does not follow it.",
)

# %%
from transformers import EarlyStoppingCallback

overfit = tuned_on(
    few,
    label="overfitting",
    folder=watched,
    held_out=judges,
    callbacks=[curve, EarlyStoppingCallback(early_stopping_patience=2)],
    **{"num_train_epochs": 12, "learning_rate": 2e-3, "lr_scheduler_type": "constant", "logging_steps": often},
    **{"eval_steps": often, "save_steps": often, "load_best_model_at_end": True},
    **{"metric_for_best_model": "eval_loss", "report_to": "tensorboard"},
)
base = overfit.unload()

# %%
told = overfit.history.set_index("step")["held_out"].dropna()
print(f"stopped after step {told.index[-1]} of {12 * often}; the weights of step {told.idxmin()} were loaded again")
told.round(3).to_frame().T

# %% [markdown]
# The same numbers are in TensorBoard's files. While a training runs, `tensorboard --logdir FOLDER` draws them in a browser; here we read them:

# %%
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(str(watched / "tensorboard"))
events.Reload()
print(events.Tags()["scalars"][:6])
shutil.rmtree(watched)  # checkpoints are large

# %% [markdown]
# ### Killed, and resumed
#
# A checkpoint holds the weights, the optimizer's averages, the place in the data and the state of every random generator. Stop a training in the middle, start it again: it should end where an
# uninterrupted one ends. **Predict:** how close?


# %%
class PullThePlug(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 6:
            raise KeyboardInterrupt


def ended(folder, callbacks=()):
    pupil = tuned_on(lessons[:16], label="resume", folder=folder, save_steps=2, callbacks=callbacks)
    weights = {name: weight.detach().clone() for name, weight in pupil.named_parameters() if weight.requires_grad}
    pupil.unload()
    return weights


# %%
with tempfile.TemporaryDirectory() as scratch:
    whole = ended(f"{scratch}/whole")
    try:
        ended(f"{scratch}/killed", callbacks=[PullThePlug()])
    except KeyboardInterrupt:
        base = models.open_model(base_folder)[0]  # nothing in memory survives a kill
        print("killed; on the disk:", sorted(os.listdir(f"{scratch}/killed"))[-1])
    resumed = ended(f"{scratch}/killed")
    print("largest difference of a weight:", max((whole[n] - resumed[n]).abs().max().item() for n in whole))
    state = sorted(os.listdir(f"{scratch}/killed"))[-1]
    os.truncate(f"{scratch}/killed/{state}/optimizer.pt", 1000)  # and what if the disk was full?
    try:
        ended(f"{scratch}/killed")
    except settings.CourseError as error:
        print(str(error).replace(scratch, "..."))
base = models.open_model(base_folder)[0]

# %% tags=["nbval-check-output"]
print("the same weights to the last bit:", all(torch.equal(whole[name], resumed[name]) for name in whole))

# %% [markdown]
# ## 3.14 Common problems
#
# Overfitting you have seen, and its cure. *Out of memory:* activations grow with the batch. Two cures: *accumulate* the gradients of small batches before a step, or keep fewer
# activations and compute them again on the way back (*checkpointing*, [Chen et al. 2016](https://arxiv.org/abs/1604.06174)). Same lessons per step for all; each in a process of its own.

# %%
plenty = 10**9  # activations to keep: all
cures = {
    "8 at once": {"per_device_train_batch_size": 8, "kept": plenty},
    "2 at a time, 4 accumulated": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "kept": plenty},
    "8 at once, checkpointing": {"per_device_train_batch_size": 8, "kept": 0},
}
needed = {}
with tempfile.TemporaryDirectory() as scratch:
    for name, how in tqdm(cures.items(), desc="memory", leave=False):
        lot = lessons[: run.pick(full=24, quick=8)]
        apart = adapters.tune_apart(
            base_folder, lora_config(), lot, judges[:2], [], f"{scratch}/{name[0]}", **{**usual, **how}
        )
        needed[name] = {"peak GB": apart["peak"] / 1e9, "seconds": apart["seconds"]}
pandas.DataFrame(needed).T.round(2)

# %% tags=["nbval-check-output"]
print("checkpointing saves memory:", needed["8 at once, checkpointing"]["peak GB"] < needed["8 at once"]["peak GB"])

# %% [markdown]
# *Too slow:* the course's trainer sorts messages by length (little padding), computes the vocabulary head on answer tokens only, and calculates in bf16. Take one away at a time.
# **Predict** which one matters most here.


# %%
def loss_on_every_token(model, done, batch):
    logits = model.get_output_embeddings()(done.hidden[-1][done.real]).float()
    return cross_entropy(logits[done.answer], done.targets)


slower = {
    "as it is": {},
    "lengths mixed": {"train_sampling_strategy": "random"},
    "head on every token": {"loss": loss_on_every_token},
    "32-bit arithmetic": {"bf16": False},
}
seconds = {name: [] for name in slower}
for _ in range(run.pick(full=2, quick=1)):  # in turns, so that a busy machine hits all alike
    for name, how in slower.items():
        pupil = tuned_on(lessons[: run.pick(full=16, quick=8)], label=name, **{"per_device_train_batch_size": 4, **how})
        seconds[name].append(pupil.history.attrs["seconds"])
        pupil.unload()
relative = {name: statistics.median(s) / statistics.median(seconds["as it is"]) for name, s in seconds.items()}
pandas.Series(relative).round(2).rename("times the time").to_frame()

# %% [markdown]
# Few steps on a busy machine: read the large factors and mistrust the small ones. On a processor without bf16 the last row is 1.
#
# ## The ledger

# %%
from slmops_lab.course import claims

claims.record(run, "lora-params", share_trained)
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
from slmops_lab.course.exercises import check

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
# ### Exercise 3.5: before you rent a machine
#
# How many GB does QLoRA need, without activations, for a model of 8 billion weights in 4.5 bits with 40 million trained ones? Use `training_bytes`.

# %% tags=["exercise"]
qlora_gb = ...

# %% tags=["check"]
check(
    "3.5",
    qlora_gb,
    lambda gb: abs(gb - (8e9 * 4.5 / 8 + 40e6 * 16) / 1e9) < 0.01,
    hint="Two terms: the base with nothing trained and bits=4.5, and the adapter, all of it trained, in 32 bits. In GB: / 1e9.",
    why="The base takes nearly all of it: fewer bits there are what counts.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# qlora_gb = (training_bytes(8e9, 0, bits=4.5) + training_bytes(40e6, 40e6)) / 1e9
# ```
# </details>
#
# ### Exercise 3.6: prompt or tune
#
# `lora_seconds` is what the LoRA training took, `ways` (3.1) holds the `ms per message` of each way. After how many messages has tuning paid back its time against
# the longest prompt? Give the number, `break_even_messages`.

# %% tags=["exercise"]
break_even_messages = ...

# %% tags=["check"]
longest = max((w for name, w in ways.items() if name != "tuned"), key=lambda way: way["prompt tokens"])
check(
    "3.6",
    break_even_messages,
    lambda n: (
        abs(n * (longest["ms per message"] - ways["tuned"]["ms per message"]) / 1000 - lora_seconds)
        < 1 + lora_seconds / 100
    ),
    hint="Seconds of training / seconds saved per message; mind the milliseconds.",
    why="Below that number of messages the prompt is cheaper, if it were good enough.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# longest = max((w for name, w in ways.items() if name != "tuned"), key=lambda way: way["prompt tokens"])
# break_even_messages = 1000 * lora_seconds / (longest["ms per message"] - ways["tuned"]["ms per message"])
# ```
# </details>
#
# ### Exercise 3.7: a loss that listens to doubt
#
# The focal loss ([Lin et al. 2017](https://arxiv.org/abs/1708.02002)) gives tokens that are already likely less weight: $(1 - p)^2 \cdot (-\log p)$, where $p$ is the probability of the right token. Write
# `focal(logits, targets)`: the mean over all tokens.

# %% tags=["exercise"]
focal = ...

# %% tags=["check"]
toy_logits, toy_targets = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
toy_p = toy_logits.softmax(-1)[:, 0]
check(
    "3.7",
    focal,
    lambda f: torch.allclose(f(toy_logits, toy_targets), ((1 - toy_p) ** 2 * -toy_p.log()).mean()),
    hint="cross_entropy(..., reduction='none') is -log p for each token; exp of its negative is p.",
    why="Plug it in as in 3.11: done.states through the head are the logits, done.targets the targets.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def focal(logits, targets):
#     each = cross_entropy(logits, targets, reduction="none")
#     return ((1 - (-each).exp()) ** 2 * each).mean()
# ```
# </details>
#
# ## Quiz
#
# 1. Why does $B$ start at zero?
# 2. Does LoRA make the tuned model answer faster?
# 3. Ten tasks on one device: what do you store, in full and with LoRA?
# 4. Why did QLoRA save so little here, and why would it save much at 14 billion weights?
# 5. A search tries 100 settings and reports the best score on the test. What is wrong?
# 6. `olive` ended with exit code 0. Are you done?
#
# <details><summary>Answers</summary>
#
# 1. So that training starts from the model as it was, not from noise on top of it.
# 2. No. Merged it is as fast as before, unmerged a little slower.
# 3. Ten models; or one model and ten adapters.
# 4. The table of token vectors is a large part of a small model and stays as it is; in a large one nearly everything is in the layers.
# 5. The best of 100 is partly luck with these very messages; choose on held-out ones and open the test once.
# 6. Only when the model is there, loads, and was scored.
#
# </details>
#
# ## Take-aways
#
# - Prompt while the job still changes; tune when it repeats. Shots teach a small model the form, not the judgement.
# - LoRA leaves the weights alone and trains new ones, a few per cent as many. Rank, scale and place are dials; turn them on held-out messages.
# - What you gain is memory while training, and what you store and ship; the tuned model answers no faster.
# - Compare methods on one budget and one test, with the interval of the difference; choose on held-out messages.
# - Each job has its measure, and overlap with a reference is not a fact check.
# - A training you cannot resume, and a tool whose exit code you trust, will cost you a night.

# %%
print(f"This chapter took {run.minutes:.1f} minutes and at most {measure.peak_memory() / 1e9:.1f} GB.")

# %% [markdown]
# **Next:** [chapter 4](04_deployment.ipynb) takes the student out of the training room.
