"""Training, generation, pruning, distillation, export and runtimes, on a tiny Llama."""

import pytest
import torch
from lessons import examples

from slmops_lab import settings
from slmops_lab.evaluation import generation
from slmops_lab.training import base_model, trainer


def test_a_loss_on_inner_layers_has_the_same_gradient_when_activations_are_recomputed(tiny_folder, monkeypatch):
    gradients = []
    for kept in (10**9, 0):
        monkeypatch.setattr(trainer, "KEPT_ACTIVATIONS", kept)
        monkeypatch.setattr(settings, "fast_bf16", lambda: False)
        model, tokenizer = base_model.open_model(tiny_folder)

        def loss(model, done, batch):
            return done.layer(2).square().mean() + trainer.answer_loss(model, done, batch)

        trainer.train(model, tokenizer, examples(tokenizer), loss=loss, max_steps=2, learning_rate=1e-2)
        gradients.append(model.model.layers[0].mlp.up_proj.weight.detach())
    assert torch.allclose(*gradients, atol=1e-6)


def test_training_learns_and_is_repeatable(tiny_folder):
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        model, tokenizer = base_model.open_model(tiny_folder)
        history = trainer.train(
            model,
            tokenizer,
            examples(tokenizer),
            num_train_epochs=40,
            learning_rate=1e-2,
            seed=1,
            logging_steps=1,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=1,
        )
        losses.append(history["loss"].tolist())
    assert losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0] / 2
    answer = generation.generate(model, tokenizer, [[{"role": "user", "content": "say a a "}]], 8)[0]
    assert answer.startswith("answer")
    assert not any(layer.gradient_checkpointing for layer in model.model.layers), "left as it was found"


def test_a_training_that_breaks_leaves_the_model_as_it_was_found(tiny):
    model, tokenizer = tiny
    attention = model.config._attn_implementation

    def breaks(model, done, batch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.train(model, tokenizer, examples(tokenizer), loss=breaks, num_train_epochs=1)
    assert model.config._attn_implementation == attention
    assert "_original_forward" not in vars(model) and not model.training
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
    from peft import LoraConfig, get_peft_model

    model, tokenizer = tiny
    before = model.model.layers[0].mlp.up_proj.weight.clone()
    lora = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    history = trainer.train(
        lora, tokenizer, examples(tokenizer), num_train_epochs=20, learning_rate=1e-2, logging_steps=1
    )
    assert history["loss"].tail(4).mean() < history["loss"].head(4).mean()
    assert torch.equal(model.model.layers[0].mlp.up_proj.base_layer.weight, before)
