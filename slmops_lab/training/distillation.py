"""From a teacher to training examples for a student.

Sequence-level distillation (Kim and Rush 2016, https://arxiv.org/abs/1606.07947): the student learns from the text
that the teacher writes. `study` adds what the teacher computed on it: hidden states, once, to be reused in every
epoch, for 2 bytes a token, layer and unit. `fit_layers` brings a student's layers near to them without a gradient, for
the price of reading the examples about twice. The losses stand in the notebook; no optimizer runs here.
"""

import math
from collections import Counter
from dataclasses import dataclass

import torch
from tqdm import tqdm

from slmops_lab import devices, measure
from slmops_lab.errors import CourseError
from slmops_lab.task import encoding


@dataclass(frozen=True)
class Labelled:
    """What became of one pool record. `answer` is None where the teacher's text is unusable."""

    id: str
    text: str
    said: str | None
    answer: dict | None
    problem: str | None
    confidence: float | None = None


def label(teacher, task, records, least_sure=0.0):
    """Let a teacher (see `teachers`) answer records: a list of `Labelled`, in the same order.

    A text that is no valid answer, that copies something the message does not say, or of which the teacher itself was
    less sure than least_sure (a probability), keeps its reason in `problem` and never becomes training data. Raises
    CourseError where there are no records, and where not one answer can be used.
    """
    if not records:
        raise CourseError("The pool is empty: there is nothing for the teacher to label.")
    labelled = []
    for record, said in zip(records, teacher.ask(task, [record["text"] for record in records]), strict=True):
        reading = task.read(said.text or "")
        problem = said.problem or reading.problem or task.problem(reading.answer, record["text"])
        if not problem and said.confidence is not None and said.confidence < least_sure:
            problem = "not sure enough"
        answer = None if problem else reading.answer
        labelled.append(Labelled(record["id"], record["text"], said.text, answer, problem, said.confidence))
    if not any(one.answer for one in labelled):
        problem, count = Counter(one.problem for one in labelled).most_common(1)[0]
        whose = f"the {len(labelled)} answers of the teacher '{teacher.name}'"
        raise CourseError(f"None of {whose} can be used; {count} times: {problem}.")
    return labelled


def shared_tokens(teacher_tokenizer, tokenizer):
    """Share (0 to 1) of the tokens, in the larger of two vocabularies, that have the same number in both.

    Below 1 the two models' logits are about different words, and cannot be compared.
    """
    theirs, ours = teacher_tokenizer.get_vocab(), tokenizer.get_vocab()
    return sum(theirs.get(token) == i for token, i in ours.items()) / max(len(theirs), len(ours), 1)


def study(model, tokenizer, examples, layers=(-1,), batch_size=16, student_tokenizer=None):
    """The teacher reads examples with their answers, once.

    Returns (examples, confidences): each example gains `teacher_states`, (tokens, layers, hidden size) in bfloat16,
    what the given layers read (-1: the last, normalized state); the confidence is the probability that the teacher
    gives to the whole answer. student_tokenizer is the one that cut the examples into tokens, where it is not the
    teacher's: raises CourseError if the two differ.
    """
    if student_tokenizer is not None and (shared := shared_tokens(tokenizer, student_tokenizer)) < 1:
        raise CourseError(
            f"Teacher and student have different tokenizers ({int(100 * shared)} % of the tokens agree): the same "
            "token number means different texts, so let the student learn from the teacher's text alone."
        )
    with devices.at_work(model) as device:
        return _study(model, tokenizer, examples, layers, devices.wide(batch_size, device), device)


@torch.inference_mode()
def _study(model, tokenizer, examples, layers, batch_size, device):
    batch_of = encoding.collate(tokenizer)
    head = model.get_output_embeddings()
    order = sorted(range(len(examples)), key=lambda i: -len(examples[i]["input_ids"]))
    studied, confidences = [None] * len(examples), [0.0] * len(examples)
    with tqdm(total=len(examples), desc="teacher reads", leave=False) as bar:
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = batch_of([examples[i] for i in chosen])
            with devices.arithmetic(device):
                done = encoding.forward(model, batch, hidden_states=set(layers) != {-1})
                log_probs = head(done.states).float().log_softmax(-1)
            states = torch.stack([done.layer(index) for index in layers], dim=1).to("cpu", torch.bfloat16)
            gained = log_probs.gather(1, done.targets[:, None])[:, 0].cpu()
            tokens = [len(examples[i]["input_ids"]) for i in chosen]
            answers = [sum(t != encoding.IGNORE for t in examples[i]["labels"]) for i in chosen]
            for i, own_states, own_gains in zip(chosen, states.split(tokens), gained.split(answers), strict=True):
                studied[i] = {**examples[i], "teacher_states": own_states.clone()}
                confidences[i] = math.exp(own_gains.double().sum())  # in 32 bits a long answer may become 0
            bar.update(len(chosen))
    measure.give_back()
    return studied, confidences


def fit_layers(model, tokenizer, examples, columns, ridge=0.01, batch_size=16):
    """Bring what a student's layers write near to a teacher's states: one matrix a layer, in closed form.

    A layer adds `mlp.down_proj` times the activations before it to its output, so the best such matrix solves a
    least-squares problem. Layers follow one another, each on what those below now write. Distances count in relation
    to the length of the teacher's state, so no token outweighs the others. ridge: how strongly a matrix stays near to
    what it was, in mean squared activations. examples: of `study`; where a `frozen.upper` holds the model, of `Lower`.
    columns: {layer, counted from the end (-1: the last): column of `teacher_states` that it should write}. The column
    of the last layer holds states behind the final norm (an RMSNorm), which have lost their length: only their
    direction counts. Returns {layer: (before, after)}, mean squared distances in squared lengths. Linear maps in place
    of layers: Shopkhoev et al. 2025, https://arxiv.org/abs/2505.02819. Raises CourseError where a layer has no
    `mlp.down_proj`, and IndexError where the model has no such layer.
    """
    body = encoding.decoder(model).model
    layers = body.layers
    if other := [i for i in columns if not hasattr(getattr(layers[i], "mlp", None), "down_proj")]:
        raise CourseError(f"Layer {other[0]} has no matrix mlp.down_proj that could be fitted to the teacher.")
    with devices.at_work(model) as device:
        return _fit_all(model, tokenizer, examples, columns, ridge, devices.wide(batch_size, device))


@torch.no_grad()
def _fit_all(model, tokenizer, examples, columns, ridge, batch_size):
    body = encoding.decoder(model).model
    layers, norm, errors = body.layers, body.norm, {}
    try:
        body.norm = torch.nn.Identity()
        for i, layer in enumerate(layers, -len(layers)):
            body.layers = torch.nn.ModuleList([layer])
            if i in columns:
                weight = norm.weight if i == -1 else None
                errors[i] = _fit(model, tokenizer, examples, columns[i], weight, ridge, batch_size)
            if i < max(columns):
                states = [None] * len(examples)
                for chosen, _, written in _batches(model, tokenizer, examples, batch_size):
                    lengths = [len(examples[j]["input_ids"]) for j in chosen]
                    for j, own in zip(chosen, written.to("cpu", torch.bfloat16).split(lengths), strict=True):
                        states[j] = own.clone()
                examples = [{**one, "lower_states": own} for one, own in zip(examples, states, strict=True)]
    finally:
        body.layers, body.norm = layers, norm
        measure.give_back()
    return errors


def _batches(model, tokenizer, examples, batch_size):
    """Yield (indices, batch, what the model's layers write: (tokens, hidden size)), the longest examples first."""
    batch_of = encoding.collate(tokenizer)
    order = sorted(range(len(examples)), key=lambda j: -len(examples[j]["input_ids"]))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = batch_of([examples[j] for j in chosen])
        with devices.arithmetic(encoding.decoder(model).device):
            done = encoding.forward(model, batch, hidden_states=False)
        yield chosen, batch, done.layer(-1).float()


def _fit(model, tokenizer, examples, column, norm_weight, ridge, batch_size):
    """Solve for the `mlp.down_proj` of a model's only layer: its error (before, after). See `fit_layers`."""
    linear = encoding.decoder(model).model.layers[0].mlp.down_proj
    seen = {}
    hook = linear.register_forward_pre_hook(lambda _, inputs: seen.update(activations=inputs[0]))
    squares, products, error, tokens = 0, 0, 0.0, 0
    try:
        for _, batch, written in _batches(model, tokenizer, examples, batch_size):
            activations = seen["activations"][batch["attention_mask"].bool().to(written.device)].float()
            goal = batch["teacher_states"][:, column].to(written.device).float()
            if norm_weight is not None:
                goal = goal / norm_weight
                goal = goal * (written.norm(dim=-1, keepdim=True) / goal.norm(dim=-1, keepdim=True))
            share = 1 / goal.square().sum(-1, keepdim=True)
            missing = (goal - written) * share
            squares = squares + activations.T @ (activations * share)
            products = products + activations.T @ missing
            error += float((missing * (goal - written)).sum())
            tokens += len(goal)
    finally:
        hook.remove()
    squares, products = squares.cpu(), products.cpu()  # 64 bits, which Apple's GPU does not have
    hold = ridge * squares.diagonal().mean() * torch.eye(len(squares))
    change = torch.linalg.solve((squares + hold).double(), products.double())
    explained = float((change * (2 * products - squares @ change.float())).sum())
    linear.weight += change.T.to(linear.weight)
    return error / tokens, (error - explained) / tokens
