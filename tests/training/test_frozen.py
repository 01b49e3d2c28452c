"""Training the upper layers on what the lower ones said once: the same result, and what is refused."""

import warnings

import psutil
import pytest
import torch
from lessons import uneven
from peft import LoraConfig, get_peft_model

from slmops_lab.errors import CourseError
from slmops_lab.evaluation import generation
from slmops_lab.task import encoding
from slmops_lab.training import base_model, compression, frozen, trainer

HOW = {"max_steps": 6, "learning_rate": 1e-2, "logging_steps": 1, "label": None, "bf16": False, "seed": 0}
HOW["train_embeddings"] = False  # they lie below the frozen layers, so `upper` holds them still, too
EXACT = {"dtype": torch.float32}


def in_full(model, tokenizer, lessons, depth):
    """The control: the same training with the lower layers in place, and still."""
    layers = encoding.decoder(model).model.layers[:depth]
    with trainer.held_still([p for layer in layers for p in layer.parameters()]):
        return trainer.train(model, tokenizer, lessons, **HOW)


def adapted(model, depth):
    torch.manual_seed(0)
    where = {"layers_to_transform": list(range(depth, 4)), "target_modules": ["q_proj", "v_proj", "down_proj"]}
    return get_peft_model(model, LoraConfig(r=2, task_type="CAUSAL_LM", **where))


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("depth", [1, 3])
def test_it_is_the_training_with_those_layers_frozen(tiny_folder, tmp_path, depth, lora):
    trained = []
    for cached in (False, True):
        model, tokenizer = base_model.open_model(tiny_folder)
        lessons = uneven(tokenizer)
        if lora:
            model = adapted(model, depth)
        if cached:
            lower = frozen.read(model, tokenizer, lessons, depth, tmp_path / "kept", **EXACT)
            with frozen.upper(model, lower):
                history = trainer.train(model, tokenizer, lower.examples, **HOW)
                costs = generation.nats(model, tokenizer, lower.examples)
        else:
            history = in_full(model, tokenizer, lessons, depth)
            costs = generation.nats(model, tokenizer, lessons)
        weights = {name: weight.detach() for name, weight in model.named_parameters()}
        trained.append((history["loss"].tolist(), costs, weights))
    (losses, costs, weights), (ours, our_costs, our_weights) = trained
    assert ours == pytest.approx(losses, rel=1e-5) and our_costs == pytest.approx(costs, rel=1e-4)
    assert losses[-1] < losses[0], "something was learned"
    assert weights.keys() == our_weights.keys()
    assert all(torch.allclose(weight, our_weights[name], atol=2e-4) for name, weight in weights.items())


def test_in_bf16_only_the_kept_states_are_rounded(tiny, monkeypatch):
    monkeypatch.setattr(frozen.settings, "fast_bf16", lambda: False)  # else the layers compute in bf16, as well
    model, tokenizer = tiny
    lessons = uneven(tokenizer)
    exact = frozen.read(model, tokenizer, lessons, 2, dtype=torch.float32)
    rounded = frozen.read(model, tokenizer, lessons, 2)
    assert exact.size == 2 * rounded.size == sum(len(e["input_ids"]) for e in lessons) * 64 * 4
    for one, other in zip(exact.examples, rounded.examples, strict=True):
        assert torch.equal(one["lower_states"].to(torch.bfloat16), other["lower_states"])


def test_states_do_not_depend_on_the_batch(tiny):
    model, tokenizer = tiny
    sizes = [frozen.read(model, tokenizer, uneven(tokenizer), 2, batch_size=size, **EXACT) for size in (1, 3, 16)]
    for alone, three, all_ in zip(*(lower.examples for lower in sizes), strict=True):
        assert torch.allclose(alone["lower_states"], three["lower_states"], atol=1e-5)
        assert torch.allclose(alone["lower_states"], all_["lower_states"], atol=1e-5)


def test_what_is_kept_is_read_once(tiny_folder, tmp_path, monkeypatch, capsys):
    model, tokenizer = base_model.open_model(tiny_folder)
    lessons = uneven(tokenizer)
    first = frozen.read(model, tokenizer, lessons, 2, tmp_path / "kept")
    monkeypatch.setattr(frozen, "_computed", None)  # whoever computed would fail
    again = frozen.read(base_model.open_model(tiny_folder)[0], tokenizer, lessons, 2, tmp_path / "kept")
    assert again.model == first.model and capsys.readouterr().out == ""
    for one, other in zip(first.examples, again.examples, strict=True):
        assert torch.equal(one["lower_states"], other["lower_states"])


def moved(model):
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] += 1
    return model


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda model, lessons: (moved(model), lessons, 2, {}), "of another model:"),
        (lambda model, lessons: (model, lessons[1:], 2, {}), "of other examples"),
        (lambda model, lessons: (model, lessons, 3, {}), "of another model and depth"),
        (lambda model, lessons: (model, lessons, 2, EXACT), "of another number type"),
    ],
)
def test_states_of_something_else_are_made_anew(tiny_folder, tmp_path, capsys, change, said):
    model, tokenizer = base_model.open_model(tiny_folder)
    lessons = uneven(tokenizer)
    frozen.read(model, tokenizer, lessons, 2, tmp_path / "kept")
    model, lessons, depth, how = change(model, lessons)
    lower = frozen.read(model, tokenizer, lessons, depth, tmp_path / "kept", **how)
    assert said in capsys.readouterr().out
    fresh = frozen.read(model, tokenizer, lessons, depth, **how)
    for one, other in zip(lower.examples, fresh.examples, strict=True):
        assert torch.equal(one["lower_states"], other["lower_states"])


@pytest.mark.parametrize("damage", [lambda data: data[:100], lambda data: b"", lambda data: b"\0" * len(data)])
def test_a_damaged_file_is_made_anew(tiny, tmp_path, capsys, damage):
    model, tokenizer = tiny
    frozen.read(model, tokenizer, uneven(tokenizer), 2, tmp_path)
    file = tmp_path / frozen.FILE
    file.write_bytes(damage(file.read_bytes()))
    lower = frozen.read(model, tokenizer, uneven(tokenizer), 2, tmp_path)
    assert "are damaged: they are made anew" in capsys.readouterr().out and lower.size


def test_a_full_disk_leaves_them_in_memory(tiny, tmp_path, monkeypatch):
    model, tokenizer = tiny

    def full(*_, **__):
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr(frozen, "save_file", full)
    with pytest.warns(UserWarning, match="No space left on device.*They stay in memory for this run."):
        lower = frozen.read(model, tokenizer, uneven(tokenizer), 2, tmp_path / "kept")
    assert lower.size and not (tmp_path / "kept").exists()


def test_without_memory_the_layers_run_in_every_step(tiny_folder, tmp_path, monkeypatch):
    model, tokenizer = base_model.open_model(tiny_folder)
    lessons = uneven(tokenizer)
    read_before = frozen.read(model, tokenizer, lessons, 1).examples  # by fewer layers: of no use to the upper ones
    enough = psutil.virtual_memory()
    with monkeypatch.context() as short:
        short.setattr(psutil, "virtual_memory", lambda: enough._replace(available=1000))
        with pytest.warns(UserWarning, match=r"takes 0.00 GB, and 0.00 GB of memory are free"):
            lower = frozen.read(model, tokenizer, read_before, 2)
    assert lower.size == 0
    with frozen.upper(model, lower):
        ours = trainer.train(model, tokenizer, lower.examples, **HOW)
    other, _ = base_model.open_model(tiny_folder)
    assert ours["loss"].tolist() == in_full(other, tokenizer, lessons, 2)["loss"].tolist()


def test_states_of_another_model_are_refused(tiny_folder):
    model, tokenizer = base_model.open_model(tiny_folder)
    lower = frozen.read(model, tokenizer, uneven(tokenizer), 2)
    with (
        pytest.raises(CourseError, match="not computed by the lowest 2 layers of this model"),
        frozen.upper(moved(model), lower),
    ):
        pass
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with frozen.upper(base_model.open_model(tiny_folder)[0], lower):
            pass


def test_the_model_is_whole_again_whatever_happens(tiny):
    model, tokenizer = tiny
    layers = list(model.model.layers)
    lower = frozen.read(model, tokenizer, uneven(tokenizer), 2)
    with pytest.raises(KeyboardInterrupt), frozen.upper(model, lower):
        assert len(model.model.layers) == 2
        raise KeyboardInterrupt
    assert list(model.model.layers) == layers and all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("depth", [0, 4, -1])
def test_a_depth_that_leaves_nothing(tiny, depth):
    model, tokenizer = tiny
    with pytest.raises(CourseError, match="Freeze 1 to 3 of the 4 layers"):
        frozen.read(model, tokenizer, uneven(tokenizer), depth)


def test_no_examples(tiny):
    model, tokenizer = tiny
    with pytest.raises(CourseError, match="no examples for the frozen layers"):
        frozen.read(model, tokenizer, [], 2)


def test_what_the_upper_layers_are_changes_nothing_below(tiny, monkeypatch):
    model, tokenizer = tiny
    count = len(model.model.layers)
    monkeypatch.setattr(model.config, "layer_types", ["full_attention"] * count, raising=False)
    lower = frozen.read(model, tokenizer, uneven(tokenizer, 3), 1)
    cut = compression.keep_layers(model, [0, count - 1])
    assert len(cut.config.layer_types) == 2 < count
    with frozen.upper(cut, lower) as above:
        assert len(above.model.layers) == 1


def test_a_trained_model_is_still_known(tiny_folder):
    model, tokenizer = base_model.open_model(tiny_folder)
    before = model.config.to_dict()
    lower = frozen.read(model, tokenizer, uneven(tokenizer), 2)
    for _ in range(2):  # the second time it has been trained
        with frozen.upper(model, lower):
            trainer.train(model, tokenizer, lower.examples, **HOW)
    assert model.config.use_cache and model.config.to_dict() == before, "a training leaves the configuration alone"
    model.config.use_cache, model.config.pad_token_id = False, 1  # as other trainers leave it
    with frozen.upper(model, lower):
        pass
