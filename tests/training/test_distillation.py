import math

import pytest
import torch
from lessons import CHATS, examples

from slmops_lab import settings
from slmops_lab.errors import CourseError
from slmops_lab.evaluation import generation
from slmops_lab.task import data, encoding, schema
from slmops_lab.training import base_model, compression, distillation, teachers, trainer


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
