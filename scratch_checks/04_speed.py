"""Answers a second: one at a time, in batches of 1 to 4, guided one at a time, a Generator's batch of 4."""
import json
import time

from common import FOLDER, Batch, chats, desk, runtime, together

served, some = runtime.GenAIRuntime(FOLDER), chats[:48]
schema = {**desk.task.json_schema(), "x-guidance": {"whitespace_flexible": False}}
guided = {"guidance": ("json_schema", json.dumps(schema))}
batch = Batch(served)


def rate(name, answer, size):
    for turn in range(2):  # the first warms up
        begun = time.perf_counter()
        for at in range(0, len(some), size):
            answer(some[at : at + size])
        seconds = time.perf_counter() - begun
    print(f"{name:28} {len(some) / seconds:7.1f} answers/s, {1e3 * seconds / len(some) * size:7.1f} ms a group")


for turn in range(2):
    rate("one at a time", lambda group: served.generate(group[0]), 1)
    for size in (1, 2, 3, 4):
        rate(f"engine, {size} together", lambda group: together(batch, served, group), size)
    rate("one at a time, guided", lambda group: served.generate(group[0], **guided), 1)
    rate("Generator, batch of 4", lambda group: served.generate_batch(group), 4)
    rate("Generator, batch of 8", lambda group: served.generate_batch(group), 8)
