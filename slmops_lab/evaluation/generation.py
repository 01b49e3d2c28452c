"""Generate answers in batches, and what the right ones cost a model.

Greedy or drawn, in PyTorch; deployed models answer through `deployment.runtime`, and `scoring` says what is right.
What all prompts of a call begin with is read once; each token of an answer costs a forward pass over the messages
of a batch that have not ended yet.
"""

import copy

import torch
from tqdm import tqdm
from transformers import DynamicCache

from slmops_lab import devices, measure
from slmops_lab.task import encoding


def generate(model, tokenizer, chats, max_new_tokens=64, batch_size=32, label="answering"):
    """Greedy answers to a list of chats: a list of texts, in the same order.

    Batches hold prompts of similar length, padded on the left. label None shows no progress bar.
    """
    return _generate(model, tokenizer, chats, max_new_tokens, batch_size, label)[0]


def generate_scored(
    model, tokenizer, chats, max_new_tokens=64, batch_size=32, label="answering", temperature=0.0, shared=None
):
    """Like `generate`, and how sure the model was: (texts, log_probs), two lists.

    shared: how many tokens at the beginning of the prompts to read once, where other machines answer other messages
    of the same `batches`; None finds it out.

    A log probability is that of all tokens of the answer with its end token, at temperature 1.
    temperature 0 takes the likeliest token each time, any other draws from softmax(logits / temperature).
    """
    how = {"temperature": temperature, "scored": True, "shared": shared}
    return _generate(model, tokenizer, chats, max_new_tokens, batch_size, label, **how)


def _generate(model, *how, **more):
    with devices.at_work(model) as device:
        return _generate_there(device, model, *how, **more)


@torch.inference_mode()
def _generate_there(
    device, model, tokenizer, chats, max_new_tokens, batch_size, label, temperature=0.0, scored=False, shared=None
):
    prompts, found, planned = batches(tokenizer, chats, devices.wide(batch_size, device))
    texts, log_probs = [""] * len(prompts), [None] * len(prompts)
    shared = prompts[0][: found if shared is None else shared] if prompts else []
    prefix = _read(model, shared)
    with tqdm(total=len(prompts), desc=label, leave=False, disable=label is None) as bar:
        for chosen in planned:
            rest = [prompts[i][len(shared) :] for i in chosen]
            cache = copy.deepcopy(prefix)
            cache.batch_repeat_interleave(len(chosen))
            answers = _answer(model, tokenizer, cache, len(shared), rest, max_new_tokens, temperature)
            for i, (tokens, log_prob) in zip(chosen, answers, strict=True):
                texts[i] = tokenizer.decode(tokens, skip_special_tokens=True)
                log_probs[i] = log_prob if scored else None
            bar.update(len(chosen))
    if len(prompts) > 1:  # not between two requests, whose time may be taken
        measure.give_back()  # a cache that grows with each token leaves holes of every size
    return texts, log_probs


def batches(tokenizer, chats, batch_size=32):
    """How `generate` shares out its work: (prompts as tokens, how many of them all begin with, batches of indices).

    Who answers one batch with that beginning computes the same numbers as who answers all.
    """
    prompts = [encoding.prompt_ids(tokenizer, chat) for chat in chats]
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    planned = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return prompts, len(_shared(prompts)), planned


def _shared(prompts):
    """The tokens with which all of several prompts begin; each keeps one of its own at least."""
    if len(prompts) < 2:
        return []
    first, last = min(prompts), max(prompts)  # what these two share, all share
    most = min(map(len, prompts)) - 1
    return first[: next((i for i in range(most) if first[i] != last[i]), most)]


def _read(model, tokens):
    """The keys and values of a prefix, for a batch of one."""
    cache = DynamicCache(config=encoding.decoder(model).config)
    if tokens:
        encoding.decoder(model).model(input_ids=_there(model, [tokens]), past_key_values=cache, use_cache=True)
    return cache


def _answer(model, tokenizer, cache, known, rest, max_new_tokens, temperature):
    """Continue a batch: a list of (tokens without the end token, log probability), one for each of `rest`.

    cache holds the `known` tokens that stand before each of them. Rows that have ended leave the batch once they
    are a quarter of it: to copy the others' keys and values costs about as much as one step.
    """
    base, head = encoding.decoder(model), model.get_output_embeddings()
    ends = _there(model, _ends(base, tokenizer))
    padded = tokenizer.pad({"input_ids": rest}, padding_side="left", return_tensors="pt")
    ids, mask = _there(model, padded["input_ids"]), _there(model, padded["attention_mask"])
    mask = torch.nn.functional.pad(mask, (known, 0), value=1)
    rows, answers, sums = torch.arange(len(rest)), [[] for _ in rest], torch.zeros(len(rest), dtype=torch.float64)
    open_rows = torch.ones(len(rest), dtype=torch.bool)
    for _ in range(max_new_tokens):
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        read = {"attention_mask": mask, "position_ids": positions, "past_key_values": cache, "use_cache": True}
        states = base.model(input_ids=ids, **read).last_hidden_state[:, -1]
        logits = head(states.contiguous()).float()  # of a slice, torch (2.13) would copy the head once per message
        ids = _taken(logits, temperature)
        gained = logits.log_softmax(-1).gather(1, ids)[:, 0].cpu().double()  # Apple's GPU has no 64 bits
        sums[rows] += gained.masked_fill(~open_rows[rows], 0)
        open_rows[rows] &= ~torch.isin(ids[:, 0], ends).cpu()
        for row, token in zip(rows.tolist(), ids[:, 0].tolist(), strict=True):
            if open_rows[row]:
                answers[row].append(token)
        going = open_rows[rows].nonzero()[:, 0]
        if not len(going):
            break
        if len(rows) - len(going) >= len(rows) / 4:
            rows, there = rows[going], _there(model, going)
            cache.batch_select_indices(there)
            ids, mask = ids[there], mask[there]
        mask = torch.nn.functional.pad(mask, (0, 1), value=1)
    return list(zip(answers, sums.tolist(), strict=True))


def _there(model, numbers):
    """Whole numbers as a tensor on the model's device."""
    return torch.as_tensor(numbers).to(encoding.decoder(model).device)


def _ends(base, tokenizer):
    """Ids of the tokens that end an answer."""
    ends = base.generation_config.eos_token_id
    return [tokenizer.eos_token_id] if ends is None else ends if isinstance(ends, list) else [ends]


def _taken(logits, temperature):
    """(rows, 1): the likeliest token of each row, or one drawn at a temperature."""
    if not temperature:
        return logits.argmax(-1, keepdim=True)
    return torch.multinomial((logits / temperature).softmax(-1), 1)


def nats(model, tokenizer, examples, batch_size=16):
    """What the right answers cost a model: a list, for each encoded example, of -log P(answer with its end).

    In nats; divided by its tokens and put into exp it is the perplexity of an answer.
    """
    with devices.at_work(model) as device:
        return _nats(model, tokenizer, examples, devices.wide(batch_size, device), device)


@torch.inference_mode()
def _nats(model, tokenizer, examples, batch_size, device):
    batch_of, head = encoding.collate(tokenizer), model.get_output_embeddings()
    order = sorted(range(len(examples)), key=lambda i: -len(examples[i]["input_ids"]))
    costs = [0.0] * len(examples)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        with devices.arithmetic(device):
            done = encoding.forward(model, batch_of([examples[i] for i in chosen]), hidden_states=False)
            log_probs = head(done.states).float().log_softmax(-1)
        gained = log_probs.gather(1, done.targets[:, None])[:, 0]
        answers = [sum(t != encoding.IGNORE for t in examples[i]["labels"]) for i in chosen]
        for i, own in zip(chosen, gained.split(answers), strict=True):
            costs[i] = -float(own.cpu().double().sum())
    measure.give_back()
    return costs
