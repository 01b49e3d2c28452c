"""An OpenAI-compatible endpoint over ONNX Runtime GenAI: `slmops serve FOLDER`.

Routes, fields and errors as in https://platform.openai.com/docs/api-reference/chat; what is not
supported is refused; only names, descriptions and labels are not looked at. One thread reads prompts and generates,
one request at a time, and keeps what it has read of the constant beginning of the prompt. On two cores company gains
little or loses (tests/benchmarks/batching.py): reading a prompt takes both cores, and ONNX Runtime GenAI's `Engine` and
generators of several rows read each prompt anew, begin together and end together. With answers of 24 tokens four rows
wrote 1.2 times as many a second as one, with answers of three 0.7 times. Others wait in a queue of limited length. What
the client did wrong is a 4xx with the reason; what fails here is a 500 that says no more than that.
Each answer has an x-request-id, which is also in the logs. A client that leaves ends its work, so its own time-out has
to be longer than `Limits.seconds`: who gives up earlier and asks again begins at the end of the queue.
"""

import asyncio
import hmac
import logging
import math
import re
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from sse_starlette.event import JSONServerSentEvent, ServerSentEvent
from sse_starlette.sse import AppStatus, EventSourceResponse, SendTimeoutError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from slmops_lab.deployment.endpoint import observability, protocol
from slmops_lab.deployment.endpoint.protocol import LOOPBACK, ChatRequest, Limits, Refusal
from slmops_lab.deployment.runtime import TooLong
from slmops_lab.errors import CourseError

SECRETIVE = "The endpoint failed; its own log says why."  # the reason may hold paths


class Worker:
    """One thread that generates; `pieces` brings its work into asyncio, with a queue of limited length."""

    def __init__(self, runtime, limits, metrics):
        self.runtime, self.limits, self.metrics = runtime, limits, metrics
        self.inside = 0  # requests that wait or run; only the event loop's thread touches it
        self.usual_seconds = 1.0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="generate")

    def _move(self, by):
        self.inside += by
        self.metrics.inside.set(self.inside)

    def _late(self):
        return Refusal(504, f"It took longer than {self.limits.seconds:g} s.", "timeout")

    async def pieces(self, chat, request_id, deadline, **how):
        """Yield the `Generation` first, then its pieces. Closing this early ends the work.

        request_id: what the log calls it. deadline: a time.monotonic() after which Refusal 504 is raised, waiting
        included. Raises Refusal 429 where the queue is full. The place in the queue is free when the work has ended,
        at the deadline at the latest, and not when the last piece has been taken: a client may stop reading.
        """
        if self.inside > self.limits.queue:
            wait = str(math.ceil(self.usual_seconds * self.inside))
            message = f"{self.inside} requests are waiting: try again in {wait} s."
            raise Refusal(429, message, "queue_full", None, {"Retry-After": wait})
        loop, channel, left = asyncio.get_running_loop(), asyncio.Queue(), threading.Event()
        came = time.monotonic()

        def ended():
            self._move(-1)
            channel.put_nowait(None)

        def work():
            begun = time.monotonic()
            self.metrics.queued.observe(begun - came)
            try:
                for thing in self._generate(chat, request_id, how):
                    if left.is_set():
                        return
                    if time.monotonic() > deadline:
                        raise self._late()
                    loop.call_soon_threadsafe(channel.put_nowait, thing)
                self.usual_seconds += 0.2 * (time.monotonic() - begun - self.usual_seconds)
            except Exception as error:
                loop.call_soon_threadsafe(channel.put_nowait, error)
            finally:
                loop.call_soon_threadsafe(ended)

        self._move(+1)
        job = self._pool.submit(work)
        try:
            while (thing := await self._before(deadline, channel)) is not None:
                if isinstance(thing, Exception):
                    raise thing
                yield thing
        finally:
            left.set()
            if job.cancel():  # it had not begun
                self._move(-1)

    def _generate(self, chat, request_id, how):
        """Yield the `Generation`, then its pieces; every error is a `Refusal`."""
        try:
            generation = self.runtime.stream(chat, longest_prompt=self.limits.prompt_tokens, **how)
            yield generation
            yield from generation
        except TooLong as error:
            raise Refusal(400, str(error), "context_length_exceeded", "messages") from error
        except CourseError as error:
            raise Refusal(400, str(error), "invalid_value", "response_format") from error
        except Exception as error:
            logging.getLogger(__name__).exception("Request %s: an answer could not be generated.", request_id)
            raise Refusal(500, SECRETIVE, "internal_error") from error

    async def _before(self, deadline, channel):
        # one wait at a time: a generator's pieces may be asked for from more than one task. Not asyncio.wait_for:
        # in Python 3.11 it forgets that it was cancelled where a piece comes at the same moment
        with suppress(TimeoutError):
            if (left := deadline - time.monotonic()) > 0:
                async with asyncio.timeout(left):
                    return await channel.get()
        raise self._late()

    def close(self):
        """Begin nothing more; returns when what runs has ended."""
        self._pool.shutdown(cancel_futures=True)


class Door:
    """ASGI middleware: each answer has an id, HEAD is answered as GET, and other hosts' requests are refused."""

    def __init__(self, app, hosts, metrics):
        self.app, self.metrics = app, metrics
        self.hosts = hosts and {f"[{host}]" if ":" in host else host.lower() for host in hosts}

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        name = scope["request_id"] = f"req_{uuid.uuid4().hex}"

        async def named(message):
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), (b"x-request-id", name.encode())]}
            await send(message)

        host = re.sub(r":\d*$", "", Headers(scope=scope).get("host", "").lower())[:100]
        if self.hosts is not None and host not in self.hosts:
            self.metrics.refused("host_not_allowed")
            message = f"This server does not answer to the host '{host}': start it with --allow-host {host}."
            return await Refusal(400, message, "host_not_allowed").response()(scope, receive, named)
        as_get = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope  # whose body uvicorn leaves out
        await self.app(as_get, receive, named)


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

            with suppress(SendTimeoutError):  # the client reads no more: nothing can be told to it
                await self.app(scope, whole, send)
            return None
        self.metrics.refused(refusal.code)
        refusal.headers = {"Connection": "close"}
        return await refusal.response()(scope, receive, send)


def application(runtime, name, token=None, limits=None, log=None, hosts=LOOPBACK, origins=()):
    """FastAPI application that serves a `GenAIRuntime` as model `name`, each of its adapters as one more.

    token: what clients must send as bearer token, None for no check. limits: `Limits`. log: path of
    the request log (redacted JSON lines). hosts: values of the Host header that are answered, which keeps
    web pages from reaching a loopback server under a name of their own (DNS rebinding); None for any.
    origins: web pages that may ask, such as https://shop.example. Raises CourseError for '*' beside a token.
    """
    if "*" in origins and token is not None:
        raise CourseError("Any web page may ask, but only with a token: name those that have it with --allow-origin.")
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
    if origins:  # to a browser the answers of others do not exist
        how = {"allow_headers": ["*"], "expose_headers": ["x-request-id", "retry-after"]}
        told = [origin.rstrip("/") for origin in origins]
        app.add_middleware(CORSMiddleware, allow_origins=told, allow_methods=["GET", "POST"], **how)
    app.add_middleware(Door, hosts=hosts, metrics=metrics)
    _word_errors(app, metrics)
    _add_information(app, token, metrics, models)

    guarded = _guarded(token, 400, 404, 408, 413, 429, 500, 504)

    @app.post("/v1/chat/completions", **guarded, response_model=protocol.Completion)
    async def chat_completions(asked: ChatRequest, request: Request):
        answer = _Answer(asked, request, worker, metrics, requests, models)
        return await (answer.streamed() if asked.stream else answer.whole())

    return app


def _word_errors(app, metrics):
    """Give every error of the application OpenAI's shape."""

    @app.exception_handler(Refusal)
    async def refused(_, refusal):
        metrics.refused(refusal.code)
        return refusal.response()

    @app.exception_handler(Exception)
    async def broken(request, _):  # uvicorn's log has the reason
        name = request.scope["request_id"]
        logging.getLogger(__name__).error("Request %s failed.", name)
        return Refusal(500, SECRETIVE, "internal_error", None, {"x-request-id": name}).response()

    @app.exception_handler(RequestValidationError)
    async def unreadable(_, error):
        first = max(error.errors(), key=lambda told: len(told["loc"]))  # of a union's complaints the closest
        where = protocol.place(first["loc"][1:], error.body, first["type"] == "missing")
        told = first["msg"] if isinstance(error.body, dict) else "send a JSON object, as Content-Type: application/json"
        return await refused(_, Refusal(400, f"{where or 'the body'}: {told}", "invalid_value", where or None))

    @app.exception_handler(HTTPException)
    async def not_here(request, error):
        status, asked = error.status_code, f"{request.method} {request.url.path[:100]}"
        paths = app.openapi()["paths"]
        offered = [f"{how.upper()} {path}" for path in paths if path.startswith("/v1") for how in paths[path]]
        told = f"{asked} is not offered, but {', '.join(offered)}; clients' base URL ends with /v1."
        code = {404: "not_found", 405: "method_not_allowed"}.get(status, "invalid_value")
        told = told if status in (404, 405) else str(error.detail)
        return await refused(request, Refusal(status, told, code, None, error.headers))


def _guarded(token, *codes, also=None):
    """Options of a route that asks for the token and may answer with these errors."""

    async def authorized(request: Request, _: Annotated[Any, Depends(HTTPBearer(auto_error=False))]):
        sent = request.headers.get("authorization", "").encode()
        if token is not None and not hmac.compare_digest(sent, f"Bearer {token}".encode()):
            headers = {"WWW-Authenticate": "Bearer"}
            raise Refusal(401, "The bearer token is missing or wrong.", "invalid_api_key", None, headers)

    errors = {code: {"model": protocol.ErrorBody} for code in (401, *codes)}
    return {"dependencies": [Depends(authorized)], "responses": errors | (also or {})}


def _add_information(app, token, metrics, models):
    """Add the routes that generate nothing: health, metrics, names of the models."""

    @app.get("/healthz")
    async def healthz():
        return {"status": "ok"}

    @app.get("/readyz", responses={503: {"model": protocol.ErrorBody}})  # a path, as probes and balancers have it
    async def readyz():
        if AppStatus.should_exit:  # a signal came: what runs is finished, and in a moment nobody is let in
            raise Refusal(503, "This server is shutting down.", "shutting_down")
        return {"status": "ready"}

    as_text = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}

    @app.get("/metrics", **_guarded(token, also=as_text), response_class=Response)
    async def show_metrics():
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    shared = {"object": "model", "created": int(time.time()), "owned_by": "slmops"}

    @app.get("/v1/models", **_guarded(token))
    async def list_models():
        return {"object": "list", "data": [{"id": model, **shared} for model in models]}

    @app.get("/v1/models/{model:path}", **_guarded(token, 404))  # a name may have slashes
    async def one_model(model: str):
        return {"id": _known(model, models), **shared}


def _known(model, models):
    if model not in models:
        raise Refusal(404, f"There is no model '{model}': {', '.join(models)}.", "model_not_found", "model")
    return model


class _Answer:
    """One chat completion: checked, generated, written whole or as server-sent events."""

    def __init__(self, asked, request, worker, metrics, requests, models):
        self.asked, self.request, self.worker, self.metrics, self.requests = asked, request, worker, metrics, requests
        self.limits, self.begun = worker.limits, time.monotonic()
        adapter, self.chat = models[_known(asked.model, models)], [turn.plain() for turn in asked.messages]
        most = self.limits.answer_tokens
        wanted = min(most, asked.max_completion_tokens or asked.max_tokens or most)  # cut off, it ends with "length"
        guidance = asked.guidance()
        if guidance and len(guidance[1]) > self.limits.schema_bytes:
            message = f"The schema is larger than {self.limits.schema_bytes:,} bytes."
            raise Refusal(400, message, "invalid_value", "response_format")
        self.how = {"max_new_tokens": wanted, "adapter": adapter, "guidance": guidance}
        self.how |= {"stop": asked.stops(), **asked.sampling()}
        self.fixed = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": asked.model}
        self.generation, self.said, self.first = None, [], None

    async def _pieces(self):
        """Yield pieces; whatever the end, it is counted and logged."""
        error, deadline = "cancelled", self.begun + self.limits.seconds
        try:
            work = self.worker.pieces(self.chat, self.request.scope["request_id"], deadline, **self.how)
            async with aclosing(work) as things:
                self.generation = await anext(things)
                async for piece in things:
                    self.first = self.first or time.monotonic() - self.begun
                    self.said.append(piece)
                    yield piece
            error = ""
        except Refusal as refusal:
            error = refusal.code
            raise
        finally:
            if error != "queue_full":  # that one never came in
                self._note(error)

    def _note(self, error):
        seconds, made = time.monotonic() - self.begun, self.generation
        counted = ("prompt_tokens", "cached_tokens", "answer_tokens")
        counts = {name: getattr(made, name) for name in counted} if made else {}
        self.metrics.done(self.asked.model, seconds, self.first, error=error, **counts)
        facts = {"request_id": self.request.scope["request_id"], "model": self.asked.model}
        facts |= {"seconds": round(seconds, 4), "error": error or None, **counts}
        try:
            self.requests.write(self.chat[-1]["content"], "".join(self.said), **facts)
        except OSError:  # a full disk must not cost anybody an answer
            self.metrics.refused("log_not_written")

    def _usage(self):
        read, made, known = (getattr(self.generation, f"{of}_tokens") for of in ("prompt", "answer", "cached"))
        counts = {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}
        return counts | {"prompt_tokens_details": {"cached_tokens": known}}

    async def _unless_left(self, work):
        """What is awaited; it is cancelled where the client leaves before."""
        task, leaving = asyncio.ensure_future(work), asyncio.ensure_future(self.request.receive())
        try:
            await asyncio.wait([task, leaving], return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Refusal(499, "The client left.", "client_left")
            return task.result()
        finally:
            task.cancel()
            leaving.cancel()

    async def whole(self):
        """The completion as one JSON object; a client that leaves ends the work."""

        async def work():
            async with aclosing(self._pieces()) as pieces:
                return "".join([piece async for piece in pieces])

        message = protocol.Message(content=await self._unless_left(work()))
        choice = protocol.Choice(message=message, finish_reason=self.generation.finish_reason)
        return protocol.Completion(**self.fixed, choices=[choice], usage=self._usage())

    async def streamed(self):
        """The completion as server-sent events. What fails before the first piece is an ordinary error."""
        pieces = self._pieces()
        first = await self._unless_left(anext(pieces, ""))

        async def events():
            async with aclosing(pieces):
                try:
                    yield self._event({"role": "assistant", "content": first})
                    async for piece in pieces:
                        yield self._event({"content": piece})
                    yield self._event({}, self.generation.finish_reason)
                    if self.asked.stream_options and self.asked.stream_options.include_usage:
                        yield self._event(usage=self._usage())
                    yield ServerSentEvent("[DONE]", sep="\n")
                except Refusal as refusal:  # the status is sent already
                    yield JSONServerSentEvent(refusal.body(), sep="\n")

        seconds = self.limits.seconds  # also what a stream may still take when the server is told to end
        return EventSourceResponse(events(), sep="\n", send_timeout=seconds, shutdown_grace_period=seconds)

    def _event(self, delta=None, finish=None, **more):
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        told = {**self.fixed, "object": "chat.completion.chunk", "choices": [choice] if delta is not None else []}
        return JSONServerSentEvent(told | more, sep="\n")
