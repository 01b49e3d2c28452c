"""Time, memory and size, each measured one way everywhere, and held to a limit where that is the lesson.

It measures processes and files, not how good a model is (`evaluation`). A watch costs a thread that mostly sleeps, a
`FreshProcess` the start of a Python.
"""

import ctypes
import gc
import os
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import psutil

WEIGHT_FILES = ("*.safetensors", "*.onnx", "*.onnx.data", "*.gguf")


@dataclass
class Elapsed:
    """Seconds that a `timed` block took; filled in when it ends."""

    seconds: float = 0.0


@contextmanager
def timed():
    """`with timed() as t: ...` then `t.seconds`, wall clock."""
    elapsed = Elapsed()
    started = time.perf_counter()
    try:
        yield elapsed
    finally:
        elapsed.seconds = time.perf_counter() - started


def _glibc(function, *arguments):
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):  # another C library: nothing to do
            getattr(ctypes.CDLL("libc.so.6"), function)(*arguments)


def reuse_freed_memory():
    """From now on, until this process ends, let the C library keep freed memory for later (glibc's mallopt).

    A training step frees and takes hundreds of megabytes; to get them from the system anew each time, page by page,
    costs a sixth of the step. The price: the process stays as large as it once was, until `give_back`. Elsewhere than
    with glibc nothing changes. See https://man7.org/linux/man-pages/man3/mallopt.3.html for the two settings.
    """
    _glibc("mallopt", -3, 1 << 30)  # M_MMAP_THRESHOLD, bytes: smaller ones come from the heap ...
    _glibc("mallopt", -1, 2**31 - 1)  # M_TRIM_THRESHOLD: ... whose free end stays


def give_back():
    """Return freed memory to the system, where the C library would keep it for later (glibc).

    A model freed in a thousand pieces otherwise still counts when the next one is trained.
    """
    gc.collect()
    _glibc("malloc_trim", 0)


def peak_memory():
    """Largest resident size of this process so far, in bytes."""
    if sys.platform.startswith("linux"):
        # not getrusage: its maximum survives exec and would show the parent's size
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if os.name == "nt":
        return psutil.Process().memory_info().peak_wset
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def weight_bytes(folder):
    """Bytes of the weight files in a model folder and below it: safetensors, ONNX, GGUF."""
    return sum(f.stat().st_size for pattern in WEIGHT_FILES for f in Path(folder).rglob(pattern))


def confine(cores, megabytes):
    """From now on this process may use so many cores and so much memory, and the system sees to it.

    Linux: the scheduler's affinity, and RLIMIT_DATA, which counts what a process can write to (millions of bytes).
    Returns whether it does: on a system that is not Linux nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    import resource

    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    resource.setrlimit(resource.RLIMIT_DATA, (int(megabytes * 1e6),) * 2)
    return True


class FreshProcess:
    """A new Python process that runs functions one at a time.

    The functions come from importable modules. Its peak memory is that of nothing but their work.
    """

    def __init__(self):
        self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._pool.shutdown()

    def call(self, function, *args):
        """Result of function(*args) over there; its exceptions are raised here."""
        return self._pool.submit(function, *args).result()

    def peak_memory(self):
        """`peak_memory` of that process, in bytes."""
        return self.call(peak_memory)


class OwnPeak:
    """Samples this process's resident size until the block ends; `peak`, in bytes, is the largest.

    For a block whose peak lies below an earlier one, which `peak_memory` would show. every: seconds between samples.
    """

    def __init__(self, every=0.005):
        self.every, self.peak = every, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        self._sample()  # a block shorter than a step, and what is still held at the end

    def _watch(self):
        while not self._stop.wait(self.every):
            self._sample()

    def _sample(self):
        for process in self._watched():
            with suppress(psutil.Error):  # it may have just ended
                self.peak = max(self.peak, process.memory_info().rss)

    def _watched(self):
        return [psutil.Process()]


class MemoryWatch(OwnPeak):
    """The same of this process's children and theirs: `peak` is the largest size that one of them had, in bytes."""

    def __init__(self, every=0.25):
        super().__init__(every)

    def _watched(self):
        return psutil.Process().children(recursive=True)
