import json
import random
import sys

import psutil
import pytest

from slmops_lab import measure


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other C libraries decide for themselves")
def test_freed_memory_is_given_back():
    process = psutil.Process()
    pieces = [bytearray(b"x" * 100_000) for _ in range(3000)]
    full = process.memory_info().rss
    del pieces[:-1]  # the last one keeps the heap from shrinking by itself
    measure.give_back()
    assert full - process.memory_info().rss > 200e6


def test_peak_memory_of_a_fresh_process_is_its_own():
    ballast = bytearray(random.Random(0).randbytes(10**6)) * 600  # this process is large
    with measure.FreshProcess() as fresh:
        small = fresh.peak_memory()
        assert fresh.call(json.loads, "[1]") == [1]
        with pytest.raises(ValueError):
            fresh.call(json.loads, "[")
    assert small < measure.peak_memory() - len(ballast) / 2
