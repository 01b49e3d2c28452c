"""Batched answers: the same as transformers' own, one message at a time, whatever shares a batch or a prefix."""

import pytest
import torch
from lessons import CHATS, examples
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from slmops_lab.evaluation import generation
from slmops_lab.task import encoding

LENGTHS = [0, 1, 2, 3, 5, 9, 17, 33, 60, 4, 4, 41]


@pytest.fixture(scope="module")
def talker(tokenizer):
    """A random model in 64 bits, so that no tie is broken by rounding; one token in six ends its answer."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = LlamaConfig(num_key_value_heads=2, vocab_size=len(tokenizer), tie_word_embeddings=False, **sizes)
    model = LlamaForCausalLM(config).double().eval()
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, *range(100, len(tokenizer), 6)]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def chats(system):
    first = [{"role": "system", "content": system}] if system else []
    return [[*first, {"role": "user", "content": f"{'so ' * n}{n}"}] for n in LENGTHS]


def alone(model, tokenizer, chat, most):
    """Text and log probability by transformers' `generate`, one message, and one pass over what came out."""
    ids = torch.tensor([encoding.prompt_ids(tokenizer, chat)])
    whole = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=most, do_sample=False)
    answer = whole[0, ids.shape[1] :]
    log_probs = model(whole).logits[0, ids.shape[1] - 1 : -1].log_softmax(-1)
    text = answer[:-1] if answer[-1] in torch.tensor(model.generation_config.eos_token_id) else answer
    return tokenizer.decode(text, skip_special_tokens=True), log_probs.gather(1, answer[:, None]).sum().item()


@pytest.mark.parametrize("size", [1, 3, 32])
@pytest.mark.parametrize("system", ["", "Task: colours", "many words " * 30])
def test_texts_and_log_probabilities_are_those_of_one_message_alone(talker, tokenizer, size, system):
    asked = chats(system)
    texts, log_probs = generation.generate_scored(talker, tokenizer, asked, 12, size, None)
    by_transformers = [alone(talker, tokenizer, chat, 12) for chat in asked]
    assert texts == [text for text, _ in by_transformers]
    assert log_probs == pytest.approx([log_prob for _, log_prob in by_transformers], rel=1e-6)
    assert len({len(text) for text in texts}) > 3, "they end at different steps"


def test_one_token_and_none(talker, tokenizer):
    asked = chats("")
    texts = generation.generate(talker, tokenizer, asked, 1, 5, None)
    assert texts == [alone(talker, tokenizer, chat, 1)[0] for chat in asked]
    assert generation.generate(talker, tokenizer, [], 4, 5, None) == []


def test_equal_prompts_and_one_that_begins_another(talker, tokenizer, monkeypatch):
    prompts = {"a": [5, 6, 7], "b": [5, 6, 7, 8, 9], "c": [5, 6, 7], "d": [5]}
    monkeypatch.setattr(encoding, "prompt_ids", lambda tokenizer, chat: prompts[chat])
    for asked in (["a", "b", "c"], ["a", "c"], ["a", "b", "c", "d"]):
        texts = generation.generate(talker, tokenizer, asked, 8, 4, None)
        assert texts == [alone(talker, tokenizer, chat, 8)[0] for chat in asked]


@pytest.mark.parametrize(
    ("prompts", "shared"),
    [
        ([[1, 2, 3], [1, 2, 4]], [1, 2]),
        ([[1, 2], [1, 2, 3]], [1]),  # one token stays, to answer from
        ([[1, 2], [1, 2]], [1]),
        ([[1, 2], [2, 2]], []),
        ([[1], [1, 2]], []),
        ([[1, 9, 3], [1, 2, 3], [1, 5]], [1]),
        ([[1, 2, 3]], []),  # nothing is saved for one message
        ([], []),
    ],
)
def test_what_prompts_share(prompts, shared):
    assert generation._shared(prompts) == shared


def test_the_shared_prefix_is_read_once_and_ended_rows_leave(talker, tokenizer):
    asked, shapes = chats("Task: colours"), []
    hook = talker.model.register_forward_pre_hook(
        lambda body, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    generation.generate(talker, tokenizer, asked, 12, 32, None)
    hook.remove()
    prompts = [encoding.prompt_ids(tokenizer, chat) for chat in asked]
    shared = len(generation._shared(prompts))
    assert shared > 8 and shapes[0] == (1, shared)
    assert shapes[1] == (len(asked), max(map(len, prompts)) - shared)
    assert all(tokens == 1 for _, tokens in shapes[2:]) and shapes[-1][0] < len(asked)


def test_an_adapter_answers_as_by_transformers(talker, tokenizer):
    torch.manual_seed(1)
    adapted = get_peft_model(
        talker, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    ).eval()
    asked = chats("Task: colours")
    texts = generation.generate(adapted, tokenizer, asked, 8, 5, None)
    assert texts == [alone(adapted, tokenizer, chat, 8)[0] for chat in asked]
    plain = adapted.unload()
    assert texts != generation.generate(plain, tokenizer, asked, 8, 5, None), "the adapter says something else"


def test_draws_are_repeatable_and_follow_the_temperature(talker, tokenizer):
    asked = CHATS[:1] * 200
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(generation.generate_scored(talker, tokenizer, asked, 1, 64, None, temperature=0.5))
    assert drawn[0] == drawn[1] != drawn[2]
    ids = torch.tensor([encoding.prompt_ids(tokenizer, asked[0])])
    cold = (talker(ids).logits[0, -1] / 0.05).softmax(-1)
    torch.manual_seed(0)
    often, _ = generation.generate_scored(talker, tokenizer, asked, 1, 64, None, temperature=0.05)
    likeliest = generation.generate(talker, tokenizer, asked[:1], 1, 1, None)[0]
    share = often.count(likeliest) / len(often)
    assert abs(share - cold.max().item()) < 4 * (cold.max().item() * (1 - cold.max().item()) / 200) ** 0.5 + 0.01


def test_nats_keep_no_hidden_states(tiny, monkeypatch):
    model, tokenizer = tiny
    asked, real = [], encoding.forward

    def spy(model, batch, hidden_states=True):
        asked.append(hidden_states)
        return real(model, batch, hidden_states)

    monkeypatch.setattr(encoding, "forward", spy)
    assert len(generation.nats(model, tokenizer, examples(tokenizer))) == 8 and set(asked) == {False}
