"""Adapters: what can go wrong, and that right comes out right."""

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from lessons import CHATS, examples
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM, TrainerCallback

from slmops_lab.deployment import export, runtime
from slmops_lab.errors import CourseError
from slmops_lab.evaluation import generation
from slmops_lab.task import encoding
from slmops_lab.training import adapters, base_model, trainer

USUAL = {"num_train_epochs": 2, "per_device_train_batch_size": 2, "learning_rate": 1e-2, "seed": 3}


def lora(r=2, modules="all-linear"):
    return LoraConfig(r=r, lora_alpha=8 * r, target_modules=modules, task_type="CAUSAL_LM")


def adapter_layers(model):
    return [m for m in model.modules() if isinstance(m, LoraLayer)]


@pytest.fixture(scope="module")
def two_adapters(tiny_folder, tmp_path_factory):
    """{name: folder} of two trained adapters that answer differently."""
    folders = {}
    for number, name in enumerate(("one", "two")):
        model, tokenizer = base_model.open_model(tiny_folder)
        torch.manual_seed(number)
        adapted = adapters.attach(model, lora())
        lessons = [encoding.encode(tokenizer, chat, f" {name}" * 4) for chat in CHATS]  # each a text of its own
        trainer.train(
            adapted, tokenizer, lessons, label=None, **(USUAL | {"num_train_epochs": 12, "learning_rate": 5e-2})
        )
        folders[name] = tmp_path_factory.mktemp(name)
        adapted.save_pretrained(folders[name])
    return folders


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (lora(r=0), "Rank 0 leaves an adapter nothing to learn with: give 1 or more."),
        (lora(r=-3), "Rank -3 leaves"),
        (lora(r=65), "Rank 65 is more than a matrix of 64 x 64 can have .*: give at most 64."),
        (lora(modules=["query"]), r"The target modules \['query'\] name nothing in this model: it has .*q_proj"),
        (lora(modules="nothing.*"), "The target modules nothing.* name nothing"),
    ],
)
def test_what_cannot_be_attached(tiny, config, sentence):
    model, _ = tiny
    with pytest.raises(CourseError, match=sentence):
        adapters.attach(model, config)
    assert not adapter_layers(model), "the model is left as it was"
    assert adapters.weights(adapters.attach(model, lora()))[0] > 0


def test_a_saved_adapter_comes_back(tiny, two_adapters):
    model, tokenizer = tiny
    plain = generation.nats(model, tokenizer, examples(tokenizer))
    adapted = adapters.open_adapter(model, two_adapters["one"])
    assert generation.nats(adapted, tokenizer, examples(tokenizer)) != plain
    assert generation.nats(adapted.unload(), tokenizer, examples(tokenizer)) == plain


def test_an_adapter_names_no_place_and_may_move(tiny_folder, two_adapters, tmp_path):
    moved = shutil.move(shutil.copytree(two_adapters["one"], tmp_path / "first"), tmp_path / "elsewhere")
    for file in filter(Path.is_file, Path(moved).rglob("*")):
        assert str(tiny_folder.parent).encode() not in file.read_bytes(), f"a path of this machine in {file.name}"
    base = shutil.copytree(tiny_folder, tmp_path / "base")  # it moved, too
    texts = []
    for model_folder, folder in ((tiny_folder, two_adapters["one"]), (base, moved)):
        model, tokenizer = base_model.open_model(model_folder)
        with warnings.catch_warnings(action="error", category=UserWarning):
            adapted = adapters.open_adapter(model, folder)
        texts.append(generation.generate(adapted, tokenizer, CHATS, 8, batch_size=1, label=None))
    assert texts[0] == texts[1]


def other_base(tokenizer, **changes):
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(**{**sizes, "vocab_size": len(tokenizer), **changes}))


@pytest.mark.parametrize("changes", [{"hidden_size": 32}, {"num_hidden_layers": 2}, {"num_hidden_layers": 6}])
def test_an_adapter_made_for_another_base(tokenizer, two_adapters, changes):
    model = other_base(tokenizer, **changes)
    with pytest.raises(CourseError, match=r"was made for another base: at model\.layers\..*lora_[AB]"):
        adapters.open_adapter(model, two_adapters["one"])
    assert not adapter_layers(model)


def test_a_folder_that_holds_no_whole_adapter(tiny, two_adapters, tmp_path):
    with pytest.raises(CourseError, match="is no adapter: it has no adapter_config.json"):
        adapters.open_adapter(tiny[0], tmp_path)
    cut = shutil.copytree(two_adapters["one"], tmp_path / "cut")
    os.truncate(cut / adapters.WEIGHTS, 100)
    with pytest.raises(CourseError, match="The adapter in .* cannot be opened: "):
        adapters.open_adapter(tiny[0], cut)


def test_tuning_apart_says_what_it_took(tiny_folder, tokenizer, tmp_path):
    lessons = examples(tokenizer)
    found = adapters.tune_apart(tiny_folder, lora(), lessons, lessons[:2], CHATS, tmp_path / "a", **USUAL)
    model, _ = base_model.open_model(tiny_folder)
    adapted = adapters.attach(model, lora())
    assert (found["trained"], found["frozen"]) == adapters.weights(adapted)
    assert found["peak"] > 100e6 and found["seconds"] > 0 and len(found["texts"]) == len(CHATS)
    again = adapters.open_adapter(adapted.unload(), tmp_path / "a")
    assert found["nats"] == pytest.approx(generation.nats(again, tokenizer, lessons[:2]), rel=1e-3)
    assert found["stored"] == (tmp_path / "a" / adapters.WEIGHTS).stat().st_size


@pytest.mark.parametrize("asked", [False, True])
def test_tuning_apart_counts_the_embeddings_only_where_they_are_trained(tiny_folder, tokenizer, tmp_path, asked):
    lessons, (model, _) = examples(tokenizer)[:2], base_model.open_model(tiny_folder)
    whole, table = sum(p.numel() for p in model.parameters()), model.get_input_embeddings().weight.numel()
    how = {**USUAL, "num_train_epochs": 1, "train_embeddings": asked}
    found = adapters.tune_apart(tiny_folder, None, lessons, lessons, [], tmp_path / "a", **how)
    assert (found["trained"], found["frozen"]) == ((whole, 0) if asked else (whole - table, table))


def test_four_bits_under_an_adapter(tiny_folder, tokenizer):
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    model, _ = base_model.open_model(tiny_folder, quantization=config)
    plain, _ = base_model.open_model(tiny_folder)
    assert model.model.layers[0].mlp.up_proj.weight.dtype == torch.uint8
    adapted = adapters.attach(model, lora())
    assert adapters.weights(adapted) == adapters.weights(adapters.attach(plain, lora()))
    before = sum(generation.nats(adapted, tokenizer, examples(tokenizer)))
    trainer.train(adapted, tokenizer, examples(tokenizer), **{**USUAL, "num_train_epochs": 10})
    assert sum(generation.nats(adapted, tokenizer, examples(tokenizer))) < before


def test_weights_of_four_bits_that_have_answered_still_train(tiny_folder, tokenizer):
    """bitsandbytes repacks such weights for processors with AVX512 and bf16, and no gradient passes through those."""
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    model = adapters.attach(base_model.open_model(tiny_folder, quantization=config)[0], lora())
    batch = encoding.collate(tokenizer)(examples(tokenizer)[:2])

    def gradients():
        model.train()
        done = encoding.forward(model, batch, hidden_states=False)
        trainer.answer_loss(model, done, batch).backward()
        grads = [p.grad.clone() for p in model.parameters() if p.requires_grad]
        model.zero_grad()
        model.eval()
        return grads

    before = gradients()
    generation.nats(model, tokenizer, examples(tokenizer)[:1])
    assert any(one.abs().max() > 0 for one in before)
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(before, gradients(), strict=True))


def test_nats_by_hand(tiny):
    model, tokenizer = tiny
    lessons = examples(tokenizer)[:3]
    with torch.inference_mode():
        by_hand = []
        for lesson in lessons:
            ids, labels = torch.tensor([lesson["input_ids"]]), torch.tensor(lesson["labels"])
            log_probs = model(ids).logits[0, :-1].log_softmax(-1)
            where = (labels[1:] != encoding.IGNORE).nonzero()[:, 0]
            by_hand.append(-log_probs[where, labels[1:][where]].sum().item())
    assert generation.nats(model, tokenizer, lessons) == pytest.approx(by_hand, rel=0.01)


def test_stopping_early_loads_the_best_weights_again(tiny):
    from transformers import EarlyStoppingCallback

    class Note(TrainerCallback):
        def on_evaluate(self, args, state, control, metrics, **kwargs):
            losses.append(metrics["eval_loss"])

    losses = []
    model, tokenizer = tiny
    lessons = examples(tokenizer)
    trainer.train(
        adapters.attach(model, lora()),
        tokenizer,
        lessons[:2],
        held_out=lessons[2:4],
        callbacks=[EarlyStoppingCallback(early_stopping_patience=2), Note()],
        **{**USUAL, "num_train_epochs": 60, "learning_rate": 0.1, "eval_steps": 2, "save_steps": 2},
        **{"save_strategy": "steps", "load_best_model_at_end": True, "metric_for_best_model": "eval_loss"},
    )
    assert len(losses) < 30, "stopped before the end"
    assert losses.index(min(losses)) < len(losses) - 1


def test_two_adapters_on_one_base(tiny_folder, two_adapters, tmp_path):
    import onnxruntime

    files = export.with_adapters(tiny_folder, two_adapters, tmp_path / "onnx", "fp32")
    served = runtime.GenAIRuntime(tmp_path / "onnx", files)
    model, tokenizer = base_model.open_model(tiny_folder)
    said = {None: generation.generate(model, tokenizer, CHATS, 8, batch_size=1, label=None)}
    for name, folder in two_adapters.items():
        adapted = adapters.open_adapter(model, folder)
        said[name] = generation.generate(adapted, tokenizer, CHATS, 8, batch_size=1, label=None)
        model = adapted.unload()
    assert len({tuple(texts) for texts in said.values()}) == 3, "or the comparison shows nothing"
    for name in ("two", None, "one", "two"):  # switched, and switched back
        assert [served.generate(chat, 8, adapter=name) for chat in CHATS] == said[name]
    with pytest.raises(CourseError, match="There is no adapter 'three' here: one, two was loaded."):
        served.generate(CHATS[0], 8, adapter="three")
    read = onnxruntime.AdapterFormat.read_adapter  # what Olive itself wrote for the first one
    by_olive, ours = (
        read(str(f)).get_parameters() for f in (tmp_path / "onnx/adapter_weights.onnx_adapter", files["one"])
    )
    assert by_olive.keys() == ours.keys()
    assert all((by_olive[name].numpy() == ours[name].numpy()).all() for name in ours)


def test_a_base_in_four_bits_answers_without_adapter(tiny_folder, two_adapters, tmp_path):
    files = export.with_adapters(tiny_folder, two_adapters, tmp_path / "onnx", "int4")
    served = runtime.GenAIRuntime(tmp_path / "onnx", files)
    assert all(isinstance(served.generate(CHATS[0], 4, adapter=name), str) for name in (None, "one", "two"))


def test_imports_say_nothing():
    modules = ["training.adapters", "deployment.olive", "deployment.export", "course.plots"]
    code = f"import {', '.join(f'slmops_lab.{module}' for module in modules)}, bitsandbytes"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
