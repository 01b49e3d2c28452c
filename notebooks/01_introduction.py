# %% [markdown]
# # 1 Introduction: what changes when the model is small
#
# A model that fits on a laptop is not a toy version of a large one. It is a different thing to operate: you own it, you make it smaller still, you check
# it, you ship it to machines that are not yours to log in to. This chapter tries each part of that once, on a real model, here.
#
# **You will be able to**
#
# - say how much memory a model needs, from 135 million weights to 671 billion, and check the formula;
# - tell what quantization, pruning and sparsity save, and what they cost;
# - hold a model against a budget on a device that is smaller than yours;
# - run it where no network is, and know who else would have liked to call home;
# - trace what a device runs back to data and code;
# - say when owning a device is cheaper than paying per token, and when it is not.
#
# **You need** some minutes on two cores and about 4 GB of free memory: no GPU, no account, no network. If you do not program: read the text, the figures and the tables, move the sliders, skip the code (in the book,
# the button *hide the code* does it for you).

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
# (GGUF, Q4_1), unpacked once into 32-bit numbers: what you measure is the model after that rounding, not the original. **Predict:**
# do you expect a sensible answer from a model thousands of times smaller than the famous ones?

# %%
from slmops_lab.training import base_model as models
from slmops_lab import measure
from slmops_lab.evaluation import baselines, generation, scoring

folder = models.fetch(run.base_model)
model, tokenizer = models.open_model(folder)
question = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
with measure.timed() as elapsed:
    print(generation.generate(model, tokenizer, [question], label=None)[0])

# %%
print(
    f"{measure.weight_bytes(folder) / 1e6:.0f} MB on disk, {elapsed.seconds:.1f} seconds, on {settings.threads()} cores"
)

# %% [markdown]
# It knows some things and writes decent English. Keep that in mind for the surprise in 1.4.
#
# ## 1.2 How much memory does it need?
#
# A model is a long list of numbers. **Predict:** if each takes four bytes, how large is the file?

# %%
parameters = sum(weight.numel() for weight in model.parameters())
expected = parameters * 4
found = measure.weight_bytes(folder)
print(f"{parameters / 1e6:.1f} million parameters x 4 bytes = {expected / 1e6:.1f} MB")
print(f"the file on disk                   = {found / 1e6:.1f} MB")

# %% tags=["nbval-check-output"]
print("the formula is right to one per cent:", abs(found / expected - 1) < 0.01)

# %% [markdown]
# So size is arithmetic: parameters times bytes per parameter. Fewer bits each, or fewer parameters: the course does both.
# (fp32 and bf16 are numbers with a point in 32 and 16 bits, int8 and int4 whole numbers in 8 and 4.)

# %%
from slmops_lab.course import plots

bits = {"fp32": 32, "bf16": 16, "int8": 8, "int4": 4}
sizes = {name: parameters * n / 8 / 1e6 for name, n in bits.items()}
plots.show(
    plots.bars(sizes, "megabytes of weights (calculated)", digits=0),
    takeaway="Half the bits, half the bytes",
    alt="Bar chart of the calculated weight size in fp32, bf16, int8 and int4; each is half of the one before.",
)

# %% [markdown]
# Weights are not all. A *token* is a word or a piece of one, the unit that a model reads and writes. For each that it has read, a model keeps a *key* and a *value* in every layer: the **KV cache**. And while it computes, it holds intermediate results, the
# **activations**; the largest are the scores of every token of the vocabulary (*logits*), if they are kept for each token that was read, as below. The configuration says how many numbers these are:

# %%
config = model.config
tokens = run.pick(full=1024, quick=256)
key_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
key_width *= config.num_key_value_heads
cache = 2 * config.num_hidden_layers * key_width * 4 * tokens  # a key and a value, four bytes each
logits = tokens * config.vocab_size * 4
between = tokens * (2 * config.intermediate_size + 2 * config.hidden_size) * 4
print(f"for {tokens} tokens: cache {cache / 1e6:.1f} MB, logits {logits / 1e6:.1f} MB, between {between / 1e6:.1f} MB")

# %% [markdown]
# **Predict** how far off this is. First the cache itself, then a fresh process that reads as many tokens:

# %%
import torch

from slmops_lab.operations import bench

with torch.inference_mode():
    remembered = model(torch.arange(tokens)[None], logits_to_keep=1).past_key_values
held = sum(layer.keys.nbytes + layer.values.nbytes for layer in remembered.layers)
used = bench.reading(folder, tokens)
print(f"the cache holds {held / 1e6:.1f} MB")
print(
    f"reading added {used['added'] / 1e6:.0f} MB to the process; calculated {(cache + logits + between) / 1e6:.0f} MB"
)

# %% tags=["nbval-check-output"]
print("the formula for the cache is exact:", held == cache)

# %% [markdown]
# The cache is exact, the rest an estimate: a runtime needs buffers of its own. Leave a margin.
#
# ### From 135 million to 671 billion
#
# The same arithmetic works for models that would never fit here. PyTorch can build a model on its *meta* device: every shape, no memory. Six configurations, from the smallest to DeepSeek-V3
# (its own is the default of its class); sources: [SmolLM2](https://arxiv.org/abs/2502.02737), [Qwen2.5](https://arxiv.org/abs/2412.15115), [Phi-4-mini](https://arxiv.org/abs/2503.01743),
# [Llama 3](https://arxiv.org/abs/2407.21783), [Phi-4](https://arxiv.org/abs/2412.08905), [DeepSeek-V3](https://arxiv.org/abs/2412.19437).

# %%
from transformers import DeepseekV3Config, LlamaConfig, Phi3Config, Qwen2Config


def sized(kind, vocabulary, width, inner, layers, heads, key_heads, tied=False):
    names = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers, "pad_token_id": 0}
    names |= {"num_attention_heads": heads, "num_key_value_heads": key_heads, "tie_word_embeddings": tied}
    return kind(vocab_size=vocabulary, **names)


family = {
    "the course's base": config,
    "Qwen2.5-0.5B": sized(Qwen2Config, 151_936, 896, 4_864, 24, 14, 2, tied=True),
    "Phi-4-mini": sized(Phi3Config, 200_064, 3_072, 8_192, 32, 24, 8, tied=True),
    "Llama-3.1-8B": sized(LlamaConfig, 128_256, 4_096, 14_336, 32, 32, 8),
    "Phi-4": sized(Phi3Config, 100_352, 5_120, 17_920, 40, 40, 10),
    "DeepSeek-V3": DeepseekV3Config(),
}

# %% [markdown]
# Two things are special about DeepSeek-V3. It is a *mixture of experts*: each token passes through a few of many; all must be in memory, few are computed. And it caches one
# compressed vector per token and layer instead of keys and values.


# %%
from transformers import AutoModelForCausalLM


def footprint(config):
    with torch.device("meta"):
        counted = {n: w.numel() for n, w in AutoModelForCausalLM.from_config(config).named_parameters()}
    experts = sum(count for name, count in counted.items() if ".experts." in name)
    busy = config.num_experts_per_tok / config.n_routed_experts if experts else 1
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cached = 2 * config.num_key_value_heads * head  # a key and a value
    if getattr(config, "kv_lora_rank", None):
        cached = config.kv_lora_rank + config.qk_rope_head_dim  # one compressed vector
    return {
        "billion weights": sum(counted.values()) / 1e9,
        "used per token": (sum(counted.values()) - experts * (1 - busy)) / 1e9,
        "cache, kB per token": 2 * cached * config.num_hidden_layers / 1e3,  # two bytes per number
        "activations, MB": 512 * (2 * config.intermediate_size + 2 * config.hidden_size) * 2 / 1e6,
    }


# %%
import pandas

shapes = pandas.DataFrame({name: footprint(one) for name, one in family.items()}).T
shapes["fp16, GB"] = 2 * shapes["billion weights"]
shapes["int4, GB"] = shapes["billion weights"] / 2
shapes["cache of 4,096 tokens, GB"] = 4096 * shapes["cache, kB per token"] / 1e6
shapes.round(2)

# %% tags=["nbval-check-output"]
print("DeepSeek-V3 has", round(shapes.loc["DeepSeek-V3", "billion weights"]), "billion weights")

# %% [markdown]
# (Activations: while 512 tokens are read at once, in 16 bits, without the logits.) The cache of a middling model can be larger than that of the largest: DeepSeek-V3 was built to save there.
#
# **Try it:** at which size does a model stop fitting into your telephone? How many people can talk to it at once before the cache is larger than the weights?

# %%
import sympy

from slmops_lab.course import widgets

billions, per_weight, per_token, length, users, memory = sympy.symbols(
    "billions per_weight per_token length users memory"
)
weights_gb, cache_gb = billions * per_weight / 8, per_token * length * users / 1e6
widgets.explorer(
    "Does it fit?",
    {
        billions: ("billion weights", [0.05, 0.135, 0.5, 1.7, 3.8, 8, 14.7, 70, 671], 3.8),
        per_weight: ("bits per weight", [2, 4, 8, 16, 32], 4),
        per_token: ("cache in kB per token (see the table)", [12, 23, 70, 131, 205], 131),
        length: ("tokens of context", [512, 2048, 4096, 8192, 32_768, 131_072], 4096),
        users: ("people at once", [1, 2, 4, 8, 16, 64], 1),
        memory: ("memory of the device in GB", [0.5, 1, 2, 4, 8, 16, 24, 80, 640], 8),
    },
    {"weights": weights_gb, "KV cache": cache_gb},
    "GB",
    (memory - weights_gb - cache_gb, "It fits.", "It does not fit."),
)

# %% [markdown]
# ## 1.3 Three ways to make it smaller
#
# **Quantization** keeps every weight and spends fewer bits on it. **Pruning** throws parts away. **Sparsity** sets weights to zero and leaves the shape as it is. What does each save here, and what does it
# cost? The judge is *perplexity* on a fixed text, test messages of our data set: among how many equally likely tokens the model seems to choose (less is better).

# %%
import math

from slmops_lab.task import data
from torch.nn.functional import cross_entropy

desk = data.load(run.dataset)
text = "\n".join(record["text"] for record in desk.test[:100])
ids = tokenizer(text, return_tensors="pt").input_ids[0]
length_of_one = min(256, len(ids))
passages = ids[: len(ids) // length_of_one * length_of_one].view(-1, length_of_one)[: run.pick(full=4, quick=2)]
learned = "\n".join(record["text"] for record in desk.train[:50])
calibration = tokenizer(learned, return_tensors="pt").input_ids[:, :512]  # to choose by, not to judge by


def perplexity(model):
    with torch.inference_mode():
        nats = [cross_entropy(model(p[None]).logits[0, :-1].float(), p[1:]).item() for p in passages]
    return math.exp(sum(nats) / len(nats))


print(f"perplexity {perplexity(model):.1f} on {passages.numel():,} tokens")

# %% [markdown]
# ### Fewer bits
#
# The model builder of ONNX Runtime GenAI ([Microsoft](https://github.com/microsoft/onnxruntime-genai)) writes the model as a graph with 32, 8 or 4 bits per weight. Each runs in a process of its own, so that its
# memory can be told. **Predict:** does a quarter of the bytes make it four times as fast?

# %%
import tempfile
from pathlib import Path

from scipy.special import log_softmax
from slmops_lab.deployment import export, runtime

scratch = Path(tempfile.mkdtemp())
onnx = {name: export.to_onnx(folder, scratch / name, name, all_logits=True) for name in export.PRECISIONS}


def perplexity_of(served):
    nats = []
    for passage in passages.tolist():
        scores = served.start(passage, len(passage) + 1).get_output("logits")[0]  # (tokens, vocabulary)
        told = log_softmax(scores[:-1], axis=-1)
        nats += [-row[token] for row, token in zip(told, passage[1:], strict=True)]
    return math.exp(sum(nats) / len(nats))


# %%
rows = {}
for name, made in onnx.items():
    served = runtime.GenAIRuntime(made)
    rows[name] = {"MB": measure.weight_bytes(made) / 1e6, "perplexity": perplexity_of(served)}
    served.close()
    measure.give_back()
    speed, peak = bench.speed(made, prompts=(128,), rounds=run.pick(full=2, quick=1))
    rows[name] |= {"tokens/s": speed["per_second"].iloc[0], "memory, MB": peak / 1e6}
quantized = pandas.DataFrame(rows).T
quantized.round(1)

# %% [markdown]
# The files are larger than bits times parameters: each 32 weights share a scale of 32 bits, which makes 5 bits out of 4 and 9 out of 8, and the int8 file keeps the table of token vectors in 32 bits beside an 8-bit copy. So
# weigh the file, not only the formula. As to speed: almost every weight is read for every token, so fewer bytes help even a processor that computes no 4-bit numbers. But compare the columns: speed need not grow as bytes
# shrink. And 4 bits cost quality here; these weights had been rounded to 4 bits once before.
#
# ### Fewer parts
#
# Which parts are not needed? A layer that hardly turns its input is a candidate ([Men et al. 2024](https://arxiv.org/abs/2403.03853)). What to throw away is chosen on training messages, the harm is measured on test messages. **Predict:** how many of the layers can go before the model talks nonsense?

# %%
from itertools import pairwise

from torch.nn.functional import cosine_similarity

with torch.inference_mode():
    states = model(calibration, output_hidden_states=True, logits_to_keep=1).hidden_states
turned = [1 - cosine_similarity(before, after, dim=-1).mean().item() for before, after in pairwise(states)]
least = sorted(range(1, len(turned) - 1), key=lambda layer: turned[layer])  # the first and the last stay
figure = plots.lines({"": (range(len(turned)), turned)}, "layer", "how far it turns its input (1 - cosine)")
plots.show(
    figure,
    takeaway=f"Layer {least[0]} changes the least",
    alt="Line plot over the layers: how much each changes the direction of its input.",
)
del states

# %%
from slmops_lab.training import compression


def tokens_per_second(model, count=12):
    asked = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with measure.timed() as elapsed, torch.inference_mode():
        model.generate(**asked, min_new_tokens=count, max_new_tokens=count, do_sample=False)
    return count / elapsed.seconds


def tried(model):
    speed = max(tokens_per_second(model) for _ in range(2))  # the faster: whatever else ran only slows it
    size = sum(weight.nbytes for weight in model.parameters()) / 1e6
    return {"MB": size, "perplexity": perplexity(model), "tokens/s": speed}


layers = len(turned)
pruned = {"nothing": tried(model)}
for gone in sorted({max(1, round(layers * share)) for share in (0.07, 0.2, 0.4)}):
    keep = [layer for layer in range(layers) if layer not in least[:gone]]
    pruned[f"{len(keep)} of {layers} layers"] = tried(compression.keep_layers(model, keep))

# %% [markdown]
# The same with a finer knife: each layer holds a list of *neurons*. Which matter? Those that are often strongly active and whose output has large weights.

# %%
import copy

from torch.nn import Parameter

activity = []
hooks = [
    layer.mlp.down_proj.register_forward_pre_hook(lambda _, inputs: activity.append(inputs[0].abs().mean((0, 1))))
    for layer in model.model.layers
]
with torch.no_grad():
    model(calibration, logits_to_keep=1)
    matters = [seen * layer.mlp.down_proj.weight.norm(dim=0) for seen, layer in zip(activity, model.model.layers)]
for hook in hooks:
    hook.remove()


# %%
def with_neurons(share):
    small = copy.deepcopy(model)
    for layer, scores in zip(small.model.layers, matters):
        keep = scores.topk(max(1, int(share * len(scores)))).indices.sort().values
        mlp = layer.mlp
        mlp.gate_proj.weight = Parameter(mlp.gate_proj.weight.detach()[keep].contiguous())
        mlp.up_proj.weight = Parameter(mlp.up_proj.weight.detach()[keep].contiguous())
        mlp.down_proj.weight = Parameter(mlp.down_proj.weight.detach()[:, keep].contiguous())
    return small


for share in (0.9, 0.75, 0.5):
    pruned[f"{100 * share:.0f} % of the neurons"] = tried(with_neurons(share))
pruned = pandas.DataFrame(pruned).T
pruned.round(1)

# %% [markdown]
# (These speeds are PyTorch's and include reading the question: compare them with the row *nothing*, not with the table before.) Pruning saves bytes and time without a special format or kernel: what is gone is neither
# stored nor computed. But look at the harm, beside int4's: a model that is not trained again after much pruning is soon ruined. Chapter 2 does that training, and keeps 6 layers.
#
# ### Zeros
#
# Perhaps the smallest weights matter little. Set them to zero and the shape stays: this is *unstructured* sparsity. *2:4* zeroes two of each four neighbours, a pattern whose products the tensor cores of some
# graphics processors compute up to twice as fast ([Mishra et al. 2021](https://arxiv.org/abs/2104.08378)). **Predict** file size and speed, here.


# %%
def smallest(weight, share):
    if share == "2:4":
        fours = weight.view(-1, 4).abs()
        return torch.zeros_like(fours).scatter(1, fours.topk(2, largest=False).indices, 1).view_as(weight).bool()
    return weight.abs() <= weight.abs().flatten().kthvalue(int(share * weight.numel())).values


def with_zeros(share):
    sparse = copy.deepcopy(model)
    for module in sparse.model.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data[smallest(module.weight.data, share)] = 0
    return sparse


# %%
zeroed = {"no zeros": pruned.loc["nothing"].to_dict()}
for share in (0.3, 0.5, "2:4"):
    sparse = None  # one copy at a time
    sparse = with_zeros(share)
    zeroed["2:4" if share == "2:4" else f"{100 * share:.0f} % zeros"] = tried(sparse)
zeroed = pandas.DataFrame(zeroed).T
zeroed.round(1)

# %% [markdown]
# A zero takes four bytes, and is multiplied like any other number. To gain anything one needs a format that leaves it out, or a kernel that skips it. Try a format, on one matrix of the 2:4 model:

# %%
import timeit
import warnings

matrix = sparse.model.layers[0].mlp.down_proj.weight.detach()
with warnings.catch_warnings(action="ignore"):  # PyTorch calls this format a beta
    packed = matrix.to_sparse_csr()  # the numbers that are left, and where they stand
stored = sum(part.nbytes for part in (packed.values(), packed.col_indices(), packed.crow_indices()))
vector = torch.ones(matrix.shape[1], 1)
dense_ms, packed_ms = (min(timeit.repeat(lambda m=m: m @ vector, number=20, repeat=5)) * 50 for m in (matrix, packed))
print(f"{(matrix == 0).float().mean():.0%} zeros: packed {stored / matrix.nbytes:.1f} times the bytes")
print(f"and {packed_ms / dense_ms:.1f} times the time of the dense matrix")
del sparse

# %% [markdown]
# The format made it larger: beside each number of 4 bytes that is left stands its column in 8 bytes, and reading from scattered places is slow. A 2:4 format needs only two bits for each place, but then a *kernel*, the routine that
# computes the product, has to understand it. Note the harm, too: without training again half of the weights were not superfluous, and 2:4, which may not choose freely, does more of it.

# %%
kinds = {"quantization": quantized, "pruning": pruned, "sparsity": zeroed}
points = {name: (table["MB"].tolist(), table["perplexity"].map(math.log).tolist()) for name, table in kinds.items()}
figure, axis = plots.pyplot.subplots()
for (name, (sizes_mb, nats)), marker in zip(points.items(), "os^"):
    axis.plot(sizes_mb, nats, marker, label=name)
axis.set(xlabel="megabytes", ylabel="nats per token (log of perplexity)", xlim=(0, None))
axis.legend(frameon=False)
plots.show(
    figure,
    takeaway=f"int4: {100 * quantized.loc['int4', 'MB'] / quantized.loc['fp32', 'MB']:.0f} % of the bytes for {points['quantization'][1][-1] - points['quantization'][1][0]:+.2f} nats",
    alt="Scatter plot: harm in nats per token against megabytes for quantization, pruning and sparsity.",
)

# %% [markdown]
# ## 1.4 How good is it at our job?
#
# The job of this course: the support desk of a shop for outdoor gear. A customer's message goes in, one line of
# JSON comes out, the *triage ticket*.

# %%
desk.sizes()

# %%
example = desk.test[0]
print(example["text"])
print(desk.task.write(example["answer"]))

# %% [markdown]
# *train* has answers to learn from, *pool* has none (chapter 2), *test* is never learned from, *drift* holds messages of a later year. (What follows speaks of the course's own data set; with another one, read your own messages in its place.)
# The schema of the data folder says which fields there are. Everything else (the prompt, the parser, the score)
# is derived from it, so your own task is another folder, not other code. This is what the model is asked:

# %%
for message in desk.task.messages(example["text"], explain=True):
    print(f"[{message['role']}] {message['content']}\n")

# %% [markdown]
# **Predict:** in how many of a hundred messages will the base model get every field right, without having seen
# one example? This is called *zero-shot*.

# %%
count = 32
records = desk.test[:count]
chats = [desk.task.messages(r["text"], explain=True) for r in records]
texts = generation.generate(model, tokenizer, chats, max_new_tokens=40)
zero_shot = scoring.score(desk.task, records, texts)
zero_shot.table().round(3)

# %% [markdown]
# A share alone says little: `low` and `high` bound the 95 % interval ([Wilson 1927](https://doi.org/10.1080/01621459.1927.10502953)). Look at the answers
# themselves before you judge:

# %%
for said in texts[:3]:
    print(repr(said[:110]))

# %% [markdown]
# The model that knew the capital of France does not do the job: general ability is not the same as reliability
# at one task. That is the gap in which small models live: a narrow job, learned well.
#
# ## 1.5 What must a model beat?
#
# A score needs something to compare with. The cheapest rival only sees which words occur: logistic regression for the
# labels, and the shape of the order numbers seen in training for the rest. It takes seconds and no language model.

# %%
guesses = baselines.keyword_baseline(desk.task, desk.train, [r["text"] for r in desk.test])
keywords = scoring.score(desk.task, desk.test, [desk.task.write(g) for g in guesses])
keywords.table().round(3)

# %%
rivals = {"base model, zero-shot": zero_shot, "keyword baseline": keywords.first(count)}  # the same messages
plots.show(
    plots.shares({name: s.rows["exact"] for name, s in rivals.items()}),
    takeaway=f"Exact match: counting words {100 * keywords.first(count).exact:.0f} %, the untuned model {100 * zero_shot.exact:.0f} %",
    alt="Bar chart of exact match: keyword baseline and zero-shot base model on the same messages.",
)

# %% tags=["nbval-check-output"]
print("keywords beat the untuned model:", keywords.first(count).exact > zero_shot.exact)
print("keywords stay below 80 %:", keywords.exact < 0.8)

# %% [markdown]
# Not a fair fight: the baseline learned from labelled messages, the model saw none. It only says what a tuned model must beat.
#
# The messages were written for this course by a language model (see the data card) so that words alone mislead: *"They're not damaged and they're
# the right poles"*, fury without urgency, numbers that are no order number. Chapter 2 tunes the model on part of the training messages and fits the
# baseline again on the same part.
#
# ## 1.6 A gate, and devices that are not yours
#
# A laptop is a generous place. Software for the edge has to be tested where it will run: with fewer cores and less memory. Here the operating system takes them away from a process: it may use only some cores, and write to only so
# much memory (the course does this on Linux only; elsewhere look at `peak_memory_mb`). A model that needs more fails for real. What this does not imitate is how slow the cores of such a device are: times have to be measured there. A *gate* holds what was measured against a budget; `p95_ms` is the time that 95 of 100
# answers stay under (of so few messages, hardly more than the slowest).

# %%
from slmops_lab.deployment import gate

kinds_of_device = {"till": {"cores": 2, "megabytes": 2_000}, "handheld": {"cores": 1, "megabytes": 500}}
most = {"times the perplexity": 1.5, "p95_ms": 8_000}
budgets = {
    "till": gate.Budget(at_most={**most, "megabytes": 600, "peak_memory_mb": 2_000}),
    "handheld": gate.Budget(at_most={**most, "megabytes": 150, "peak_memory_mb": 500}),
}
short_chats = [desk.task.messages(record["text"]) for record in desk.test[: run.pick(full=3, quick=2)]]


def facts_on(candidate, device):
    facts = quantized.loc[candidate, ["perplexity", "MB"]] / [quantized.loc["fp32", "perplexity"], 1]
    facts = dict(zip(["times the perplexity", "megabytes"], facts))
    try:
        return facts | bench.on_device(onnx[candidate], short_chats, **kinds_of_device[device])
    except settings.CourseError as error:
        print(error)  # no time is known then, and what is not known does not pass
        return facts


# %% [markdown]
# **Predict:** which kind of device takes the fp32 model?

# %%
candidate = "fp32"
for device in budgets:
    print(device)
    print(gate.check(facts_on(candidate, device), budgets, device).round(2), "\n")

# %% [markdown]
# The reason stands there. Mend it: another candidate.

# %%
candidate = "int4"
passed = {device: gate.passes(facts_on(candidate, device), budgets, device) for device in budgets}
passed

# %% [markdown]
# **What did this gate not ask?** Whether the model does the job. 1.4 says that it does not, and still it passes: a gate lets through whatever it does not measure. That is why the gate of
# chapter 4 asks for exact match first. (1.5 times the perplexity is our choice. Set such a line before you measure.)
#
# Nobody should do this by hand. `.github/workflows/course.yml` runs the tests at every change, `.github/workflows/release.yml` is such a gate for a package, and `Containerfile` puts the endpoint of chapter 4 into an
# image, without the tools that only training needs.
#
# ## 1.7 A rollout, in small
#
# Even what passed the gate does not go to all devices at once. A first group, the *canary*, gets it, and its answers are judged. The fleet below is **simulated**; how often each version is right is not: it is the
# keyword baseline, and the same one when it had learned from an eighth of the messages. (It is assumed
# that people judge six answers per device and day. In a company that is work.)

# %%
from slmops_lab.operations import rollout
from slmops_lab.operations.fleet import Fleet

fewer = baselines.keyword_baseline(
    desk.task, desk.train[: max(2, len(desk.train) // 8)], [r["text"] for r in desk.test]
)
careless = scoring.score(desk.task, desk.test, [desk.task.write(g) for g in fewer])
right = {"old": keywords.rows["exact"], "new": careless.rows["exact"]}
print({version: f"{100 * rows.mean():.1f} % right" for version, rows in right.items()})
plan = rollout.Plan(
    groups=[{"name": "canary", "share": 0.05, "messages": 400}, {"name": "everybody", "share": 0.95, "messages": 400}]
)
fleet = Fleet(2_000, plan, right, package_mb=5, seed=run.seed)
controller = rollout.Controller(plan, scratch / "rollout.json", "1.1.0")
history = fleet.run(controller)
print(controller.log.to_string(index=False))

# %%
plots.show(
    plots.lines(
        {"new version": (history["hour"], history["new version"])}, "hours since the start", "devices", markers=False
    ),
    takeaway=f"{controller.state['status']}: at most {history['new version'].max():,} of 2,000 devices ever ran it",
    alt="Line plot over the hours: how many of the simulated devices run the new version.",
)

# %% [markdown]
# The log names the price of finding out: so many answers of the worse version reached customers, in so many hours. A larger canary finds out sooner and harms more people on the way. (*p*: the probability of a
# difference at least this large if the new version were no worse.)
#
# ## 1.8 Privacy: where does a message go?
#
# Nowhere, if the software around the model sends nothing. To see it, run the model where no network is at all: Linux gives a process a network of its own, without any connection, and counts what it tried to send (to itself included).

# %%
from slmops_lab.operations import offline

ASK = """
import sys
from slmops_lab.deployment import runtime
served = runtime.GenAIRuntime(sys.argv[1])
print(served.generate([{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]))
"""
attempts, answer = offline.run(ASK, onnx["int4"])
print("not run: this system gives us no network of our own" if attempts is None else answer)
print("attempts to reach something:", attempts)

# %% [markdown]
# That takes care. Several of the libraries that this course uses report to their makers, or ask a hub, unless told not to. The same small jobs, as the libraries come, and with the course's switches
# (`settings.QUIET`, set by `import slmops_lab`). **Predict** how many of these are quiet by themselves:

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
M, W = {str(onnx["int4"])!r}, {str(scratch)!r} + f"/{{os.getpid()}}"
F = {{"app_data_dir": W, "model_cache_dir": W, "logs_dir": W}}
"""

# %%
from concurrent.futures import ThreadPoolExecutor


def knocks(job, switches):
    return offline.run(START + job, switches=switches, stay=10)[0]  # reports are gathered and sent a little later


with ThreadPoolExecutor(8) as pool:  # they mostly wait
    counted = {
        (library, when): pool.submit(knocks, job, when == "with the switches")
        for library, job in JOBS.items()
        for when in ("as it comes", "with the switches")
    }
tried_to = pandas.Series({key: future.result() for key, future in counted.items()}).unstack()
tried_to.rename_axis("attempts to reach something")

# %% tags=["nbval-check-output"]
seen = tried_to["with the switches"]
print("with the switches nobody calls home:", "not tried on this system" if seen.isna().any() else not seen.any())

# %% [markdown]
# The rows with a zero on the left were quiet by themselves. Do not rank the others: one report that fails is several attempts, several of these libraries load ONNX Runtime, whose attempts count again, and what
# is gathered for longer than these seconds is not seen. And a private model is not yet a private system. What is *logged* counts, too:

# %%
from slmops_lab.deployment.endpoint import observability

observability.redact("Where is TT-48213? Write to jo.field@mail.example or call +44 20 7946 0958.")

# %% [markdown]
# It finds patterns, not people: a name or a street in the text stays. Where that is not enough, log no text.
#
# ## 1.9 Agility: one turn of the loop
#
# How long does it take to change this model? A region writes differently. (We have no such region: messages of a later year stand in for one, or training messages where a data set has none.) Take some of its messages, tune an adapter (chapter 3), quantize, test, and pack
# (chapter 4), with a clock beside it. **Predict** the minutes.

# %%
from peft import LoraConfig
from slmops_lab.task import encoding
from slmops_lab.training import adapters, trainer

region = desk.drift or desk.train
half = len(region) // 2
learn, check_on = region[:half][: run.pick(full=24, quick=8)], region[half:][: run.pick(full=20, quick=8)]
clock = {}
with measure.timed() as clock["prepare the data"]:
    lessons = [encoding.encode(tokenizer, desk.task.messages(r["text"]), desk.task.write(r["answer"])) for r in learn]
with measure.timed() as clock["train"]:
    pupil = adapters.attach(model, LoraConfig(r=8, lora_alpha=64, target_modules="all-linear", task_type="CAUSAL_LM"))
    one_by_one = {"per_device_train_batch_size": 1, "learning_rate": 7e-4}
    trainer.train(pupil, tokenizer, lessons, "tuning", num_train_epochs=2, seed=run.seed, **one_by_one)
    model = pupil.merge_and_unload()

# %%
with measure.timed() as clock["quantize"]:
    model.save_pretrained(scratch / "north")
    tokenizer.save_pretrained(scratch / "north")
    onnx["north"] = export.to_onnx(scratch / "north", scratch / "north-int4", "int4")
with measure.timed() as clock["test"]:
    served = runtime.GenAIRuntime(onnx["north"])
    tested = scoring.score(desk.task, check_on, [served.generate(desk.task.messages(r["text"])) for r in check_on])
    served.close()

# %%
from slmops_lab.deployment import package

private, public = package.make_keys(scratch / "keys")
with measure.timed() as clock["pack and sign"]:
    metrics = {"exact_match": tested.exact, "messages": len(check_on)}
    lineage = {"data_sha256": run.data_sha256, "parent": "1.1.0", "seed": run.seed}
    north = package.pack(
        onnx["north"], scratch / "pack", desk.task.name, "1.1.0+north", "Apache-2.0", metrics, lineage, private
    )
spent = {step: elapsed.seconds for step, elapsed in clock.items()}
plots.show(
    plots.bars(spent, "seconds", digits=0),
    takeaway=f"From messages to a signed package: {sum(spent.values()) / 60:.1f} minutes",
    alt="Bars: seconds for preparing data, training, quantizing, testing and packing.",
)

# %%
tested.table().round(3)

# %% [markdown]
# Compare with 1.4, where the model was even told what the fields are. Fast is not good: look at the widths of the intervals, too. What counts is that a turn is cheap enough to take often.
#
# ## 1.10 Lifecycle: what runs where, and why?
#
# A *registry* remembers every version; an *alias* is a name that moves. Three versions: 8 bits, 4 bits, and the adaptation for the north. None of them is good enough to ship, as 1.4 and the
# table above say: here only the bookkeeping matters.

# %%
import mlflow

from slmops_lab import files

sources = [*sorted((settings.ROOT / "slmops_lab").rglob("*.py")), settings.ROOT / "notebooks/01_introduction.py"]
code = files.sha256_of(*sources)[:16]
store = f"sqlite:///{scratch / 'registry.db'}"
registry = mlflow.MlflowClient(store, store)
registry.create_registered_model(desk.task.name)


def register(folder, version, alias, **tags):
    digest = files.sha256_of(*sorted(folder.glob("*.onnx*")))[:16]
    tags |= {"version": version, "weights": digest, "code": code}
    made = registry.create_model_version(
        desk.task.name, folder.as_uri(), tags={name: str(value) for name, value in tags.items()}
    )
    registry.set_registered_model_alias(desk.task.name, alias, made.version)
    return digest


# %%
register(onnx["int8"], "1.0.0", "previous", perplexity=quantized.loc["int8", "perplexity"])
register(onnx["int4"], "1.1.0", "champion", perplexity=quantized.loc["int4", "perplexity"])
made_from = {"parent": "1.1.0", "data": run.data_sha256, "seed": run.seed, "exact_match": tested.exact}
on_the_device = register(onnx["north"], "1.1.0+north", "north", **made_from)

# %% [markdown]
# A till in the north gives odd answers. All that it can tell is the hash of the file that it runs. From there, back to data, code and measurements:

# %%
print("the till says:", on_the_device)
(known,) = registry.search_model_versions(f"tags.weights = '{on_the_device}'")
known.tags

# %% [markdown]
# A hash names things, it does not keep them: data and code must still lie where somebody can look a hash up.
#
# ### One blueprint, unequal devices
#
# What each device should do stands in one text, and is rendered for it. A schema refuses what nobody meant.

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


text = (settings.ROOT / "notebooks/blueprint.yaml").read_text(encoding="utf-8")
print(text)
blueprint = Blueprint.model_validate(yaml.safe_load(text))


# %%
def render(kind, region=None):
    parts = [blueprint.everywhere, blueprint.kinds[kind], blueprint.regions.get(region, Settings())]
    return {name: value for part in parts for name, value in part.model_dump(exclude_none=True).items()}


pandas.DataFrame({"till, north": render("till", "north"), "handheld, south": render("handheld", "south")})

# %%
try:
    Blueprint.model_validate(yaml.safe_load(text.replace("max_tokens", "max_token")))
except ValidationError as error:
    print(*[f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()], sep="\n")

# %% [markdown]
# Somebody was at a till and "only quickly" changed something. *Configuration drift* is the difference between what should be and what is (nothing to do with the data set of that name):

# %%
from difflib import unified_diff

wanted = render("till", "north")
found = wanted | {"version": "1.0.0", "keep_log": True}  # what the till reports
lines = (yaml.safe_dump(one).splitlines() for one in (wanted, found))
print(*unified_diff(*lines, "blueprint", "till 0042", lineterm="", n=1), sep="\n")

# %% [markdown]
# ## 1.11 What does it cost?
#
# A model in the cloud is paid per token, a device once, and then in electricity. Which is cheaper depends on how much is asked. What a message needs, measured; what things cost, with source and date; change what you
# do not believe:
#
# - cloud, cheap: DeepSeek-V4.1-Flash outside peak hours, 0.15 dollars per million tokens read, 0.60 written ([DeepSeek](https://api-docs.deepseek.com/quick_start/pricing), November 2026; double at peak hours);
# - cloud, older: DeepSeek-V3, 0.27 and 1.10 ([DeepSeek](https://api-docs.deepseek.com/quick_start/pricing-details-usd), February 2025);
# - device: Raspberry Pi 5 with 8 GB, 80 dollars ([Raspberry Pi](https://www.raspberrypi.com/news/introducing-raspberry-pi-5/), at its launch in September 2023; dearer since), without power supply and case, at most about 12 watts;
# - electricity: 0.29 per kilowatt-hour, households of the European Union ([Eurostat](https://ec.europa.eu/eurostat/statistics-explained/index.php?title=Electricity_price_statistics), first half of 2025; in euros, taken as dollars).
#
# The sums leave things out: an instruction that is the same each time costs the cloud's customer far less from the second time on; a cloud model that *thinks* before it answers writes many more tokens; the device is taken to run
# at full power day and night; nobody's working hours are in it.

# %%
read = sum(len(encoding.prompt_ids(tokenizer, chat)) for chat in chats) / len(chats)
written = sum(len(tokenizer(desk.task.write(r["answer"])).input_ids) for r in records) / len(records)
print(f"a message: {read:.0f} tokens read, {written:.0f} written")

# %%
names = "messages read written price_read price_written years device watts kwh"
messages, t_read, t_written, p_read, p_written, years, price, watts, kwh = sympy.symbols(names)
cloud = messages * 365 * years * (t_read * p_read + t_written * p_written) / 1_000_000
owned = price + years * 365 * 24 * watts / 1000 * kwh
assumed = {t_read: read, t_written: written, years: 3, price: 80, watts: 12, kwh: 0.29}
cheap, older = {p_read: 0.15, p_written: 0.6}, {p_read: 0.27, p_written: 1.10}


def break_even(prices):
    """Messages per day and device above which owning costs less."""
    (count,) = sympy.solve((cloud - owned).subs({**assumed, **prices}), messages)
    return float(count)


{"cheap cloud": round(break_even(cheap)), "older cloud": round(break_even(older))}

# %%
shop = 300  # messages that one shop gets on a busy day
three_years = {
    "the cheap cloud": float(cloud.subs({**assumed, **cheap, messages: shop})),
    "the older cloud": float(cloud.subs({**assumed, **older, messages: shop})),
    "a device of one's own": float(owned.subs(assumed)),
}
plots.show(
    plots.bars(three_years, "dollars in three years"),
    takeaway=f"At {shop} messages a day the winner is {min(three_years, key=three_years.get)}",
    alt="Bars: dollars in three years for a cheap cloud model, an older cloud model and a device of one's own.",
)

# %% [markdown]
# Read that twice, it is not what advertisements for small models say: where a machine serves one shop with short messages, tokens are so cheap that the device does not pay for itself. It pays with volume, where the machine is there anyway (a till has a
# processor), or where money is not the reason: messages that may not leave, no network, an answer that waits for no line. And the two models are not equally good: the quality has to be judged first, by 1.4 and 1.5.

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
    {"cloud": cloud, "device of one's own": owned},
    "dollars",
    (cloud - owned, "The device is cheaper.", "The cloud is cheaper."),
)

# %% [markdown]
# Which assumption decides? Halve and double each, and see where the break-even goes:

# %%
base = {**assumed, **cheap}
swings = {"halved": {}, "doubled": {}}
for symbol in base:
    for name, factor in (("halved", 0.5), ("doubled", 2)):
        there = sympy.solve((cloud - owned).subs({**base, symbol: base[symbol] * factor}), messages)[0]
        swings[name][dials[symbol][0]] = float(there)
width = {name: abs(swings["doubled"][name] - swings["halved"][name]) for name in swings["halved"]}
order = sorted(width, key=width.get, reverse=True)
values = {dials[symbol][0]: f"{value:.3g}" for symbol, value in base.items()}
assumptions = {name: values[name] for name in order}
plots.show(
    plots.pairs(swings, assumptions, "messages per day at which owning costs the same"),
    takeaway=f"The break-even depends most on {order[0]}",
    alt="Two marks per assumption: the break-even when it is halved and when it is doubled; in brackets what was assumed.",
)

# %% [markdown]
# Could one device answer so many? We have no Raspberry Pi here. This machine, with the short instruction that a tuned model needs, takes:

# %%
race, _ = runtime.race({"int4": ("genai", onnx["int4"])}, short_chats, warm_up=1)
per_day = 86_400_000 / race["ms"].median()
print(f"{race['ms'].median():.0f} ms per message, at most {per_day:,.0f} messages a day, one at a time")

# %% [markdown]
# Expect a small device to be slower, and measure it there before you promise anything.
#
# ## 1.12 The stack
#
# The same weights in three runtimes, reading the same tokens at once. (The first six layers only, so that all three find room in one process.) **Predict** the order.

# %%
import onnxruntime

model = compression.keep_layers(model, range(min(6, layers))).eval()
model.save_pretrained(scratch / "six")
tokenizer.save_pretrained(scratch / "six")
six = export.to_onnx(scratch / "six", scratch / "six-fp32", "fp32")
measure.give_back()
prompt = passages[:1, :128]
session = onnxruntime.InferenceSession(str(six / "model.onnx"))
heads = config.num_key_value_heads
feed = {"input_ids": prompt.numpy(), "attention_mask": torch.ones_like(prompt).numpy()}
for wanted_input in session.get_inputs():
    if wanted_input.name.startswith("past_key_values"):  # nothing was read before
        feed[wanted_input.name] = torch.zeros(1, heads, 0, key_width // heads).numpy()
served = runtime.GenAIRuntime(six)
readers = {
    "PyTorch": lambda: model(prompt),
    "ONNX Runtime": lambda: session.run(None, feed),
    "ONNX Runtime GenAI": lambda: served.start(prompt[0].tolist(), 200),
}

# %%
taken = {name: [] for name in readers}
with torch.inference_mode():
    for turn in range(run.pick(full=8, quick=3)):
        for name, reader in readers.items():  # they take turns
            with measure.timed() as elapsed:
                reader()
            if turn:  # the first warms up
                taken[name].append(1e3 * elapsed.seconds)
served.close()
medians = {name: sorted(times)[len(times) // 2] for name, times in taken.items()}
plots.show(
    plots.bars(medians, f"milliseconds to read {prompt.shape[1]} tokens (median, fp32)"),
    takeaway=f"Fastest at reading here: {min(medians, key=medians.get)}",
    alt="Bars: milliseconds to read the same tokens with PyTorch, ONNX Runtime and ONNX Runtime GenAI.",
)
del session

# %% [markdown]
# | what | what it is for |
# |---|---|
# | PyTorch | training, and trying things out |
# | ONNX Runtime | any model as a graph, on many kinds of processor |
# | ONNX Runtime GenAI | the loop around such a graph that generates: cache, search, templates |
# | Foundry Local | models on one device as a service, on top of the former (chapter 4) |
# | [llama.cpp](https://github.com/ggml-org/llama.cpp) | GGUF files, the format in which our base came, on processors and graphics cards |
# | [LiteRT](https://ai.google.dev/edge/litert) | what was TensorFlow Lite: Google's runtime for telephones and microcontrollers |
# | [ExecuTorch](https://docs.pytorch.org/executorch) | what PyTorch offers for devices since [PyTorch Mobile ended](https://docs.pytorch.org/docs/stable/mobile_optimizer.html): a program exported ahead of time |
#
# This was reading only, in 32 bits, on this processor: writing, fewer bits or another processor may give another order, so measure what you will ship. LiteRT, ExecuTorch and llama.cpp are not run here: the course stays with one chain of
# tools. In a project that targets telephones the first two would be the first to try.
#
# ## 1.13 The road ahead
#
# "5.45 billion dollars by 2032" is what one forecaster says of the market for small models ([MarketsandMarkets, reported by IT Reseller](https://itreseller.ch/Artikel/102887/Umsatz_mit_Small_Language_Models_soll_sich_mehr_als_verfuenffachen.html)). Others
# ([Consegic](https://www.consegicbusinessintelligence.com/small-language-model-market), [SNS Insider](https://snsinsider.com/reports/small-language-model-market-5947),
# [Intelevo](https://www.intelevoresearch.com/reports/small-language-models-market)) say other things, in billions of dollars:

# %%
forecasts = pandas.DataFrame(
    {
        "MarketsandMarkets": (2025, 0.93, 2032, 5.45),
        "Consegic": (2025, 8.66, 2035, 43.44),
        "SNS Insider": (2025, 10.61, 2035, 47.1),
        "Intelevo": (2025, 12.5, 2034, 115.0),
    },
    index=["from", "then", "to", "in the end"],
).T
forecasts["growth, % a year"] = 100 * (
    (forecasts["in the end"] / forecasts["then"]) ** (1 / (forecasts["to"] - forecasts["from"])) - 1
)
print(f"they differ by a factor of {forecasts['then'].max() / forecasts['then'].min():.0f} about 2025, which is over")
forecasts.round(1)

# %% [markdown]
# Who cannot agree on the past does not know the future to three digits. All of them expect growth; plan with your own numbers, such as those above. What the course does with them:

# %%
steps = {
    "label": "chapter 2",
    "train a student": "chapters 2, 3",
    "quantize": "chapter 4",
    "gate and sign": "chapter 4",
    "roll out": "chapter 4",
    "watch": "chapter 4",
}
plots.show(
    plots.cycle(steps),
    takeaway="Operating a model is a loop: what is watched is labelled again",
    alt="A circle of six steps with arrows: label, train a student, quantize, gate and sign, roll out, watch, and back to label.",
)

# %% [markdown]
# People say a lot about what this loop gains. The course keeps a ledger: each claim, a goal, and what *your* run
# measured. The rows fill up as you go.

# %%
from slmops_lab.course import claims

pandas.DataFrame(
    [
        {"claim": c.claim, "goal": f"{c.goal:g} {c.unit}", "chapter": c.chapter, "source": c.source}
        for c in claims.LEDGER.values()
    ]
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
from slmops_lab.course.exercises import check

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
# Give a pair. `intervals.proportion` takes a list of booleans. The second should be about a third of the first.

# %% tags=["exercise"]
from slmops_lab.evaluation import intervals

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
#     interval = intervals.proportion([True] * right + [False] * (total - right))
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
# ### Exercise 1.5: a mixture of experts
#
# What share of its weights does DeepSeek-V3 use for a token? Take it from `shapes`; it should be about a twentieth.

# %% tags=["exercise"]
share_in_use = ...

# %% tags=["check"]
largest = shapes.loc["DeepSeek-V3"]
check(
    "1.5",
    share_in_use,
    lambda share: abs(share - largest["used per token"] / largest["billion weights"]) < 0.001,
    hint="shapes.loc['DeepSeek-V3'] has 'used per token' and 'billion weights'.",
    why="It computes like a model of 37 billion, and needs the memory of one of 671 billion.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# share_in_use = shapes.loc["DeepSeek-V3", "used per token"] / shapes.loc["DeepSeek-V3", "billion weights"]
# ```
# </details>
#
# ### Exercise 1.6: the machine is there anyway
#
# From how many messages a day does the device win against the cheap cloud, if it costs nothing (a till has a processor) and takes 3 watts more than before?

# %% tags=["exercise"]
messages_a_day = ...

# %% tags=["check"]
anyway = {**assumed, **cheap, price: 0, watts: 3}
check(
    "1.6",
    messages_a_day,
    lambda n: abs(n / float(sympy.solve((cloud - owned).subs(anyway), messages)[0]) - 1) < 0.01,
    hint="break_even takes what replaces the assumptions: give it {**cheap, price: 0, watts: 3}.",
    why="Then only electricity has to be earned.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# messages_a_day = break_even({**cheap, price: 0, watts: 3})
# ```
# </details>
#
# ## Quiz
#
# 1. A model has 3.8 billion parameters. How large is it in int4?
# 2. Why compare with a keyword baseline at all?
# 3. Two models score 71 % and 73 % on 100 messages. Which one is better?
# 4. Half of a model's weights are zero. Is its file half as large?
# 5. A model passed the gate on your laptop. May it go to a handheld?
# 6. A library is told not to report anything. How do you know that it does not?
#
# <details><summary>Answers</summary>
#
# 1. About 1.9 GB by the formula. With a 32-bit scale for every 32 weights, as in 1.3, about 2.4 GB.
# 2. If counting words does the job, a language model is a waste; if it nearly does, small gains are not worth much.
# 3. Nobody knows: a difference of two in a hundred is well within chance. And models that answered the same messages are compared message by message (chapter 2), not
#    interval with interval.
# 4. No: a zero is stored like any other number. And a format that leaves zeros out must note where the others stand; in 1.3 that cost more than it saved.
# 5. Not before it passed there, with that memory and those cores.
# 6. Run it where no network is, and count what it tries.
#
# </details>
#
# ## Take-aways
#
# - Size is parameters times bits; the cache grows with every token and every user. Check both against the real thing.
# - Quantization pays at once, pruning after training again, zeros only where something uses them.
# - Measure the task, with an interval and a baseline, before and after everything you do.
# - Test where it will run, let few go first, and be able to say what runs where, and why.
# - Do your own sums: sometimes the cloud is cheaper, and sometimes money is not the reason.
#
# **Further reading:** layers that can go ([Men et al. 2024](https://arxiv.org/abs/2403.03853)); 2:4 ([Mishra et al. 2021](https://arxiv.org/abs/2104.08378)); experts and a compressed cache
# ([DeepSeek-AI 2024](https://arxiv.org/abs/2412.19437)); rollouts in groups ([Eclipse hawkBit](https://eclipse.dev/hawkbit/rollout-management/)).

# %%
import shutil

shutil.rmtree(scratch)
print(f"This chapter took {run.minutes:.1f} minutes and at most {measure.peak_memory() / 1e9:.1f} GB.")

# %% [markdown]
# **Next:** in [chapter 2](02_distillation.ipynb) the model learns the job and hands it on to a much smaller student.
