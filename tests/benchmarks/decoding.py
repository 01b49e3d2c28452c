"""Decoding speed: ONNX Runtime GenAI, int4, against llama.cpp on the same weights, and against the memory's limit.

    pip install llama-cpp-python      # builds from source, some minutes; not a dependency of the course
    python tests/benchmarks/decoding.py [--rounds 5] [--tokens 64]

Both run the course's base model with two threads at most, in alternation, each in a process of its own:
llama.cpp the GGUF file (Q4_1) as it was published, GenAI the same weights rounded to int4 by the course's
export. Printed are medians: tokens per second after the first, milliseconds to the first one, and the share
of the limit that the memory's bandwidth sets for the bytes of each file. Nothing else should run on the machine.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from slmops_lab import measure, settings
from slmops_lab.deployment import export
from slmops_lab.operations import bench
from slmops_lab.training import base_model

_model = None
PROMPT = 40


def open_genai(path):
    global _model
    from slmops_lab.deployment import runtime

    _model = runtime.GenAIRuntime(path)


def run_genai(tokens):
    ids = _model.tokenizer.encode("the parcel " * PROMPT)[:PROMPT]
    begun = time.perf_counter()
    generator = _model.start(ids, PROMPT + tokens, min_length=PROMPT + tokens)
    generator.generate_next_token()
    first = time.perf_counter()
    while not generator.is_done():
        generator.generate_next_token()
    return first - begun, (tokens - 1) / (time.perf_counter() - first)


def open_llama(path):
    global _model
    from llama_cpp import Llama

    _model = Llama(path, n_threads=settings.threads(), n_threads_batch=settings.threads(), n_ctx=512, verbose=False)


def run_llama(tokens):
    _model.reset()
    ids = _model.tokenize(b"the parcel " * PROMPT)[:PROMPT]
    begun, first = time.perf_counter(), None
    for count, _ in enumerate(_model.generate(ids, temp=0.0, top_k=1), 1):
        first = first or time.perf_counter()
        if count == tokens:  # whatever it says, it goes on
            return first - begun, (tokens - 1) / (time.perf_counter() - first)
    raise RuntimeError("llama.cpp stopped by itself")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    asked = parser.parse_args()
    try:
        import llama_cpp  # noqa: F401
    except ImportError:
        sys.exit("llama-cpp-python is not installed: pip install llama-cpp-python (it builds for some minutes).")
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        ours = export.to_onnx(base_model.fetch(), scratch / "int4", "int4")
        theirs = base_model.download_gguf(scratch)
        systems = {
            "ONNX Runtime GenAI": (open_genai, run_genai, ours, measure.weight_bytes(ours)),
            "llama.cpp": (open_llama, run_llama, theirs, theirs.stat().st_size),
        }
        workers = {name: measure.FreshProcess() for name in systems}
        times = {name: [] for name in systems}
        for name, (opening, _, path, _) in systems.items():
            workers[name].call(opening, str(path))
        for number in range(asked.rounds + 1):
            for name, (_, running, _, _) in systems.items():
                measured = workers[name].call(running, asked.tokens)
                if number:  # the first round warms up
                    times[name].append(measured)
        reach = bench.bandwidth()
        rates = {}
        for name, (_, _, _, size) in systems.items():
            first = statistics.median(1e3 * first for first, _ in times[name])
            rates[name] = statistics.median(rate for _, rate in times[name])
            peak = workers[name].peak_memory() / 1e6
            print(
                f"{name:20} {rates[name]:6.0f} tokens/s, {first:5.0f} ms to the first, {size / 1e6:.0f} MB of weights, "
                f"{100 * rates[name] * size / reach:.0f} % of the limit at {reach / 1e9:.0f} GB/s, {peak:.0f} MB in all"
            )
            workers[name].__exit__()
        print(f"ratio: {rates['ONNX Runtime GenAI'] / rates['llama.cpp']:.2f}")


if __name__ == "__main__":
    main()
