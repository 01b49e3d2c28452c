"""How fast a teacher labels on a Ray cluster of this machine's cores: with one worker, with two, and with 64 on paper.

    python tests/benchmarks/cluster.py [--messages 24] [--batch 4] [--rounds 3] [--folder MODEL] [--pool 10000]

Each worker has one core and a model of its own. Every round starts Ray anew; rounds of one and of two workers
alternate. Printed are medians: seconds until the first answer can be computed (Ray, Python, the model), messages a
second after that and over all, and the driver's share: processor seconds of the process that drives Ray for each batch
after the first. It looks around while it waits, so this is more than a batch needs. From the rounds with one worker
`scaling.table` computes what more workers would take; its docstring says what it assumes. The base model has not
learned the task, so it may write to the limit of 64 tokens; a tuned teacher ends after a few. Needs the extra
`cluster`. Nothing else should run; the load before each round is printed.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from slmops_lab import settings
from slmops_lab.operations.cluster import labelling, scaling
from slmops_lab.task import data
from slmops_lab.training import base_model


def measured(folder, task, texts, workers, batch):
    """One round: seconds until the first batch, seconds after it, the workers' seconds for a message, the driver's."""
    with tempfile.TemporaryDirectory() as store:
        asker = labelling.ClusterTeacher(folder, Path(store), workers=workers, batch_size=batch)
        asker.ask(task, texts)
    told = asker.times
    spent, after = sum(seconds for _, seconds in told["batches"]), told["last"] - told["ready"]
    own = (told["driver"][-1] - told["driver"][0]) / (len(told["driver"]) - 1)
    return {"start": told["ready"], "after": after, "message": spent / len(texts), "driver": own, "all": told["all"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=24)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--pool", type=int, default=10_000, help="messages to label on paper")
    options = parser.parse_args()
    desk = data.load(settings.dataset_folder("support_desk"))
    texts = [record["text"] for record in desk.pool[: options.messages]]
    folder = options.folder or base_model.fetch()
    rounds = {1: [], 2: []}
    for _ in range(options.rounds):
        for workers, told in rounds.items():
            print(f"load before: {os.getloadavg()[0]:.1f}", end="; ", flush=True)
            told.append(measured(folder, desk.task, texts, workers, options.batch))
            shown = ", ".join(f"{name} {seconds:.2f}" for name, seconds in told[-1].items())
            print(f"{workers} worker{'s' * (workers > 1)}: {shown} s", flush=True)
    median = {
        workers: {name: statistics.median(one[name] for one in told) for name in told[0]}
        for workers, told in rounds.items()
    }
    for workers, one in median.items():
        print(
            f"{workers} worker{'s' * (workers > 1)}: {one['start']:.1f} s to start, then "
            f"{len(texts) / one['after']:.2f} messages/s "
            f"({len(texts) / one['all']:.2f} with start and end), {one['message']:.2f} s of a worker for each"
        )
    one = median[1]
    known = {"start": one["start"], "message": one["message"], "batch": 32, "driver": one["driver"]}
    print(
        f"On paper, {options.pool:,} messages in batches of 32, {one['driver'] * 1000:.0f} ms of the driver for each:"
    )
    print(scaling.table(options.pool, [1, 2, 4, 8, 16, 32, 64], **known).round(2).to_string())


if __name__ == "__main__":
    main()
