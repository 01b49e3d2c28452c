"""Make a model smaller: fewer layers, fewer words, fewer bits; and its answers shorter, in fewer tokens.

Each function returns a copy and leaves the model as it was, but `four_bits`, which rounds in place. It trains
nothing: what a smaller model lost it learns again in `trainer`. Costs a copy of what is kept.
"""

import contextlib
import copy
import itertools
import json
import tempfile
from pathlib import Path

import torch
from torch.nn import ModuleList
from torch.nn.utils import parametrize
from transformers import AddedToken, AutoTokenizer

from slmops_lab.errors import CourseError
from slmops_lab.training import trainer


def keep_layers(model, keep):
    """A copy of a decoder-only model with only the layers `keep` (indices, in order).

    Embeddings, final norm and vocabulary head stay. Raises CourseError for an index that the model does not have, and
    for an empty or repeated selection.
    """
    layers = model.model.layers
    if not keep or len(set(keep)) != len(keep) or not all(0 <= i < len(layers) for i in keep):
        raise CourseError(f"Cannot keep layers {list(keep)} of a model with {len(layers)} layers.")
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = len(keep)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[i] for i in keep]
    # deepcopy's memo leaves the dropped layers uncopied
    small = copy.deepcopy(model, {id(layers): ModuleList(copy.deepcopy(layers[i]) for i in keep)})
    for position, layer in enumerate(small.model.layers):
        layer.self_attn.layer_idx = position  # where the layer finds its keys and values
    for module in small.modules():
        if hasattr(module, "config"):
            module.config = config  # one for all: a switch of the attention kernel has to reach every layer
    small.tie_weights()
    return small


def change_matrices(model, change):
    """A copy of a model in which each weight matrix of its layers is what change(matrix) makes of it.

    Embedding table, vocabulary head and norms stay as they are.
    """
    other = copy.deepcopy(model)
    for module in other.model.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data = change(module.weight.data)
    return other


def spread(total, count, together=1):
    """Indices of `count` of `total` layers: the first `together`, the last, and evenly spaced ones between.

    Layers that stay together read what they have always read. Raises CourseError where count is not from 2 to total,
    and ValueError where together is not from 1 to count - 1.
    """
    if not 2 <= count <= total:
        raise CourseError(f"A student of {count} layers cannot be cut from {total}: take 2 to {total}.")
    if not 1 <= together < count:
        raise ValueError(f"{together} of {count} layers cannot stay together and leave one for the end")
    step = (total - together) / (count - together)
    return [*range(together), *(together - 1 + round(i * step) for i in range(1, count - together + 1))]


def keep_vocabulary(model, tokenizer, texts, first=8000):
    """A copy of model and tokenizer that know only the tokens in use: (model, tokenizer, ids).

    Kept are the tokens that occur in texts, the `first` ids (in a byte-pair vocabulary the single bytes and the most
    frequent merges), all special tokens, and every token that a merge builds one of these from: so a text made of
    kept tokens is cut up exactly as before, and any other text into smaller pieces. ids, (tokens kept,), gives the
    old id of each new one. Raises CourseError where the vocabulary is not made of byte-pair merges (Sennrich et al.
    2016, https://arxiv.org/abs/1508.07909).
    """
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    if rules["model"]["type"] != "BPE":
        raise CourseError(f"A {rules['model']['type']} vocabulary cannot be cut here, only one of byte-pair merges.")
    vocabulary = rules["model"]["vocab"]
    parents = {a + b: (a, b) for a, b in rules["model"]["merges"]}
    special = {token["id"] for token in rules["added_tokens"]}
    texts = list(texts) or [""]  # a tokenizer cannot take none
    used = set(itertools.chain.from_iterable(tokenizer(texts, add_special_tokens=False)["input_ids"]))
    name = {i: token for token, i in vocabulary.items()}
    wanted = [name[i] for i in name if i in used or i < first or i in special or name[i] not in parents]
    kept = set()
    while wanted:
        token = wanted.pop()
        if token not in kept:
            kept.add(token)
            wanted += parents.get(token, ())
    ids = sorted({vocabulary[token] for token in kept} | special)
    new = {old: position for position, old in enumerate(ids)}
    rules["model"]["vocab"] = {token: new[i] for token, i in vocabulary.items() if i in new}
    rules["model"]["merges"] = [pair for pair in rules["model"]["merges"] if "".join(pair) in kept]
    for token in rules["added_tokens"]:
        token["id"] = new[token["id"]]
    small = _with_tables(model, lambda table: table[ids].clone(), new)
    return small, _with_rules(tokenizer, rules), torch.tensor(ids)


def add_phrases(model, tokenizer, phrases):
    """A copy of model and tokenizer that read and write each of the texts as one token: (model, tokenizer).

    The new token's row in the tables is the mean of the rows of the tokens that it replaces, at their mean length:
    the model has to be trained before it writes them. The text stays the same, in fewer tokens, and so in fewer steps:
    what reads the answers sees no difference. Phrases that are one token already are left alone.
    """
    longer = copy.deepcopy(tokenizer)
    parts = {text: tokenizer(text, add_special_tokens=False)["input_ids"] for text in phrases}
    parts = {text: ids for text, ids in parts.items() if len(ids) > 1}
    if not parts:
        return copy.deepcopy(model), longer
    first = len(longer)
    longer.add_tokens([AddedToken(text, normalized=False, special=False) for text in parts])

    def extended(table):
        rows = [table[ids].mean(0) for ids in parts.values()]
        lengths = [table[ids].norm(dim=1).mean() for ids in parts.values()]
        rows = [row * (length / row.norm()) for row, length in zip(rows, lengths, strict=True)]
        return torch.cat([table[:first], torch.stack(rows)])

    return _with_tables(model, extended), longer


def _with_tables(model, change, new=None):
    """Copy of a model whose embedding tables are what change makes of them, special ids renamed by new."""
    changed = {
        id(w): torch.nn.Parameter(change(w.detach()), requires_grad=w.requires_grad) for w in trainer.tables(model)
    }
    small = copy.deepcopy(model, dict(changed))  # deepcopy's memo leaves the large tables uncopied
    embeddings = small.get_input_embeddings()
    size = embeddings.num_embeddings = small.get_output_embeddings().out_features = len(embeddings.weight)
    small.config.vocab_size = small.vocab_size = small.model.vocab_size = size
    if new is None:
        return small
    if embeddings.padding_idx is not None:
        embeddings.padding_idx = new[embeddings.padding_idx]
    for settings in (small.config, small.generation_config):
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            old = getattr(settings, name, None)
            if old is not None:
                setattr(settings, name, [new[i] for i in old] if isinstance(old, list) else new[old])
    return small


def _with_rules(tokenizer, rules):
    """Copy of a tokenizer that follows other rules (the content of tokenizer.json)."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        (Path(folder) / "tokenizer.json").write_text(json.dumps(rules), encoding="utf-8")
        return AutoTokenizer.from_pretrained(folder)


def snap(weight, block=32):
    """A (rows, columns) weight, each number moved to the nearest that int4 can hold.

    Along a row, each block of numbers shares a scale that takes the largest of them to -8; the others become whole
    multiples from -8 to 7 (round to nearest, ties to even; the grid of ONNX Runtime's MatMulNBits).
    """
    columns = weight.shape[1]
    padded = torch.nn.functional.pad(weight, (0, -columns % block))
    blocks = padded.reshape(-1, block)
    low, high = blocks.amin(1, keepdim=True), blocks.amax(1, keepdim=True)  # five times as fast as one aminmax
    scale = torch.where(-low > high, low, high) / -8
    scale = torch.where(scale == 0, 1, scale)
    snapped = (blocks / scale).round_().clamp_(-8, 7).mul_(scale)
    return snapped.reshape(padded.shape)[:, :columns]


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight):
        return snap(weight)

    @staticmethod
    def backward(ctx, gradient):
        return gradient  # as if nothing had been rounded


class _Snapped(torch.nn.Module):
    def forward(self, weight):
        return _StraightThrough.apply(weight)


@contextlib.contextmanager
def four_bits(model):
    """Inside, the model computes with weights snapped to int4 while training moves the exact ones.

    Afterwards the snapped weights are its weights: quantization changes them no more (quantization-aware training
    with a straight-through estimator, Jacob et al. 2018, https://arxiv.org/abs/1712.05877).
    """
    linear = [module for module in model.model.modules() if isinstance(module, torch.nn.Linear)]
    for table in trainer.tables(model):
        table.data = snap(table.data)
    for module in linear:
        parametrize.register_parametrization(module, "weight", _Snapped())
    try:
        yield model
    finally:
        for module in linear:
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
