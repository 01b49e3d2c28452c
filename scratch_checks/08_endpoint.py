"""The endpoint over HTTP with 1, 2, 4, 8 clients: answers/s, p50, p95, time to first token. On both branches, in turn.

PYTHONPATH=. python 08_endpoint.py; PYTHONPATH=OTHER_CHECKOUT python 08_endpoint.py
"""
import time
from concurrent.futures import ThreadPoolExecutor

import numpy
import openai
from common import FOLDER, chats

from slmops_lab.deployment.endpoint import launch
from slmops_lab.operations import bench

with launch.running(FOLDER, "--name", "desk") as (url, token):
    client = openai.OpenAI(base_url=url, api_key=token, max_retries=0)
    bench.load(client, "desk", chats[:16], 4)

    def first(chat):
        begun = time.perf_counter()
        stream = client.chat.completions.create(model="desk", messages=chat, stream=True)
        next(iter(stream))
        seconds = time.perf_counter() - begun
        list(stream)
        return 1e3 * seconds

    for clients in (1, 2, 4, 8, 1, 2, 4, 8):
        rows = bench.load(client, "desk", chats[:160], clients)
        with ThreadPoolExecutor(clients) as pool:
            ttft = list(pool.map(first, chats[:160]))
        cuts = bench.percentiles(rows["ms"])
        print(
            f"{clients} clients: {len(rows) / rows.attrs['seconds']:.1f} answers/s, p50 {cuts['p50']:.0f}, p95 "
            f"{cuts['p95']:.0f} ms, first token p50 {numpy.median(ttft):.0f} ms, statuses {set(rows['status'])}"
        )
