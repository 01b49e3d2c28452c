"""The trainer on a tiny Llama: what it learns, what it costs, where it goes on, what it refuses."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lessons import examples, uneven
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cosine_similarity, cross_entropy, kl_div
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

from slmops_lab import measure, settings
from slmops_lab.errors import CourseError
from slmops_lab.task import encoding
from slmops_lab.training import base_model, distillation, trainer

ONE_STEP = {"max_steps": 1, "optim": "sgd", "learning_rate": 1.0, "warmup_steps": 0, "bf16": False, "label": None}


def reading_inner_layers(model, done, batch):
    return done.layer(2).square().mean() + trainer.answer_loss(model, done, batch)


@pytest.mark.parametrize("loss", [reading_inner_layers, trainer.answer_loss])
def test_the_gradient_is_the_same_when_activations_are_recomputed(tiny_folder, monkeypatch, loss):
    weights, calls = [], []
    for kept in (10**9, 0):
        monkeypatch.setattr(trainer, "KEPT_ACTIVATIONS", kept)
        model, tokenizer = base_model.open_model(tiny_folder)
        calls.append(0)

        def count(*_):
            calls[-1] += 1

        model.model.layers[0].mlp.register_forward_pre_hook(count)
        trainer.train(model, tokenizer, examples(tokenizer), loss=loss, **ONE_STEP)
        weights.append(model.model.layers[0].mlp.up_proj.weight.detach())
    assert calls == [1, 2], "each activation was computed again, once, where none may be kept"
    assert torch.allclose(*weights, atol=1e-6)


def weighted(model, done, batch):
    each = cross_entropy(model.get_output_embeddings()(done.states).float(), done.targets, reduction="none")
    return {"weight": (batch["weight"] * each).sum() / batch["weight"].sum()}


def distilled(model, done, batch):
    """Text and soft targets on answer tokens, hidden states on all tokens."""
    head, told = model.get_output_embeddings(), batch["teacher_states"][:, 0].float()
    logits, wanted = head(done.states), head(told[done.answer]).detach().softmax(-1)
    soft = kl_div(logits.log_softmax(-1), wanted, reduction="batchmean")
    path = 1 - cosine_similarity(done.layer(2), told, dim=-1).mean()
    return {"labels": cross_entropy(logits, done.targets) + soft, "attention_mask": path}


@pytest.mark.parametrize("loss", [trainer.answer_loss, weighted, distilled])
def test_accumulated_batches_count_as_one_large_batch(tiny_folder, tokenizer, loss):
    lessons, _ = distillation.study(*base_model.open_model(tiny_folder), uneven(tokenizer))
    for i, lesson in enumerate(lessons):
        answers = sum(label != encoding.IGNORE for label in lesson["labels"])
        lesson["weight"] = torch.full((answers,), 1.0 + i)
    weights, losses = [], []
    for size, times in ((8, 1), (2, 4)):
        model, _ = base_model.open_model(tiny_folder)
        sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": times, "max_grad_norm": 0.0}
        history = trainer.train(model, tokenizer, lessons, loss=loss, logging_steps=1, **sizes, **ONE_STEP)
        weights.append(model.model.layers[1].mlp.up_proj.weight.detach())
        losses.append(history["loss"].item())
    moved = weights[0] - base_model.open_model(tiny_folder)[0].model.layers[1].mlp.up_proj.weight
    assert (weights[1] - weights[0]).abs().max() < 1e-3 * moved.abs().max()
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_held_out_loss_is_the_mean_over_all_tokens(tiny):
    from slmops_lab.evaluation import generation

    model, tokenizer = tiny
    lessons = uneven(tokenizer)
    how = {"eval_steps": 1, "per_device_eval_batch_size": 3, "label": None, "bf16": False, "max_steps": 2}
    seen = trainer.train(model, tokenizer, lessons, held_out=lessons, logging_steps=1, **how)
    assert seen["held_out"].notna().all() and list(seen["step"]) == [1, 2]
    tokens = sum(label != encoding.IGNORE for lesson in lessons for label in lesson["labels"])
    nats = sum(generation.nats(model, tokenizer, lessons))
    assert seen["held_out"].iloc[-1] == pytest.approx(nats / tokens, rel=5e-3)


@pytest.mark.parametrize("strategy", ["group_by_length", "random"])
def test_a_folder_changes_nothing_about_what_is_learned(tiny_folder, tokenizer, tmp_path, strategy):
    losses = []
    for folder in (None, tmp_path):
        model, _ = base_model.open_model(tiny_folder)
        torch.manual_seed(0)
        model = get_peft_model(model, LoraConfig(r=2, lora_dropout=0.1, target_modules="all-linear"))
        how = {
            "num_train_epochs": 3,
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-2,
            "seed": 5,
            "save_steps": 2,
        }
        how |= {"train_sampling_strategy": strategy, "logging_steps": 1, "label": None}
        history = trainer.train(model, tokenizer, uneven(tokenizer), folder=folder, **how)
        losses.append(history["loss"].tolist())
    assert len(losses[0]) == 12 and losses[0] == losses[1]


def test_memory_is_given_back_where_a_training_begins_and_ends(tiny, monkeypatch):
    events = []
    monkeypatch.setattr(measure, "give_back", lambda: events.append("given back"))

    def loss(model, done, batch):
        events.append("step")
        return trainer.answer_loss(model, done, batch)

    trainer.train(*tiny, examples(tiny[1]), loss=loss, max_steps=6, logging_steps=1, label=None)
    assert events == ["given back", *["step"] * 6, "given back"]


def kept_by(model, batch):
    """Bytes of activations that autograd keeps in a forward pass, counted one by one."""
    known = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        encoding.forward(model, batch, hidden_states=False)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("length", [8, 100, 400])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("hidden, inner, heads", [(64, 64, 4), (32, 192, 2), (64, 64, 8)])
def test_the_estimate_is_what_autograd_keeps(length, attention, hidden, inner, heads):
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "num_attention_heads": heads, "vocab_size": 100}
    ids = torch.ones(2, length, dtype=torch.long)
    batch = {"input_ids": ids, "attention_mask": ids.clone(), "labels": ids}
    batch["attention_mask"][0, length // 2 :] = 0
    kept = []
    for layers in (1, 3):
        model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=layers, **sizes)).train()
        model.set_attn_implementation(attention)
        kept.append(kept_by(model, batch))
    counted = (kept[1] - kept[0]) / 2
    # eager attention keeps a second copy of its probabilities only where arithmetic is in 16 bits
    assert 0.9 * counted < trainer.activation_bytes(model.config, 2, length, attention) < 1.55 * counted


def test_long_messages_use_attention_that_keeps_no_square(tiny, monkeypatch):
    model, tokenizer = tiny
    seen = {}

    def loss(model, done, batch):
        seen[batch["input_ids"].shape[1]] = (
            model.config._attn_implementation,
            model.model.layers[0].gradient_checkpointing,
        )
        return trainer.answer_loss(model, done, batch)

    short, long = examples(tokenizer, 1)[0], examples(tokenizer, 701)[-1]
    size, longer = len(short["input_ids"]), len(long["input_ids"])
    at_once = 4 * trainer.activation_bytes(model.config, 1, size) / 1e6
    how = {"per_device_train_batch_size": 1, "num_train_epochs": 1, "label": None}
    trainer.train(model, tokenizer, [short, long], loss=loss, kept=1.01 * at_once, **how)
    assert seen == {size: ("eager", False), longer: ("sdpa", True)}
    assert model.config._attn_implementation == "sdpa", "left as it was found"


@pytest.mark.parametrize("length", [20, 300])
def test_both_kinds_of_attention_learn_the_same(tiny_folder, tokenizer, monkeypatch, length):
    weights = []
    for kind in ("eager", "sdpa"):
        monkeypatch.setattr(trainer, "attention_for", lambda *_, kind=kind: kind)
        model, _ = base_model.open_model(tiny_folder)
        trainer.train(model, tokenizer, examples(tokenizer, length)[-3:], **ONE_STEP)
        weights.append(model.model.layers[1].self_attn.q_proj.weight.detach())
    moved = weights[0] - base_model.open_model(tiny_folder)[0].model.layers[1].self_attn.q_proj.weight
    assert (weights[1] - weights[0]).abs().max() < 1e-3 * moved.abs().max()


def test_an_example_that_cannot_fit_is_named_with_its_tokens(tiny, monkeypatch):
    model, tokenizer = tiny
    lessons = [*examples(tokenizer, 3), examples(tokenizer, 201)[-1]]
    tokens = len(lessons[-1]["input_ids"])
    trainer.refuse_what_cannot_fit(model, lessons, 4, 1e9)
    sentence = (
        rf"^Example 4 of 4 has {tokens} tokens: a training step with it needs about .* GB.*; leave it out or shorten"
    )
    with pytest.raises(CourseError, match=sentence):
        trainer.refuse_what_cannot_fit(model, lessons, 1, 1e6)
    with pytest.raises(CourseError, match="; lower per_device_train_batch_size"):
        trainer.refuse_what_cannot_fit(model, lessons, 4, 10e6)
    mine = trainer.psutil.Process().memory_info().rss
    for allowed, available in [(mine + 1e6, 1e9), (1e12, 1e6)]:  # in a container, on a full machine
        monkeypatch.setattr(settings, "memory_limit", lambda allowed=allowed: allowed)
        memory = type("Memory", (), {"available": available})
        monkeypatch.setattr(trainer.psutil, "virtual_memory", lambda memory=memory: memory)
        with pytest.raises(CourseError, match=sentence):
            trainer.train(model, tokenizer, lessons)


def test_hidden_states_are_taken_only_where_a_loss_looks_at_them(tiny):
    seen = []

    def looks(model, done, batch):
        seen.append(len(done.hidden))
        return trainer.answer_loss(model, done, batch)

    def does_not(model, done, batch):
        return looks(model, done, batch)

    does_not.hidden_states = False
    losses = [
        trainer.train(*tiny, examples(tiny[1]), loss=loss, **(ONE_STEP | {"learning_rate": 0.0}), logging_steps=1)
        for loss in (looks, does_not, trainer.answer_loss)
    ]
    assert seen == [5, 1] and not trainer.answer_loss.hidden_states
    assert losses[0]["loss"].tolist() == losses[1]["loss"].tolist() == losses[2]["loss"].tolist()


def test_training_learns_and_is_repeatable(tiny_folder):
    losses = []
    for epochs in (10, 2):
        model, tokenizer = base_model.open_model(tiny_folder)
        how = {"learning_rate": 2e-2, "lr_scheduler_type": "constant", "seed": 1, "logging_steps": 1, "label": None}
        how["train_embeddings"] = True  # of this tiny model they are nearly all
        history = trainer.train(model, tokenizer, examples(tokenizer), num_train_epochs=epochs, **how)
        losses.append(history["loss"].tolist())
    assert len(losses[1]) == 4 and losses[0][:4] == losses[1]
    assert losses[0][-1] < losses[0][0] / 2
    assert list(history.columns) == ["step", "loss"] and history.attrs["seconds"] > 0
    assert not any(layer.gradient_checkpointing for layer in model.model.layers), "left as it was found"


# What the trainer of commit c6ae1d0 gave: the tiny model, eight examples in one batch, six steps at 1e-2.
FORMER = [10.75045, 9.97558, 8.77069, 7.93419, 7.40649, 7.11981]


def test_the_losses_are_those_of_the_former_trainer(tiny):
    model, tokenizer = tiny
    how = {"num_train_epochs": 6, "per_device_train_batch_size": 8, "learning_rate": 1e-2, "warmup_steps": 0}
    how |= {"logging_steps": 1, "bf16": False, "label": None, "train_embeddings": True}  # as it did
    history = trainer.train(model, tokenizer, examples(tokenizer), **how)
    assert history["loss"].tolist() == pytest.approx(FORMER, abs=2e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_move_only_where_that_is_asked_for(tiny_folder, tied):
    for how in ({}, {"train_embeddings": False}, {"train_embeddings": True}):
        moves = how.get("train_embeddings", False)
        model, tokenizer = base_model.open_model(tiny_folder)
        if not tied:
            model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
        parts = (model.get_input_embeddings(), model.get_output_embeddings())
        before = [part.weight.detach().clone() for part in parts]
        inner = model.model.layers[0].mlp.up_proj.weight.detach().clone()
        trainer.train(model, tokenizer, examples(tokenizer), **how, **ONE_STEP)
        assert [torch.equal(part.weight, old) for part, old in zip(parts, before, strict=True)] == [not moves] * 2
        assert not torch.equal(model.model.layers[0].mlp.up_proj.weight, inner)
        assert all(part.weight.requires_grad for part in parts), "afterwards they are as they were found"


@pytest.mark.parametrize("lora", [False, True])
def test_matrices_that_stay_are_rounded_once_to_the_same_losses(tiny_folder, monkeypatch, lora):
    losses = []
    for fast in (True, False):
        model, tokenizer = base_model.open_model(tiny_folder)
        if lora:
            torch.manual_seed(0)
            model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
        before = {name: (weight.dtype, weight.requires_grad) for name, weight in model.named_parameters()}
        head, seen = encoding.decoder(model).get_output_embeddings(), []
        rounded = trainer.rounded_once
        monkeypatch.setattr(trainer, "rounded_once", lambda m, _, fast=fast, real=rounded: real(m, fast))

        def spy(model, done, batch, head=head, seen=seen):
            seen.append(head.weight.dtype)
            return trainer.answer_loss(model, done, batch)

        how = {"max_steps": 4, "bf16": True, "learning_rate": 1e-2, "logging_steps": 1, "label": None, "seed": 0}
        how["train_embeddings"] = False
        history = trainer.train(model, tokenizer, examples(tokenizer), loss=spy, **how)
        monkeypatch.setattr(trainer, "rounded_once", rounded)
        assert set(seen) == {torch.bfloat16 if fast else torch.float32}
        assert {name: (w.dtype, w.requires_grad) for name, w in model.named_parameters()} == before
        assert head.weight is encoding.decoder(model).get_input_embeddings().weight, "tied again"
        losses.append(history["loss"].tolist())
    assert losses[0] == losses[1]


def test_a_training_that_breaks_leaves_the_model_as_it_was_found(tiny):
    model, tokenizer = tiny
    attention = model.config._attn_implementation

    def breaks(model, done, batch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.train(model, tokenizer, examples(tokenizer), loss=breaks, num_train_epochs=1)
    assert model.config._attn_implementation == attention
    assert "_original_forward" not in vars(model) and not model.training
    assert all(weight.requires_grad and weight.dtype == torch.float32 for weight in model.parameters())
    assert not any(layer.gradient_checkpointing for layer in model.model.layers)


def test_bf16_is_used_where_it_is_said_to_be(tiny, monkeypatch):
    """The loss goes around model.forward, where accelerate would switch it on."""
    model, tokenizer = tiny
    seen = []
    monkeypatch.setattr(settings, "fast_bf16", lambda: True)

    def spy(model, done, batch):
        seen.append(model.get_output_embeddings()(done.states).dtype)
        return trainer.answer_loss(model, done, batch)

    trainer.train(model, tokenizer, examples(tokenizer), loss=spy, max_steps=1)
    assert set(seen) == {torch.bfloat16}


def test_without_bf16_it_says_so_once_and_computes_in_32_bits(tiny, monkeypatch, capsys):
    model, tokenizer = tiny
    trainer._say_once.cache_clear()
    monkeypatch.setattr(settings, "fast_bf16", lambda: False)
    seen = []

    def spy(model, done, batch):
        seen.append(model.get_output_embeddings()(done.states).dtype)
        return trainer.answer_loss(model, done, batch)

    for _ in range(2):
        trainer.train(model, tokenizer, examples(tokenizer), loss=spy, max_steps=1, label=None)
    assert capsys.readouterr().out.count("no fast 16-bit arithmetic (bf16)") == 1 and set(seen) == {torch.float32}


def test_a_trained_model_computes_as_its_saved_copy_does(tiny, tmp_path, monkeypatch):
    model, tokenizer = tiny
    monkeypatch.setattr(settings, "fast_bf16", lambda: True)
    trainer.train(model, tokenizer, examples(tokenizer), max_steps=2)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, _ = base_model.open_model(tmp_path)
    ids = torch.tensor([tokenizer("hello there").input_ids])
    assert torch.equal(model(ids).logits, again(ids).logits)


def test_lora_trains_with_the_same_trainer(tiny):
    model, tokenizer = tiny
    before = model.model.layers[0].mlp.up_proj.weight.clone()
    lora = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    history = trainer.train(
        lora, tokenizer, examples(tokenizer), num_train_epochs=10, learning_rate=3e-2, logging_steps=1
    )
    assert history["loss"].tail(4).mean() < history["loss"].head(4).mean()
    assert torch.equal(model.model.layers[0].mlp.up_proj.base_layer.weight, before)


def test_examples_without_answers(tiny):
    model, tokenizer = tiny
    blank = {"input_ids": [1, 2], "labels": [encoding.IGNORE] * 2}
    for nothing in ([], [blank], [*examples(tokenizer), blank]):  # one alone in a batch would make every weight NaN
        with pytest.raises(CourseError, match="There is no answer to learn from"):
            trainer.train(model, tokenizer, nothing)
    with pytest.raises(CourseError, match="There is no answer to learn from"):
        trainer.train(model, tokenizer, examples(tokenizer), held_out=[blank])


def tuned(base, folder, callbacks=(), lessons=slice(None), rank=2, **changes):
    """Weights of an adapter after two passes with checkpoints."""
    model, tokenizer = base_model.open_model(base) if isinstance(base, str | os.PathLike) else base
    torch.manual_seed(0)
    adapted = get_peft_model(model, LoraConfig(r=rank, lora_dropout=0.1, target_modules="all-linear"))
    how = {"num_train_epochs": 2, "per_device_train_batch_size": 2, "learning_rate": 1e-2, "seed": 3, "save_steps": 2}
    how |= {"folder": folder, "callbacks": callbacks, "label": None}
    trainer.train(adapted, tokenizer, uneven(tokenizer)[lessons], **{**how, **changes})
    return {name: weight.detach().clone() for name, weight in adapted.named_parameters() if weight.requires_grad}


@pytest.fixture(scope="module")
def whole(tiny_folder, tmp_path_factory):
    """(folder with the checkpoints of a finished training of eight steps, its weights)."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, tuned(tiny_folder, folder)


@pytest.fixture
def checkpoints(whole, tmp_path):
    """A copy of that folder, to damage."""
    return shutil.copytree(whole[0], tmp_path / "checkpoints")


KILLED = """
import os, signal, sys
from transformers import TrainerCallback
sys.path += sys.argv[3:]
from test_trainer import tuned

class Plug(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 7:
            os.kill(os.getpid(), signal.SIGKILL)

tuned(sys.argv[1], sys.argv[2], [Plug()])
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_killed_training_resumes_to_the_same_weights(tiny_folder, tmp_path, whole):
    here = Path(__file__).parent
    command = [sys.executable, "-c", KILLED, tiny_folder, tmp_path / "killed", here, here.parent]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    last = trainer.last_checkpoint(tmp_path / "killed")
    assert last.endswith("checkpoint-6"), "in the middle of the second pass"
    unfinished = shutil.copytree(last, tmp_path / "killed" / "checkpoint-8")  # as if it had died while it saved
    (unfinished / trainer.SEAL).unlink()
    (unfinished / "optimizer.pt").write_bytes(b"half")
    steps = []

    class Count(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            steps.append(state.global_step)

    resumed = tuned(tiny_folder, tmp_path / "killed", [Count()])
    assert steps == [7, 8] and all(torch.equal(whole[1][name], resumed[name]) for name in whole[1])


FILES = ["adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json", "rng_state.pth"]


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def turn_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", [*FILES, trainer.SEAL])
@pytest.mark.parametrize("damage", [cut, turn_a_bit, Path.unlink])
def test_a_damaged_checkpoint(checkpoints, damage, name):
    before, last = checkpoints / "checkpoint-6", checkpoints / "checkpoint-8"
    assert trainer.last_checkpoint(checkpoints) == str(last)
    damage(last / name)
    if (damage, name) != (Path.unlink, trainer.SEAL):
        with pytest.raises(
            CourseError, match=r"The checkpoint checkpoint-8 in .* is not whole \(.* is .*\): remove it"
        ):
            trainer.last_checkpoint(checkpoints)
        shutil.rmtree(last)
    assert trainer.last_checkpoint(checkpoints) == str(before), "it goes on from the one before"


def test_no_code_in_a_checkpoint_is_run_to_see_whether_it_is_whole(checkpoints, tmp_path):
    class Harm:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "harm"),))

    torch.save(Harm(), checkpoints / "checkpoint-8" / "optimizer.pt")
    with pytest.raises(CourseError, match="is not whole"):
        trainer.last_checkpoint(checkpoints)
    assert not (tmp_path / "harm").exists()


def other_loss(model, done, batch):
    return trainer.answer_loss(model, done, batch)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"lessons": slice(1, None)}, "examples"),
        ({"learning_rate": 2e-2}, "learning_rate"),
        ({"seed": 4, "num_train_epochs": 3}, "num_train_epochs, seed"),
        ({"rank": 3}, "model"),
        ({"loss": other_loss}, "loss"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(tiny_folder, checkpoints, change, said):
    before = {path: path.stat().st_mtime_ns for path in checkpoints.rglob("*")}
    with pytest.raises(
        CourseError, match=rf"in .*checkpoints are of another training \({said}\): remove them, or give"
    ):
        tuned(tiny_folder, checkpoints, **change)
    assert {path: path.stat().st_mtime_ns for path in checkpoints.rglob("*")} == before


def test_a_checkpoint_of_another_base_and_one_without_a_mark_are_refused(tiny_folder, checkpoints):
    base = base_model.open_model(tiny_folder)
    base[0].model.layers[2].mlp.up_proj.weight.data[0, 0] += 1
    with pytest.raises(CourseError, match=r"of another training \(frozen weights\)"):
        tuned(base, checkpoints)
    (checkpoints / trainer.FINGERPRINT).unlink()
    with pytest.raises(CourseError, match="of another training"):
        tuned(tiny_folder, checkpoints)


def test_what_changes_no_weight_may_change(tiny_folder, checkpoints, whole):
    shutil.rmtree(checkpoints / "checkpoint-8")  # two steps are left
    weights = tuned(tiny_folder, checkpoints, save_steps=3, logging_steps=2, kept=0)
    assert all(torch.equal(whole[1][name], weights[name]) for name in weights)
