"""How fast is a deployed model, and how fast could it be here at most?"""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import numpy
import pandas
import psutil

from slmops_lab import measure, runtime
from slmops_lab.settings import threads


def bandwidth(megabytes=512, rounds=5):
    """Bytes per second at which all cores together read memory; the best of some rounds.

    Every token that is generated reads every weight once, so this over the model's bytes is a limit of
    tokens per second, unless the model fits into the processor's cache.
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
    (first_ms: to the first token; per_second: tokens after it; cores: processors kept busy), and the
    peak bytes of that process.
    """
    with measure.FreshProcess() as process:
        process.call(_open, str(folder))
        rows = [process.call(_round, length, answer) for length in prompts for _ in range(rounds + 1)]
        memory = process.peak_memory()
    frame = pandas.DataFrame(rows)
    frame = frame[frame.groupby("prompt").cumcount() > 0]  # the first of each length warms up
    return frame.groupby("prompt").median(), memory


_served = None


def _open(folder):
    global _served
    _served = runtime.GenAIRuntime(folder)


def _round(prompt, answer):
    ids = _served.tokenizer.encode("the parcel " * prompt)[:prompt]
    busy, begun = psutil.Process().cpu_times(), time.perf_counter()
    generator = _served.start(ids, prompt + answer, min_length=prompt + answer)  # it may not stop early
    generator.generate_next_token()
    first = time.perf_counter()
    while not generator.is_done():
        generator.generate_next_token()
    ended, after = time.perf_counter(), psutil.Process().cpu_times()
    work = after.user + after.system - busy.user - busy.system
    rate = (answer - 1) / (ended - first)
    return {"prompt": prompt, "first_ms": 1e3 * (first - begun), "per_second": rate, "cores": work / (ended - begun)}


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
    cuts = statistics.quantiles(milliseconds, n=100, method="inclusive")
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98]}
