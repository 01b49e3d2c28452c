"""Supervised training of a causal language model on short answers.

transformers' Trainer does the work; this module adds what makes it fast on two cores: batches of
similar length, bf16 arithmetic on fp32 weights where the processor has it, and the vocabulary head
computed on answer tokens only (for a 135M model with 49,152 words that is a fifth of the work).
"""

import json
import tempfile
import time
from pathlib import Path

import pandas
import torch
from safetensors import safe_open
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import get_last_checkpoint

from slmops_lab import measure, settings
from slmops_lab.errors import CourseError
from slmops_lab.task import encoding

# Tokens x layers whose activations are kept for the backward pass; a larger batch computes them again
# (gradient checkpointing), which keeps the 30-layer model near 4 GB, long messages or short.
KEPT_ACTIVATIONS = 11_000


def answer_loss(model, done, batch):
    """Mean cross-entropy of the answer tokens: the ordinary loss. done is a `Forward`."""
    return cross_entropy(model.get_output_embeddings()(done.states).float(), done.targets)


class _ByLength(LengthGroupedSampler):
    """Similar lengths in a batch, in an order that seed and epoch alone decide: a resumed run finds its place."""

    def __init__(self, batch_size, lengths, seed):
        super().__init__(batch_size, lengths=lengths)
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        self.generator = torch.Generator().manual_seed(self.seed + self.epoch)
        return super().__iter__()


class AnswerTrainer(Trainer):
    """Trainer whose loss is `loss(model, done, batch)`, see `answer_loss`.

    kept: tokens x layers of a batch whose activations are kept; those of a larger one are computed again.
    """

    def __init__(self, *args, loss=answer_loss, kept=KEPT_ACTIVATIONS, **kwargs):
        super().__init__(*args, **kwargs)
        self.loss, self.kept = loss, kept
        self.model_accepts_loss_kwargs = False  # the loss is a mean already
        self.model.activation_checkpointing_enable({"use_reentrant": False})
        self._checkpointed = [m for m in self.model.modules() if isinstance(m, GradientCheckpointingLayer)]

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        layers = self._checkpointed
        for layer in layers:
            layer.gradient_checkpointing = inputs["input_ids"].numel() * len(layers) > self.kept
        # accelerate would switch bf16 on in model.forward, which `forward` goes around
        with self.accelerator.autocast():
            done = encoding.forward(model, inputs)
            loss = self.loss(model, done, inputs)
        return (loss, {"states": done.states}) if return_outputs else loss

    def _get_train_sampler(self, train_dataset=None):
        if self.args.save_strategy == "no" or self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        lengths = [example["length"] for example in self.train_dataset]
        return _ByLength(self.args.train_batch_size * self.args.gradient_accumulation_steps, lengths, self.args.seed)


class _Bar(TrainerCallback):
    """One progress line instead of a log wall."""

    def __init__(self, label):
        self.label, self.bar = label, None

    def on_train_begin(self, args, state, control, **kwargs):
        self.bar = tqdm(total=state.max_steps, desc=self.label, leave=False, disable=self.label is None)

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{float(logs['loss']):.3f}")
            measure.give_back()  # batches of many lengths leave holes, hundreds of MB of them

    def close(self):
        if self.bar is not None:
            self.bar.close()


def arguments(folder, kind=TrainingArguments, **overrides):
    """The course's TrainingArguments; every one of them can be overridden.

    kind may be a class derived from it, such as a trainer of TRL's brings along.
    """
    values = {
        "output_dir": str(folder),
        "use_cpu": True,  # what is trained here is read, scored and exported on the processor, too
        "bf16": settings.fast_bf16(),
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
    return kind(**{**values, **overrides})


def train(
    model,
    tokenizer,
    examples,
    label="training",
    loss=answer_loss,
    held_out=None,
    callbacks=(),
    folder=None,
    kept=KEPT_ACTIVATIONS,
    **overrides,
):
    """Train in place on encoded examples. Returns what `run` returns.

    held_out: encoded examples to judge by, every `eval_steps` steps (column held_out of the result).
    folder: where checkpoints go, every `save_steps` steps; training goes on from the last one there.
    label: of the progress bar, None shows none. kept: see `AnswerTrainer`. callbacks: transformers'
    TrainerCallbacks. overrides are TrainingArguments (num_train_epochs, learning_rate, seed, ...).
    Raises CourseError where there is nothing to learn from, and where the last checkpoint cannot be read.
    """
    if not any(label_ != encoding.IGNORE for e in examples for label_ in e["labels"]):
        raise CourseError("There is no answer to learn from: give examples that have one.")
    usual = {"train_sampling_strategy": "group_by_length"}
    if held_out:
        usual |= {"eval_strategy": "steps", "eval_steps": 10, "label_names": ["labels"], "prediction_loss_only": True}
        usual |= {"per_device_eval_batch_size": 16}
    if folder is not None:
        usual |= {"save_strategy": "steps", "save_steps": 10, "save_total_limit": 2}
    begun = last_checkpoint(folder) if folder is not None else None
    decoder = encoding.decoder(model)
    attention = decoder.config._attn_implementation
    decoder.set_attn_implementation("eager")  # on short messages a tenth faster than fused attention here
    try:
        with tempfile.TemporaryDirectory() as scratch:
            trainer = AnswerTrainer(
                model=model,
                args=arguments(folder or scratch, **{**usual, **overrides}),
                train_dataset=_with_lengths(examples),
                eval_dataset=_with_lengths(held_out) if held_out else None,
                data_collator=encoding.collate(tokenizer),
                callbacks=list(callbacks),
                loss=loss,
                kept=kept,
            )
            return run(trainer, label, begun)
    finally:  # also where somebody stops the cell: the model is left as it was found
        model.activation_checkpointing_disable()
        decoder.set_attn_implementation(attention)


def _with_lengths(examples):
    return [{**e, "length": len(e["input_ids"])} for e in examples]


def last_checkpoint(folder):
    """Path of the newest checkpoint in a folder, or None where there is none.

    Raises CourseError where a file of it is missing or cut off.
    """
    found = get_last_checkpoint(str(folder)) if Path(folder).is_dir() else None
    if found is None:
        return None
    try:
        json.loads((Path(found) / "trainer_state.json").read_text(encoding="utf-8"))
        weights = list(Path(found).glob("*.safetensors"))
        if not weights:
            raise FileNotFoundError("no weights in it")
        for file in weights:
            safe_open(file, "pt")
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            torch.load(Path(found) / name, mmap=name == "optimizer.pt", weights_only=False)
    except Exception as error:  # safetensors, JSON, pickle and torch all raise their own kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0]
        raise CourseError(
            f"The checkpoint {Path(found).name} in {folder} is not whole ({reason}): remove it, and training "
            "goes on from the one before."
        ) from error
    return found


def run(trainer, label="training", checkpoint=None):
    """Run a transformers or TRL trainer behind one progress bar; its model is trained in place.

    Returns a DataFrame of (step, loss), with a column held_out where the trainer judges by examples
    that it does not learn from, and the seconds in its attrs. checkpoint: where to go on from. The
    trainer's optimizer is freed.
    """
    measure.reuse_freed_memory()
    model = trainer.model
    bar = _Bar(label)
    trainer.add_callback(bar)
    trainer.remove_callback(PrinterCallback)
    started = time.monotonic()
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    finally:
        bar.close()
        # accelerate leaves bf16 switched on in model.forward: what is scored later must be what is saved
        for wrapped in filter(None, (model, getattr(trainer, "teacher_model", None))):
            trainer.accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
        trainer.accelerator.free_memory()  # the optimizer's states are twice the model
        trainer.optimizer = trainer.lr_scheduler = None
        model.eval().zero_grad()
        measure.give_back()
    seconds = time.monotonic() - started
    frame = _history(trainer.state.log_history)
    frame.attrs["seconds"] = seconds
    return frame


def _history(log):
    """transformers' log -> DataFrame of step, loss and, where it was taken, held_out."""
    columns = {
        column: {entry["step"]: entry[key] for entry in log if key in entry}
        for column, key in {"loss": "loss", "held_out": "eval_loss"}.items()
    }
    frame = pandas.DataFrame({name: values for name, values in columns.items() if values or name == "loss"})
    return frame.rename_axis("step").sort_index().reset_index()
