"""Messages and answers as tokens, batches of them, and one forward pass without the vocabulary head.

Training, PyTorch's generation and the served runtimes all read a message as `defuse` leaves it. What a message
says is `schema`'s job. Importing this loads no torch: a process that serves an ONNX model needs `defuse` only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

IGNORE = -100  # PyTorch's and transformers' mark for "no loss here"


def control_marks(marks):
    """Texts that a tokenizer reads as one special token each -> the regular expression that `defuse` takes."""
    return re.compile("|".join(map(re.escape, sorted(marks, key=len, reverse=True))) or r"(?!)")


def defuse(chat, marks):
    """The chat with nothing in it that a tokenizer would take for more than text.

    A control mark counts wherever it stands, so whoever writes one into a message could end the turn
    and speak as the system: it gets a space. A NUL would end the prompt right there, instructions and
    all: it becomes a space. Half a surrogate pair, which is no character, becomes a question mark.
    """
    return [{**turn, "content": _plain(turn["content"], marks)} for turn in chat]


def _plain(text, marks):
    text = text.replace("\0", " ").encode("utf-8", "replace").decode("utf-8")
    return marks.sub(lambda mark: mark[0][0] + " " + mark[0][1:], text)


def _marks_of(tokenizer):
    return control_marks(token.content for token in tokenizer.added_tokens_decoder.values() if token.special)


def encode(tokenizer, messages, answer):
    """One training example: {'input_ids', 'labels'}, both lists of the same length.

    The prompt's labels are IGNORE: the loss looks at the answer and its end token only. Control marks in
    messages and answer are text, as `defuse` has it.
    """
    prompt = prompt_ids(tokenizer, messages)
    target = tokenizer(_plain(answer, _marks_of(tokenizer)), add_special_tokens=False)["input_ids"]
    target.append(tokenizer.eos_token_id)
    return {"input_ids": prompt + target, "labels": [IGNORE] * len(prompt) + target}


def prompt_ids(tokenizer, messages):
    """Chat messages -> token ids that end where the model's answer begins, the same as a served model reads."""
    chat = defuse(messages, _marks_of(tokenizer))
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def collate(tokenizer):
    """Function: list of examples -> batch of (batch, longest) tensors, padded on the right.

    Further tensors in an example, such as one row per token, are laid end to end.
    """
    import torch

    def batch(examples):
        longest = max(len(e["input_ids"]) for e in examples)

        def padded(rows, value):
            return torch.tensor([row + [value] * (longest - len(row)) for row in rows])

        tensors = {
            "input_ids": padded([e["input_ids"] for e in examples], tokenizer.pad_token_id),
            "labels": padded([e["labels"] for e in examples], IGNORE),
            "attention_mask": padded([[1] * len(e["input_ids"]) for e in examples], 0),
        }
        for key in set(examples[0]) - {"input_ids", "labels", "length"}:
            tensors[key] = torch.cat([e[key] for e in examples])
        return tensors

    return batch


@dataclass(frozen=True)
class Forward:
    """What a decoder computed for one batch, padding left out, example after example."""

    hidden: tuple  # per layer what it reads (if asked for), then what the last one wrote: (batch, longest, size)
    real: torch.Tensor  # (batch, longest): which positions are no padding
    answer: torch.Tensor  # (tokens,): which tokens are followed by an answer token
    targets: torch.Tensor  # (answer tokens,): the answer tokens themselves

    def layer(self, index):
        """(tokens, hidden size): what layer `index` reads; -1 is the last state, normalized."""
        return self.hidden[index][self.real]

    @property
    def states(self):
        """(answer tokens, hidden size): the last states, from which answer tokens are predicted."""
        return self.layer(-1)[self.answer]


def decoder(model):
    """The transformers model, also where PEFT has wrapped it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def forward(model, batch, hidden_states=True):
    """Run the decoder, without its vocabulary head, on a batch of `collate`: a `Forward`, on the model's device.

    hidden_states=False keeps the last state only, which is all that next-token losses need. Where the batch has
    `lower_states`, (tokens, hidden size), the decoder's first layer reads them instead of the tokens' embeddings.
    """
    import torch

    body = decoder(model).model
    batch = {key: tensor.to(body.device) for key, tensor in batch.items()}
    real = batch["attention_mask"].bool()
    followed = torch.nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=IGNORE)
    read = {"input_ids": batch["input_ids"]}
    if "lower_states" in batch:
        states = batch["lower_states"]
        padded = torch.zeros(*real.shape, states.shape[-1], dtype=body.dtype, device=body.device)
        padded[real] = states.to(padded.dtype)
        read = {"inputs_embeds": padded}
    out = body(**read, attention_mask=batch["attention_mask"], output_hidden_states=hidden_states, use_cache=False)
    followed = followed[real]
    answer = followed != IGNORE  # the state at position t predicts token t + 1
    return Forward((*(out.hidden_states or ())[:-1], out.last_hidden_state), real, answer, followed[answer])
