"""Models learn and read on a device that is none, and come back: run by test_devices.py in a process of its own.

PyTorch knows of the device from its import on, and asks for it in other places, so no other test may share the process.
"""

import copy

import elsewhere
import pytest
import torch
from accelerate.state import AcceleratorState
from lessons import CHATS, examples

from slmops_lab import devices
from slmops_lab.evaluation import generation
from slmops_lab.task import encoding
from slmops_lab.training import distillation, frozen, recipe, trainer


@pytest.fixture
def there(monkeypatch):
    """The other device is here, and asked for."""
    monkeypatch.setattr(devices, "chosen", lambda: "elsewhere:0")
    monkeypatch.setattr(devices, "fast_bf16", lambda device: False)
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "elsewhere:0")
    with elsewhere.present():
        yield
    AcceleratorState._reset_state(reset_partial_state=True)


def back_home(monkeypatch):
    """From here on the processor is asked for."""
    monkeypatch.setattr(devices, "chosen", lambda: "cpu")
    monkeypatch.delenv("ACCELERATE_TORCH_DEVICE", raising=False)


def test_what_stands_in_mixes_with_nothing(there):
    with pytest.raises(RuntimeError, match="two devices"):
        torch.ones(2, device="elsewhere:0") + torch.ones(2)


def same(first, second, apart=1e-5):
    """Whether two models have the same weights, nearly: within `apart`."""
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.allclose(one, other, atol=apart) for one, other in pairs)


def near(first, second, share=3e-2):
    """Whether each weight of two models is the same but for a `share` of its length."""
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all((one - other).norm() <= share * other.norm() for one, other in pairs)


def at_home(model):
    return {p.device.type for p in model.parameters()} == {"cpu"}


def test_answers_and_their_cost_are_the_same(tiny, there, monkeypatch):
    model, tokenizer = tiny
    lessons = examples(tokenizer)
    said, nats = generation.generate_scored(model, tokenizer, CHATS, 6), generation.nats(model, tokenizer, lessons)
    assert at_home(model)
    back_home(monkeypatch)
    assert generation.generate_scored(model, tokenizer, CHATS, 6)[0] == said[0]
    assert generation.nats(model, tokenizer, lessons) == pytest.approx(nats, rel=1e-5)


def test_a_training_is_the_same(tiny, there, monkeypatch):
    model, tokenizer = tiny
    here, how = copy.deepcopy(model), {"max_steps": 3, "label": None}
    log = trainer.train(model, tokenizer, examples(tokenizer), held_out=examples(tokenizer, 3), eval_steps=1, **how)
    assert at_home(model)
    back_home(monkeypatch)
    other = trainer.train(here, tokenizer, examples(tokenizer), held_out=examples(tokenizer, 3), eval_steps=1, **how)
    assert same(model, here)
    assert log["held_out"].to_list() == pytest.approx(other["held_out"].to_list(), rel=1e-4)


def test_a_model_has_the_same_hash_there(tiny, there):
    weights = list(tiny[0].parameters())
    assert trainer.hash_of(weights) == trainer.hash_of(weight.to("elsewhere:0") for weight in weights)


def distilled(model, tokenizer):
    model = copy.deepcopy(model)  # with a head of its own, which the way to this device and back gives it anyway
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.config.tie_word_embeddings = False
    keep = [0, 1, 3]
    layers, places = recipe.places_of(keep, 1)
    studied, sure = distillation.study(model, tokenizer, examples(tokenizer), layers=layers)
    student = recipe.cut(model, keep, 1)
    low = frozen.read(student, tokenizer, studied, 1)
    with frozen.upper(student, low):
        errors = distillation.fit_layers(student, tokenizer, low.examples, places)
        trainer.train(student, tokenizer, low.examples, None, recipe.text_and_states(places), max_steps=2)
    return student, sure, errors


def test_a_distillation_is_the_same(tiny, there, monkeypatch):
    model, tokenizer = tiny
    student, sure, errors = distilled(model, tokenizer)
    assert at_home(student)
    back_home(monkeypatch)
    here, sure_here, errors_here = distilled(model, tokenizer)
    # batches of other sizes round to 16 bits in other places, and what is solved for from that differs a little more
    assert near(student, here)
    assert sure == pytest.approx(sure_here, rel=1e-4)
    assert errors[-1] == pytest.approx(errors_here[-1], rel=1e-3)


def test_a_model_that_somebody_has_put_elsewhere_stays_there(tiny, there, monkeypatch):
    model, tokenizer = tiny
    model.to("elsewhere:0")
    monkeypatch.setattr(devices, "chosen", lambda: "cpu")
    with devices.at_work(model) as device:
        assert device == "elsewhere"
    trainer.train(model, tokenizer, examples(tokenizer), label=None, max_steps=1)
    assert encoding.decoder(model).device.type == "elsewhere"
