"""Messages and answers as tokens, batches of them, and one forward pass without the vocabulary head."""

from dataclasses import dataclass

import torch

IGNORE = -100  # PyTorch's and transformers' mark for "no loss here"


def encode(tokenizer, messages, answer):
    """One training example: {'input_ids', 'labels'}, both lists of the same length.

    The prompt's labels are IGNORE: the loss looks at the answer and its end token only.
    """
    prompt = prompt_ids(tokenizer, messages)
    target = tokenizer(answer, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    return {"input_ids": prompt + target, "labels": [IGNORE] * len(prompt) + target}


def prompt_ids(tokenizer, messages):
    """Chat messages -> token ids that end where the model's answer begins."""
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def collate(tokenizer):
    """Function: list of examples -> batch of (batch, longest) tensors, padded on the right.

    Further tensors in an example, such as one row per token, are laid end to end.
    """

    def batch(examples):
        longest = max(len(e["input_ids"]) for e in examples)

        def padded(key, value):
            rows = [e[key] + [value] * (longest - len(e[key])) for e in examples]
            return torch.tensor(rows)

        tensors = {
            "input_ids": padded("input_ids", tokenizer.pad_token_id),
            "labels": padded("labels", IGNORE),
            "attention_mask": torch.tensor(
                [[1] * len(e["input_ids"]) + [0] * (longest - len(e["input_ids"])) for e in examples]
            ),
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
    """Run the decoder, without its vocabulary head, on a batch of `collate`: a `Forward`.

    hidden_states=False keeps the last state only, which is all that next-token losses need.
    """
    real = batch["attention_mask"].bool()
    followed = torch.nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=IGNORE)
    out = decoder(model).model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=hidden_states
    )
    followed = followed[real]
    answer = followed != IGNORE  # the state at position t predicts token t + 1
    return Forward((*(out.hidden_states or ())[:-1], out.last_hidden_state), real, answer, followed[answer])
