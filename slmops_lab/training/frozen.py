"""Train only the upper layers of a model, on what the lower ones computed once.

Layers that do not move say the same about a message in every pass, method and trial. `read` lets them read the
examples once, and keeps what they said: hidden size x 2 bytes a token in bf16 (1.2 kB for the base), in memory or in a
file. In `upper` a model is only the layers above, so that `trainer.train`, `generation.nats` and whatever else goes
through `encoding.forward` start from the kept states. The result is the same as with the lower layers frozen. It
chooses no depth and trains nothing; a model answers messages only outside of `upper`.

What it costs, once measured: the base on support_desk (960 lessons, one pass, one seed, 450 test messages) had an exact
match of 71.6 % with all layers trained, 2.4 points less with the lowest third frozen (paired 95 % interval -6.4 to 1.5:
cannot tell), 4.2 less with the lower half (-7.9 to -0.5).
"""

import contextlib
import hashlib
import json
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from slmops_lab import devices, measure, settings
from slmops_lab.errors import CourseError
from slmops_lab.files import atomic_folder
from slmops_lab.task import encoding
from slmops_lab.training import trainer

FILE = "lower_states.safetensors"


@dataclass(frozen=True)
class Lower:
    """Examples as the lowest `depth` layers of one model have read them.

    Each example has `lower_states`, (tokens, hidden size), unless they found no room: `size` is 0 then, and the lower
    layers run in every step. model: hash of the weights that read them; size: bytes of the states.
    """

    depth: int
    examples: list
    model: str
    size: int


def read(model, tokenizer, examples, depth, folder=None, dtype=torch.bfloat16, batch_size=16):
    """Let the lowest `depth` layers read encoded examples, once: a `Lower`.

    folder: where the states are kept for other processes, in `FILE`; a file that is of another model, other examples,
    another depth or number type is said to be and made anew. dtype: torch.float32 keeps every bit, twice the size.
    Where neither memory nor disk takes them, one warning says how much was missing. Raises CourseError on a depth that
    leaves no layer to train or none to freeze, and where there are no examples.
    """
    layers = len(encoding.decoder(model).model.layers)
    if not 1 <= depth < layers:
        raise CourseError(f"Freeze 1 to {layers - 1} of the {layers} layers, not {depth}.")
    if not examples:
        raise CourseError("There are no examples for the frozen layers to read.")
    tokens = [len(example["input_ids"]) for example in examples]
    size = sum(tokens) * encoding.decoder(model).config.hidden_size * dtype.itemsize
    known = {"model": _model_hash(model, depth), "examples": _examples_hash(examples)}
    known |= {"depth": str(depth), "number type": str(dtype)}
    states = None if folder is None else _kept(Path(folder) / FILE, known)
    if states is None:
        free = min(psutil.virtual_memory().available, settings.memory_limit() - psutil.Process().memory_info().rss)
        if size > free / 2:  # the training needs the other half
            warnings.warn(
                f"What the {depth} lowest layers say about {len(examples):,} examples takes {size / 1e9:.2f} GB, and "
                f"{free / 1e9:.2f} GB of memory are free: they are computed in every step instead.",
                stacklevel=2,
            )
            plain = [{key: value for key, value in one.items() if key != "lower_states"} for one in examples]
            return Lower(depth, plain, known["model"], 0)
        states = _computed(model, tokenizer, examples, depth, dtype, batch_size)
        if folder is not None:
            _keep(Path(folder), states, known)
    pairs = zip(examples, states.split(tokens), strict=True)
    return Lower(depth, [{**example, "lower_states": own} for example, own in pairs], known["model"], size)


@contextmanager
def upper(model, lower):
    """Inside, a model is only the layers above those that made `lower`; nothing below them moves.

    Give `lower.examples` to whatever trains or judges. The layers are the model's own, not copies. Raises CourseError
    where the states are of another model: its weights below that depth have changed, or it has others.
    """
    body = encoding.decoder(model).model
    layers = body.layers
    if len(layers) <= lower.depth or _model_hash(model, lower.depth) != lower.model:
        raise CourseError(
            f"These states were not computed by the lowest {lower.depth} layers of this model: let `frozen.read` make "
            "them anew."
        )
    below = [*body.embed_tokens.parameters(), *(p for layer in layers[: lower.depth] for p in layer.parameters())]
    with trainer.held_still(below):
        try:
            if lower.size:
                body.layers = torch.nn.ModuleList(layers[lower.depth :])
            yield model
        finally:
            body.layers = layers


def _computed(model, tokenizer, examples, depth, dtype, batch_size):
    """(all tokens, hidden size): what layer `depth` reads of each example, in their order."""
    with devices.at_work(model) as device:
        return _computed_there(model, tokenizer, examples, depth, dtype, devices.wide(batch_size, device), device)


@torch.inference_mode()
def _computed_there(model, tokenizer, examples, depth, dtype, batch_size, device):
    body, batch_of = encoding.decoder(model).model, encoding.collate(tokenizer)
    plain = [{key: example[key] for key in ("input_ids", "labels")} for example in examples]
    order = sorted(range(len(plain)), key=lambda i: -len(plain[i]["input_ids"]))
    states, layers, norm = [None] * len(plain), body.layers, body.norm
    try:
        body.layers, body.norm = torch.nn.ModuleList(layers[:depth]), torch.nn.Identity()
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            with devices.arithmetic(device) if dtype == torch.bfloat16 else contextlib.nullcontext():
                done = encoding.forward(model, batch_of([plain[i] for i in chosen]), hidden_states=False)
            lengths = [len(plain[i]["input_ids"]) for i in chosen]
            for i, own in zip(chosen, done.layer(-1).to("cpu", dtype).split(lengths), strict=True):
                states[i] = own.clone()
    finally:
        body.layers, body.norm = layers, norm
    measure.give_back()
    return torch.cat(states).clone()


def _model_hash(model, depth):
    """What decides what the lowest layers say: their weights, the embeddings, and the configuration."""
    body = encoding.decoder(model).model
    config = {k: v for k, v in body.config.to_dict().items() if isinstance(v, int | float | dict | list)}
    config = {k: v for k, v in config.items() if not k.endswith("_token_id")}  # a trainer takes the tokenizer's
    for name in ("num_hidden_layers", "use_cache"):  # and no cache
        config.pop(name, None)
    config["layer_types"] = config.get("layer_types", [])[:depth]  # of some models: one for each layer
    parts = [
        body.embed_tokens.weight,
        *(p for layer in body.layers[:depth] for _, p in sorted(layer.named_parameters())),
    ]
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    digest.update(trainer.hash_of(parts).encode())
    return digest.hexdigest()


def _examples_hash(examples):
    return hashlib.sha256(json.dumps([list(example["input_ids"]) for example in examples]).encode()).hexdigest()


def _kept(file, known):
    """The states in a file, or None where there is none of this model and these examples."""
    if not file.is_file():
        return None
    try:
        with safe_open(file, "pt") as stored:
            found, states = stored.metadata() or {}, stored.get_tensor("states")
    except Exception:  # safetensors has its own kind of errors, for a cut file too
        found, states = dict.fromkeys(known), None
    if other := [name for name in known if found.get(name) != known[name]]:
        what = (
            "damaged"
            if states is None
            else f"of another {' and '.join(other)}".replace("another examples", "other examples")
        )
        print(f"The states of frozen layers in {file.parent} are {what}: they are made anew.")
        return None
    return states


def _keep(folder, states, known):
    try:
        with atomic_folder(folder) as draft:
            save_file({"states": states}, draft / FILE, metadata=known)
    except CourseError as error:
        warnings.warn(f"{error} They stay in memory for this run.", stacklevel=3)
