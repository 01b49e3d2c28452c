"""The recipe of chapter 2 as functions, on the tiny model."""

import copy

import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy

from slmops_lab.errors import CourseError
from slmops_lab.task import data, encoding
from slmops_lab.training import compression, recipe


@pytest.fixture
def desk(colours):
    return data.load(colours)


def test_a_teacher_is_trained_to_the_end(desk, tiny_folder):
    made = recipe.tune(desk.task, str(tiny_folder), desk.train, epochs=6, learning_rate=5e-3)
    assert made.facts["steps"] == 12 and made.facts["messages"] == 4
    untrained, _ = recipe.open_base(desk.task, str(tiny_folder))
    for i, (before, now) in enumerate(zip(untrained.model.layers, made.model.model.layers, strict=True)):
        alike = all(torch.equal(a, b) for a, b in zip(before.parameters(), now.parameters(), strict=True))
        assert alike == (i < 2), f"layer {i}: only the upper half is trained"


def test_a_killed_teacher_goes_on_where_it_was(desk, tiny_folder, tmp_path, monkeypatch):
    how = {"epochs": 6, "learning_rate": 5e-3, "folder": tmp_path / "checkpoints"}
    whole = recipe.tune(desk.task, str(tiny_folder), desk.train, **(how | {"folder": tmp_path / "other"}))
    real = recipe.trainer.AnswerTrainer.training_step
    steps = []

    def dies(self, *args, **kwargs):
        steps.append(1)
        if len(steps) == 8:
            raise KeyboardInterrupt
        return real(self, *args, **kwargs)

    monkeypatch.setattr(recipe.trainer.AnswerTrainer, "training_step", dies)
    with pytest.raises(KeyboardInterrupt):
        recipe.tune(desk.task, str(tiny_folder), desk.train, **how)
    resumed = recipe.tune(desk.task, str(tiny_folder), desk.train, **how)
    assert len(steps) < 8 + whole.facts["steps"]  # it did not begin anew
    pairs = zip(whole.model.parameters(), resumed.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_teacher_without_messages_is_refused(desk):
    with pytest.raises(CourseError, match="A teacher needs labelled messages to learn from."):
        recipe.tune(desk.task, "unused", [])


def test_a_student_fits_into_four_bits_and_knows_its_teachers_words(desk, tiny):
    teacher, tokenizer = compression.add_phrases(*tiny, desk.task.phrases(values=True))
    before = copy.deepcopy(teacher.state_dict())
    texts = [record["text"] for record in [*desk.train, *desk.pool]]
    made = recipe.distil(desk.task, teacher, tokenizer, desk.train, texts, layers=3, steps=6)
    assert made.facts["layers"] == [0, 2, 3] and made.model.config.num_hidden_layers == 3
    assert made.facts["tokens"] == len(made.tokenizer) < len(tokenizer)
    for layer in made.model.model.layers:
        for module in layer.modules():
            if isinstance(module, torch.nn.Linear):
                assert torch.allclose(module.weight, compression.snap(module.weight), atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_nothing_to_distil_from_is_said(desk, tiny):
    with pytest.raises(CourseError, match="There is nothing to distil from"):
        recipe.distil(desk.task, *tiny, [], [])


def test_the_layers_that_are_studied_are_those_behind_trained_ones():
    keep, fixed = [0, 1, 2, 14, 21, 29], 3
    studied, places = recipe.places_of(keep, fixed)
    assert studied == [21, 29, -1]  # what layers 21 and 29 read, and the last state
    assert places == {-3: 0, -2: 1, -1: 2}  # written by the student's 4th, 5th and 6th layer


def test_the_loss_is_text_and_direction(tiny, desk):
    model, tokenizer = tiny
    examples = [recipe.example_of(desk.task, record, tokenizer) for record in desk.train[:2]]
    tokens = [len(one["input_ids"]) for one in examples]
    states = torch.randn(sum(tokens), 2, model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    examples = [{**one, "teacher_states": own} for one, own in zip(examples, states.split(tokens), strict=True)]
    batch = encoding.collate(tokenizer)(examples)
    done = encoding.forward(model, batch)
    places = {-2: 0, -1: 1}
    text = cross_entropy(model.get_output_embeddings()(done.states), done.targets)
    away = [1 - cosine_similarity(done.layer(i), states[:, column], dim=-1) for i, column in places.items()]
    wanted = text + 30 * torch.stack(away).mean()
    assert torch.allclose(recipe.text_and_states(places)(model, done, batch), wanted, rtol=1e-4)
    assert torch.allclose(recipe.text_and_states(places, hidden=0.0)(model, done, batch), text, rtol=1e-5)
