"""Supervised training of a causal language model on short answers.

transformers' Trainer does the work; this module adds what makes it fast on two cores (batches of similar
length, bf16 arithmetic on fp32 weights where the processor has it, the vocabulary head on answer tokens
only, the embedding table left as it is unless it is asked for), a memory budget, a mean over tokens where gradients
are accumulated, and checkpoints that know their training. It trains on one device (`devices`), and keeps the weights
that move, their gradients and AdamW's two states in 32 bits. `frozen` reads what lies below the layers that are
trained only once.
"""

import functools
import hashlib
import json
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas
import psutil
import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_pt_utils import DistributedLengthGroupedSampler
from transformers.trainer_utils import EvalLoopOutput

from slmops_lab import devices, measure, settings
from slmops_lab.errors import CourseError
from slmops_lab.files import sha256_of, write_json
from slmops_lab.task import encoding

# Megabytes of activations that a batch may keep for the backward pass: the 30-layer base then trains near 4 GB.
KEPT_ACTIVATIONS = 1200
FINGERPRINT = "arguments.json"  # in a folder of checkpoints: which training they are of
SEAL = "complete.json"  # in a checkpoint, written last: the hashes of its files
# Arguments that change nothing about the weights.
HARMLESS = ("output_dir", "kept", "logging", "save", "eval", "per_device_eval", "report", "disable", "dataloader_pin")


@dataclass
class Arguments(TrainingArguments):
    """TrainingArguments, and two of ours.

    kept: megabytes of activations that a batch may keep, None for KEPT_ACTIVATIONS. train_embeddings=True trains the
    embedding table and the vocabulary head, too: a fifth of the base's weights and of the optimizer's work, for which
    a thousand messages hold a few hundred words.
    """

    kept: float | None = None
    train_embeddings: bool = False


def answer_loss(model, done, batch):
    """Mean cross-entropy of the answer tokens: the ordinary loss. done is a `Forward`."""
    return cross_entropy(model.get_output_embeddings()(done.states).float(), done.targets)


answer_loss.hidden_states = False


def activation_bytes(config, examples, length, attention="eager"):
    """Bytes that one decoder layer keeps for the backward pass of a batch of examples, padded to length tokens.

    Counted in 32 bits on transformers' Llama: ten vectors of the hidden size and four of the intermediate size a
    token. Eager attention keeps its (heads, length, length) probabilities besides, in 32 and in 16 bits; fused
    attention keeps no more than the mask (FlashAttention, Dao et al. 2022, https://arxiv.org/abs/2205.14135).
    """
    linear = 40 * config.hidden_size + 16 * config.intermediate_size
    square = 6 * config.num_attention_heads if attention == "eager" else 4
    return examples * length * (linear + square * length)


def attention_for(config, length, own):
    """'eager', on short messages a tenth faster here, or the model's own attention where eager doubles a layer."""
    eager, fused = (activation_bytes(config, 1, length, kind) for kind in ("eager", own))
    return own if eager > 2 * fused else "eager"


def refuse_what_cannot_fit(model, examples, batch_size, free):
    """Raise CourseError where a training step on the longest example needs more than `free` bytes of activations.

    Layers are recomputed then: a step holds what each of them reads, one layer twice (its activations and their
    gradients), and the logits of the answer, with their gradient, in 32 and 16 bits.
    """
    config = encoding.decoder(model).config
    number, longest = max(enumerate(examples, 1), key=lambda numbered: len(numbered[1]["input_ids"]))
    length, answer = len(longest["input_ids"]), sum(label != encoding.IGNORE for label in longest["labels"])
    one_layer = activation_bytes(config, 1, length, attention_for(config, length, config._attn_implementation))
    alone = 4 * config.hidden_size * length * config.num_hidden_layers + 2 * one_layer + 12 * config.vocab_size * answer
    needed = alone * min(batch_size, len(examples))
    if needed > free:
        cure = "leave it out or shorten it" if alone > free else "lower per_device_train_batch_size"
        raise CourseError(
            f"Example {number} of {len(examples)} has {length:,} tokens: a training step with it needs about "
            f"{needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; {cure}."
        )


@contextmanager
def held_still(parameters):
    """Inside, these parameters get no gradient; afterwards each is as it was."""
    moving = [parameter for parameter in parameters if parameter.requires_grad]
    try:
        for parameter in moving:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in moving:
            parameter.requires_grad_(True)


def tables(model):
    """The embedding table and the vocabulary head: a list of one parameter where they are the same, else of two."""
    base = encoding.decoder(model)
    parts = (base.get_input_embeddings(), base.get_output_embeddings())
    return list({id(part.weight): part.weight for part in parts if hasattr(part, "weight")}.values())


@contextmanager
def rounded_once(model, fast):
    """Inside, where arithmetic is bf16 (fast), matrices that stay as they are are kept in bf16, besides.

    autocast rounds a matrix that gets no gradient anew in each step; the products are the same to the last bit.
    """
    kept = []
    try:
        for module in model.modules() if fast else ():
            if type(module) is torch.nn.Linear and not module.weight.requires_grad:
                kept.append((module, module.weight))
                module.weight = torch.nn.Parameter(module.weight.to(torch.bfloat16), requires_grad=False)
        yield
    finally:
        for module, weight in kept:
            module.weight = weight


def _share(batch, step, over):
    """How much of a step's batches, 0 to 1, one of them is: in answer tokens, or in the sum of another tensor."""
    amounts = [(b[over][:, 1:] != encoding.IGNORE if over == "labels" else b[over]).sum() for b in (batch, *step)]
    return amounts[0] / sum(amounts[1:])


class AnswerTrainer(Trainer):
    """Trainer whose loss is `loss(model, done, batch)`, see `train`."""

    loss_is_scaled_for_ga = True  # `compute_loss` weighs each batch by its share of the step

    def __init__(self, *args, loss=answer_loss, **kwargs):
        super().__init__(*args, **kwargs)
        self.loss = loss
        self.decoder = encoding.decoder(self.model)
        self.attention = self.decoder.config._attn_implementation
        self.model.activation_checkpointing_enable({"use_reentrant": False})
        self._checkpointed = [m for m in self.model.modules() if isinstance(m, GradientCheckpointingLayer)]

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """The batches of one optimizer step; they also are the `num_items_in_batch` that `compute_loss` gets."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        return batches, batches

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """A batch's loss, weighed by its share of an optimizer step, whose batches `num_items_in_batch` holds."""
        self._budget(*inputs["input_ids"].shape)
        # accelerate would switch bf16 on in model.forward, which `forward` goes around
        with self.accelerator.autocast():
            done = encoding.forward(model, inputs, getattr(self.loss, "hidden_states", True))
            terms = self.loss(model, done, inputs)
        terms = terms if isinstance(terms, dict) else {"labels": terms}
        step = num_items_in_batch or [inputs]
        loss = sum(term * _share(inputs, step, over) for over, term in terms.items())
        return (loss, {}) if return_outputs else loss

    def _budget(self, examples, length):
        """Choose attention for a batch, and whether its activations are kept or computed again."""
        config, layers = self.decoder.config, self._checkpointed
        kind = attention_for(config, length, self.attention)
        if kind != config._attn_implementation:
            self.decoder.set_attn_implementation(kind)
        kept = KEPT_ACTIVATIONS if self.args.kept is None else self.args.kept
        for layer in layers:
            layer.gradient_checkpointing = activation_bytes(config, examples, length, kind) * len(layers) > kept * 1e6

    def evaluation_loop(self, dataloader, *args, metric_key_prefix="eval", **kwargs):
        """The loss over all tokens of the data; Trainer's own is a mean of the batches' means."""
        self.model.eval()
        batches = list(dataloader)
        with torch.no_grad():
            loss = sum(self.compute_loss(self.model, b, num_items_in_batch=batches).item() for b in batches)
        return EvalLoopOutput(None, None, {f"{metric_key_prefix}_loss": loss}, len(dataloader.dataset))

    def _get_train_sampler(self, train_dataset=None):
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        # the order depends on seed and epoch alone, so that a resumed run finds its place
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return DistributedLengthGroupedSampler(size, self.train_dataset, 1, 0, self.args.seed)


class _Progress(TrainerCallback):
    """One progress line instead of a log wall."""

    def __init__(self, bar):
        self.bar = bar

    def on_train_begin(self, args, state, control, **kwargs):
        self.bar.reset(state.max_steps)

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{float(logs['loss']):.3f}")


class _Seals(TrainerCallback):
    """Writes into each checkpoint, when it is finished, the hashes of its files."""

    def on_save(self, args, state, control, **kwargs):
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        write_json(checkpoint / SEAL, {f.name: sha256_of(f) for f in sorted(checkpoint.iterdir()) if f.name != SEAL})


@functools.cache
def _say_once(sentence):
    print(sentence, flush=True)


def arguments(folder, kind=TrainingArguments, **overrides):
    """The course's TrainingArguments; every one of them can be overridden.

    kind may be a class derived from it, such as a trainer of TRL's brings along. The first call in a process says
    where the processor computes in 32 bits only.
    """
    on_cpu = overrides.get("use_cpu")
    device = devices.chosen() if on_cpu is None else "cpu" if on_cpu else devices.present()[0]
    if device == "cpu" and not settings.fast_bf16() and "bf16" not in overrides:
        _say_once(
            "This processor has no fast 16-bit arithmetic (bf16): training computes in 32 bits, which takes longer."
        )
    values = {
        "output_dir": str(folder),
        "use_cpu": device == "cpu",
        "bf16": devices.fast_bf16(device),
        # many small steps learn more from a thousand examples than few large ones
        "per_device_train_batch_size": 4,
        "num_train_epochs": 3,
        "learning_rate": 2e-4,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 10,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 5,
        "disable_tqdm": True,
    }
    made = kind(**{**values, **overrides})
    if device == "cuda":
        made._n_gpu = 1  # the first one; transformers would split each small batch over all of them
    return made


def train(
    model, tokenizer, examples, label="training", loss=answer_loss, held_out=None, callbacks=(), folder=None, **how
):
    """Train in place on encoded examples. Returns what `run` returns.

    loss(model, done, batch) gives the mean over a batch's answer tokens, or a dict of such means: the key "labels"
    means over answer tokens, another names the tensor of the batch that weighs them ("attention_mask": all tokens).
    So accumulated batches count as one large one. With `loss.hidden_states = False` done has the last state only.
    held_out: encoded examples to judge by, every `eval_steps` steps (column held_out of the result).
    folder: where checkpoints go, every `save_steps` steps; training goes on from the last one there.
    label: of the progress bar, None shows none. callbacks: transformers' TrainerCallbacks. how: `Arguments`
    (num_train_epochs, learning_rate, seed, kept, ...). Raises CourseError where an example has no answer or is too
    long for the free memory, and where the last checkpoint is not whole or another training's.
    """
    for example in [*examples, *(held_out or ())] or [{"labels": ()}]:
        if all(token == encoding.IGNORE for token in example["labels"]):
            raise CourseError("There is no answer to learn from: give examples, and leave out those that have none.")
    usual = {"train_sampling_strategy": "group_by_length"}
    if held_out:
        usual |= {"eval_strategy": "steps", "eval_steps": 10, "per_device_eval_batch_size": 16}
    if folder is not None:
        usual |= {"save_strategy": "steps", "save_steps": 10, "save_total_limit": 2}
    decoder = encoding.decoder(model)
    attention, caches = decoder.config._attn_implementation, getattr(decoder.config, "use_cache", True)
    try:
        with tempfile.TemporaryDirectory() as scratch, ExitStack() as there:
            device = there.enter_context(devices.at_work(model))
            args = arguments(folder or scratch, Arguments, **{**usual, "use_cpu": device == "cpu", **how})
            allowed = settings.memory_limit() - psutil.Process().memory_info().rss  # a container's, as well
            free = devices.free_bytes(device) or min(psutil.virtual_memory().available, allowed)
            refuse_what_cannot_fit(model, examples, args.per_device_train_batch_size, free)
            still = [] if args.train_embeddings else tables(model)
            with held_still(still):
                trainer = AnswerTrainer(
                    model, args, encoding.collate(tokenizer), examples, held_out, callbacks=list(callbacks), loss=loss
                )
                checkpoint = _resume(trainer, folder) if folder is not None else None
                with rounded_once(model, args.bf16):
                    return run(trainer, label, checkpoint)
    finally:  # also where somebody stops the cell: the model is left as it was found
        model.activation_checkpointing_disable()
        decoder.set_attn_implementation(attention)
        decoder.config.use_cache = caches  # transformers' trainer switches it off, and it would be saved


def hash_of(tensors):
    """Hex SHA-256 of tensors: their bytes, number types and shapes, in order."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(repr((tensor.dtype, tensor.shape)).encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _resume(trainer, folder):
    """Mark a folder as this training's, seal what is saved there; the checkpoint to go on from, if there is one."""
    trainer.add_callback(_Seals)
    learned, judged = (
        hash_of(torch.as_tensor(example[key]) for example in examples or () for key in sorted(example))
        for examples in (trainer.train_dataset, trainer.eval_dataset)
    )
    parameters = sorted(trainer.model.named_parameters())
    shapes = str([(name, tuple(weight.shape), weight.requires_grad) for name, weight in parameters])
    now = {"examples": learned, "held_out": judged, "loss": trainer.loss.__qualname__}
    now["model"] = hashlib.sha256(shapes.encode()).hexdigest()
    now["frozen weights"] = hash_of(weight for _, weight in parameters if not weight.requires_grad)
    now |= {k: v for k, v in trainer.args.to_sanitized_dict().items() if not k.startswith(HARMLESS)}
    file = Path(folder) / FINGERPRINT
    if not any(Path(folder).glob("checkpoint-*")):
        write_json(file, now)
        return None
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if other := [name for name in now if before.get(name) != now[name]]:
        raise CourseError(
            f"The checkpoints in {folder} are of another training ({', '.join(other[:3])}): "
            "remove them, or give another folder."
        )
    return last_checkpoint(folder)


def last_checkpoint(folder):
    """Path of the newest finished checkpoint in a folder, or None; one that a killed process began is passed over.

    Raises CourseError where a file of it is missing or not as it was written. Nothing is unpickled to find out.
    """
    sealed = {int(p.parent.name.rpartition("-")[2]): p for p in Path(folder).glob(f"checkpoint-*[0-9]/{SEAL}")}
    if not sealed:
        return None
    seal = sealed[max(sealed)]
    try:
        hashes = json.loads(seal.read_text(encoding="utf-8"))
        wrong = [name for name, known in hashes.items() if sha256_of(seal.parent / name) != known]
    except (ValueError, OSError) as error:
        wrong = [getattr(error, "filename", None) or SEAL]
    if wrong:
        raise CourseError(
            f"The checkpoint {seal.parent.name} in {folder} is not whole ({Path(wrong[0]).name} is missing or "
            "damaged): remove it, and training goes on from the one before."
        )
    return str(seal.parent)


def run(trainer, label="training", checkpoint=None):
    """Run a transformers or TRL trainer behind one progress bar; its model is trained in place.

    Returns a DataFrame of (step, loss), with a column held_out where the trainer judges by examples that it does
    not learn from, and the seconds in its attrs. checkpoint: where to go on from. The trainer's optimizer is
    freed. From here on the process keeps freed memory until `measure.give_back`: no other place sets that.
    """
    measure.reuse_freed_memory()
    measure.give_back()
    trainer.remove_callback(PrinterCallback)
    started = time.monotonic()
    try:
        with tqdm(desc=label, leave=False, disable=label is None) as bar:
            trainer.add_callback(_Progress(bar))
            trainer.train(resume_from_checkpoint=checkpoint)
    finally:
        # accelerate leaves bf16 switched on in model.forward: what is scored later must be what is saved
        for wrapped in filter(None, (trainer.model, getattr(trainer, "teacher_model", None))):
            whole = trainer.accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
            if not trainer.args.use_cpu and not getattr(whole, "is_quantized", False):
                whole.to("cpu")  # where it is read, scored and exported
        trainer.accelerator.free_memory()  # the optimizer's states are twice the model
        trainer.optimizer = trainer.lr_scheduler = None
        trainer.model.eval().zero_grad()
        measure.give_back()
    seconds = time.monotonic() - started
    log = pandas.DataFrame(trainer.state.log_history).groupby("step").first().reindex(columns=["loss", "eval_loss"])
    frame = log.rename(columns={"eval_loss": "held_out"}).dropna(how="all").reset_index()
    if frame["held_out"].isna().all():
        del frame["held_out"]
    frame.attrs["seconds"] = seconds
    return frame
