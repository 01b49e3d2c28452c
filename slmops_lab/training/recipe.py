"""Chapter 2's recipe as two functions: tune a teacher, distil a student from it.

Which parts it has, and why, chapter 2 shows by comparing them: answers in few tokens, the lower half of the layers
frozen, early stopping on held-out messages; a vocabulary of the tokens in use, a third of the layers fitted to the
teacher's in closed form, text and hidden states as what is learned, the last third of the steps with rounded weights.
It compares nothing and scores nothing. Costs: one pass of all messages through the frozen layers, and per step of two
messages about 0.3 s for the teacher of the default base model and 0.15 s for its student, on two cores with bf16.
"""

import copy
import math
import random
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.nn.functional import cosine_similarity, cross_entropy
from transformers import EarlyStoppingCallback

from slmops_lab import settings
from slmops_lab.errors import CourseError
from slmops_lab.evaluation import generation
from slmops_lab.task import encoding
from slmops_lab.training import base_model, compression, distillation, frozen, trainer

PER_STEP = 2  # messages: many small steps learn more from few messages than few large ones
HIDDEN = 30.0  # what the hidden states weigh beside the text, as chapter 2 chose
FIT_ON = 480  # messages suffice for one matrix a layer


@dataclass(frozen=True)
class Made:
    """A model in the making: what came out, and how (plain values)."""

    model: object
    tokenizer: object
    facts: dict


def example_of(task, record, tokenizer):
    """A record with an answer as a training example, see `encoding.encode`."""
    return encoding.encode(tokenizer, task.messages(record["text"]), task.write(record["answer"]))


def as_reader(model):
    """The model to answer with: a copy in bf16 where this processor computes in it, else itself."""
    return copy.deepcopy(model).to(torch.bfloat16) if settings.fast_bf16() else model


def open_base(task, name):
    """Name of a base model -> (model, tokenizer) that write each piece of the task's answers as one token."""
    model, tokenizer = base_model.open_model(base_model.fetch(name))
    return compression.add_phrases(model, tokenizer, task.phrases(values=True))


@contextmanager
def upper_half(model, tokenizer, examples):
    """Inside, a model is its upper half: yields the examples as the lower half has read them."""
    lower = frozen.read(model, tokenizer, examples, max(1, len(encoding.decoder(model).model.layers) // 2))
    with frozen.upper(model, lower):
        yield lower.examples


def tune(task, base, gold, held_out, epochs=2.0, learning_rate=3e-4, seed=0, folder=None):
    """Train the upper half of a base model on labelled records; returns a `Made`, a teacher.

    base: see `base_model.fetch`. held_out: records to judge by, twice an epoch; the best state is kept, and two in a
    row that are no better end the training. folder: where checkpoints go; a killed training goes on from there. facts:
    steps, the best of them, seconds, messages, rate. Raises CourseError where there is nothing to learn from.
    """
    if not gold or not held_out:
        raise CourseError("A teacher needs labelled messages to learn from, and others to judge it by while it learns.")
    model, tokenizer = open_base(task, base)
    steps = max(1, round(epochs * len(gold) / PER_STEP))
    every = max(1, min(math.ceil(len(gold) / PER_STEP / 2), steps // 2))
    how = {"max_steps": steps, "learning_rate": learning_rate, "seed": seed, "per_device_train_batch_size": PER_STEP}
    how |= {"eval_steps": every, "save_steps": every, "logging_steps": every, "save_total_limit": 2}
    how |= {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": False}
    examples = [example_of(task, record, tokenizer) for record in [*gold, *held_out]]
    with upper_half(model, tokenizer, examples) as read, tempfile.TemporaryDirectory() as scratch:
        how |= {"save_only_model": folder is None}  # without the optimizer nobody can go on, and nobody has to
        how |= {"held_out": read[len(gold) :], "callbacks": [EarlyStoppingCallback(early_stopping_patience=2)]}
        history = trainer.train(model, tokenizer, read[: len(gold)], "teacher", folder=folder or scratch, **how)
    watched = history.dropna(subset="held_out")
    best = int(watched.loc[watched["held_out"].idxmin(), "step"])
    facts = {"steps": int(history["step"].max()), "best_step": best, "messages": len(gold)}
    facts |= {"learning_rate": learning_rate, "seconds": round(history.attrs["seconds"], 1)}
    return Made(model, tokenizer, facts)


def student_layers(depth, layers=None):
    """Indices of the teacher's layers that a student keeps: a third of them, or as many as asked for."""
    layers = layers or max(2, round(depth / 3))
    return compression.spread(depth, layers, together=max(1, layers // 2))


def text_and_states(places, hidden=HIDDEN):
    """The loss of a student that writes the labels' text and points where the teacher's states do.

    Cross entropy per answer token plus `hidden` times 1 - cosine of the states of all tokens, mean over layers (Jiao et
    al. 2020, https://arxiv.org/abs/1909.10351, match them too, by squared distance). places: {layer of the student,
    counted from the end: column of `teacher_states`}. For `trainer.train`.
    """

    def loss(model, done, batch):
        text = cross_entropy(model.get_output_embeddings()(done.states).float(), done.targets)
        student = torch.stack([done.layer(i) for i in places], dim=1).float()
        teacher = batch["teacher_states"][:, list(places.values())].float()
        return text + hidden * (1 - cosine_similarity(student, teacher, dim=-1)).mean()

    loss.hidden_states = True
    return loss


def smaller_vocabulary(task, model, tokenizer, texts, lessons):
    """(model, tokenizer) that know the tokens of texts and of encoded lessons, and positions for twice the longest."""
    seen = [*texts, *(tokenizer.decode(example_of(task, one, tokenizer)["input_ids"]) for one in lessons)]
    small, small_tokenizer, _ = compression.keep_vocabulary(model, tokenizer, seen)
    longest = max(len(small_tokenizer(one)["input_ids"]) for one in seen)
    small.config.max_position_embeddings = min(small.config.max_position_embeddings, max(1024, 2 * longest))
    return small, small_tokenizer


def cut(teacher, keep, fixed):
    """A student of the teacher's layers `keep`; its `fixed` lowest and the embedding table are in four bits already."""
    student = compression.keep_layers(teacher, keep)
    table = student.get_input_embeddings()
    for module in (table, *student.model.layers[:fixed].modules()):
        if module is table or isinstance(module, torch.nn.Linear):
            module.weight.data = compression.snap(module.weight.data)
    return student


def places_of(keep, fixed):
    """(layers of the teacher to study, {layer of the student from its end: column of what was studied})."""
    inside = range(fixed + 1, len(keep))  # what such a layer reads is the work of the one before, which is trained
    columns = {i - 1 - len(keep): column for column, i in enumerate(inside)}
    return [*(keep[i] for i in inside), -1], columns | {-1: len(columns)}


def pace(task, base, records, layers=None, few=32):
    """What this machine takes, measured for half a minute with an untrained model: {name: seconds per message}.

    `read`: the frozen layers read a message; `tune`, `distil`: it is learned from once; `answer`: the teacher answers
    it, in batches. records: labelled ones; `few` of them are enough.
    """
    some = [records[i % len(records)] for i in range(few)]
    model, tokenizer = open_base(task, base)
    examples, took = [example_of(task, record, tokenizer) for record in some], {}
    begun = time.monotonic()
    with upper_half(model, tokenizer, examples) as read:
        took["read"] = (time.monotonic() - begun) / few
        took["tune"] = _per_message(model, tokenizer, read, trainer.answer_loss)
    longest = max(sum(label != encoding.IGNORE for label in one["labels"]) for one in examples)
    reader, chats = as_reader(model), [task.messages(record["text"]) for record in some]
    generation.generate(reader, tokenizer, chats[:4], max_new_tokens=2, label=None)  # makes the kernels
    begun = time.monotonic()
    generation.generate(reader, tokenizer, chats, max_new_tokens=longest, label=None)
    took["answer"] = (time.monotonic() - begun) / few
    keep = student_layers(model.config.num_hidden_layers, layers)
    fixed = max(1, len(keep) // 2)
    studied_layers, places = places_of(keep, fixed)
    studied, _ = distillation.study(model, tokenizer, examples, layers=studied_layers)
    student = cut(model, keep, fixed)
    low = frozen.read(student, tokenizer, studied, fixed)
    with frozen.upper(student, low), compression.four_bits(student):
        took["distil"] = _per_message(student, tokenizer, low.examples, text_and_states(places))
    return took


def _per_message(model, tokenizer, examples, loss):
    """Seconds a message, of the steps between the second and the tenth: a training's beginning takes as long again."""
    how = {"label": None, "loss": loss, "per_device_train_batch_size": PER_STEP}
    _, two, ten = (
        trainer.train(model, tokenizer, examples, max_steps=steps, **how).attrs["seconds"] for steps in (2, 2, 10)
    )
    return max(ten - two, 0.1 * ten) / 8 / PER_STEP


def distil(task, teacher, tokenizer, lessons, texts, layers=None, steps=960, learning_rate=1e-3, seed=0):
    """Train a student of a teacher on records with answers; returns a `Made` whose weights fit into four bits.

    lessons: labelled by people or by the teacher; they are read in one random order. texts: all texts known of the
    task, which decide about the vocabulary. steps: of two messages. facts: layers, tokens, weights, steps, seconds.
    Raises CourseError where there are no lessons and as `compression.spread` does.
    """
    if not lessons:
        raise CourseError("There is nothing to distil from: no labelled message, and none that the teacher labelled.")
    keep = student_layers(teacher.config.num_hidden_layers, layers)
    fixed = max(1, len(keep) // 2)
    studied_layers, places = places_of(keep, fixed)
    teacher, tokenizer = smaller_vocabulary(task, teacher, tokenizer, texts, lessons)
    order = random.Random(seed).sample(list(lessons), len(lessons))
    examples = [example_of(task, record, tokenizer) for record in order]
    studied, _ = distillation.study(teacher, tokenizer, examples, layers=studied_layers)
    student, loss = cut(teacher, keep, fixed), text_and_states(places)
    low, last = frozen.read(student, tokenizer, studied, fixed), max(1, steps // 3)
    how = {"learning_rate": learning_rate, "per_device_train_batch_size": PER_STEP, "warmup_steps": 0.1}
    with frozen.upper(student, low):
        distillation.fit_layers(student, tokenizer, low.examples[:FIT_ON], places)
        history = trainer.train(
            student, tokenizer, low.examples, "student", loss, max_steps=max(1, steps - last), seed=seed, **how
        )
        how["learning_rate"] = learning_rate / 2
        with compression.four_bits(student):
            rounded = trainer.train(
                student, tokenizer, low.examples, "student, rounded", loss, max_steps=last, seed=seed + 1, **how
            )
    facts = {"layers": keep, "tokens": len(tokenizer), "weights": sum(w.numel() for w in student.parameters())}
    facts |= {"lessons": len(lessons), "steps": steps, "learning_rate": learning_rate}
    return Made(student, tokenizer, facts | {"seconds": round(history.attrs["seconds"] + rounded.attrs["seconds"], 1)})
