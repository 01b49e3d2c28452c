"""Answers a second: one at a time, two callers, several rows of one generator, ONNX Runtime GenAI's own `Engine`.

    python tests/benchmarks/batching.py [--folder MODEL] [--messages 48] [--rounds 5] [--tokens 64]

All answer the same messages with the same int4 model (the student where `make course` has made one, else the base
model), in turns, in this process; the likeliest token each time, at most --tokens of them. "One at a time" is what the
endpoint does: it keeps what it has read of the constant beginning of the prompt. Two callers are two threads of Python
that ask the same model at once, each with a generator of its own. What a batch offers on a processor: up to four
requests begin together, and nobody joins until all have ended (`genai_config.json` without a section "engine", or with
"static_batching"). Joining needs paged attention, which the model builder makes for CUDA and WebGPU only. The engine
reads logits of every position, our graphs give those of the last one: here they are repeated.

Printed are medians of the rounds, and ratios to one at a time of the same round. Nothing else should run on the
machine.

Two cores (Intel with AVX512-VNNI), 24 messages, medians of five rounds; one at a time, then the ratios:
    ten layers, whole vocabulary, 24 tokens each: 12.8 answers/s; four rows 1.20, engine 1.07
    a student of 15 layers whose answers have two or three tokens: 24.9 answers/s; four rows 0.74, engine 0.74
    the same student, at most 24 tokens: 25.3 answers/s; two callers 0.95; with one thread instead of two 0.56
What is read is bound by the processor, one message or four; only the tokens that are written gain by company. One
thread does 0.56 of what two do, so two processes of one thread each could add an eighth at most.
"""

import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import onnx
import pandas
from endpoint_load import begin, student_or_base

from slmops_lab import measure
from slmops_lab.deployment import runtime

ROWS = 4  # as many as the engine's static scheduler begins together


def for_the_engine(folder, out):
    """A copy of a model whose logits have a row for each token that it reads: the last token's, repeated."""
    shutil.copytree(folder, out)
    model = onnx.load(out / "model.onnx", load_external_data=False)
    graph, make = model.graph, onnx.helper.make_node
    maker = next(node for node in graph.node if "logits" in node.output)
    maker.output[list(maker.output).index("logits")] = "logits/own"
    graph.node.extend(
        [
            make("Shape", ["input_ids"], ["logits/given"]),
            make("Constant", [], ["logits/one"], value_ints=[1]),
            make("Concat", ["logits/given", "logits/one"], ["logits/shape"], axis=0),
            make("Expand", ["logits/own", "logits/shape"], ["logits"]),
        ]
    )
    shape = next(value for value in graph.output if value.name == "logits").type.tensor_type.shape
    shape.dim[1].Clear()
    shape.dim[1].dim_param = "sequence_length"
    onnx.save(model, out / "model.onnx")
    return out


class OneAtATime:
    """The endpoint's way."""

    def __init__(self, folder):
        self.served = runtime.GenAIRuntime(folder)

    def answer(self, chats, tokens):
        return [self.served.generate(chat, tokens) for chat in chats]


class TwoCallers(OneAtATime):
    """Two threads of Python, the same model."""

    def answer(self, chats, tokens):
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda chat: self.served.generate(chat, tokens), chats))


class Rows(OneAtATime):
    """One generator with a row for each chat."""

    def answer(self, chats, tokens):
        groups = (chats[at : at + ROWS] for at in range(0, len(chats), ROWS))
        return [text for group in groups for text in self.served.generate_batch(group, tokens)]


class Engine(OneAtATime):
    """ONNX Runtime GenAI's `Engine`, a group of requests after the other."""

    def __init__(self, folder):
        super().__init__(folder)
        self.og = self.served._og
        self.engine = self.og.Engine(self.served.model)
        self.events = self.engine.create_event_buffer(ROWS)

    def answer(self, chats, tokens):
        return [text for at in range(0, len(chats), ROWS) for text in self._group(chats[at : at + ROWS], tokens)]

    def _group(self, chats, tokens):
        made = {self._ask(chat, tokens): [] for chat in chats}
        left = len(made)
        while left:
            for event in self.engine.run(self.events):
                if event.flags & self.og.EngineEventFlags.TOKEN:
                    made[event.request].append(event.token)
                left -= bool(event.flags & self.og.EngineEventFlags.TURN_FINISHED)
        for request in made:
            request.close()
        return [self.served.tokenizer.decode(numpy.array(ids, numpy.int32)) for ids in made.values()]

    def _ask(self, chat, tokens):
        ids, options = self.served.tokenizer.encode(self.served.prompt(chat)), self.og.RequestOptions()
        options.set_max_session_tokens(len(ids) + tokens)
        request = self.engine.create_request(options=options)
        how = self.og.TurnOptions(request)
        how.set_max_generated_tokens(tokens)
        how.set_do_sample(False)
        request.begin_turn(ids, how)
        return request


def in_process(folder, chats, rounds, tokens, scratch):
    ways = {"one at a time": OneAtATime(folder), "two callers": TwoCallers(folder)}
    ways |= {f"generator, {ROWS} rows": Rows(folder)}
    ways[f"engine, {ROWS} requests"] = Engine(for_the_engine(folder, scratch / "engine"))
    rates, texts = [], {}
    for number in range(rounds + 1):
        row = {}
        for name, way in ways.items():
            with measure.timed() as elapsed:
                texts[name] = way.answer(chats, tokens)
            row[name] = len(chats) / elapsed.seconds
        if number:  # the first round warms up
            rates.append(row)
    rates = pandas.DataFrame(rates)
    first = rates.columns[0]
    for name in ways:
        same = sum(a == b for a, b in zip(texts[name], texts[first], strict=True))
        ratio = (rates[name] / rates[first]).median()
        print(
            f"{name:22} {rates[name].median():6.1f} answers/s, {ratio:.2f} times, {same} of {len(chats)} texts the same"
        )


def main():
    asked, _, chats = begin(__doc__, "--tokens", 64)
    with tempfile.TemporaryDirectory() as scratch:
        folder = student_or_base(asked, scratch)
        in_process(folder, chats, asked.rounds, asked.tokens, Path(scratch))


if __name__ == "__main__":
    main()
