"""Ray, driven by a process of its own: however that one ends, the caller lives and says one sentence.

Ray's library waits for minutes for an address where nobody is (more than two were seen), and prints walls of lines;
that its compiled part may end the process that drives it is what its code suggests, and was not seen. So this starts
another Python, hands it a function and its arguments, and passes on what the function tells; Ray is imported there
only. It keeps nothing: who calls keeps what is told. Costs the start of a Python and of Ray, with a model 38 to 56
seconds on two busy cores.

Every machine of the cluster needs this library in the same version, and sees the models under the same path. The
address is that of `ray start`; whoever uses it has to be on a machine of the cluster
(https://docs.ray.io/en/latest/ray-core/starting-ray.html).
"""

import importlib
import importlib.util
import os
import pickle
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress

from slmops_lab import settings
from slmops_lab.errors import CourseError

INSTALL = 'pip install -e ".[cluster]"'
START = 120.0  # seconds that Ray may take until it works; two cores that others use as well need most of it
AGAIN = 3  # times that work begins anew after a machine has gone, without a result more in between
PATIENCE = 3  # seconds in a row in which nobody answers at a cluster's address: it is gone
QUIET = {"RAY_SERVE_LOG_TO_STDERR": "0"}


class Lost(CourseError):
    """The work was broken off by a machine or by Ray, and not by what it did: it can be begun again."""


def address_of(on):
    """'ray' -> None, a Ray of this machine's own; 'ray:HOST:PORT' -> 'HOST:PORT'. Raises CourseError on all else."""
    found = re.fullmatch(r"ray(?::([^\s/]+:\d{1,5}))?", str(on))
    if not found:
        raise CourseError(
            f"'{on}' is no place to run: give ray, for this machine's cores, or ray:HOST:PORT with the address that "
            "'ray start --head' printed."
        )
    return found[1]


def answers(address, seconds=5.0):
    """Whether somebody listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    with suppress(OSError, OverflowError), socket.create_connection((host.strip("[]"), int(port)), seconds):
        return True
    return False


def installed():
    """Whether Ray is: a folder of that name, such as the one that Ray makes for its sessions, is none."""
    found = importlib.util.find_spec("ray")
    return found is not None and found.origin is not None


def run(on, work, given):
    """Run work(tell, **given) in a process that is connected with Ray; yields what it tells, as it comes.

    on: see `address_of`. work: a function of an importable module; given: what can be pickled, functions of a notebook
    included. Closing this early ends the process. Raises CourseError where Ray is not installed, where nobody answers,
    and as the work does; `Lost` where a machine, the cluster or Ray itself went away.
    """
    address = address_of(on)
    if not installed():
        raise CourseError(f"Ray is not installed: install the course's extra for clusters with {INSTALL}.")
    if address and not answers(address):
        raise CourseError(f"No Ray cluster answers at {address}: start one there with 'ray start --head'.")
    import cloudpickle

    job = cloudpickle.dumps((work.__module__, work.__name__, given, address))
    command = [sys.executable, "-m", "slmops_lab.operations.cluster.driver"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=os.environ | QUIET
        )
        watch = _Watch(process, address)
        try:
            with suppress(BrokenPipeError):
                process.stdin.write(job)
                process.stdin.flush()
            yield from _heard(process, watch, log)
        finally:
            watch.stop.set()
            _end(process)


def run_again(on, work, given, kept):
    """Like `run`, and where a machine is `Lost` the work begins anew with what is left, on those that remain.

    given: function -> the arguments, of what is left. kept: function -> a sentence on what is finished, for the error.
    """
    tries, address = AGAIN, address_of(on)
    while True:
        try:
            for told in run(on, work, given()):
                tries = AGAIN
                yield told
            return
        except Lost as error:
            tries -= 1
            gone = address and not answers(address)
            if gone or not tries:
                raise CourseError(f"{_gone(address) if gone else error} {kept()}".strip()) from None


def _gone(address):
    return f"The Ray cluster at {address} went away: start it again, and run this again to go on."


def _heard(process, watch, log):
    """Yield what the process tells, until it is done."""
    while True:
        try:
            kind, value = pickle.load(process.stdout)
        except (EOFError, pickle.UnpicklingError):
            kind = Lost if watch.begun.is_set() or watch.gone else CourseError
            raise kind(watch.why or f"Ray ended without a word ({_last_line(log)}).") from None
        if kind == "ready":
            watch.begun.set()
        elif kind == "told":
            yield value
        elif kind == "done":
            return
        else:
            raise {"failed": CourseError, "lost": Lost}[kind](value)


def _last_line(log):
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines() or ["its log is empty"]
    return re.sub(r"\x1b\[\d+m|^\[[^]]*\]\s*", "", lines[-1])[:200]


def _end(process):
    """End a process that may still have a Ray of its own to put away."""
    with suppress(OSError):
        process.stdin.close()  # which it watches
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


class _Watch:
    """A thread that kills the process where Ray does not start, or where its cluster goes away; `why` says so."""

    def __init__(self, process, address):
        self.process, self.address, self.why, self.gone = process, address, None, False
        self.begun, self.stop = threading.Event(), threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self):
        started, silent = time.monotonic(), 0
        where = f"The Ray cluster at {self.address}" if self.address else "Ray on this machine"
        while not self.stop.wait(1.0):
            silent = silent + 1 if self.address and not answers(self.address, 1.0) else 0
            if silent >= PATIENCE:
                self.why, self.gone = _gone(self.address), True
            elif not self.begun.is_set() and time.monotonic() - started > START:
                self.why = f"{where} did not let anybody in within {START:g} seconds: look at 'ray status' there."
            if self.why:
                return self.process.kill()


def leave_with_a_machine(tell):
    """From now on the process ends, as `Lost`, when a machine of the cluster goes.

    Ray would wait for its return with what was under way there, and for ever where nothing else has room for it.
    """
    import ray

    def living():
        return {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}

    first = living()

    def look():
        while True:
            time.sleep(0.5)
            with suppress(Exception):  # the cluster itself is gone: the other process sees that
                if gone := [host for name, host in first.items() if name not in living()]:
                    tell(f"A machine of the Ray cluster went away ({gone[0]}).", kind="lost")
                    os._exit(3)

    threading.Thread(target=look, daemon=True).start()


def room(cores, wanted=None):
    """How many workers of so many cores the cluster has room for, `wanted` at most. Raises CourseError for none."""
    import ray

    free = int(sum(node["Resources"].get("CPU", 0) // cores for node in ray.nodes() if node["Alive"]))
    if not free:
        raise CourseError(f"No machine of the Ray cluster has {cores} cores: give less for each worker.")
    return min(free, wanted or free)


def _main():
    """The other process: read the work, connect, do it."""
    told, lock = os.fdopen(os.dup(1), "wb"), threading.Lock()
    os.dup2(2, 1)  # whatever prints here does not print in between
    module, name, given, address = pickle.load(sys.stdin.buffer)

    def tell(value=None, kind="told"):
        with lock:
            pickle.dump((kind, value), told)
            told.flush()

    tellers.append(tell)
    threading.Thread(target=_end_with_the_caller, daemon=True).start()
    import ray

    how = {"address": address} if address else {"address": "local", "num_cpus": settings.threads()}
    how |= {} if address else {"include_dashboard": False}
    try:
        ray.init(**how, log_to_driver=False, logging_level="ERROR")
        tell(kind="ready")
        getattr(importlib.import_module(module), name)(tell, **given)
        tell(kind="done")
    except CourseError as error:
        tell(str(error), kind="failed")
    except Exception as error:
        line = next(iter(reversed(str(error).strip().splitlines())), "") or type(error).__name__
        tell(f"Ray broke the work off: {line[:300]}", kind="failed")
        raise
    finally:
        with suppress(Exception):
            ray.shutdown()


def _end_with_the_caller():
    """Ends this process, and a Ray that it has started, when the caller closes the pipe, or dies."""
    sys.stdin.buffer.read()
    caller_left.set()
    if not waits_for_the_caller.is_set():
        import ray

        with suppress(Exception):
            ray.shutdown()
        os._exit(0)


# for work that ends by itself when the caller leaves, as serving does
caller_left, waits_for_the_caller = threading.Event(), threading.Event()
tellers = []  # for callbacks, which Ray pickles: what tells cannot be pickled

if __name__ == "__main__":
    from slmops_lab.operations.cluster import driver  # the same module as everybody imports, with its events

    driver._main()
