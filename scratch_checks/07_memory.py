"""Memory over 500 batches of full-length requests, and over rows that are left at every stage."""
import random

import psutil
from common import FOLDER, Batch, chats, runtime, together

served, draw = runtime.GenAIRuntime(FOLDER), random.Random(0)
batch, process = Batch(served), psutil.Process()
for number in range(501):
    together(batch, served, draw.sample(chats, 4))
    rows = [batch.add(served.encode(chat), 64) for chat in draw.sample(chats, 4)]
    live = [iter(row) for row in rows]
    for pieces in live:
        next(pieces)
    for pieces in draw.sample(live, 4):
        for _ in range(draw.randrange(3)):
            batch.step()
        pieces.close()
    if number % 50 == 0:
        print(number, f"{process.memory_info().rss / 1e6:.1f} MB", "rows left over:", len(batch._rows))
