"""Chapter 2's recipe as two functions: tune a teacher, distil a student from it.

Which parts it has, and why, chapter 2 shows by comparing them: answers in few tokens, the lower half of the layers
frozen; a vocabulary of the tokens in use, part of the layers fitted to the teacher's in closed form, text and hidden
states as what is learned, the last third of the steps with rounded weights. Two things differ, for whoever has few
labels and wants the best model: no message is held out (`tune`), and the student keeps half of the layers, not a third.
It compares nothing and scores nothing. Costs: one pass of all messages through the frozen layers, and per step of two
messages about 0.3 s for the teacher of the default base model and 0.15 s for its student, on two cores with bf16.
"""

import copy
import math
import random
import time
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.nn.functional import cosine_similarity, cross_entropy

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


def tune(task, base, gold, epochs=2.0, learning_rate=2e-4, seed=0, folder=None):
    """Train the upper half of a base model on labelled records; returns a `Made`, a teacher.

    base: see `base_model.fetch`. folder: where checkpoints go, twice an epoch; a killed training goes on from there.
    facts: steps, seconds, messages, rate. The rate falls to 0, and the last state is the teacher. Raises CourseError
    where there is nothing to learn from.

    Why no messages are held out to choose the best state, as in chapter 2: with few labels the loss rises again long
    before the answers are at their best. Measured once, with 400 labelled intents of support_desk: of 600 other
    messages the state with the lowest loss on a sixth of them had 66.3 % right, the last state 77.5, and that of a
    training on all 400 84.3 (18.0 points more than the first, paired 95 % interval 13.9 to 22.1).
    """
    if not gold:
        raise CourseError("A teacher needs labelled messages to learn from.")
    model, tokenizer = open_base(task, base)
    steps = max(1, round(epochs * len(gold) / PER_STEP))
    every = max(1, min(math.ceil(len(gold) / PER_STEP / 2), steps // 2))
    how = {"max_steps": steps, "learning_rate": learning_rate, "seed": seed, "per_device_train_batch_size": PER_STEP}
    how |= {"save_steps": every, "logging_steps": every}
    examples = [example_of(task, record, tokenizer) for record in gold]
    with upper_half(model, tokenizer, examples) as read:
        history = trainer.train(model, tokenizer, read, "teacher", folder=folder, **how)
    facts = {"steps": int(history["step"].max()), "messages": len(gold), "learning_rate": learning_rate}
    return Made(model, tokenizer, facts | {"seconds": round(history.attrs["seconds"], 1)})


def student_layers(depth, layers=None):
    """Indices of the teacher's layers that a student keeps: half of them, or as many as asked for."""
    layers = layers or max(2, depth // 2)
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
    _fewer_positions(small.config, max(1024, 2 * longest))
    return small, small_tokenizer


def _fewer_positions(config, most):
    """Let a model know `most` positions: a runtime plans its memory for them. Where they are scaled, they stay."""
    own, first = config.max_position_embeddings, getattr(config, "original_max_position_embeddings", None)
    if first in (None, own):  # Phi-3 tells by the difference of the two whether positions are scaled
        config.max_position_embeddings = min(own, most)
        if first is not None:
            config.original_max_position_embeddings = config.max_position_embeddings


def cut(teacher, keep, fixed):
    """A student of the teacher's layers `keep`; its `fixed` lowest and its tables are in four bits already."""
    student = compression.keep_layers(teacher, keep)
    linear = [m.weight for m in student.model.layers[:fixed].modules() if isinstance(m, torch.nn.Linear)]
    for weight in (*trainer.tables(student), *linear):
        weight.data = compression.snap(weight.data)
    return student


def places_of(keep, fixed):
    """(layers of the teacher to study, {layer of the student from its end: column of what was studied})."""
    inside = range(fixed + 1, len(keep))  # what such a layer reads is the work of the one before, which is trained
    columns = {i - 1 - len(keep): column for column, i in enumerate(inside)}
    return [*(keep[i] for i in inside), -1], columns | {-1: len(columns)}


def pace(task, base, records, layers=None, few=32):
    """What this machine takes, measured for half a minute with an untrained model: {name: seconds per message}.

    `read`: the frozen layers read a message; `tune`, `distil`: it is learned from once; `answer`: the teacher answers
    it, in batches. records: labelled ones; `few` of about their mean length are enough, as batches hold messages of
    similar length.
    """
    mean = sum(len(record["text"]) for record in records) / len(records)
    usual = sorted(records, key=lambda record: abs(len(record["text"]) - mean))
    some = [usual[i % len(usual)] for i in range(few)]
    model, tokenizer = open_base(task, base)
    examples, took = [example_of(task, record, tokenizer) for record in some], {}
    depth = max(1, model.config.num_hidden_layers // 2)
    took["read"] = _beyond_half(lambda count: frozen.read(model, tokenizer, examples[:count], depth), few)
    with upper_half(model, tokenizer, examples) as read:
        took["tune"] = _per_message(model, tokenizer, read, trainer.answer_loss)
    longest = max(sum(label != encoding.IGNORE for label in one["labels"]) for one in examples)
    reader, chats = as_reader(model), [task.messages(record["text"]) for record in some]
    how = {"max_new_tokens": longest, "batch_size": few // 2, "label": None}
    took["answer"] = _beyond_half(lambda count: generation.generate(reader, tokenizer, chats[:count], **how), few)
    keep = student_layers(model.config.num_hidden_layers, layers)
    fixed = max(1, len(keep) // 2)
    studied_layers, places = places_of(keep, fixed)
    studied, _ = distillation.study(model, tokenizer, examples, layers=studied_layers)
    student = cut(model, keep, fixed)
    low = frozen.read(student, tokenizer, studied, fixed)
    with frozen.upper(student, low), compression.four_bits(student):
        took["distil"] = _per_message(student, tokenizer, low.examples, text_and_states(places))
    return took


def _beyond_half(work, few):
    """Seconds a message of work(count), of the second half of `few` messages: the first half starts things up."""
    took = []
    for count in (few // 2, few // 2, few):
        begun = time.monotonic()
        work(count)
        took.append(time.monotonic() - begun)
    return max(took[2] - took[1], 0.1 * took[2]) / (few - few // 2)


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
