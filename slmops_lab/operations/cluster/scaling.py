"""What more workers would bring, on paper: Amdahl's law with measured shares.

It runs nothing and starts nothing; the numbers come from `tests/benchmarks/cluster.py` or from `ClusterTeacher.times`.
Amdahl 1967, https://doi.org/10.1145/1465482.1465560
"""

import math


def seconds(messages, workers, start, message, batch, driver):
    """Seconds to label so many messages.

    start: until the first worker answers, whatever their number; message: a worker's time for one; batch: messages in
    one; driver: of the asking machine for one batch, one after the other. Assumes that all workers start at once and
    are as fast as the one that was measured, that they do not wait for memory or network, that batches take equally
    long, and that the driver's work hides behind the workers' as long as it is shorter.
    """
    batches = math.ceil(messages / batch)
    rounds = math.ceil(batches / workers)
    return start + max(rounds * batch * message, batches * driver) + driver


def table(messages, workers, start, message, batch, driver):
    """A pandas table by number of workers: seconds, messages a second, speed-up over one, share of a worker used."""
    import pandas

    one = seconds(messages, 1, start, message, batch, driver)
    rows = []
    for count in workers:
        took = seconds(messages, count, start, message, batch, driver)
        rows.append({"workers": count, "seconds": took, "per second": messages / took, "speed-up": one / took})
    return pandas.DataFrame(rows).assign(used=lambda told: told["speed-up"] / told["workers"]).set_index("workers")
