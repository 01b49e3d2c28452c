import torch
from lessons import CHATS, examples

from slmops_lab.task import encoding
from slmops_lab.training import distillation, trainer


def test_only_the_answer_counts(tokenizer):
    example = encoding.encode(tokenizer, CHATS[1], '{"a":"TT-1"}')
    counted = [t for t in example["labels"] if t != encoding.IGNORE]
    assert tokenizer.decode(counted) == '{"a":"TT-1"}' + tokenizer.eos_token
    prompt = example["input_ids"][: -len(counted)]
    assert prompt == encoding.prompt_ids(tokenizer, CHATS[1])
    assert example["labels"][: len(prompt)] == [encoding.IGNORE] * len(prompt)


def test_loss_on_answer_tokens_is_the_models_own_loss(tiny):
    model, tokenizer = tiny
    batch = encoding.collate(tokenizer)(examples(tokenizer))
    own = model(**batch).loss
    done = encoding.forward(model, batch)
    assert torch.allclose(trainer.answer_loss(model, done, batch), own, atol=1e-5)


def test_layers_are_seen_where_they_read(tiny):
    model, tokenizer = tiny
    lesson = examples(tokenizer, 1)[0]
    batch = encoding.collate(tokenizer)([lesson, {k: v[2:] for k, v in lesson.items()}])
    done = encoding.forward(model, batch)
    read = []
    hook = model.model.layers[2].register_forward_pre_hook(lambda _, args: read.append(args[0]))
    alone = model(torch.tensor([lesson["input_ids"]]), output_hidden_states=True)
    hook.remove()
    count = len(lesson["input_ids"])
    assert done.layer(2).shape[0] == 2 * count - 2, "padding is left out"
    assert torch.allclose(done.layer(2)[:count], read[0][0], atol=1e-5)
    logits = model.get_output_embeddings()(done.layer(-1)[:count])
    assert torch.allclose(logits, alone.logits[0], atol=1e-5)


def test_states_follow_their_answers_into_the_batch(tiny):
    model, tokenizer = tiny
    studied, _ = distillation.study(model, tokenizer, examples(tokenizer, 4))
    order = [2, 0, 3]
    batch = encoding.collate(tokenizer)([studied[i] for i in order])
    assert torch.equal(batch["teacher_states"], torch.cat([studied[i]["teacher_states"] for i in order]))
