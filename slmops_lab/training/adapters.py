"""Adapters: a few trained weights beside a frozen base, as PEFT keeps them.

What a chapter teaches about them stands in its cells; here is what goes wrong, in one sentence, and a fresh process
for a training whose memory is to be measured. Merging and saving are PEFT's own. An adapter costs what it trains:
a few megabytes on disk, and while training 12 bytes a weight besides the base and its activations.
"""

import copy
from pathlib import Path

import psutil
import torch
from peft import PeftConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file

from slmops_lab import measure, settings
from slmops_lab.errors import CourseError
from slmops_lab.evaluation import generation
from slmops_lab.training import base_model, trainer

WEIGHTS = "adapter_model.safetensors"


def attach(model, config):
    """`peft.get_peft_model` on a model, which is changed in place; returns the PEFT model.

    The model forgets the folder that it came from: PEFT would write its path beside every adapter. Raises CourseError
    on a rank below 1 or above what a matrix can have, and on target modules that name nothing in the model; the
    model is left as it was then.
    """
    rank = getattr(config, "r", None)
    if rank is not None and rank < 1:
        raise CourseError(f"Rank {rank} leaves an adapter nothing to learn with: give 1 or more.")
    linear = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    if rank is not None and rank > min((min(m.in_features, m.out_features) for m in linear.values()), default=rank):
        _refuse_rank(model, config, rank)
    model.name_or_path = model.config.name_or_path = ""  # as of a model that was built from its configuration
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        if "odules" not in str(error):
            raise
        known = sorted({name.rsplit(".", 1)[-1] for name in linear})
        wanted = config.target_modules if isinstance(config.target_modules, str) else sorted(config.target_modules)
        raise CourseError(
            f"The target modules {wanted} name nothing in this model: it has {', '.join(known)}."
        ) from None


def _refuse_rank(model, config, rank):
    """Raise CourseError where one of the matrices that config names is too small for the rank."""
    probe = copy.deepcopy(config)
    probe.r = 1  # which matrices it names, at little cost
    adapted = attach(model, probe)
    layers = {n.rsplit(".", 1)[-1]: m for n, m in adapted.named_modules() if isinstance(m, LoraLayer)}
    adapted.unload()
    for name, layer in layers.items():
        if rank > (most := min(layer.in_features, layer.out_features)):
            raise CourseError(
                f"Rank {rank} is more than a matrix of {layer.out_features} x {layer.in_features} can have "
                f"({name}): give at most {most}."
            )


def open_adapter(model, folder):
    """Put a saved adapter on its base, which is changed in place; returns the PEFT model.

    Raises CourseError where the folder holds no whole adapter, and where it was made for another base.
    """
    folder = Path(folder)
    if not (folder / "adapter_config.json").is_file():
        raise CourseError(f"{folder} is no adapter: it has no adapter_config.json.")
    try:
        config = PeftConfig.from_pretrained(folder)
        stored = load_file(folder / WEIGHTS)
    except Exception as error:  # safetensors, JSON and PEFT all raise their own kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CourseError(f"The adapter in {folder} cannot be opened: {reason}") from error
    config.base_model_name_or_path = None  # PEFT would remark on another name
    adapted = attach(model, config)
    here, there = (
        {name.removeprefix("base_model.model."): tuple(weight.shape) for name, weight in weights.items()}
        for weights in (get_peft_model_state_dict(adapted), stored)
    )
    if wrong := [name for name in sorted(here.keys() | there) if here.get(name) != there.get(name)]:
        adapted.unload()
        raise CourseError(
            f"The adapter in {folder} was made for another base: at {wrong[0]} it has "
            f"{there.get(wrong[0], 'nothing')}, this model takes {here.get(wrong[0], 'nothing')}."
        )
    set_peft_model_state_dict(adapted, stored)
    return adapted.eval()


def weights(model):
    """(trained, frozen): how many numbers of a model training moves, and how many it does not.

    A frozen matrix in four bits counts with the numbers it stands for.
    """
    counts = [
        (p.requires_grad, p.quant_state.shape.numel() if hasattr(p, "quant_state") else p.numel())
        for p in model.parameters()
    ]
    return sum(n for moves, n in counts if moves), sum(n for moves, n in counts if not moves)


def tune_apart(base, config, examples, judges, chats, folder, quantization=None, **how):
    """Tune a base in a process of its own, so that its memory can be told; a dict of what came out.

    base: model folder; config: of PEFT, None for full tuning; examples and judges are encoded, the latter tell the
    cost in nats; chats are answered. quantization: see `base_model.open_model`. how: `trainer.Arguments`. Keys:
    seconds (of training), loaded (bytes of the process before it trains, when each weight was read once), peak (the
    most bytes until the training has ended), trained and frozen (weights), stored (bytes on disk), nats, texts.
    Raises what `attach` and `trainer.train` raise.
    """
    with measure.FreshProcess() as apart:
        return apart.call(_tune_here, str(base), config, examples, judges, chats, str(folder), quantization, how)


def _tune_here(base, config, examples, judges, chats, folder, quantization, how):
    settings.set_seed(how.get("seed", 0))
    model, tokenizer = base_model.open_model(base, quantization=quantization)
    if config is not None:
        model = attach(model, config)
    with trainer.held_still([] if how.get("train_embeddings") else trainer.tables(model)):  # as `train` will
        came_out = dict(zip(("trained", "frozen"), weights(model), strict=True))
    generation.nats(model, tokenizer, judges[:1])  # of a mapped file only what was read counts
    came_out["loaded"] = psutil.Process().memory_info().rss
    with measure.timed() as training:
        trainer.train(model, tokenizer, examples, label=None, **how)
    came_out |= {"seconds": training.seconds, "peak": measure.peak_memory()}
    model.save_pretrained(folder)
    came_out |= {"stored": measure.weight_bytes(folder), "nats": generation.nats(model, tokenizer, judges)}
    if quantization is None and settings.fast_bf16():
        model = model.to(torch.bfloat16)  # to read and write it is enough
    return came_out | {"texts": generation.generate(model, tokenizer, chats, label=None) if chats else []}
