"""An OpenAI-compatible endpoint over ONNX Runtime GenAI: `slmops serve FOLDER`.

Routes, fields and errors as in https://platform.openai.com/docs/api-reference/chat; what is not
supported is refused; only names and descriptions are not looked at. One thread generates, one request
at a time: on two cores a second one would only slow the first. Others wait in a queue of limited length.
"""

import asyncio
import hmac
import json
import math
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from slmops_lab.deployment.endpoint import observability
from slmops_lab.deployment.endpoint.protocol import (
    LOOPBACK,
    ChatRequest,
    Choice,
    Completion,
    ErrorBody,
    Limits,
    Message,
    Refusal,
)
from slmops_lab.errors import CourseError


class Worker:
    """One thread that generates; `pieces` brings its work into asyncio, with a queue of limited length."""

    def __init__(self, runtime, limits, metrics):
        self.runtime, self.limits, self.metrics = runtime, limits, metrics
        self.inside = 0  # requests that wait or run; only the event loop's thread touches it
        self.usual_seconds = 1.0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="generate")

    @contextmanager
    def place(self):
        """A place in the queue; Refusal 429 where none is left."""
        if self.inside > self.limits.queue:
            wait = str(math.ceil(self.usual_seconds * self.inside))
            raise Refusal(
                429,
                f"{self.inside} requests are waiting: try again in {wait} s.",
                "queue_full",
                None,
                {"Retry-After": wait},
            )
        self.inside += 1
        self.metrics.inside.set(self.inside)
        try:
            yield
        finally:
            self.inside -= 1
            self.metrics.inside.set(self.inside)

    async def pieces(self, chat, deadline, **how):
        """Yield the `Generation` first, then its pieces. Leaving the loop early ends the work.

        deadline: a time.monotonic() after which Refusal 504 is raised, waiting included.
        """
        loop, channel, left = asyncio.get_running_loop(), asyncio.Queue(), threading.Event()

        def give(thing):
            loop.call_soon_threadsafe(channel.put_nowait, thing)

        def work():
            try:
                if left.is_set():
                    return
                begun = time.monotonic()
                generation = self.runtime.stream(chat, **how)
                give(generation)
                for piece in generation:
                    if left.is_set():
                        return
                    give(piece)
                self.usual_seconds += 0.2 * (time.monotonic() - begun - self.usual_seconds)
            except Exception as error:
                give(error)
            finally:
                give(None)

        self._pool.submit(work)
        try:
            while (thing := await self._before(deadline, channel)) is not None:
                if isinstance(thing, CourseError):
                    raise Refusal(400, str(thing), "invalid_value")
                if isinstance(thing, Exception):
                    raise thing
                yield thing
        finally:
            left.set()

    async def _before(self, deadline, channel):
        # one wait at a time: a generator's pieces may be asked for from more than one task
        with suppress(TimeoutError):
            if (left := deadline - time.monotonic()) > 0:
                return await asyncio.wait_for(channel.get(), left)
        raise Refusal(504, f"It took longer than {self.limits.seconds:g} s.", "timeout")

    def close(self):
        self._pool.shutdown(cancel_futures=True)


class BodyLimit:
    """ASGI middleware: a body that is too large or too slow is refused, and never kept."""

    def __init__(self, app, limits, metrics):
        self.app, self.limits, self.metrics = app, limits, metrics

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        body, size, more = b"", 0, True
        message = f"The body is larger than {self.limits.body_bytes:,} bytes."
        too_large = Refusal(413, message, "body_too_large")
        try:
            async with asyncio.timeout(self.limits.seconds):
                while more:
                    event = await receive()
                    if event["type"] == "http.disconnect":
                        return None
                    piece, more = event.get("body", b""), event.get("more_body", False)
                    size += len(piece)
                    body = body + piece if size <= self.limits.body_bytes else b""
                    if size > 50 * self.limits.body_bytes:
                        raise too_large
                if size > self.limits.body_bytes:  # read to its end: who still sends does not hear an answer
                    raise too_large
        except TimeoutError:
            refusal = Refusal(408, "The body did not arrive in time.", "timeout")
        except Refusal as error:
            refusal = error
        else:
            given = iter([{"type": "http.request", "body": body, "more_body": False}])

            async def whole():
                return next(given, None) or await receive()

            return await self.app(scope, whole, send)
        self.metrics.refused(refusal.code)
        refusal.headers = {"Connection": "close"}
        return await refusal.response()(scope, receive, send)


def application(runtime, name, token=None, limits=None, log=None, hosts=LOOPBACK):
    """FastAPI application that serves a `GenAIRuntime` as model `name`, each of its adapters as one more.

    token: what clients must send as bearer token, None for no check. limits: `Limits`. log: path of
    the request log (redacted JSON lines). hosts: values of the Host header that are answered, which keeps
    web pages from reaching a loopback server under a name of their own (DNS rebinding); None for any.
    """
    limits, metrics, requests = limits or Limits(), observability.Metrics(), observability.RequestLog(log)
    models = {name: None} | {adapter: adapter for adapter in runtime.names}
    worker = Worker(runtime, limits, metrics)

    @asynccontextmanager
    async def lifespan(_):
        yield
        worker.close()

    # the pages that show an API load scripts from elsewhere: the description alone is served
    app = FastAPI(title="SLMOps Lab endpoint", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(BodyLimit, limits=limits, metrics=metrics)
    if hosts is not None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*hosts, "[::1]"])

    async def authorized(request: Request, _: Annotated[Any, Depends(HTTPBearer(auto_error=False))]):
        sent = request.headers.get("authorization", "").encode()
        if token is not None and not hmac.compare_digest(sent, f"Bearer {token}".encode()):
            headers = {"WWW-Authenticate": "Bearer"}
            raise Refusal(401, "The bearer token is missing or wrong.", "invalid_api_key", None, headers)

    @app.exception_handler(Refusal)
    async def refused(_, refusal):
        metrics.refused(refusal.code)
        return refusal.response()

    @app.exception_handler(Exception)
    async def broken(_, error):
        return Refusal(500, "The endpoint failed; its own log says why.", "internal_error").response()

    @app.exception_handler(RequestValidationError)
    async def unreadable(_, error):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return await refused(_, Refusal(400, f"{where or 'the body'}: {first['msg']}", "invalid_value", where or None))

    @app.exception_handler(HTTPException)
    async def not_here(_, error):
        return await refused(_, Refusal(error.status_code, str(error.detail), "not_found", None, error.headers))

    @app.get("/healthz")
    async def healthz():
        return {"status": "ok"}

    def guarded(*codes, also=None):
        errors = {code: {"model": ErrorBody} for code in (401, *codes)}
        return {"dependencies": [Depends(authorized)], "responses": errors | (also or {})}

    as_text = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}

    @app.get("/metrics", **guarded(also=as_text), response_class=Response)
    async def show_metrics():
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    started = int(time.time())

    @app.get("/v1/models", **guarded())
    async def list_models():
        told = [{"id": model, "object": "model", "created": started, "owned_by": "slmops"} for model in models]
        return {"object": "list", "data": told}

    @app.post("/v1/chat/completions", **guarded(400, 404, 408, 413, 429, 504), response_model=Completion)
    async def chat_completions(asked: ChatRequest, request: Request):
        answer = _Answer(asked, request, worker, metrics, requests, models)
        if asked.stream:
            return await answer.streamed()
        return await answer.whole()

    return app


class _Answer:
    """One chat completion: checked, generated, written whole or as server-sent events."""

    def __init__(self, asked, request, worker, metrics, requests, models):
        self.asked, self.request, self.worker, self.metrics, self.requests = asked, request, worker, metrics, requests
        self.limits, self.begun = worker.limits, time.monotonic()
        if asked.model not in models:
            raise Refusal(404, f"There is no model '{asked.model}': {', '.join(models)}.", "model_not_found", "model")
        self.chat = [turn.plain() for turn in asked.messages]
        most = self.limits.answer_tokens
        wanted = asked.max_completion_tokens or asked.max_tokens or most
        if wanted > most:
            raise Refusal(
                400, f"{wanted:,} tokens were asked for, at most {most:,} are made.", "invalid_value", "max_tokens"
            )
        guidance = asked.guidance()
        if guidance and len(guidance[1]) > self.limits.schema_bytes:
            message = f"The schema is larger than {self.limits.schema_bytes:,} bytes."
            raise Refusal(400, message, "invalid_value", "response_format")
        self.how = {"max_new_tokens": wanted, "adapter": models[asked.model], "guidance": guidance}
        self.how |= {"stop": asked.stops(), **asked.sampling()}
        self.fixed = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": asked.model}
        self.generation, self.text, self.first = None, "", None

    async def _pieces(self):
        """Yield pieces; whatever the end, the place in the queue is free again, and it is counted and logged."""
        tokens = await asyncio.to_thread(self.worker.runtime.count, self.chat)
        if tokens > self.limits.prompt_tokens:
            message = f"The messages have {tokens:,} tokens, at most {self.limits.prompt_tokens:,} are read."
            raise Refusal(400, message, "context_length_exceeded", "messages")
        with self.worker.place():
            error = "cancelled"
            try:
                async for thing in self.worker.pieces(self.chat, self.begun + self.limits.seconds, **self.how):
                    if self.generation is None:
                        self.generation = thing
                        continue
                    self.first = self.first or time.monotonic() - self.begun
                    self.text += thing
                    yield thing
                error = ""
            except Refusal as refusal:
                error = refusal.code
                raise
            except Exception:
                error = "internal_error"
                raise
            finally:
                self._note(error)

    def _note(self, error):
        seconds, made = time.monotonic() - self.begun, self.generation
        counts = {"prompt_tokens": made.prompt_tokens, "answer_tokens": made.answer_tokens} if made else {}
        self.metrics.done(self.asked.model, seconds, self.first, error=error, **counts)
        facts = {"model": self.asked.model, "seconds": round(seconds, 4), "error": error or None, **counts}
        try:
            self.requests.write(self.chat[-1]["content"], self.text, **facts)
        except OSError:  # a full disk must not cost anybody an answer
            self.metrics.refused("log_not_written")

    def _usage(self):
        read, made = self.generation.prompt_tokens, self.generation.answer_tokens
        return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}

    async def _unless_left(self, work):
        """What the coroutine returns; it is cancelled where the client leaves before."""
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait([task], timeout=0.1))[0]:
                if await self.request.is_disconnected():
                    raise Refusal(499, "The client left.", "client_left")
            return await task
        finally:
            task.cancel()

    async def whole(self):
        """The completion as one JSON object; a client that leaves ends the work."""

        async def work():
            async for _ in self._pieces():
                pass

        await self._unless_left(work())
        choice = Choice(message=Message(content=self.text), finish_reason=self.generation.finish_reason)
        return Completion(**self.fixed, choices=[choice], usage=self._usage())

    async def streamed(self):
        """The completion as server-sent events. What fails before the first piece is an ordinary error."""
        pieces = self._pieces()

        async def begin():
            return await anext(pieces, "")

        first = await self._unless_left(begin())

        async def events():
            try:
                yield self._event({"role": "assistant", "content": first})
                async for piece in pieces:
                    yield self._event({"content": piece})
                yield self._event({}, self.generation.finish_reason)
                if self.asked.stream_options and self.asked.stream_options.include_usage:
                    last = {"object": "chat.completion.chunk", "choices": [], "usage": self._usage()}
                    yield _line({**self.fixed, **last})
                yield "data: [DONE]\n\n"
            except Refusal as refusal:  # the status is sent already
                yield _line(refusal.body())
            finally:
                await pieces.aclose()

        return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    def _event(self, delta, finish=None):
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return _line({**self.fixed, "object": "chat.completion.chunk", "choices": [choice]})


def _line(value):
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
