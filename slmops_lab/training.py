"""Supervised training of a causal language model on short answers.

transformers' Trainer does the work; this module adds what makes it fast on two cores: batches of
similar length, bf16 arithmetic on fp32 weights where the processor has it, and the vocabulary head
computed on answer tokens only (for a 135M model with 49,152 words that is a fifth of the work).
"""

import tempfile
import time
from dataclasses import dataclass

import pandas
import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.trainer_callback import PrinterCallback

from slmops_lab import measure

# Tokens x layers whose activations are kept for the backward pass; a larger batch computes them again
# (gradient checkpointing), which keeps the 30-layer model near 4 GB, long messages or short.
KEPT_ACTIVATIONS = 12_000
IGNORE = -100  # PyTorch's and transformers' mark for "no loss here"


def fast_bf16():
    """Whether this machine computes bfloat16 at least as fast as float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def encode(tokenizer, messages, answer):
    """One training example: {'input_ids', 'labels'}, both lists of the same length.

    The prompt's labels are IGNORE: the loss looks at the answer and its end token only.
    """
    prompt = prompt_ids(tokenizer, messages)
    target = tokenizer(answer, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    return {"input_ids": prompt + target, "labels": [IGNORE] * len(prompt) + target}


def prompt_ids(tokenizer, messages):
    """Chat messages -> token ids that end where the model's answer begins."""
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def collate(tokenizer):
    """Function: list of examples -> batch of (batch, longest) tensors, padded on the right.

    Further tensors in an example, such as one row per token, are laid end to end.
    """

    def batch(examples):
        longest = max(len(e["input_ids"]) for e in examples)

        def padded(key, value):
            rows = [e[key] + [value] * (longest - len(e[key])) for e in examples]
            return torch.tensor(rows)

        tensors = {
            "input_ids": padded("input_ids", tokenizer.pad_token_id),
            "labels": padded("labels", IGNORE),
            "attention_mask": torch.tensor(
                [[1] * len(e["input_ids"]) + [0] * (longest - len(e["input_ids"])) for e in examples]
            ),
        }
        for key in set(examples[0]) - {"input_ids", "labels", "length"}:
            tensors[key] = torch.cat([e[key] for e in examples])
        return tensors

    return batch


@dataclass(frozen=True)
class Forward:
    """What a decoder computed for one batch, padding left out, example after example."""

    hidden: tuple  # per layer what it reads, then what the last one wrote: (batch, longest, size)
    real: torch.Tensor  # (batch, longest): which positions are no padding
    answer: torch.Tensor  # (tokens,): which tokens are followed by an answer token
    targets: torch.Tensor  # (answer tokens,): the answer tokens themselves

    def layer(self, index):
        """(tokens, hidden size): what layer `index` reads; -1 is the last state, normalized."""
        return self.hidden[index][self.real]

    @property
    def states(self):
        """(answer tokens, hidden size): the last states, from which answer tokens are predicted."""
        return self.layer(-1)[self.answer]


def _decoder(model):
    """The transformers model, also where PEFT has wrapped it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def forward(model, batch):
    """Run the decoder, without its vocabulary head, on a batch of `collate`: a `Forward`."""
    real = batch["attention_mask"].bool()
    followed = torch.nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=IGNORE)
    out = _decoder(model).model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True
    )
    followed = followed[real]
    answer = followed != IGNORE  # the state at position t predicts token t + 1
    return Forward((*out.hidden_states[:-1], out.last_hidden_state), real, answer, followed[answer])


def answer_loss(model, done, batch):
    """Mean cross-entropy of the answer tokens: the ordinary loss. done is a `Forward`."""
    return cross_entropy(model.get_output_embeddings()(done.states).float(), done.targets)


class AnswerTrainer(Trainer):
    """Trainer whose loss is `loss(model, done, batch)`, see `answer_loss`."""

    def __init__(self, *args, loss=answer_loss, **kwargs):
        super().__init__(*args, **kwargs)
        self.loss = loss
        self.model_accepts_loss_kwargs = False  # the loss is a mean already
        self.model.activation_checkpointing_enable({"use_reentrant": False})
        self._checkpointed = [m for m in self.model.modules() if isinstance(m, GradientCheckpointingLayer)]

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        layers = self._checkpointed
        for layer in layers:
            layer.gradient_checkpointing = inputs["input_ids"].numel() * len(layers) > KEPT_ACTIVATIONS
        # accelerate would switch bf16 on in model.forward, which `forward` goes around
        with self.accelerator.autocast():
            done = forward(model, inputs)
            loss = self.loss(model, done, inputs)
        return (loss, {"states": done.states}) if return_outputs else loss


class _Bar(TrainerCallback):
    """One progress line instead of a log wall."""

    def __init__(self, label):
        self.label, self.bar = label, None

    def on_train_begin(self, args, state, control, **kwargs):
        self.bar = tqdm(total=state.max_steps, desc=self.label, leave=False)

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
        "bf16": fast_bf16(),
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


def train(model, tokenizer, examples, label="training", loss=answer_loss, **overrides):
    """Train in place on encoded examples. Returns what `run` returns.

    overrides are TrainingArguments (num_train_epochs, learning_rate, seed, ...).
    """
    decoder = _decoder(model)
    attention = decoder.config._attn_implementation
    decoder.set_attn_implementation("eager")  # on short messages a tenth faster than fused attention here
    try:
        with tempfile.TemporaryDirectory() as scratch:
            trainer = AnswerTrainer(
                model=model,
                args=arguments(scratch, **{"train_sampling_strategy": "group_by_length", **overrides}),
                train_dataset=[{**e, "length": len(e["input_ids"])} for e in examples],
                data_collator=collate(tokenizer),
                loss=loss,
            )
            return run(trainer, label)
    finally:  # also where somebody stops the cell: the model is left as it was found
        model.activation_checkpointing_disable()
        decoder.set_attn_implementation(attention)


def run(trainer, label="training"):
    """Run a transformers or TRL trainer behind one progress bar; its model is trained in place.

    Returns a DataFrame of (step, loss), with the seconds in its attrs. The trainer's optimizer is freed.
    """
    measure.reuse_freed_memory()
    model = trainer.model
    bar = _Bar(label)
    trainer.add_callback(bar)
    trainer.remove_callback(PrinterCallback)
    started = time.monotonic()
    try:
        trainer.train()
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
    history = [(h["step"], h["loss"]) for h in trainer.state.log_history if "loss" in h]
    frame = pandas.DataFrame(history, columns=["step", "loss"])
    frame.attrs["seconds"] = seconds
    return frame
