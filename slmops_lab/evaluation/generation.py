"""Generate answers in batches, and what the right ones cost a model.

Greedy or drawn, in PyTorch; deployed models answer through `deployment.runtime`, and `scoring` says what is right.
It costs a forward pass for each token of the longest answer of a batch.
"""

import torch
from tqdm import tqdm
from transformers import LogitsProcessor, LogitsProcessorList

from slmops_lab import measure, settings
from slmops_lab.task import encoding


def generate(model, tokenizer, chats, max_new_tokens=64, batch_size=32, label="answering"):
    """Greedy answers to a list of chats: a list of texts, in the same order.

    Batches hold prompts of similar length, padded on the left. label None shows no progress bar.
    """
    return _generate(model, tokenizer, chats, max_new_tokens, batch_size, label)[0]


def generate_scored(model, tokenizer, chats, max_new_tokens=64, batch_size=32, label="answering", temperature=0.0):
    """Like `generate`, and how sure the model was: (texts, log_probs), two lists.

    A log probability is that of all tokens of the answer with its end token, at temperature 1.
    temperature 0 takes the likeliest token each time, any other draws from softmax(logits / temperature).
    """
    return _generate(model, tokenizer, chats, max_new_tokens, batch_size, label, temperature, scored=True)


@torch.inference_mode()
def _generate(model, tokenizer, chats, max_new_tokens, batch_size, label, temperature=0.0, scored=False):
    prompts = [encoding.prompt_ids(tokenizer, chat) for chat in chats]
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    texts, log_probs = [""] * len(prompts), [0.0] * len(prompts)
    how = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    head = model.get_output_embeddings()
    with (
        head.register_forward_pre_hook(_contiguous),
        tqdm(total=len(prompts), desc=label, leave=False, disable=label is None) as bar,
    ):
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = tokenizer.pad({"input_ids": [prompts[i] for i in chosen]}, return_tensors="pt")
            batch = batch.to(model.device)
            gains = _Gains()
            listening = {"logits_processor": LogitsProcessorList([gains])} if scored else {}
            sequences = model.generate(**batch, max_new_tokens=max_new_tokens, **how, **listening)
            answers = sequences[:, batch["input_ids"].shape[1] :]
            if scored:
                ended = (answers == tokenizer.eos_token_id).cumsum(-1) > 0
                after = torch.nn.functional.pad(ended[:, :-1], (1, 0))  # padding behind the end token
                totals = gains.of(sequences).masked_fill(after, 0).sum(-1).tolist()
            for row, i in enumerate(chosen):
                texts[i] = tokenizer.decode(answers[row], skip_special_tokens=True)
                log_probs[i] = totals[row] if scored else None
            bar.update(len(chosen))
    if len(prompts) > 1:  # not between two requests, whose time may be taken
        measure.give_back()  # a cache that grows with each token leaves holes of every size
    return texts, log_probs


class _Gains(LogitsProcessor):
    """Notes the log probability of each token that `generate` takes, and changes nothing.

    Keeping the logits of all steps for it, as `generate` can, takes gigabytes for a batch.
    """

    def __init__(self):
        self.gained, self.last = [], None

    def __call__(self, input_ids, scores):
        self._note(input_ids)
        self.last = scores.float().log_softmax(-1)
        return scores

    def _note(self, input_ids):
        if self.last is not None:
            self.gained.append(self.last.gather(1, input_ids[:, -1:]))

    def of(self, sequences):
        """(batch, new tokens) log probabilities, once `generate` has returned (batch, all tokens)."""
        self._note(sequences)
        return torch.cat(self.gained, dim=1)


def _contiguous(head, inputs):
    """Without this, torch (2.13) copies a frozen head once per message: gigabytes for a batch.

    The head gets a slice, each message's last state; torch.matmul does not fold a batch that is not
    contiguous, unless a gradient is wanted.
    """
    return tuple(states.contiguous() for states in inputs)


@torch.inference_mode()
def nats(model, tokenizer, examples, batch_size=16):
    """What the right answers cost a model: a list, for each encoded example, of -log P(answer with its end).

    In nats; divided by its tokens and put into exp it is the perplexity of an answer.
    """
    batch_of, head = encoding.collate(tokenizer), model.get_output_embeddings()
    order = sorted(range(len(examples)), key=lambda i: -len(examples[i]["input_ids"]))
    costs = [0.0] * len(examples)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.fast_bf16()):
            done = encoding.forward(model, batch_of([examples[i] for i in chosen]))
            log_probs = head(done.states).float().log_softmax(-1)
        gained = log_probs.gather(1, done.targets[:, None])[:, 0]
        answers = [sum(t != encoding.IGNORE for t in examples[i]["labels"]) for i in chosen]
        for i, own in zip(chosen, gained.split(answers), strict=True):
            costs[i] = -float(own.double().sum())
    measure.give_back()
    return costs
