"""Who is let in, who waits, and the one thread that reads prompts and generates.

Plain requests that wait at the same time are answered together, as `batches` says what that is; all others one at a
time: with an adapter, a schema or a temperature, or with a message so long that the other rows would be mostly padding.
A request that comes while others are answered waits for the last of them. Who is alone is answered as by
`GenAIRuntime.stream`, with the constant beginning of the prompt kept. Where the engine fails, that is logged, and from
then on all are answered one at a time, beginning with those who have been told nothing yet.
"""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field

from slmops_lab.deployment import batches
from slmops_lab.deployment.endpoint.protocol import SECRETIVE, Refusal
from slmops_lab.deployment.runtime import GenAIRuntime, TooLong
from slmops_lab.errors import CourseError

SHORT = 1_000  # bytes: longer chats are answered alone, so that a batch has a bounded number of logits
GATHER = 0.01  # seconds: after a batch, so long for those just answered to ask again, and be a batch again

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Job:
    chat: list
    how: dict  # as `GenAIRuntime.stream` has it
    request_id: str
    deadline: float  # time.monotonic()
    tell: Callable  # from any thread: a `Generation` first, then pieces or an exception, None in the end
    came: float = field(default_factory=time.monotonic)
    left: bool = False  # nobody wants it any more
    told: bool = False

    def plain(self):
        """Whether it can be a row of a batch."""
        given = {name for name, value in self.how.items() if value is not None} - {"max_new_tokens", "stop"}
        return not given and sum(len(turn["content"].encode("utf-8", "replace")) for turn in self.chat) <= SHORT


class EngineFailed(RuntimeError):
    """The engine has failed while others were answered, too."""


class Worker:
    """The thread and its queue; `pieces` brings its work into asyncio."""

    def __init__(self, runtime, limits, metrics):
        self.runtime, self.limits, self.metrics = runtime, limits, metrics
        self.inside, self.usual_seconds = 0, 1.0  # requests that wait or run: only the event loop's thread counts them
        self._waiting, self._lock, self._pool = deque(), threading.Lock(), ThreadPoolExecutor(1, "generate")
        self._batch, self._last = None, 1
        self._rows = batches.ROWS if isinstance(runtime, GenAIRuntime) else 1  # requests that are answered together

    def _move(self, by):
        self.inside += by
        self.metrics.inside.set(self.inside)

    def _late(self):
        return Refusal(504, f"It took longer than {self.limits.seconds:g} s.", "timeout")

    async def pieces(self, chat, request_id, deadline, **how):
        """Yield the `Generation` first, then its pieces. Closing this early ends the work.

        request_id: what the log calls it. deadline: a time.monotonic() after which Refusal 504 is raised, waiting
        included. Raises Refusal 429 where the queue is full, before anything is read. The place in the queue is free
        when the work has ended, at the deadline at the latest, and not when the last piece has been taken: a client
        may stop reading.
        """
        if self.inside > self.limits.queue:
            wait = str(math.ceil(self.usual_seconds * self.inside))
            message = f"{self.inside} requests are waiting: try again in {wait} s."
            raise Refusal(429, message, "queue_full", None, {"Retry-After": wait})
        loop, channel = asyncio.get_running_loop(), asyncio.Queue()

        def deliver(thing):
            if thing is None:
                self._move(-1)
            channel.put_nowait(thing)

        job = _Job(chat, how, request_id, deadline, lambda thing: loop.call_soon_threadsafe(deliver, thing))
        self._move(+1)
        with self._lock:
            self._waiting.append(job)
        self._pool.submit(self._turn)  # one turn a job: one that finds nobody has nothing to do
        try:
            while (thing := await self._before(deadline, channel)) is not None:
                if isinstance(thing, Exception):
                    raise thing
                yield thing
        finally:
            job.left = True
            if self._taken(job):  # it had not begun
                self._move(-1)

    async def _before(self, deadline, channel):
        # one wait at a time: a generator's pieces may be asked for from more than one task. Not asyncio.wait_for:
        # in Python 3.11 it forgets that it was cancelled where a piece comes at the same moment
        with suppress(TimeoutError):
            if (left := deadline - time.monotonic()) > 0:
                async with asyncio.timeout(left):
                    return await channel.get()
        raise self._late()

    def _taken(self, *jobs):
        """Those of the jobs that waited until now."""
        with self._lock:
            taken = [job for job in jobs if job in self._waiting]
            for job in taken:
                self._waiting.remove(job)
        return taken

    def _next(self):
        """Who is answered now: who has waited longest, with those who can be answered along."""
        until = time.monotonic() + GATHER
        while 0 < len(self._waiting) < self._last and time.monotonic() < until:
            time.sleep(0.001)
        with self._lock:
            waiting = list(self._waiting)
        first, along = waiting[:1], [job for job in waiting[1:] if job.plain()]
        return self._taken(*first, *along[: self._rows - 1] if first and first[0].plain() else ())

    def _turn(self):
        """In the worker's thread: answer who waits longest, and who can be answered along."""
        if not (jobs := self._next()):
            return
        begun = time.monotonic()
        self.metrics.batch.observe(len(jobs))
        for job in jobs:
            self.metrics.queued.observe(begun - job.came)
        if len(jobs) > 1:
            self._together(jobs)
        else:
            list(self._answering(jobs[0], self._stream))
        self.usual_seconds += 0.2 * ((time.monotonic() - begun) / len(jobs) - self.usual_seconds)
        self._last = len(jobs)

    def _stream(self, job):
        return self.runtime.stream(job.chat, longest_prompt=self.limits.prompt_tokens, **job.how)

    def _row(self, job):
        limit = job.how["max_new_tokens"]
        ids = self.runtime.encode(job.chat, limit, self.limits.prompt_tokens)
        with self._engine():
            self._batch = self._batch or batches.Batch(self.runtime)
            return self._batch.add(ids, limit, job.how["stop"])

    def _together(self, jobs):
        answers = [self._answering(job, self._row) for job in jobs]
        while answers := [answer for answer in answers if next(answer, True) is None]:
            try:
                with self._engine():
                    self._batch.step()
            except EngineFailed as failed:
                for answer in answers:
                    with suppress(StopIteration):  # it has come to its end, one at a time
                        answer.throw(failed)
                answers = []
        if self._rows == 1:
            self._batch = None

    @contextmanager
    def _engine(self):
        """`EngineFailed` where the block fails by another fault than the client's; then there is no engine any more."""
        try:
            yield
        except CourseError:
            raise
        except Exception as error:
            if self._rows > 1:
                log.exception("The engine failed: from now on requests are answered one at a time.")
            self._rows = 1
            raise EngineFailed from error

    def _answering(self, job, begin):
        """Tell a job's answer while it is made, errors as `Refusal`. Yields where the batch must make another step."""
        try:
            try:
                yield from self._tell(job, begin)
            except EngineFailed:
                if job.told:
                    raise
                yield from self._tell(job, self._stream)
        except Refusal as error:
            job.tell(error)
        except TooLong as error:
            job.tell(Refusal(400, str(error), "context_length_exceeded", "messages"))
        except CourseError as error:
            job.tell(Refusal(400, str(error), "invalid_value", "response_format"))
        except Exception:
            log.exception("Request %s: an answer could not be generated.", job.request_id)
            job.tell(Refusal(500, SECRETIVE, "internal_error"))
        finally:
            job.tell(None)

    def _tell(self, job, begin):
        making = begin(job)
        with closing(iter(making)) as pieces:
            for piece in pieces:
                if job.left:
                    return
                if time.monotonic() > job.deadline:
                    raise self._late()
                if not piece:
                    yield
                    continue
                if not job.told:
                    job.tell(making)
                    job.told = True
                job.tell(piece)
        if not job.told:
            job.tell(making)

    def close(self):
        """Begin nothing more; returns when what runs has ended."""
        self._pool.shutdown(cancel_futures=True)
