# %% [markdown]
# # 1 Introduction: what changes when the model is small
#
# A language model that fits on a laptop is operated differently from one in a data centre. You have its file. You can make it even smaller, you test it on the
# devices where it will run, you ship it to machines that you cannot log in to, and you replace it when it is no longer good enough. In this chapter you try
# each of these steps once, with a real model, on your own machine; only the many devices are simulated.
#
# **You will be able to**
#
# - compute how much memory a model needs, from 135 million weights to 671 billion, and check the formula;
# - measure what quantization, pruning and sparsity save and what they cost;
# - check a model against a budget, within the limits of a smaller device, and roll it out in steps;
# - run it without a network, and count which libraries try to reach one;
# - trace what a device runs back to data and code;
# - say when owning a device is cheaper than paying per token, and when it is not.
#
# **You need** some Python and no machine learning; two processor cores and about 5 GB of free memory; no GPU, no account and no network. If you do not
# program, read the text and the figures, move the sliders and skip the code (in the book, the button *hide the code* does it for you).
#
# Terms of the field are in *italics* where they first appear, and all of them are in the [glossary](../book/glossary.md). Before some measurements you can
# write down what you expect; your prediction is then printed beside the result. Each section begins with the minutes that it took when the chapter last ran on
# this machine.

# %% tags=["parameters"]
dataset = "support_desk"
base_model = "smollm2-135m"
profile = None  # None: "full", or what SLMOPS_PROFILE says
seed = 0

# %% [markdown]
# ## 1.1 From an able model to a useful one
#
# *You meet the model and its job, measure how well the model does it before any training, and compute how much memory models need.*
#
# ### A first answer
#
# The [*base model*](../book/glossary.md#base-model) of this course is SmolLM2-135M-Instruct ([Allal et al. 2025](https://arxiv.org/abs/2502.02737)). It comes
# as a file of 4-bit numbers ([GGUF, Q4_1](../book/glossary.md#gguf)), which the course unpacks into 32-bit numbers. Its weights have therefore been rounded
# already: the original model might do a little better than what you see here.

# %%
from slmops_lab import measure, settings
from slmops_lab.course import chapters
from slmops_lab.evaluation import generation
from slmops_lab.training import base_model as models

run = settings.start(dataset, base_model, profile, seed)
sections = chapters.Sections(run, "01_introduction")
sections.begin("1.1")
folder = models.fetch(run.base_model)
model, tokenizer = models.open_model(folder)
question = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
with measure.timed() as elapsed:
    print(generation.generate(model, tokenizer, [question], label=None)[0])
print(f"({elapsed.seconds:.1f} seconds on {settings.threads()} cores)")

# %% [markdown]
# ### The job
#
# The model writes decent English. In this course it has another job: it sorts the messages that customers send to a shop for outdoor gear. For each message
# it has to write one line of JSON, the [*ticket*](../book/glossary.md#ticket): what the support desk has to do first, how urgent the message is, and the
# order number, if there is one. A labelling guide says which ticket is right. (Messages of your own have fields of their own. Without a guide you see below
# what the model is told.) Read some messages with their tickets, and then the guide:

# %%
from slmops_lab.task import data

desk = data.load(run.dataset)
for record in desk.train[:4]:
    print(record["text"], "\n   ->", desk.task.write(record["answer"]), "\n")
card = run.dataset / "README.md"
written = card.read_text(encoding="utf-8") if card.is_file() else ""
guide = (
    written.partition("## Labelling guide")[2].partition("\n## ")[0]
    or desk.task.messages("", explain=True)[0]["content"]
)
for line in guide.splitlines():
    if line.strip() and not line.startswith(("|---", "| value")):
        print(line.strip("| ").replace(" | ", ": ", 1).replace(" | ", "; not this, but: "))
print("\nmessages:", {split: len(getattr(desk, split)) for split in data.SPLITS})

# %% [markdown]
# There are up to four sets of messages. *train* has tickets to learn from, *pool* has none (chapter 2 uses it). *test* is only for judging: no model learns
# from it. *drift* is set one year later. The messages of the folder `support_desk` were invented for this course: a language model wrote them, many on
# purpose so that single words mislead, and a program put those of the pool together. What the text says about messages is about this folder; your own would
# be another one with its own schema.
#
# ### What must a model beat?
#
# A score says little until you compare it with another one. The simplest rival only sees which words occur in a message: from them a logistic regression
# predicts each field that has a list of values, and for a field that is copied it takes the first piece of text that is shaped like those of the training
# messages, such as an order number. Such a [*baseline*](../book/glossary.md#baseline) is computed in seconds. A language model that does no better is not
# worth its cost.

# %%
from slmops_lab.course import plots
from slmops_lab.evaluation import baselines, intervals, scoring

guesses = baselines.keyword_baseline(desk.task, desk.train, [record["text"] for record in desk.test])
keywords = scoring.score(desk.task, desk.test, [desk.task.write(guess) for guess in guesses])
plots.show(
    plots.shares(
        keywords.rows.drop(columns="valid").rename(columns={"exact": "whole ticket"}),
        "right in % (line: 95 % interval)",
    ),
    takeaway=f"Counting words gets the whole ticket right in {100 * keywords.exact:.0f} % of {len(desk.test)} messages",
    alt="Bars with intervals: the share of test messages for which counting words gets the whole ticket right, and each field of it.",
)
field = next(name for name, kind in desk.task.fields.items() if hasattr(kind, "values"))
missed = [number for number, right in enumerate(keywords.rows[field]) if not right][:5]
print(f"Messages in which it gets {field} wrong:")
for place, number in enumerate(missed, 1):
    print(f"\n{place}. {desk.test[number]['text']}")

# %% [markdown]
# The lines are [*95 % intervals*](../book/glossary.md#interval) ([Wilson 1927](https://doi.org/10.1080/01621459.1927.10502953)): with other messages of the
# same kind, the shares could have come out anywhere along these lines.
#
# ### Exercise 1.1: would you do better?
#
# The cell above ends with up to five messages in which counting words got one field wrong. Use the guide, if there is one, and write a list with the right
# value of that field for each of them, in their order. Your list should agree with the labels in all messages but one at most.

# %% tags=["exercise"]
my_labels = ...

# %% tags=["check"]
from slmops_lab.course.exercises import check

gold = [desk.test[number]["answer"][field] for number in missed]
check(
    "1.1",
    my_labels,
    lambda mine: len(mine) == len(gold) and sum(a == b for a, b in zip(mine, gold)) >= len(gold) - 1,
    hint=f"One value of '{field}' for each message. Ask what the customer wants done first, then read what the guide says of its neighbours.",
    why="You read what the customer wants. The words alone pointed elsewhere in each of them.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# my_labels = [desk.test[number]["answer"][field] for number in missed]
# print(*(f"{label}, not {guesses[number][field]}" for label, number in zip(my_labels, missed)), sep="\n")
# ```
# </details>
#
# ### Does the base model do the job?
#
# The next cell prints what the model is asked. The question names the fields and their values. It holds no solved example, which is called
# [*zero-shot*](../book/glossary.md#zero-shot).

# %%
from slmops_lab.course import widgets

for message in desk.task.messages(desk.test[0]["text"], explain=True):
    print(f"[{message['role']}] {message['content']}\n")
zero_shot_guess = widgets.predict(
    "For how many messages in 100 does the base model get the whole ticket right?", "in 100"
)

# %%
asked = desk.test[:32]
chats = [desk.task.messages(record["text"], explain=True) for record in asked]
answers = generation.generate(model, tokenizer, chats, max_new_tokens=40)
zero_shot = scoring.score(desk.task, asked, answers)
zero_shot_guess.answer(100 * zero_shot.exact)
print("Its first answers begin:", *(repr(answer[:100]) for answer in answers[:3]), sep="\n")
same = keywords.first(len(asked))  # the same messages
lead = intervals.difference(same.rows["exact"], zero_shot.rows["exact"])
plots.show(
    plots.shares({"counting words": same.rows["exact"], "base model": zero_shot.rows["exact"]}),
    takeaway=f"On {len(asked)} messages counting words gets {100 * same.exact:.0f} % right, the base model {100 * zero_shot.exact:.0f} %",
    alt="Two bars with intervals: exact match of counting words and of the untuned base model on the same messages.",
)
print(
    f"Message by message the lead is {100 * lead['points']:.0f} points ({100 * lead['low']:.0f} to {100 * lead['high']:.0f})."
)

# %% tags=["nbval-check-output"]
print("counting words beats the untuned model:", same.exact > zero_shot.exact)
print("counting words stays below 80 %:", keywords.exact < 0.8)

# %% [markdown]
# The model that knows the capital of France does this job worse than counting words. But a small model can learn a narrow job: chapter 2 trains it on such
# messages. (The comparison is not fair yet, because counting words has learned from the training messages and the model has seen none of them. It only says
# what a trained model must beat.)
#
# ### How much memory does it need?
#
# A model is a long list of numbers, its [*parameters*](../book/glossary.md#parameter) or weights. Its size is the number of weights times the bytes of each:
# four in [*fp32*](../book/glossary.md#precision), two in bf16, one in int8, half a byte in int4.
#
# A running model needs memory for more than its weights. A [*token*](../book/glossary.md#token) is a word or a piece of one, the unit that a model reads and
# writes. For each token that the model has read, every [*layer*](../book/glossary.md#layer) keeps two lists of numbers, a key and a value. Together these are
# the [*KV cache*](../book/glossary.md#kv-cache). Then there are intermediate results, the [*activations*](../book/glossary.md#activation), of which we count
# those of one layer: the next layer can use the same memory. If they are kept for every token that the model reads, the largest of them are the
# [*logits*](../book/glossary.md#logits), one score for each token that the model knows. How many numbers each of these has follows from the model's
# configuration. The first cell computes them. The second measures the cache, and the memory that a fresh process needs to read as many tokens.

# %%
parameters = sum(weight.numel() for weight in model.parameters())
on_disk = measure.weight_bytes(folder)
config = model.config
tokens = run.pick(full=1024, quick=256)
head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
key_width = config.num_key_value_heads * head_width  # numbers in the key of one token
cache = 2 * config.num_hidden_layers * key_width * 4 * tokens  # a key and a value, four bytes each
logits_size = tokens * config.vocab_size * 4
between = tokens * (2 * config.intermediate_size + 2 * config.hidden_size) * 4
print(
    f"{parameters / 1e6:.1f} million parameters x 4 bytes = {4 * parameters / 1e6:.1f} MB, on disk {on_disk / 1e6:.1f} MB"
)
print(
    f"for {tokens} tokens: cache {cache / 1e6:.1f} MB, logits {logits_size / 1e6:.1f} MB, others {between / 1e6:.1f} MB"
)

# %%
import torch

from slmops_lab.operations import bench

with torch.inference_mode():
    remembered = model(torch.arange(tokens)[None], logits_to_keep=1).past_key_values
held = sum(layer.keys.nbytes + layer.values.nbytes for layer in remembered.layers)
added = bench.reading(folder, tokens)["added"]
calculated = cache + logits_size + between
print(f"Reading added {added / 1e6:.0f} MB to the process; the formula gives {calculated / 1e6:.0f} MB.")
print(f"So it explains {100 * calculated / added:.0f} % of what was measured.")

# %% [markdown]
# The sizes of the weights and of the cache can be computed. The rest is an estimate, because the program that runs the model also needs memory: leave a margin.
#
# ### From 135 million to 671 billion
#
# The same arithmetic works for models that would never fit into this machine. PyTorch can build a model on its
# [*meta device*](../book/glossary.md#meta-device), with the shapes of all weights and without their numbers. We compare six configurations; that of DeepSeek-V3
# holds the default values of its class in transformers (sources: [SmolLM2](https://arxiv.org/abs/2502.02737), [Qwen2.5](https://arxiv.org/abs/2412.15115),
# [Phi-4-mini](https://arxiv.org/abs/2503.01743), [Llama 3](https://arxiv.org/abs/2407.21783), [Phi-4](https://arxiv.org/abs/2412.08905),
# [DeepSeek-V3](https://arxiv.org/abs/2412.19437)).
#
# DeepSeek-V3 is special in two ways. It is a [*mixture of experts*](../book/glossary.md#mixture-of-experts): each token passes through only a few of many
# parallel parts, the experts. All of them have to be in memory, but few are computed for a token. And instead of keys and values DeepSeek-V3 caches one
# compressed vector per token and layer.

# %%
from transformers import DeepseekV3Config, LlamaConfig, Phi3Config, Qwen2Config


def sized(kind, vocabulary, width, inner, layers, heads, key_heads, tied=False):
    names = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers, "pad_token_id": 0}
    names |= {"num_attention_heads": heads, "num_key_value_heads": key_heads, "tie_word_embeddings": tied}
    return kind(vocab_size=vocabulary, **names)


family = {
    "our base model": config,
    "Qwen2.5-0.5B": sized(Qwen2Config, 151_936, 896, 4_864, 24, 14, 2, tied=True),
    "Phi-4-mini": sized(Phi3Config, 200_064, 3_072, 8_192, 32, 24, 8, tied=True),
    "Llama-3.1-8B": sized(LlamaConfig, 128_256, 4_096, 14_336, 32, 32, 8),
    "Phi-4": sized(Phi3Config, 100_352, 5_120, 17_920, 40, 40, 10),
    "DeepSeek-V3": DeepseekV3Config(),
}

# %%
from transformers import AutoModelForCausalLM


def footprint(config):
    with torch.device("meta"):
        counted = {name: w.numel() for name, w in AutoModelForCausalLM.from_config(config).named_parameters()}
    experts = sum(count for name, count in counted.items() if ".experts." in name)
    resting = experts * (1 - config.num_experts_per_tok / config.n_routed_experts) if experts else 0
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cached = 2 * config.num_key_value_heads * head  # a key and a value
    if getattr(config, "kv_lora_rank", None):
        cached = config.kv_lora_rank + config.qk_rope_head_dim  # the compressed vector
    row = {"billion weights": sum(counted.values()) / 1e9}
    row["used per token"] = row["billion weights"] - resting / 1e9
    row["cache, kB per token"] = 2 * cached * config.num_hidden_layers / 1e3  # two bytes per number
    row["activations, GB"] = 512 * (2 * config.intermediate_size + 2 * config.hidden_size) * 2 / 1e9
    return row


# %%
import pandas

shapes = pandas.DataFrame({name: footprint(one) for name, one in family.items()}).T.sort_values("billion weights")
shapes["fp16, GB"] = 2 * shapes["billion weights"]
shapes["int4, GB"] = shapes["billion weights"] / 2
shapes["cache of 4,096 tokens, GB"] = 4096 * shapes["cache, kB per token"] / 1e6
shapes["peak in int4, GB"] = shapes[["int4, GB", "cache of 4,096 tokens, GB", "activations, GB"]].sum(axis=1)
shapes.round(2)

# %% tags=["nbval-check-output"]
deepseek, phi = shapes.loc["DeepSeek-V3"], shapes.loc["Phi-4"]
print("the formula for the weights is right to one per cent:", abs(4 * parameters / on_disk - 1) < 0.01)
print("the formula for the cache is exact:", held == cache)
print(
    "DeepSeek-V3 has", round(deepseek["billion weights"]), "billion weights and uses", round(deepseek["used per token"])
)
print("its cache per token is smaller than Phi-4's:", deepseek["cache, kB per token"] < phi["cache, kB per token"])

# %% [markdown]
# (The column of the activations is for 512 tokens that are read at once, in 16 bits and without logits.) The last printed line shows that the size of the cache
# depends on how a model is built, not only on how large it is. Move the sliders. Which is the largest model that fits into your telephone? How many people can
# use it at once before their caches are larger than the weights?

# %%
import sympy

billions, per_weight, length, users, memory = sympy.symbols("billions per_weight length users memory")
measured_sizes = zip(shapes["billion weights"], shapes["cache, kB per token"])
per_token = sympy.Piecewise(*((kilobytes, billions <= 1.001 * size) for size, kilobytes in measured_sizes), (0, True))
weights_gb, cache_gb = billions * per_weight / 8, per_token * length * users / 1e6
widgets.explorer(
    "Does it fit?",
    {
        billions: ("model", shapes["billion weights"].to_dict(), "Phi-4-mini"),
        per_weight: ("bits per weight", [2, 4, 8, 16, 32], 4),
        length: ("tokens of context", [512, 2048, 4096, 8192, 32_768, 131_072], 4096),
        users: ("people at once", [1, 2, 4, 8, 16, 64], 1),
        memory: ("memory of the device in GB", [0.5, 1, 2, 4, 8, 16, 24, 80, 640], 8),
    },
    {"weights": weights_gb, "KV cache": cache_gb},
    "GB",
    (memory - weights_gb - cache_gb, "It fits.", "It does not fit."),
)

# %% [markdown]
# ### Exercise 1.2: write the formula
#
# Write `memory_for(parameters, bits, layers, key_width, tokens, users)`: the bytes of the weights plus those of the KV caches. Every user has a cache of
# `tokens` tokens. For each token and layer it holds a key and a value of `key_width` numbers with 2 bytes each. One user more should add one cache and no
# weights.

# %% tags=["exercise"]
memory_for = ...

# %% tags=["check"]
one_cache = 2 * 2 * 30 * 192 * 100
check(
    "1.2",
    memory_for,
    lambda f: (
        [f(1000, bits, 0, 0, 0, 1) for bits in (8, 4)] == [1000, 500]
        and [f(1000, 4, 30, 192, 100, users) for users in (1, 3)] == [500 + one_cache, 500 + 3 * one_cache]
    ),
    hint="The bits are those of the weights only. Add both parts: a device has to hold weights and caches at the same time.",
    why="With long conversations and many users the caches, not the weights, fill the memory.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def memory_for(parameters, bits, layers, key_width, tokens, users):
#     return parameters * bits / 8 + users * 2 * 2 * layers * key_width * tokens
# ```
# </details>
#
# ## 1.2 Fewer bits: quantization
#
# *You store the model with 8 and with 4 bits per weight and measure what that does to size, speed and quality.*
#
# [*Quantization*](../book/glossary.md#quantization) keeps every weight but stores it in fewer bits. A group of weights shares one number, the
# [*scale*](../book/glossary.md#scale), and each weight is rounded to a whole multiple of it. With 4 bits there are 16 whole numbers to choose from. Here are
# the first eight weights of a matrix of our model:

# %%
sections.begin("1.2")
some = model.model.layers[0].self_attn.q_proj.weight.detach()[0, :8].numpy()
scale = abs(some).max() / 7  # the largest becomes 7 or -7
whole = (some / scale).round()
print(f"scale {scale:.4f}")
toy = {"weight": some, "whole number": whole, "read back": whole * scale, "error": whole * scale - some}
pandas.DataFrame(toy).T.round(3)

# %% [markdown]
# Only the whole numbers and the scale are stored. How much harm does the error do? We measure the [*perplexity*](../book/glossary.md#perplexity) on test
# messages: it says among how many equally likely tokens the model seems to choose at each place (lower is better). We compute it for each of several passages,
# and the spread between them gives an interval. Two models read the same passages, so we compare them passage by passage.
#
# The model builder of ONNX Runtime GenAI ([Microsoft](https://github.com/microsoft/onnxruntime-genai)) then saves the model with 32, 8 and 4 bits per weight,
# each time as a graph: a list of the operations that compute an answer. Each of the three writes text several times, in a process of its own.

# %%
import math

from torch.nn.functional import cross_entropy


def passages_of(records, count, length=128):
    ids = tokenizer("\n".join(record["text"] for record in records), return_tensors="pt").input_ids[0]
    length = min(length, len(ids))  # of a small data set
    return ids[: len(ids) // length * length].view(-1, length)[:count]


passages = passages_of(desk.test[:100], run.pick(full=10, quick=5))
calibration = passages_of(desk.train[:50], 4)  # to choose by, not to judge by


def perplexity_ratio(judged, other):
    """Perplexity over that of another model on the same passages, with a 95 % interval: points, low, high."""
    return {name: math.exp(nats) for name, nats in intervals.difference(judged["nats"], other["nats"]).items()}


# %%
def judge(logits_of):
    """Per passage: nats per token, milliseconds to read it; per token: whether the model would have guessed it."""
    judged = {"nats": [], "ms": [], "guessed": []}
    for passage in passages:
        with measure.timed() as elapsed, torch.inference_mode():
            scores = logits_of(passage)[:-1].float()  # (tokens, vocabulary): of the next token at each place
        judged["nats"].append(cross_entropy(scores, passage[1:]).item())
        judged["ms"].append(1e3 * elapsed.seconds)
        judged["guessed"] += (scores.argmax(-1) == passage[1:]).tolist()
    return judged


def judge_model(some_model):
    return judge(lambda passage: some_model(passage[None]).logits[0])


base = judge_model(model)
own = perplexity_ratio(base, {"nats": [0.0] * len(passages)})  # zero nats are a perplexity of 1
print(
    f"perplexity {own['points']:.0f} (95 % interval {own['low']:.0f} to {own['high']:.0f}), {passages.numel():,} tokens"
)

# %%
import tempfile
from pathlib import Path

from slmops_lab.deployment import export, runtime

speed_guess = widgets.predict("How many times as fast as with 32 bits does the model write with 4 bits?", "times")
scratch = Path(tempfile.mkdtemp())
deployed = {name: export.to_onnx(folder, scratch / name, name, all_logits=True) for name in export.PRECISIONS}


def judge_deployed(folder):
    served = runtime.GenAIRuntime(folder)
    judged = judge(lambda ids: torch.tensor(served.start(ids.tolist(), len(ids) + 1).get_output("logits")[0]))
    served.close()
    measure.give_back()
    return judged


# %%
judged, rows = {}, {}
for name, made in deployed.items():
    judged[name] = judge_deployed(made)
    pace, peak = bench.speed(made, prompts=(128,), rounds=run.pick(full=5, quick=2))
    rows[name] = {"MB": measure.weight_bytes(made) / 1e6, "process MB": peak / 1e6, **pace.iloc[0]}
    rows[name] |= perplexity_ratio(judged[name], judged["fp32"])
quantized = pandas.DataFrame(rows).T
fp32, int8, int4 = (quantized.loc[name] for name in export.PRECISIONS)
smaller, faster, q = fp32["MB"] / int4["MB"], int4["per_second"] / fp32["per_second"], quantized
plots.show(
    plots.panels(
        {"values": q["MB"], "unit": "MB on disk"},
        {"values": q["per_second"], "unit": "tokens per second", "low": q["slowest"], "high": q["fastest"]},
        {"values": q["points"], "unit": "times the perplexity", "low": q["low"], "high": q["high"]},
    ),
    takeaway=f"int4 is {smaller:.1f} times smaller than fp32 and {faster:.1f} times as fast",
    alt="Three panels for fp32, int8 and int4: size on disk, writing speed from its slowest to its fastest round, and perplexity with its interval.",
)

# %%
speed_guess.answer(faster)
for name, one in (("int8", int8), ("int4", int4)):
    told = "a measurable harm" if one["low"] > 1 else "no harm that these passages could show"
    print(
        f"{name} has {one['points']:.2f} times the perplexity of fp32 ({one['low']:.2f} to {one['high']:.2f}): {told}."
    )
print(f"The int4 file is {smaller:.1f} times smaller, and the model writes {faster:.1f} times as fast.")

# %% [markdown]
# The files are larger than the number of bits suggests, for two reasons. Each block of 32 weights has a scale of 32 bits, which adds one bit to each weight.
# And the int8 file stores the table of token vectors twice, in 32 bits and in 8. So look at the size of the file, not only at the formula.
#
# Why are fewer bits faster? To write a token, the processor has to read almost every weight once, so fewer bytes take less time to read. But the processor then
# has to turn them back into numbers that it can compute with, which takes time, too. And remember that our weights had been rounded to 4 bits once before, to
# another set of values.
#
# ### Exercise 1.3: quantize the model yourself
#
# Write `rounded(weight, bits, block=32)`. It does what the first cell of this section does, with one difference: every `block` neighbouring weights in a row
# get a scale of their own. The scale is chosen so that the largest weight of the block, whatever its sign, becomes `2 ** (bits - 1) - 1` or minus that. The
# function returns the weights as they are read back, in the shape that they had. Then make `three_bits`, the whole model with 3 bits:
# `change_matrices(model, change)` returns a copy of the model in which `change` was applied to each matrix of the layers. That takes a few seconds. Judge it
# with `perplexity_ratio(judge_model(three_bits), base)`: the result should be worse than that of int4.

# %% tags=["exercise"]
from slmops_lab.training.compression import change_matrices


def rounded(weight, bits, block=32): ...


three_bits = ...

# %% tags=["check"]
blocks = torch.tensor([[0.1, -0.7, 0.3, 0.2, 7.0, -1.0, 2.4, 3.6]])
read_back = {4: [[0.1, -0.7, 0.3, 0.2, 7, -1, 2, 4]], 3: [[0, -0.7, 0.7 / 3, 0.7 / 3, 7, 0, 7 / 3, 14 / 3]]}


def is_in_three_bits(small):
    exact = all(torch.allclose(rounded(blocks, n, block=4), torch.tensor(read_back[n]), atol=1e-5) for n in read_back)
    mine, theirs = (one.model.layers[0].mlp.down_proj.weight.detach() for one in (small, model))
    return exact and torch.allclose(mine, rounded(theirs, 3), atol=1e-6) and not torch.equal(mine, theirs)


check(
    "1.3",
    three_bits,
    is_in_three_bits,
    hint="View the matrix as rows of `block` numbers: each row has a scale of its own, which depends on `bits`. Round, do not cut off.",
    why="A scale for each block costs a few bits, and one large weight no longer spoils the rounding of all others.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def rounded(weight, bits, block=32):
#     blocks = weight.reshape(-1, block)
#     scale = blocks.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / (2 ** (bits - 1) - 1)
#     return ((blocks / scale).round() * scale).reshape(weight.shape)
#
#
# three_bits = change_matrices(model, lambda weight: rounded(weight, bits=3))
# print(perplexity_ratio(judge_model(three_bits), base))
# ```
# </details>
#
# ## 1.3 Fewer parts: pruning
#
# *You leave out layers, attention heads and neurons, and measure the harm and the time saved.*
#
# [*Pruning*](../book/glossary.md#pruning) leaves out parts of the model. Which ones? A layer that hardly changes the direction of the
# [*hidden states*](../book/glossary.md#hidden-states) that pass through it is a candidate ([Men et al. 2024](https://arxiv.org/abs/2403.03853)). We choose the
# layers by training messages and measure the harm on test messages. The first and the last layer always stay, because they are next to the token vectors and to
# the logits.

# %%
from itertools import pairwise

from torch.nn.functional import cosine_similarity

sections.begin("1.3")
with torch.inference_mode():
    states = model(calibration, output_hidden_states=True, logits_to_keep=1).hidden_states
turns = [1 - cosine_similarity(before, after, dim=-1).mean().item() for before, after in pairwise(states)]
layers, inner = len(turns), range(1, len(turns) - 1)
least = sorted(inner, key=lambda layer: turns[layer])
figure, axis = plots.pyplot.subplots(figsize=(7, 3))
colours = [plots.COLOURS[layer in least[:6]] for layer in inner]  # the six that turn their input the least stand out
axis.bar(inner, [turns[layer] for layer in inner], color=colours)
axis.set(xlabel="layer (orange: the six that turn the least)", ylabel="turn of its input (1 - cosine)")
plots.show(
    figure,
    takeaway=f"Of the inner layers, {least[0]} turns its input the least and {least[-1]} the most",
    alt="Bars over the inner layers: how far each turns the direction of its input; the six smallest are marked.",
)
layers_guess = widgets.predict(f"How many of {layers} layers can go before the perplexity has doubled?", "layers")

# %%
from slmops_lab.training import compression

tried = {"nothing left out": {"kind": "whole", "MB": 4 * parameters / 1e6} | base}


def try_out(name, kind, small):
    megabytes = sum(weight.nbytes for weight in small.parameters()) / 1e6
    tried[name] = {"kind": kind, "MB": megabytes} | judge_model(small)
    return perplexity_ratio(tried[name], base)["points"]


counts, harm = sorted({max(1, round(layers * share)) for share in (0.07, 0.13, 0.2, 0.27, 0.4)}), {}
for count in counts:
    kept_layers = [layer for layer in range(layers) if layer not in least[:count]]
    harm[count] = try_out(f"{layers - count} of {layers} layers", "layers", compression.keep_layers(model, kept_layers))
layers_guess.answer(max((count for count in counts if harm[count] < 2), default=0))
print("Times the perplexity:", {f"{count} left out": round(value, 2) for count, value in harm.items()})

# %% [markdown]
# (We tried only these numbers of layers.) We can also leave out smaller parts. Each layer has [*attention heads*](../book/glossary.md#attention-head), which
# decide which earlier tokens matter, and [*neurons*](../book/glossary.md#neuron). A head or a neuron passes its result on through a matrix. We keep those whose
# results are large on average and are multiplied by large weights in this matrix:

# %%
import copy

outlets = [part for layer in model.model.layers for part in (layer.self_attn.o_proj, layer.mlp.down_proj)]
activity = {}
hooks = [
    part.register_forward_pre_hook(lambda part, given: activity.update({part: given[0].abs().mean((0, 1))}))
    for part in outlets
]
with torch.no_grad():
    model(calibration, logits_to_keep=1)
    matters = {part: activity[part] * part.weight.norm(dim=0) for part in outlets}
for hook in hooks:
    hook.remove()


def keep_of(linear, rows=slice(None), columns=slice(None)):
    """Keep some rows (what a matrix makes) or columns (what it reads), in place."""
    linear.weight = torch.nn.Parameter(linear.weight.detach()[rows][:, columns].contiguous())
    if linear.bias is not None:
        linear.bias = torch.nn.Parameter(linear.bias.detach()[rows])


# %%
def with_neurons(share):
    small = copy.deepcopy(model)
    for layer, whole_layer in zip(small.model.layers, model.model.layers):
        scores = matters[whole_layer.mlp.down_proj]
        best = scores.topk(max(1, int(share * len(scores)))).indices.sort().values
        keep_of(layer.mlp.gate_proj, rows=best)
        keep_of(layer.mlp.up_proj, rows=best)
        keep_of(layer.mlp.down_proj, columns=best)
    return small


def with_heads(each):
    """Keep so many heads of each group that shares a key and a value."""
    small = copy.deepcopy(model)
    for layer, whole_layer in zip(small.model.layers, model.model.layers):
        scores = matters[whole_layer.self_attn.o_proj].view(config.num_key_value_heads, -1, head_width).sum(-1)
        best = scores.topk(each).indices.sort().values + scores.shape[1] * torch.arange(len(scores))[:, None]
        numbers = (best.flatten()[:, None] * head_width + torch.arange(head_width)).flatten()
        keep_of(layer.self_attn.q_proj, rows=numbers)
        keep_of(layer.self_attn.o_proj, columns=numbers)
        layer.self_attn.num_key_value_groups = each
    return small


# %%
for share in (0.9, 0.75, 0.5):
    try_out(f"{100 * share:.0f} % neurons", "neurons", with_neurons(share))
in_a_group = config.num_attention_heads // config.num_key_value_heads
for each in range(in_a_group - 1, 0, -1):
    try_out(f"{each} of {in_a_group} heads", "heads", with_heads(each))
p = pandas.DataFrame({name: perplexity_ratio(one, base) for name, one in tried.items()}).T
ms = pandas.DataFrame({name: one["ms"] for name, one in tried.items()}).quantile([0.25, 0.5, 0.75]).T
unit = f"ms to read {passages.shape[1]} tokens"
figure = plots.panels(
    {"values": p["points"], "unit": "times the perplexity", "low": p["low"], "high": p["high"], "log": True, "mark": 1},
    {"values": ms[0.5], "unit": f"{unit} (middle half)", "low": ms[0.25], "high": ms[0.75]},
)
plots.show(
    figure,
    takeaway=f"Half of the neurons gone: {p['points']['50 % neurons']:.1f} times the perplexity, {100 * ms[0.5]['50 % neurons'] / ms[0.5].iloc[0]:.0f} % of the time",
    alt="Two panels, a row per pruned model: perplexity relative to the whole model with its interval, and the median time to read a passage with its middle half.",
)

# %% [markdown]
# What is left out is neither stored nor computed, so pruning saves bytes and time without a special format. Where the lines on the right overlap, this
# measurement cannot tell the speeds apart. The rows were measured one after the other, so if the machine was busy in between, some of them are too slow. The
# heads are a small part of this model, so leaving some of them out saves little. None of these models was trained after it was cut; chapter 2 trains one.
#
# ## 1.4 Zeros: sparsity
#
# *You set weights to zero, measure the size of the file, and try a format that stores only the other weights.*
#
# Perhaps the smallest weights matter little, so we set them to zero; the matrices keep their shapes. If the zeros may be anywhere, this is
# [*unstructured sparsity*](../book/glossary.md#sparsity). In *2:4* sparsity two of every four neighbouring weights are zero. The tensor cores of some graphics
# processors multiply such matrices up to twice as fast ([Mishra et al. 2021](https://arxiv.org/abs/2104.08378)). A file becomes smaller only if its format
# leaves the zeros out. A product is computed faster only if its [*kernel*](../book/glossary.md#kernel), the routine that computes it, skips them. The third of
# the next cells tries such a format on one matrix.

# %%
sections.begin("1.4")
zeros_guess = widgets.predict(
    "Half of the weights become zero. How large is the file then?", ["half as large", "as large as before", "larger"]
)


def zeroed(weight, share):
    if share == "2:4":
        fours = weight.view(-1, 4).abs()
        small = torch.zeros_like(fours).scatter(1, fours.topk(2, largest=False).indices, 1).view_as(weight).bool()
    else:
        small = weight.abs() <= weight.abs().flatten().kthvalue(int(share * weight.numel())).values
    return weight.masked_fill(small, 0)


# %%
import statistics

for share in (0.3, 0.5, "2:4"):
    sparse = compression.change_matrices(model, lambda weight, share=share: zeroed(weight, share))
    try_out("2:4 zeros" if share == "2:4" else f"{100 * share:.0f} % zeros", "zeros", sparse)
sparse.save_pretrained(scratch / "zeros")
weighed = measure.weight_bytes(scratch / "zeros") / on_disk
zeros_guess.answer("as large as before" if 0.95 < weighed < 1.05 else "larger" if weighed > 1 else "half as large")
reading_ms = {"no zeros": [], "2:4": []}
for passage in passages[:4]:
    for name, one in {"no zeros": model, "2:4": sparse}.items():  # in turns, so that a busy machine hits both alike
        with measure.timed() as elapsed, torch.inference_mode():
            one(passage[None])
        reading_ms[name].append(round(1e3 * elapsed.seconds))
middle_ms = {name: statistics.median(times) for name, times in reading_ms.items()}
print(
    "To read a passage takes",
    " and ".join(f"{ms:.0f} ms with {name}" for name, ms in middle_ms.items()),
    "(medians of 4).",
)

# %%
import timeit
import warnings

matrix = sparse.model.layers[0].mlp.down_proj.weight.detach()
with warnings.catch_warnings(action="ignore"):  # PyTorch calls this format a beta
    packed = matrix.to_sparse_csr()  # the numbers that are left, and where they stand
stored = sum(part.nbytes for part in (packed.values(), packed.col_indices(), packed.crow_indices()))
vector = torch.ones(matrix.shape[1], 1)
dense_ms, packed_ms = (min(timeit.repeat(lambda m=m: m @ vector, number=20, repeat=5)) * 50 for m in (matrix, packed))
print(
    f"{(matrix == 0).float().mean():.0%} zeros: packed, the matrix takes {stored / matrix.nbytes:.1f} times the bytes"
)
print(f"and the product {packed_ms / dense_ms:.1f} times the time of the dense one.")

# %% [markdown]
# A zero takes four bytes and is multiplied like any other number, so zeros alone save nothing. The packed format stores each remaining number (4 bytes)
# together with its column (8 bytes), and reading from scattered places is slow. A format made for 2:4 needs only two bits for the place of each remaining
# number, but the kernel has to understand this format. The next figure shows everything that you have tried, size against harm:

# %%
tried |= {name: {"kind": "bits", "MB": quantized.loc[name, "MB"]} | judged[name] for name in deployed}
everything = pandas.DataFrame(
    {name: {"kind": one["kind"], "MB": one["MB"]} | perplexity_ratio(one, base) for name, one in tried.items()}
).T
light = everything[everything["MB"] < on_disk / 2e6]
best = light["points"].astype(float).idxmin()
groups = everything[everything["kind"] != "whole"].groupby("kind", sort=False)
columns = ["MB", "points", "low", "high"]
points = {k: {n.removesuffix(f" {k}"): tuple(row) for n, row in part[columns].iterrows()} for k, part in groups}
plots.show(
    plots.cloud(points, "MB of weights", "times the perplexity of the whole model"),
    takeaway=f"Below half of the bytes, {best} does the least harm ({light.loc[best, 'points']:.2f} times)",
    alt="Scatter plot of size in MB against relative perplexity for layers, neurons and heads left out, zeros and fewer bits, each point with its name.",
)

# %% [markdown]
# ## 1.5 A gate in front of every release
#
# *You set budgets for two kinds of devices, let a gate judge the candidates, and check two files for mistakes: the one that starts the tests at every change,
# and the one that describes a container.*
#
# A [*gate*](../book/glossary.md#gate) compares what was measured with a budget and refuses a version that exceeds it. Set the limits before you measure. Those
# below are our choice; the perplexity is limited relative to that of fp32.

# %%
from slmops_lab.deployment import gate

sections.begin("1.5")
limits = {"till": {"megabytes": 600, "peak_memory_mb": 2_000}, "handheld": {"megabytes": 150, "peak_memory_mb": 500}}
at_least = {"tokens_per_second": 5}
budgets = {
    device: gate.Budget(at_most={"times_perplexity": 2.5, **most}, at_least=at_least) for device, most in limits.items()
}
called = {
    "points": "times_perplexity",
    "MB": "megabytes",
    "process MB": "peak_memory_mb",
    "per_second": "tokens_per_second",
}
facts = quantized[list(called)].rename(columns=called).to_dict("index")
print(gate.check(facts["fp32"], budgets, "handheld").round(2), "\n")
for device in budgets:
    print(f"May it go to a {device}?", {name: gate.passes(facts[name], budgets, device) for name in facts})

# %% [markdown]
# The table is the report for fp32 on a handheld. **What did this gate not check?** Whether the model does its job. In 1.1 it did not, and still it can pass
# this gate, which does not measure that. The gate of chapter 4 asks for exact match first.
#
# ### Exercise 1.4: the core of a gate
#
# Write `refused(facts, at_most)`. It returns a list of the names in `at_most` that do not pass. A fact passes if it was measured, is a number, and is not above
# its limit. If all facts were measured and none is above its limit, the result should be an empty list.

# %% tags=["exercise"]
refused = ...

# %% tags=["check"]
at_most = {"megabytes": 150, "p95_ms": 3_000, "peak_memory_mb": 500}
cases = [
    ({"megabytes": 150, "p95_ms": 900.5, "peak_memory_mb": 345, "colour": "red"}, []),
    ({"megabytes": 150.1, "p95_ms": 900, "peak_memory_mb": 501}, ["megabytes", "peak_memory_mb"]),
    ({"megabytes": 80, "p95_ms": float("nan")}, ["p95_ms", "peak_memory_mb"]),
    ({"megabytes": None, "p95_ms": 10, "peak_memory_mb": 10}, ["megabytes"]),
]
check(
    "1.4",
    refused,
    lambda f: all(sorted(f(dict(case), at_most)) == wanted for case, wanted in cases),
    hint="Three things must be refused besides what is too large: a name that is missing, None, and nan, which is neither above nor below a limit.",
    why="What was not measured does not pass: an empty report is not a good one.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def refused(facts, at_most):
#     def passes(name):
#         value = facts.get(name)
#         return isinstance(value, (int, float)) and value <= at_most[name]
#
#     return [name for name in at_most if not passes(name)]
# ```
# </details>
#
# ### The machine that runs the gate
#
# Nobody should have to start such checks by hand. In a company every change starts a [*workflow*](../book/glossary.md#workflow), a list of steps that run on a
# fresh machine. What it builds runs in a [*container*](../book/glossary.md#container), which a second file describes. The first cell prints these two files of
# this repository: the workflow that runs the tests at every change, and the description of a container with the endpoint of chapter 4 and only what it needs.
#
# Such files are code, and one often notices a mistake in them only when they run. A [*linter*](../book/glossary.md#linter) finds some mistakes without running
# anything. The second cell lints both files, and a copy of each with a mistake that we put in: a misspelled key, and a base image without a fixed version,
# which may be another one tomorrow.

# %%
workflow = (settings.ROOT / ".github/workflows/course.yml").read_text(encoding="utf-8")
containerfile = (settings.ROOT / "Containerfile").read_text(encoding="utf-8")
print(workflow, containerfile, sep="\n" + 60 * "-" + "\n")

# %%
import shutil
import subprocess
import sys

github = "-m check_jsonschema --builtin-schema vendor.github-workflows --default-filetype yaml -"
jobs = [("workflow", [sys.executable, *github.split()], workflow, "runs-on", "runs_on")]
hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
if hadolint:  # for some systems there is no package of it
    jobs.append(("Containerfile", [hadolint, "--no-color", "-"], containerfile, "3.11-slim-bookworm", "latest"))
clean = {"ours": [], "broken": []}
for name, command, text, right_word, wrong_word in jobs:
    for version, given in (("ours", text), ("broken", text.replace(right_word, wrong_word))):
        done = subprocess.run(command, input=given, capture_output=True, text=True)
        clean[version].append(done.returncode == 0)
        complaints = [line.strip() for line in done.stdout.splitlines() if "required" in line or "DL" in line]
        print(f"{name}, {version}:", *(complaints or ["no complaint"]))

# %% tags=["nbval-check-output"]
print("our own files pass:", all(clean["ours"]), "- the broken ones are found:", not any(clean["broken"]))

# %% [markdown]
# ## 1.6 Devices that are smaller than yours
#
# *You use the same gate, but now the operating system enforces the limits, and a model that needs more memory really fails.*
#
# A laptop has more memory and more cores than most of the devices that a model is shipped to. Here we start a process that may use only as many cores, and
# write to only as much memory, as the device has (Linux enforces this; on other systems the limits have no effect). The last two rows of each table are
# measured in it, the others come from 1.2, because they are the same on every device. The cores themselves are those of your machine, and an [*edge device*](../book/glossary.md#edge-device) may have
# slower ones: measure times on the device itself. [`p95_ms`](../book/glossary.md#p95) is the time that 95 of 100 answers stay under; with so few messages it is
# nearly the time of the slowest one.

# %%
sections.begin("1.6")
hardware = {"till": {"cores": 2, "megabytes": 2_000}, "handheld": {"cores": 1, "megabytes": 500}}
timed = {device: gate.Budget(at_most={**budget.at_most, "p95_ms": 3_000}) for device, budget in budgets.items()}
short_chats = [desk.task.messages(record["text"]) for record in desk.test[: run.pick(full=5, quick=2)]]


def facts_on(candidate, device):
    known = {name: value for name, value in facts[candidate].items() if name != "peak_memory_mb"}
    try:
        return known | bench.on_device(deployed[candidate], short_chats, **hardware[device])
    except settings.CourseError as error:
        print(error)  # no time and no memory are known then
        return known


for candidate, device in (("fp32", "till"), ("fp32", "handheld"), ("int4", "handheld")):
    print(f"\n{candidate} on the {device}:")
    print(gate.check(facts_on(candidate, device), timed, device).round(2))

# %%
with measure.FreshProcess() as process:
    process.call(exec, "import onnxruntime_genai, slmops_lab.deployment.runtime")
    empty_mb = process.peak_memory() / 1e6
rest_mb = int4["process MB"] - int4["MB"] - empty_mb
print(
    f"int4 has {int4['MB']:.0f} MB of weights, and its process had {int4['process MB']:.0f} MB at its peak (section 1.2)."
)
print(
    f"Python and the runtime take {empty_mb:.0f} MB before any model is loaded. The rest, {rest_mb:.0f} MB, is what the runtime"
)
print("takes to load and run the model: among other things for the tokenizer, the cache and its buffers.")

# %% [markdown]
# ## 1.7 A rollout in steps
#
# *You roll out a worse version to a simulated fleet, and find out how many answers have to be judged before the difference shows.*
#
# A version that passed the gate does not go to all devices at once, either. In a [*rollout*](../book/glossary.md#rollout) a first group, the
# [*canary*](../book/glossary.md#canary), gets the new version, and its answers are judged before everybody else gets it. Our base model cannot sort messages
# yet, so in this section the tills use it for something that it can do: it suggests the next token while somebody types. A suggestion is right if it is the
# token that is typed next. Version 1.1.0 is the int4 model. Version 1.2.0 is smaller, because some layers are left out. How often is each of them right?

# %%
sections.begin("1.7")
kept_layers = [layer for layer in range(layers) if layer not in least[: counts[1]]]
compression.keep_layers(model, kept_layers).save_pretrained(scratch / "pruned")
tokenizer.save_pretrained(scratch / "pruned")
deployed["1.2.0"] = export.to_onnx(scratch / "pruned", scratch / "pruned-int4", "int4", all_logits=True)
judged["1.2.0"] = judge_deployed(deployed["1.2.0"])
suggested = {"old": judged["int4"]["guessed"], "new": judged["1.2.0"]["guessed"]}
old, new = (100 * sum(right) / len(right) for right in suggested.values())
drop = intervals.difference(suggested["new"], suggested["old"])
ratio, limit = perplexity_ratio(judged["1.2.0"], judged["fp32"])["points"], budgets["till"].at_most["times_perplexity"]
print(
    f"Of {len(suggested['old']):,} suggestions {old:.1f} % of version 1.1.0 are right and {new:.1f} % of version 1.2.0."
)
print(f"Token by token: {100 * drop['points']:+.1f} points ({100 * drop['low']:+.1f} to {100 * drop['high']:+.1f}).")
print(
    f"The gate {'lets it through' if ratio <= limit else 'refuses it'}: {ratio:.2f} times the perplexity of fp32, limit {limit}."
)

# %% [markdown]
# The fleet below is **simulated**: its network links, offline hours and failures are random numbers. Only how often each version is right was measured, in the
# cell above. We assume that somebody judges six suggestions per device and day. If the new version looks worse, and chance alone would show so large a
# difference in fewer than 5 of 100 cases (*p* < 0.05), all devices go back to the old version. First we look at one rollout, whose canary waits for at least
# 1,000 judged suggestions, then at several with other random numbers:

# %%
from slmops_lab.operations import rollout
from slmops_lab.operations.fleet import Fleet


def roll_out(look, seed):
    """(hour by hour, the controller that decided) of a rollout whose canary waits for `look` judged suggestions."""
    canary, others = {"name": "canary", "share": 0.05, "messages": look}, {"name": "everybody", "share": 0.95}
    plan = rollout.Plan(groups=[canary, others])
    notes = scratch / f"rollout-{look}-{seed}.json"
    notes.unlink(missing_ok=True)  # of this cell's last run
    controller = rollout.Controller(plan, notes, "1.2.0")
    package_mb = measure.weight_bytes(deployed["1.2.0"]) / 1e6
    return Fleet(2_000, plan, suggested, package_mb, seed).run(controller), controller


# %%
history, controller = roll_out(1_000, run.seed)
told, on_new = controller.log, history["new version"]
figure = plots.lines({"1.2.0": (history["hour"], on_new)}, "hours since the start", "devices on 1.2.0", markers=False)
for hour, decision in zip(told["hour"], told["decision"]):
    figure.axes[0].axvline(hour, color=plots.COLOURS[1], linestyle="--", linewidth=1)
    figure.axes[0].annotate(f" {decision}", (hour, 0.9 * on_new.max()), color=plots.COLOURS[1])
plots.show(
    figure,
    takeaway=f"{controller.state['status'].capitalize()} after {told['hour'].iloc[-1]:.0f} hours; at most {on_new.max():,} of 2,000 devices ran 1.2.0",
    alt="Line over the hours: simulated devices that run the new version, with a broken line at each decision.",
)
print(told.to_string(index=False))
patience_guess = widgets.predict(
    "Of 100 such rollouts, how many let 1.2.0 pass if the canary waits for only 100 judged suggestions?", "of 100"
)

# %%
fleets = run.pick(full=12, quick=5)
let_pass, hours = {}, {}
for look in (100, 1_000):
    ended = [roll_out(look, run.seed + 1 + number)[1] for number in range(fleets)]
    let_pass[look] = sum(one.state["status"] == "done" for one in ended)
    hours[look] = pandas.Series([one.log["hour"].iloc[1:2].max() for one in ended]).median()
patience_guess.answer(100 * let_pass[100] / fleets)
for look in let_pass:
    ends = intervals.proportion([True] * let_pass[look] + [False] * (fleets - let_pass[look]))
    print(f"With at least {look:,} judged ones, {let_pass[look]} of {fleets} let it pass", end=" ")
    print(
        f"(95 % interval {100 * ends['low']:.0f} to {100 * ends['high']:.0f} %), after {hours[look]:.0f} hours (median)."
    )
if drop["points"] < 0:
    needed = rollout.messages_needed(
        old / 100, -drop["points"], ratio=19
    )  # the others are 19 times as many as the canary
    print(f"To see such a drop in 9 of 10 cases, about {needed:,} of the new version have to be judged.")

# %% [markdown]
# Waiting for more judged suggestions has a price. While the canary waits, its users get worse suggestions, and most of these are never judged, so the log shows
# only a part of the harm. A larger canary collects judged suggestions faster, but more people get the worse version. Chapter 4 repeats this with the real job.
#
# ## 1.8 Privacy: where does a message go?
#
# *You run the model without a network, count which libraries try to reach one, and take personal data out of a log line.*
#
# A message stays on the machine if the software around the model sends nothing. To check that, the first cell runs the model in a process whose network is
# connected to nothing. Linux provides such a network, and it counts what the process tried to send.
#
# Several of the libraries that this course uses report to their makers ([*telemetry*](../book/glossary.md#telemetry)) or ask a server for files, unless they
# are told not to. The course tells them with switches (`settings.QUIET`, which `import slmops_lab` sets), so the first cell has them set, too. The next cells
# run small jobs with seven of the libraries, once without these switches and once with them.
#
# Personal data can also end up in log files. The last cell shows how the endpoint of chapter 4 replaces what looks personal before it writes a line to its log.

# %%
from slmops_lab.operations import offline

sections.begin("1.8")
ASK = """
import sys
from slmops_lab.deployment import runtime
served = runtime.GenAIRuntime(sys.argv[1])
print(served.generate([{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]))
"""
attempts, offline_answer = offline.run(ASK, deployed["int4"])
print("Not run: this system gives us no such network." if attempts is None else offline_answer)
print("attempts to reach something:", attempts)
quiet_guess = widgets.predict("How many of the seven libraries below send nothing, as they come?", "of 7")

# %%
JOBS = {
    "ONNX Runtime": "import onnxruntime as o; kept = o.InferenceSession(M + '/model.onnx')",
    "ONNX Runtime GenAI": "import onnxruntime_genai as o; kept = o.Model(M)",
    "Foundry Local": "import foundry_local_sdk as f; kept = f.FoundryLocalManager(f.Configuration('x', **F))",
    "Olive": "from olive.cli.launcher import main\ntry: main(['run', '--config', 'no.json'])\nexcept Exception: pass",
    "MLflow": "import mlflow; mlflow.MlflowClient(f'sqlite:///{W}.db').search_experiments()",
    "datasets": "import datasets; datasets.load_dataset('json', data_files=M + '/genai_config.json', cache_dir=W)",
    "transformers": "import transformers as t; t.AutoTokenizer.from_pretrained(M)",
}
START = f"""
import os
M, W = {str(deployed["int4"])!r}, {str(scratch)!r} + f"/{{os.getpid()}}"
F = {{"app_data_dir": W, "model_cache_dir": W, "logs_dir": W}}
"""

# %%
from concurrent.futures import ThreadPoolExecutor


def attempts_of(job, switches):
    return offline.run(START + job, switches=switches, stay=10)[0]  # reports are sent a little later


ways = {"as it comes": False, "with the switches": True}
with ThreadPoolExecutor(8) as pool:  # they mostly wait
    pending = {(name, way): pool.submit(attempts_of, JOBS[name], on) for name in JOBS for way, on in ways.items()}
tried_to = pandas.Series({key: future.result() for key, future in pending.items()}).unstack()
quiet_guess.answer(None if tried_to.isna().any(axis=None) else int((tried_to["as it comes"] == 0).sum()))
tried_to.rename_axis("attempts to reach something")

# %% tags=["nbval-check-output"]
from slmops_lab.deployment.endpoint import observability

switched = tried_to["with the switches"]
print(
    "with the switches nobody calls home:", "not tried on this system" if switched.isna().any() else not switched.any()
)
print(
    observability.redact("Where is TT-48213? Write to jo.field@mail.example or call +44 20 7946 0958. Jo, 4 Mill Lane")
)

# %% [markdown]
# Do not rank the libraries by these numbers. A library may try several times to send the same report. Some of the libraries load ONNX Runtime, whose attempts
# are then counted again. And a report that is sent later than the few seconds for which each process waits is not counted. The replacement in the log line
# finds patterns, not people: the name and the street are still there. If that is not enough, log no text.
#
# ## 1.9 Lifecycle: what runs where, and why?
#
# *You adapt the model to one region, sign it, register three versions, and find out which data and code the version on a device was made from.*
#
# Customers of one region may write differently from others. (Our data has no regions, so we use the messages of the later year instead, or training messages
# where a data set has none.) You tune an [*adapter*](../book/glossary.md#adapter), a few trained weights beside the model (chapter 3), and then quantize, test
# and pack the result (chapter 4). Each step is timed; section 1.12 shows the times.

# %%
from peft import LoraConfig

from slmops_lab.task import encoding
from slmops_lab.training import adapters, trainer

sections.begin("1.9")
minutes_guess = widgets.predict("How many minutes does it take from these messages to a signed package?", "minutes")
region = desk.drift or desk.train
middle = len(region) // 2
learn, unseen = region[:middle][: run.pick(full=24, quick=8)], region[middle:][: run.pick(full=16, quick=8)]
clock = {}
with measure.timed() as clock["prepare the data"]:
    pairs = [(desk.task.messages(record["text"]), desk.task.write(record["answer"])) for record in learn]
    examples = [encoding.encode(tokenizer, messages, ticket) for messages, ticket in pairs]
with measure.timed() as clock["train"]:
    lora = LoraConfig(r=8, lora_alpha=64, target_modules="all-linear", task_type="CAUSAL_LM")
    pupil = adapters.attach(copy.deepcopy(model), lora)
    how = {"num_train_epochs": 2, "per_device_train_batch_size": 1, "learning_rate": 7e-4, "seed": run.seed}
    trainer.train(pupil, tokenizer, examples, "tuning", **how)
    pupil.merge_and_unload().save_pretrained(scratch / "north")
del pupil  # a copy of the model


# %%
def answers_of(folder):
    served = runtime.GenAIRuntime(folder)
    texts = [served.generate(desk.task.messages(record["text"]), max_new_tokens=40) for record in unseen]
    served.close()
    return scoring.score(desk.task, unseen, texts)


with measure.timed() as clock["quantize"]:
    tokenizer.save_pretrained(scratch / "north")
    deployed["north"] = export.to_onnx(scratch / "north", scratch / "north-int4", "int4")
with measure.timed() as clock["test"]:
    north = answers_of(deployed["north"])
before = answers_of(deployed["int4"])  # the same messages, without the adaptation
named = north.rows.rename(columns={"exact": "whole ticket", "valid": "valid JSON"})
plots.show(
    plots.shares(named, "right in % (line: 95 % interval)"),
    takeaway=f"After {len(learn)} messages: valid JSON in {named['valid JSON'].sum()} of {len(unseen)}, the whole ticket in {named['whole ticket'].sum()}",
    alt="Bars with wide intervals: what the model that was adapted to the region gets right in messages that it has not seen.",
)
print(
    f"Not adapted: valid JSON in {before.rows['valid'].sum()}, the whole ticket in {before.rows['exact'].sum()} of the same messages."
)

# %% [markdown]
# With so few messages the intervals are wide, and nobody should ship such a model. This section is about keeping track of versions. The package is signed, so
# that a device can check who made it. A [*registry*](../book/glossary.md#registry) lists every version. An [*alias*](../book/glossary.md#alias) is a name in
# it, such as `champion`, that can move from one version to another. The adapted version is registered together with what it was made from, its
# [*lineage*](../book/glossary.md#lineage).

# %%
import mlflow

from slmops_lab import files
from slmops_lab.deployment import package

store = f"sqlite:///{scratch / 'registry.db'}"
registry = mlflow.MlflowClient(store, store)
registry.create_registered_model(desk.task.name)
private, public = package.make_keys(scratch / "keys")
code = [*sorted((settings.ROOT / "slmops_lab").rglob("*.py")), settings.ROOT / "notebooks/01_introduction.py"]
lineage = {"parent": "1.1.0", "data": run.data_sha256, "code": files.sha256_of(*code)[:16], "seed": run.seed}
with measure.timed() as clock["pack and sign"]:
    score = {"exact_match": north.exact, "messages": len(unseen)}
    release = (desk.task.name, "1.1.0+north", "Apache-2.0", score, lineage, private)
    package.pack(deployed["north"], scratch / "pack", *release)


# %%
def register(folder, version, alias, **tags):
    digest = files.sha256_of(*sorted(folder.glob("*.onnx*")))[:16]
    tags = {name: str(value) for name, value in {**tags, "version": version, "weights": digest}.items()}
    made = registry.create_model_version(desk.task.name, folder.as_uri(), tags=tags)
    registry.set_registered_model_alias(desk.task.name, alias, made.version)
    return digest


register(deployed["int8"], "1.0.0", "previous", times_perplexity=int8["points"])
register(deployed["int4"], "1.1.0", "champion", times_perplexity=int4["points"])
on_the_device = register(deployed["north"], "1.1.0+north", "north", exact_match=north.exact, **lineage)
print("A till in the north gives odd answers. All that we know is the hash of its file:", on_the_device)
(known,) = registry.search_model_versions(f"tags.weights = '{on_the_device}'")
known.tags

# %% [markdown]
# With the hash of its file we find the version, its score, and the hashes of its data and code. But from a hash nobody can get the data or the code back: both
# must be stored where they can be found by their hashes.
#
# ## 1.10 One blueprint, unequal devices
#
# *You compute the settings of different devices from one file, and find out what somebody has changed by hand on one of them.*
#
# One file, the blueprint, says what each device should run. A schema refuses names that it does not know, for instance a misspelled one. In the last cell we
# pretend that somebody changed two settings of a till by hand. The difference between what a device should run and what it runs is called
# [*configuration drift*](../book/glossary.md#configuration-drift) (it has nothing to do with the data set of that name).

# %%
import yaml
from pydantic import BaseModel, PositiveInt, ValidationError


class Settings(BaseModel, extra="forbid"):
    version: str | None = None
    cores: PositiveInt | None = None
    memory_mb: PositiveInt | None = None
    max_tokens: PositiveInt | None = None
    keep_log: bool | None = None


class Blueprint(BaseModel, extra="forbid"):
    everywhere: Settings
    kinds: dict[str, Settings]
    regions: dict[str, Settings] = {}


sections.begin("1.10")
blueprint_text = (settings.ROOT / "notebooks/blueprint.yaml").read_text(encoding="utf-8")
print(blueprint_text)

# %%
blueprint = Blueprint.model_validate(yaml.safe_load(blueprint_text))
try:
    Blueprint.model_validate(yaml.safe_load(blueprint_text.replace("max_tokens", "max_token")))
except ValidationError as error:
    print("misspelled:", *[f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()], sep="\n   ")


def render(kind, region=None):
    parts = [blueprint.everywhere, blueprint.kinds[kind], blueprint.regions.get(region, Settings())]
    return {name: value for part in parts for name, value in part.model_dump(exclude_none=True).items()}


# %%
from difflib import unified_diff

print(pandas.DataFrame({"till, north": render("till", "north"), "handheld, south": render("handheld", "south")}), "\n")
wanted = render("till", "north")
reported = wanted | {"version": "1.0.0", "keep_log": True}  # made up: what this till reports
as_lines = (yaml.safe_dump(one).splitlines() for one in (wanted, reported))
print(*unified_diff(*as_lines, "blueprint", "till 0042", lineterm="", n=1), sep="\n")

# %% [markdown]
# ## 1.11 What does it cost?
#
# *You compare paying per token with owning a device, find the number of messages at which both cost the same, and see which assumption matters most.*
#
# For a model in the cloud you pay per token. For a device you pay once, and then for its electricity. Which is cheaper depends on the number of messages. We
# measure how many tokens a message needs, and give a source and a date for each price. Change what you do not believe:
#
# - cheap cloud: DeepSeek-V4.1-Flash outside peak hours, 0.15 dollars per million tokens read, 0.60 written ([DeepSeek](https://api-docs.deepseek.com/quick_start/pricing), November 2026; double at peak hours);
# - older cloud: DeepSeek-V3, 0.27 and 1.10 ([DeepSeek](https://api-docs.deepseek.com/quick_start/pricing-details-usd), February 2025);
# - device: Raspberry Pi 5 with 8 GB, 80 dollars ([Raspberry Pi](https://www.raspberrypi.com/news/introducing-raspberry-pi-5/), at its launch in September 2023; dearer since), without power supply and case, at most about 12 watts;
# - electricity: 0.29 per kilowatt-hour, households of the European Union ([Eurostat](https://ec.europa.eu/eurostat/statistics-explained/index.php?title=Electricity_price_statistics), first half of 2025; in euros, taken as dollars).
#
# This calculation leaves things out. When a prompt begins with the same instruction each time, many cloud services charge far less for that part. A cloud model
# that reasons before it answers writes many more tokens. We let the device run at full power day and night. And we count nobody's working hours.

# %%
sections.begin("1.11")
read_tokens = sum(len(encoding.prompt_ids(tokenizer, chat)) for chat in chats) / len(chats)
written_tokens = sum(len(tokenizer(desk.task.write(record["answer"])).input_ids) for record in asked) / len(asked)
print(f"a message: {read_tokens:.0f} tokens read, {written_tokens:.0f} written")
symbols = "messages read written price_read price_written years device watts kwh"
messages, t_read, t_written, p_read, p_written, years, price, watts, kwh = sympy.symbols(symbols)
cloud = messages * 365 * years * (t_read * p_read + t_written * p_written) / 1_000_000
owned = price + years * 365 * 24 * watts / 1000 * kwh
assumed = {t_read: read_tokens, t_written: written_tokens, years: 3, price: 80, watts: 12, kwh: 0.29}
cheap, older = {p_read: 0.15, p_written: 0.6}, {p_read: 0.27, p_written: 1.10}


def break_even(prices):
    """Messages per day and device above which owning costs less."""
    (count,) = sympy.solve((cloud - owned).subs({**assumed, **prices}), messages)
    return float(count)


cost_guess = widgets.predict(
    "A shop gets 300 messages a day. What costs less in three years?", ["the cloud", "a device"]
)

# %%
shop = 300  # messages that one shop gets on a busy day
choices = {"cheap cloud": cloud.subs({**assumed, **cheap, messages: shop})}
choices |= {"older cloud": cloud.subs({**assumed, **older, messages: shop}), "device": owned.subs(assumed)}
three_years = {name: float(dollars) for name, dollars in choices.items()}
cheapest = min(three_years, key=three_years.get)
cost_guess.answer("a device" if cheapest == "device" else "the cloud")
plots.show(
    plots.bars(three_years, "dollars in three years"),
    takeaway=f"At {shop} messages a day the {cheapest} costs the least",
    alt="Bars: dollars in three years for a cheap cloud model, an older cloud model and a device that one owns.",
)
print(
    f"Owning costs less above {break_even(cheap):,.0f} (cheap cloud) or {break_even(older):,.0f} messages a day (older cloud)."
)
race, _ = runtime.race({"int4": ("genai", deployed["int4"])}, short_chats, warm_up=1)
possible = round(86_400_000 / race["ms"].median(), -4)
print(
    f"Day and night, this machine answers about {possible:,.0f} a day, one at a time. Measure a small device before you promise."
)

# %% [markdown]
# Remember this when an advertisement says that small models are cheaper. Tokens cost so little that a device pays off only above the number of messages that
# the cell prints, or where the machine is there anyway (a till has a processor). There can be reasons other than money: messages that may not leave the
# company, places without a network, answers that a network would bring too late. And the two models are not equally good: measure their quality first, as in
# 1.1.
#
# Move the sliders. Which assumption matters most? The second cell halves and doubles each assumption and shows where the
# [*break-even*](../book/glossary.md#break-even) goes. (Twice the tokens cost as much as twice the price per token, and twice the watts as much as twice the
# price of electricity, so each of these pairs has one row.)

# %%
dials = {
    messages: ("messages per day and device", [30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000], 300),
    t_read: ("tokens read per message", [50, 100, 200, 500, 1_000, 4_000], 200),
    t_written: ("tokens written per message", [10, 20, 50, 100, 500], 20),
    p_read: ("dollars per million tokens read", [0.05, 0.15, 0.27, 1, 2.5, 5], 0.15),
    p_written: ("dollars per million written", [0.1, 0.3, 0.6, 1.1, 4, 10, 25], 0.6),
    price: ("price of the device in dollars", [0, 40, 80, 200, 600, 2_000], 80),
    watts: ("watts", [0, 3, 6, 12, 30, 100], 12),
    kwh: ("dollars per kilowatt-hour", [0.05, 0.1, 0.2, 0.29, 0.4], 0.29),
    years: ("years", [1, 2, 3, 5], 3),
}
widgets.explorer(
    "Cloud or device?",
    dials,
    {"cloud": cloud, "device": owned},
    "dollars",
    (cloud - owned, "The device is cheaper.", "The cloud is cheaper."),
)

# %%
labels = {t_read: "tokens read or their price", t_written: "tokens written or their price", watts: "power or its price"}
labels |= {price: "price of the device", years: "years"}
units = {t_read: "tokens", t_written: "tokens", watts: "watts", price: "dollars", years: "years"}


def moved(symbol, factor):
    return break_even({**cheap, symbol: factor * (assumed | cheap)[symbol]})


factors = {"halved": 0.5, "doubled": 2}
swings = {name: {label: moved(s, factor) for s, label in labels.items()} for name, factor in factors.items()}
order = sorted(labels, key=lambda symbol: -abs(moved(symbol, 2) - moved(symbol, 0.5)))
shown = {labels[symbol]: f"{(assumed | cheap)[symbol]:.3g} {units[symbol]}" for symbol in order}
figure = plots.pairs(swings, shown, "messages per day at which both cost the same")
figure.axes[0].axvline(break_even(cheap), color="#666666", linestyle="--", linewidth=1)
plots.show(
    figure,
    takeaway=f"What moves the break-even of {break_even(cheap):,.0f} the most: {labels[order[0]]}",
    alt="Two marks per assumption: the break-even when it is halved and when it is doubled; a broken line shows it as assumed.",
)

# %% [markdown]
# ### Exercise 1.5: the machine is there anyway
#
# The till has a processor already, so the device costs nothing and only takes 3 watts more than before. From how many messages a day is it cheaper than the
# cheap cloud? The result should be far below the break-even above.

# %% tags=["exercise"]
messages_a_day = ...

# %% tags=["check"]
anyway = {**assumed, **cheap, price: 0, watts: 3}
check(
    "1.5",
    messages_a_day,
    lambda n: abs(n / float(sympy.solve((cloud - owned).subs(anyway), messages)[0]) - 1) < 0.01,
    hint="What you give to `break_even` replaces the assumptions of the same name. Three of them are another kind of price.",
    why="Only the electricity has to be earned then.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# messages_a_day = break_even({**cheap, price: 0, watts: 3})
# ```
# </details>
#
# ## 1.12 Agility: one turn of the loop
#
# *You look at the times that section 1.9 measured.*
#
# How long does it take to bring out a changed model: to prepare the data, train, quantize, test, and pack?

# %%
sections.begin("1.12")
spent = {step: elapsed.seconds for step, elapsed in clock.items()}
minutes_guess.answer(sum(spent.values()) / 60)
plots.show(
    plots.bars(spent, "seconds", digits=1),
    takeaway=f"One turn takes {sum(spent.values()) / 60:.1f} minutes; the longest step: {max(spent, key=spent.get)}",
    alt="Bars: seconds for preparing data, training, quantizing, testing, and packing with a signature.",
)

# %% [markdown]
# A fast turn does not make a good model: look at the scores in 1.9 again. But because one turn takes little time, you can afford many of them, and measure
# each.
#
# ## 1.13 The technology stack
#
# *You let three runtimes continue the same text with the same weights, and see what each is for.*
#
# A [*runtime*](../book/glossary.md#runtime) loads a model and computes its answers. Each of the three below reads the same passage and then writes token by
# token, with all layers in fp32 and the same number of threads. When a model reads, it computes many tokens at once; when it writes, it computes one at a time
# and finds what it needs of the earlier ones in the KV cache. ONNX Runtime computes one step of the graph, so the first function has to pass the cache on and
# to run the loop. PyTorch (with transformers) keeps the cache for you, and ONNX Runtime GenAI runs the loop as well.

# %%
import onnxruntime

sections.begin("1.13")
runtime_guess = widgets.predict("Which of them writes the fastest?", ["PyTorch", "ONNX Runtime", "ONNX Runtime GenAI"])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = settings.threads()
session = onnxruntime.InferenceSession(str(deployed["fp32"] / "model.onnx"), options)


def with_onnxruntime(ids):
    names = [output.name for output in session.get_outputs()]
    empty = torch.zeros(1, config.num_key_value_heads, 0, head_width).numpy()
    past = {given.name: empty for given in session.get_inputs() if given.name.startswith("past_key_values")}
    seen = 0
    while True:
        seen += ids.shape[1]
        feed = {"input_ids": ids.numpy(), "attention_mask": torch.ones(1, seen, dtype=torch.long).numpy()}
        made = dict(zip(names, session.run(None, past | feed)))
        ids = torch.tensor(made.pop("logits")[:, -1:].argmax(-1))
        past = {name.replace("present", "past_key_values"): value for name, value in made.items()}
        yield ids.item()


# %%
served = runtime.GenAIRuntime(deployed["fp32"])
to_write = run.pick(full=24, quick=8)


@torch.inference_mode()
def with_pytorch(ids):
    past = None
    while True:
        made = model(ids, past_key_values=past, use_cache=True)
        ids, past = made.logits[:, -1:].argmax(-1), made.past_key_values
        yield ids.item()


def with_genai(ids):
    length = ids.shape[1] + to_write + 2
    generator = served.start(ids[0].tolist(), length, min_length=length)  # it may not stop early
    while True:
        generator.generate_next_token()
        yield int(generator.get_next_tokens()[0])


# %%
import time
from itertools import islice

writers = {"PyTorch": with_pytorch, "ONNX Runtime": with_onnxruntime, "ONNX Runtime GenAI": with_genai}
wrote, timings = {}, []
for turn in range(run.pick(full=5, quick=3)):
    for name, writer in writers.items():  # they take turns, so that a busy machine hits all alike
        stream, started = writer(passages[:1]), time.perf_counter()
        opening, read_at = next(stream), time.perf_counter()
        wrote[name] = (opening, *islice(stream, to_write))
        times = {"read": 1e3 * (read_at - started), "write": 1e3 * (time.perf_counter() - read_at) / to_write}
        if turn:  # the first one warms up
            timings.append({"runtime": name, **times})
served.close()

# %%
turns_of = pandas.DataFrame(timings).groupby("runtime")
typical, shortest, longest = turns_of.median(), turns_of.min(), turns_of.max()
units = {"read": f"ms to read {passages.shape[1]} tokens (all turns)", "write": "ms per token written (all turns)"}
parts = [
    {"values": typical[kind], "unit": unit, "low": shortest[kind], "high": longest[kind]}
    for kind, unit in units.items()
]
quickest = typical.idxmin()
plots.show(
    plots.panels(*parts),
    takeaway=f"{quickest['read']} reads the fastest, {quickest['write']} writes the fastest",
    alt="Two panels for three runtimes: median time to read a passage and to write a token, each with its range over the turns.",
)
runtime_guess.answer(quickest["write"])
rival = typical["write"].nsmallest(2).index[1]
apart = longest.loc[quickest["write"], "write"] < shortest.loc[rival, "write"]
print(f"Writing: the turns of {quickest['write']} and {rival} {'do not overlap' if apart else 'overlap'}.")
print("All three wrote the same tokens:", len(set(wrote.values())) == 1)

# %% [markdown]
# | runtime | what it is for | runs in this course |
# |---|---|---|
# | PyTorch | training, and trying things out | chapters 1 to 3 |
# | [ONNX Runtime](https://onnxruntime.ai/docs/execution-providers/) | any model as a graph, on many kinds of processors through exchangeable [*execution providers*](../book/glossary.md#execution-provider) | here |
# | [ONNX Runtime GenAI](https://github.com/microsoft/onnxruntime-genai) | the loop around such a graph: cache, search, chat templates | all chapters |
# | [Foundry Local](https://github.com/microsoft/Foundry-Local) | models on one machine as a service, on top of ONNX Runtime GenAI | chapter 4 |
# | [llama.cpp](https://github.com/ggml-org/llama.cpp) | GGUF files, the format in which our base model comes, on processors and graphics cards | no |
# | [LiteRT](https://ai.google.dev/edge/litert) | Google's runtime for Android, iOS, embedded Linux and microcontrollers, once called TensorFlow Lite; language models become [a file for LiteRT-LM](https://huggingface.co/docs/transformers/community_integrations/litert) | no |
# | [ExecuTorch](https://docs.pytorch.org/executorch) | PyTorch's runtime for telephones and microcontrollers, since [PyTorch Mobile ended](https://docs.pytorch.org/docs/stable/mobile_optimizer.html): the model is exported and compiled ahead of time | no |
#
# The figure holds for fp32 on this processor. With fewer bits or on another processor another runtime may be the fastest, so measure with the model and the
# device that you will ship. The course does not run the last three runtimes, because it stays with one chain of tools; for telephones try LiteRT and ExecuTorch
# first.
#
# ## 1.14 The road ahead
#
# *You see how far market forecasts can be trusted, the loop that the next chapters build, and the claims that they will check.*
#
# One forecaster expects that the market for small language models will reach 5.45 billion dollars by 2032 ([MarketsandMarkets, reported by IT
# Reseller](https://itreseller.ch/Artikel/102887/Umsatz_mit_Small_Language_Models_soll_sich_mehr_als_verfuenffachen.html)). Other forecasters give other numbers
# ([Consegic](https://www.consegicbusinessintelligence.com/small-language-model-market),
# [SNS Insider](https://snsinsider.com/reports/small-language-model-market-5947),
# [Intelevo](https://www.intelevoresearch.com/reports/small-language-models-market)); in billions of dollars:

# %%
sections.begin("1.14")
forecasts = pandas.DataFrame(
    {
        "MarketsandMarkets": (2025, 0.93, 2032, 5.45),
        "Consegic": (2025, 8.66, 2035, 43.44),
        "SNS Insider": (2025, 10.61, 2035, 47.1),
        "Intelevo": (2025, 12.5, 2034, 115.0),
    },
    index=["from", "then", "to", "in the end"],
).T
years_ahead = forecasts["to"] - forecasts["from"]
forecasts["growth, % a year"] = 100 * ((forecasts["in the end"] / forecasts["then"]) ** (1 / years_ahead) - 1)
print(f"For 2025, which is over, they differ by a factor of {forecasts['then'].max() / forecasts['then'].min():.0f}.")
forecasts.round(1)

# %% [markdown]
# All forecasters expect growth. But they do not even agree on a year that is over, so do not rely on what they say about a year that is far away. Plan with
# numbers of your own, such as those that you measured in this chapter.
#
# The next chapters put the steps of this one together. They form a loop, because the mistakes of a running model are what the next model has to learn from.
# Many claims are made about what such models save. The course keeps a ledger of some: who says what, which number is promised, and what *your* run measures.
# The next chapters fill it in.

# %%
from slmops_lab.course import claims

steps = {
    "label": "chapter 2",
    "train a student": "chapters 2, 3",
    "quantize": "chapter 4",
    "gate and sign": "chapter 4",
    "roll out": "chapter 4",
    "monitor": "chapter 4",
}
plots.show(
    plots.cycle(steps),
    takeaway="Operating a model is a loop: what monitoring finds is labelled and learned",
    alt="A circle of six boxes with an arrow from each to the next: label, train a student, quantize, gate and sign, roll out, monitor, and back to label.",
)
for claim in claims.LEDGER.values():
    print(f"{claim.claim}\n   goal: {claim.goal:g} {claim.unit}, chapter {claim.chapter[1]} ({claim.source})")

# %% [markdown]
# ## Quiz
#
# One option of each question is right. Choose, and read why.

# %%
from slmops_lab.course import quiz

quiz.ask(1)

# %% [markdown]
# ## Take-aways
#
# - The size of a model is its parameters times the bits of each. The cache grows with every token and every user. Measure both as well.
# - Quantization saves bytes and time at once. Pruning does, too, but the model needs training afterwards. Zeros save something only if a format or a kernel
#   makes use of them.
# - Measure the task, with an interval and a baseline, before and after everything that you do.
# - Test a model where it will run, let few devices go first, and be able to say what runs where and why.
# - Calculate the costs yourself: sometimes the cloud is cheaper, and sometimes there are better reasons for a device than money.
#
# **Further reading:** layers that can go ([Men et al. 2024](https://arxiv.org/abs/2403.03853)); 2:4 sparsity ([Mishra et al. 2021](https://arxiv.org/abs/2104.08378)); experts and
# a compressed cache ([DeepSeek-AI 2024](https://arxiv.org/abs/2412.19437)); rollouts in groups ([Eclipse hawkBit](https://eclipse.dev/hawkbit/rollout-management/)).
#
# **Next:** in [chapter 2](02_distillation.ipynb) the model learns the job and hands it on to a much smaller student.

# %%
shutil.rmtree(scratch)
print(
    f"This chapter took {run.minutes:.1f} minutes and at most {measure.peak_memory() / 1e9:.1f} GB. Minutes per section:"
)
pandas.DataFrame({"minutes": sections.end()}).round(2).T
