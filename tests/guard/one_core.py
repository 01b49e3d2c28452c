"""pytest plugin: of several pytest-xdist workers each gets a core of its own, and so does what it starts.

Two trainings that share two cores mostly wait for each other's threads. Where there is no scheduler to ask
(macOS, Windows), nothing changes.
"""

import os
import signal


def pytest_configure(config):
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which its maker ignores, and so would what it starts
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})
