"""How fast is a deployed model, and how fast could it be here at most?

Each model is measured in a process of its own, so its memory is its own. Times hold for this machine while it does
nothing else; that is not checked. From seconds to a minute each.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy
import pandas
import psutil

from slmops_lab import measure
from slmops_lab.deployment import runtime
from slmops_lab.errors import CourseError
from slmops_lab.settings import threads

# how compiled code words it
NO_MEMORY = ("alloc", "map segment", "memory")


def bandwidth(megabytes=512, rounds=5):
    """Bytes per second at which all cores together read memory; the best of some rounds.

    Each token that is generated reads every matrix that is multiplied, one row of a table that is looked up, and the
    KV cache. This over those bytes is a limit of tokens per second, unless part of them stays in the processor's cache.
    """
    cores = threads()
    parts = [numpy.ones(megabytes * 2**20 // 8 // cores, dtype=numpy.int64) for _ in range(cores)]
    best = 0.0
    with ThreadPoolExecutor(cores) as pool:  # numpy lets the others work while it reads
        for _ in range(rounds):
            begun = time.perf_counter()
            list(pool.map(numpy.max, parts))
            best = max(best, sum(part.nbytes for part in parts) / (time.perf_counter() - begun))
    return best


def speed(folder, prompts=(32, 128, 512), answer=48, rounds=3):
    """Generate with an ONNX Runtime GenAI model in a process of its own.

    prompts: lengths in tokens. Returns (table, memory): a DataFrame, one row per length, of medians
    (first_ms: to the first token; per_second: tokens after it; cores: processors kept busy) with the slowest and the
    fastest round (slowest, fastest: per_second), and the peak bytes of that process.
    """
    with measure.FreshProcess() as process:
        frame = pandas.DataFrame(process.call(_rounds, str(folder), prompts, answer, rounds))
        memory = process.peak_memory()
    rounds = frame.groupby("prompt")
    ends = {"slowest": rounds["per_second"].min(), "fastest": rounds["per_second"].max()}
    return rounds.median().assign(**ends), memory


def _rounds(folder, prompts, answer, rounds):
    served = runtime.GenAIRuntime(folder)
    rows = []
    for length in prompts:
        _round(served, length, answer)  # the first of each length warms up
        rows += [_round(served, length, answer) for _ in range(rounds)]
    return rows


def _round(served, prompt, answer):
    ids = served.tokenizer.encode("the parcel " * prompt)[:prompt]
    busy, begun = psutil.Process().cpu_times(), time.perf_counter()
    generator = served.start(ids, prompt + answer, min_length=prompt + answer)  # it may not stop early
    generator.generate_next_token()
    first = time.perf_counter()
    while not generator.is_done():
        generator.generate_next_token()
    ended, after = time.perf_counter(), psutil.Process().cpu_times()
    work = after.user + after.system - busy.user - busy.system
    rate = (answer - 1) / (ended - first)
    return {"prompt": prompt, "first_ms": 1e3 * (first - begun), "per_second": rate, "cores": work / (ended - begun)}


def reading(folder, tokens):
    """Memory of a fresh PyTorch process that reads so many tokens and keeps the logits of all of them.

    folder: a Hugging Face model. Returns the bytes {'loaded', 'added'}: before, and what the reading adds at most.
    """
    with measure.FreshProcess() as process:
        return process.call(_read, str(folder), tokens)


def _read(folder, tokens):
    import torch

    from slmops_lab.training import base_model

    torch.set_num_threads(threads())
    model, _ = base_model.open_model(folder)
    ids = torch.arange(tokens)[None] % model.config.vocab_size
    with torch.inference_mode():
        model(ids[:, :8])  # what is set up once is not counted
        measure.give_back()
        loaded = psutil.Process().memory_info().rss
        with measure.OwnPeak() as watch:
            kept = model(ids)  # noqa: F841  still there when the watch looks for the last time
    return {"loaded": loaded, "added": watch.peak - loaded}


def on_device(folder, chats, cores, megabytes):
    """Answer chats in a process that the system holds to so many cores and millions of bytes of memory.

    folder: an ONNX Runtime GenAI model. Returns {'p95_ms', 'peak_memory_mb', 'confined'}, the last
    of which is False where the system did not hold it to that (see `measure.confine`). Raises CourseError
    where the model does not fit.
    """
    with measure.FreshProcess() as process:
        confined = process.call(measure.confine, cores, megabytes)
        try:
            times = process.call(_answers, str(folder), chats)
            peak = process.peak_memory()
        except (MemoryError, BrokenProcessPool, RuntimeError, OSError, ImportError) as error:
            if not isinstance(error, MemoryError | BrokenProcessPool) and not any(w in str(error) for w in NO_MEMORY):
                raise
            raise CourseError(f"{Path(folder).name} does not fit into {megabytes:,} MB of memory.") from error
    return {"p95_ms": percentiles(times)["p95"], "peak_memory_mb": peak / 1e6, "confined": confined}


def _answers(folder, chats):
    """Milliseconds that each chat takes."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # compiled code writes there what the exception says anyway
    served, times = runtime.GenAIRuntime(folder), []
    for chat in [chats[0], *chats]:
        with measure.timed() as elapsed:
            served.generate(chat)
        times.append(1e3 * elapsed.seconds)
    return times[1:]  # the first warms up


def load(client, model, chats, clients, **how):
    """Ask an endpoint for an answer to every chat, `clients` requests at a time.

    client: an openai.OpenAI without retries. Returns a DataFrame, a row per chat: ms, tokens, status (200, or
    the HTTP status of a refusal), and in attrs the seconds all of it took.
    """
    import openai

    def ask(chat):
        begun, tokens, status = time.perf_counter(), 0, 200
        try:
            done = client.chat.completions.create(model=model, messages=chat, **how)
            tokens = done.usage.completion_tokens
        except openai.APIStatusError as error:
            status = error.status_code
        return {"ms": 1e3 * (time.perf_counter() - begun), "tokens": tokens, "status": status}

    with measure.timed() as elapsed, ThreadPoolExecutor(clients) as pool:
        frame = pandas.DataFrame(list(pool.map(ask, chats)))
    frame.attrs["seconds"] = elapsed.seconds
    return frame


def percentiles(milliseconds):
    """{'p50', 'p95', 'p99'} of some times."""
    return {f"p{cut}": float(numpy.percentile(milliseconds, cut)) for cut in (50, 95, 99)}
