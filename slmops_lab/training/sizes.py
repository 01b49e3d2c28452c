"""How large models are, and on which memory they train and answer here: computed from their configurations.

Shapes are those of the published config.json files (https://huggingface.co/OWNER/NAME/blob/main/config.json). Bytes
follow from what `trainer` and `recipe` hold; `measured` checks the sum on the one model that is at hand. Longer
messages and larger batches need more. Time is another matter: a model with ten times the weights takes about ten times
as long for a step.
"""

from dataclasses import dataclass

import pandas

from slmops_lab import measure
from slmops_lab.errors import CourseError

LIBRARIES = 0.55e9  # bytes that Python, torch and transformers take before a model is there; measured
TOKENS, EXAMPLES = 128, 2  # of a message with its answer, and in a step
STEP_BYTES = 16  # of a trained weight in 32 bits: itself, its gradient, and Adam's two means


@dataclass(frozen=True)
class Shape:
    """A decoder of the Llama family, as its config.json has it."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head: int
    words: int
    tied: bool = True
    bias: bool = False  # of the query, key and value products

    @property
    def per_layer(self):
        """Weights of one layer."""
        keys = self.kv_heads * self.head
        attention = 2 * self.hidden * self.heads * self.head + 2 * self.hidden * keys
        biases = (self.heads * self.head + 2 * keys) if self.bias else 0
        return attention + biases + 3 * self.hidden * self.intermediate + 2 * self.hidden

    @property
    def parameters(self):
        """All weights: layers, final norm, the table, and the head where it is not the table."""
        return self.layers * self.per_layer + self.hidden + (1 if self.tied else 2) * self.words * self.hidden

    @classmethod
    def of(cls, config):
        """The shape of a transformers configuration. Raises CourseError where it is of another family."""
        try:
            heads, hidden = config.num_attention_heads, config.hidden_size
            return cls(
                *(config.num_hidden_layers, hidden, config.intermediate_size, heads, config.num_key_value_heads),
                getattr(config, "head_dim", None) or hidden // heads,
                *(config.vocab_size, config.tie_word_embeddings, bool(getattr(config, "attention_bias", False))),
            )
        except AttributeError as error:
            raise CourseError(f"This is no decoder of the Llama family: {error}.") from None


KNOWN = {
    "HuggingFaceTB/SmolLM2-135M": Shape(30, 576, 1536, 9, 3, 64, 49_152),
    "HuggingFaceTB/SmolLM2-360M": Shape(32, 960, 2560, 15, 5, 64, 49_152),
    "Qwen/Qwen2.5-0.5B": Shape(24, 896, 4864, 14, 2, 64, 151_936, bias=True),
    "Qwen/Qwen2.5-1.5B": Shape(28, 1536, 8960, 12, 2, 128, 151_936, bias=True),
    "HuggingFaceTB/SmolLM2-1.7B": Shape(24, 2048, 8192, 32, 32, 64, 49_152),
    "microsoft/Phi-4-mini-instruct": Shape(32, 3072, 8192, 24, 8, 128, 200_064),
    "meta-llama/Llama-3.1-8B": Shape(32, 4096, 14_336, 32, 8, 128, 128_256, tied=False),
}


def tuning_bytes(shape, upper=0.5, lora=None):
    """Peak memory of tuning: the upper layers in full, or adapters of rank `lora` on all matrices.

    32 bits a weight; what is trained has a copy in 16 bits in each step besides. Activations are those of
    `trainer.activation_bytes` for `EXAMPLES` messages of `TOKENS` tokens, at most what the trainer keeps.
    """
    from slmops_lab.training import trainer

    if lora is None:
        layers = shape.layers - max(1, int(shape.layers * (1 - upper)))
        trained = layers * shape.per_layer
    else:
        layers = shape.layers
        q, kv = shape.heads * shape.head, shape.kv_heads * shape.head
        sides = [
            (shape.hidden, q),
            (q, shape.hidden),
            *[(shape.hidden, kv)] * 2,
            *[(shape.hidden, shape.intermediate)] * 3,
        ]
        trained = layers * lora * sum(a + b for a, b in sides)
    linear = EXAMPLES * TOKENS * (40 * shape.hidden + 16 * shape.intermediate)
    kept = min(layers * linear, trainer.KEPT_ACTIVATIONS * 1e6)
    return 4 * shape.parameters + (STEP_BYTES - 4 + 2) * trained + 2 * shape.words * shape.hidden + kept + LIBRARIES


def answering_bytes(shape, bits=4, tokens=1024):
    """Peak memory of answering: the weights, below 16 bits with a scale for each 32 of them, and the KV cache."""
    each = bits / 8 + (4 / 32 if bits < 16 else 0)
    return each * shape.parameters + 8 * shape.layers * shape.kv_heads * shape.head * tokens + 0.1e9


def table(limit):
    """What fits into `limit` bytes: a row for each of `KNOWN`, in GB, and which of it fits."""
    rows = {}
    for name, shape in KNOWN.items():
        needs = {
            "tune the upper half": tuning_bytes(shape),
            "tune LoRA, rank 16": tuning_bytes(shape, lora=16),
            "answer, 16 bits": answering_bytes(shape, 16),
            "answer, 4 bits": answering_bytes(shape, 4),
        }
        shown = {what: f"{size / 1e9:.1f}{'' if size <= limit else ' (no)'}" for what, size in needs.items()}
        rows[name.split("/")[1]] = {"billion weights": f"{shape.parameters / 1e9:.2f}"} | shown
    return pandas.DataFrame(rows).T.rename_axis("model")


def measured(base):
    """(bytes computed, bytes measured) of tuning a base model's upper half for a few steps, in a process of its own."""
    with measure.FreshProcess() as process:
        computed = process.call(_tune_a_little, str(base))
        return computed, process.peak_memory()


def _tune_a_little(base):
    from slmops_lab.training import base_model, recipe, trainer

    model, tokenizer = base_model.open_model(base)
    words = tokenizer("late parcel " * TOKENS)["input_ids"][:TOKENS]
    examples = [{"input_ids": words, "labels": [-100] * (TOKENS - 16) + words[-16:]}] * 8
    with recipe.upper_half(model, tokenizer, examples) as read:
        trainer.train(model, tokenizer, read, None, per_device_train_batch_size=EXAMPLES, max_steps=3)
    return tuning_bytes(Shape.of(model.config))
