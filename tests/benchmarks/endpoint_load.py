"""The endpoint with 1, 2, 4 and 8 clients, and how much memory each further request adds.

    python tests/benchmarks/endpoint_load.py [--folder MODEL] [--messages 48] [--rounds 5] [--requests 2000]

`slmops serve` runs in a process of its own with the int4 student (where `make course` has made one, else the base
model) and answers the test messages of the course to OpenAI's client, at most 64 tokens each. Printed are medians of
the rounds: answers a second, times of whole answers, and the time to the first piece of a stream. Then four clients
send --requests messages as long as the endpoint reads; after each twentieth part the endpoint tells its memory. The
first quarter fills buffers, from the others the slope is estimated, with its 95 % interval as if the parts were
independent. Nothing else should run on the machine.
"""

import argparse
import re
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pandas

from slmops_lab import settings
from slmops_lab.deployment import export
from slmops_lab.deployment.endpoint import launch
from slmops_lab.evaluation import intervals
from slmops_lab.operations import bench
from slmops_lab.task import data
from slmops_lab.training import base_model

TOKENS, CLIENTS, PARTS = 64, (1, 2, 4, 8), 20


def begin(about, option, default):
    """(options of the command, the course's data, chats): with --folder, --messages, --rounds and one of its own."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--folder", type=Path)
    for name, number in {"--messages": 48, "--rounds": 5, option: default}.items():
        parser.add_argument(name, type=int, default=number)
    asked = parser.parse_args()
    asked.run = settings.start("support_desk", "smollm2-135m")
    desk = data.load(asked.run.dataset)
    return asked, desk, [desk.task.messages(record["text"]) for record in desk.test[: asked.messages]]


def student_or_base(asked, scratch):
    """The int4 model to measure with: the given one, the student of a run, or the base model, converted."""
    folder = asked.folder or asked.run.artifacts / "student-int4"
    return folder if folder.is_dir() else export.to_onnx(base_model.fetch(), Path(scratch) / "base", "int4")


def first_piece_ms(client, chat):
    begun = time.perf_counter()
    pieces = client.chat.completions.create(model="it", messages=chat, max_tokens=TOKENS, stream=True)
    next(piece for piece in pieces if piece.choices[0].delta.content)
    first = 1e3 * (time.perf_counter() - begun)
    for _ in pieces:
        pass
    return first


def crowds(client, chats, rounds):
    rows = []
    for number in range(rounds + 1):
        for clients in CLIENTS:
            answers = bench.load(client, "it", chats, clients, max_tokens=TOKENS)
            with ThreadPoolExecutor(clients) as pool:
                firsts = pandas.Series(list(pool.map(lambda chat: first_piece_ms(client, chat), chats)))
            row = {"clients": clients, "answers/s": len(chats) / answers.attrs["seconds"]}
            row |= bench.percentiles(answers["ms"]) | {"first piece, ms": firsts.median()}
            row["not answered"] = int((answers["status"] != 200).sum())
            if number:  # the first round warms up
                rows.append(row)
    print(pandas.DataFrame(rows).groupby("clients").median().round(1).to_string())


def growth(client, base, token, chats, requests):
    asked = urllib.request.Request(f"{base}/metrics", headers={"Authorization": f"Bearer {token}"})
    size, megabytes, failed = requests // PARTS, [], 0
    for begin in range(0, PARTS * size, size):
        part = [chats[(begin + i) % len(chats)] for i in range(size)]
        failed += int((bench.load(client, "it", part, 4, max_tokens=TOKENS)["status"] != 200).sum())
        with urllib.request.urlopen(asked) as told:
            found = re.search(r"^process_resident_memory_bytes (\S+)", told.read().decode(), re.MULTILINE)
        megabytes.append(float(found[1]) / 1e6)
    settled = megabytes[PARTS // 4 :]
    gap = intervals.difference(settled[1:], settled[:-1], 0)
    slope, low, high = (1e3 * gap[key] / size for key in ("points", "low", "high"))
    print(f"{PARTS * size} long requests, {failed} not answered, {megabytes[-1]:.0f} MB at the end: ", end="")
    print(f"each adds {slope:.2f} kB (95 % interval {low:.2f} to {high:.2f})")


def main():
    asked, desk, chats = begin(__doc__, "--requests", 2_000)
    with tempfile.TemporaryDirectory() as scratch:
        folder = student_or_base(asked, scratch)
        with launch.running(folder, "--name", "it") as (url, token):
            client = openai.OpenAI(base_url=url, api_key=token, max_retries=0)
            crowds(client, chats, asked.rounds)
            everything = " ".join(record["text"] for record in desk.test)
            long = [desk.task.messages(everything[at : at + 3_000]) for at in range(0, 30_000, 3_000)]
            growth(client, url.removesuffix("/v1"), token, long, asked.requests)


if __name__ == "__main__":
    main()
