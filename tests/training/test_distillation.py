import math

import pytest
import torch
from lessons import CHATS, examples

from slmops_lab import settings
from slmops_lab.errors import CourseError
from slmops_lab.evaluation import generation
from slmops_lab.task import data, encoding, schema
from slmops_lab.training import base_model, compression, distillation, frozen, teachers, trainer


def test_teacher_states_give_the_teachers_probabilities(tiny, monkeypatch):
    model, tokenizer = tiny
    monkeypatch.setattr(settings, "fast_bf16", lambda: False)
    lessons = examples(tokenizer, 5)
    studied, confidences = distillation.study(model, tokenizer, lessons, batch_size=2)
    for lesson, with_states, confidence in zip(lessons, studied, confidences, strict=True):
        batch = encoding.collate(tokenizer)([lesson])
        logits = model(batch["input_ids"]).logits.log_softmax(-1)[0, :-1]
        answer = batch["labels"][0, 1:] != encoding.IGNORE
        wanted = logits[answer].gather(1, batch["labels"][0, 1:][answer][:, None]).sum().exp()
        assert confidence == pytest.approx(wanted.item(), rel=1e-3)
        assert with_states["teacher_states"].shape == (len(lesson["input_ids"]), 1, 64)


def test_another_tokenizer_is_refused_before_its_doubts_are_compared(tiny):
    model, tokenizer = tiny
    _, few_tokens, _ = compression.keep_vocabulary(model, tokenizer, ["some words"], first=400)
    lessons = examples(few_tokens, 2)
    assert distillation.shared_tokens(tokenizer, tokenizer) == 1
    assert (
        distillation.shared_tokens(tokenizer, few_tokens) < 0.1
        and distillation.shared_tokens(few_tokens, tokenizer) < 0.1
    )
    with pytest.raises(CourseError, match=r"different tokenizers \(\d % of the tokens agree\)"):
        distillation.study(model, tokenizer, lessons, student_tokenizer=few_tokens)
    assert distillation.study(model, tokenizer, examples(tokenizer, 2), student_tokenizer=tokenizer)[0]


def test_on_policy_moves_the_student_towards_its_teacher(tiny_folder, tmp_path):
    from datasets import Dataset
    from trl import DistillationConfig, DistillationTrainer

    (teacher, tokenizer), (student, _) = base_model.open_model(tiny_folder), base_model.open_model(tiny_folder)
    with torch.no_grad():
        for weight in student.model.layers.parameters():
            weight.mul_(0.7)
    batch = encoding.collate(tokenizer)(examples(tokenizer))

    def apart():
        with torch.inference_mode():
            ours, theirs = (
                model.get_output_embeddings()(encoding.forward(model, batch).states).float().log_softmax(-1)
                for model in (student, teacher)
            )
        return (theirs.exp() * (theirs - ours)).sum(-1).mean().item()

    before, out = apart(), tmp_path / "out"
    frozen = {name: weight.clone() for name, weight in teacher.state_dict().items()}
    config = trainer.arguments(
        out, DistillationConfig, num_train_epochs=4, learning_rate=2e-3, max_completion_length=8, warmup_steps=0,
        activation_checkpointing=False, logging_steps=1,
    )  # fmt: skip
    questions = Dataset.from_list([{"prompt": chat} for chat in CHATS * 4])
    distiller = DistillationTrainer(student, teacher, config, questions, processing_class=tokenizer)
    history = trainer.run(distiller, "own words")
    assert apart() < before / 2
    assert len(history) == 12 and history.attrs["seconds"] > 0
    assert all(torch.equal(frozen[name], weight) for name, weight in teacher.state_dict().items())
    for model in (student, teacher):
        assert "_original_forward" not in vars(model), "accelerate's wrapper is gone"
    assert not list(out.rglob("*.safetensors"))


def test_unusable_labels_keep_their_reason(tiny, colours, monkeypatch):
    task = schema.load(colours)
    said = [
        '{"kind":"warm","word":"red"}',
        "I think warm",
        '{"kind":"warm","word":"lila"}',
        '{"kind":"hot","word":null}',
    ]
    monkeypatch.setattr(generation, "generate_scored", lambda *a, **k: (said, [-0.1] * 4))
    labels = distillation.label(teachers.LocalTeacher(*tiny), task, data.load(colours).pool)
    assert labels[0].confidence == pytest.approx(math.exp(-0.1))
    assert [x.answer is not None for x in labels] == [True, False, False, False]
    assert [x.problem and x.problem.split(" ")[0] for x in labels] == [None, "no", "word", "kind"]


def far_off(model, tokenizer, examples, columns):
    """Measured by itself: {layer: mean squared distance from the teacher's states, in squared lengths}."""
    batch = encoding.collate(tokenizer)(examples)
    seen = {}
    hooks = [
        model.model.layers[i].register_forward_hook(lambda _, __, out, i=i: seen.update({i: out})) for i in columns
    ]
    with torch.no_grad():
        done = encoding.forward(model, batch)
    for hook in hooks:
        hook.remove()
    found = {}
    for i, column in columns.items():
        written, goal = seen[i][done.real].detach(), batch["teacher_states"][:, column].float()
        if i == -1:  # the final norm took the length away
            goal = goal / model.model.norm.weight.detach()
            goal = goal * written.norm(dim=-1, keepdim=True) / goal.norm(dim=-1, keepdim=True)
        found[i] = float(((written - goal).square().sum(-1) / goal.square().sum(-1)).mean())
    return found


def test_fitted_layers_are_as_near_to_the_teacher_as_they_say(tiny, monkeypatch):
    model, tokenizer = tiny
    monkeypatch.setattr(settings, "fast_bf16", lambda: False)
    torch.manual_seed(0)
    teacher = compression.change_matrices(model, lambda weight: weight + 0.05 * torch.randn_like(weight))
    torch.nn.init.uniform_(teacher.model.norm.weight, 0.5, 2)  # as the student's: both sides of the final norm
    student = compression.keep_layers(teacher, [0, len(teacher.model.layers) - 1])
    last = len(teacher.model.layers) - 1
    studied, _ = distillation.study(teacher, tokenizer, examples(tokenizer, 12), layers=(last, -1))
    columns = {-2: 0, -1: 1}
    at_first = far_off(student, tokenizer, studied, columns)
    others = {name: weight.clone() for name, weight in student.named_parameters() if "down_proj" not in name}
    errors = distillation.fit_layers(student, tokenizer, studied, columns, batch_size=5)
    now = far_off(student, tokenizer, studied, columns)
    assert errors[-2][0] == pytest.approx(at_first[-2], rel=0.02)
    assert errors[-2][1] == pytest.approx(now[-2], rel=0.02) and now[-2] < 0.7 * at_first[-2]
    assert now[-1] < at_first[-1] and errors[-1][1] < errors[-1][0]
    assert all(torch.equal(weight, dict(student.named_parameters())[name]) for name, weight in others.items())
    assert len(student.model.layers) == 2 and isinstance(student.model.norm, type(teacher.model.norm))
    held = compression.keep_layers(teacher, [0, last])
    distillation.fit_layers(held, tokenizer, studied, columns, ridge=1e9)
    assert far_off(held, tokenizer, studied, columns) == pytest.approx(at_first, rel=1e-3), "held where it was"


def test_a_layer_that_is_linear_in_what_is_asked_is_found_again(tiny, monkeypatch):
    model, tokenizer = tiny
    monkeypatch.setattr(settings, "fast_bf16", lambda: False)
    studied, _ = distillation.study(model, tokenizer, examples(tokenizer, 12), layers=(1,))  # what layer 0 writes
    spoiled = compression.keep_layers(model, range(len(model.model.layers)))
    torch.nn.init.normal_(spoiled.model.layers[0].mlp.down_proj.weight, std=0.3)
    lower = frozen.read(spoiled, tokenizer, studied, 1, dtype=torch.float32)
    columns = {-len(model.model.layers): 0}
    before, after = distillation.fit_layers(spoiled, tokenizer, studied, columns, ridge=1e-6)[min(columns)]
    assert after < 1e-3 < before
    with frozen.upper(model, frozen.read(model, tokenizer, studied, 1)):  # there the layer is out of reach
        with pytest.raises(IndexError):
            distillation.fit_layers(model, tokenizer, lower.examples, columns)


def test_a_layer_without_that_matrix_is_said_so(tiny):
    model, tokenizer = tiny
    odd = compression.keep_layers(model, [0, 1])
    del odd.model.layers[1].mlp.down_proj
    with pytest.raises(CourseError, match=r"Layer -1 has no matrix mlp.down_proj"):
        distillation.fit_layers(odd, tokenizer, examples(tokenizer, 2), {-1: 0})
