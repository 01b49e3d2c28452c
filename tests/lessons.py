"""Small chats and training examples for tests with the tiny model."""

from slmops_lab.task import encoding

CHATS = [[{"role": "user", "content": text}] for text in ["hi", "where is my parcel TT-1?", "one two three " * 9]]


def examples(tokenizer, count=8):
    return [
        encoding.encode(tokenizer, [{"role": "user", "content": "say " + "a " * i}], f"answer {i}")
        for i in range(count)
    ]


def uneven(tokenizer, count=8):
    """Examples whose answers are of very unequal lengths, and the longer the shorter the question."""
    return [
        encoding.encode(tokenizer, [{"role": "user", "content": "say " + "a " * (count - i)}], "and " * i * i + "so")
        for i in range(count)
    ]
