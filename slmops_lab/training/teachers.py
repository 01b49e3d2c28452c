"""Teachers: whoever answers messages so that a student can learn from the answers.

A teacher has a `name` and `ask(task, texts)`, which returns one `Said` for each text, in order: a tuned model of
our own, any endpoint that speaks OpenAI's chat protocol, a counter of words, and a panel of several with a rule.
None of them checks an answer: `distillation.label` does. An endpoint costs money once per different request.
"""

import hashlib
import json
import math
import os
import re
import sqlite3
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import openai
from tqdm import tqdm

from slmops_lab.errors import CourseError
from slmops_lab.evaluation import baselines, generation

GIVE_UP_AFTER = 5  # failed requests in a row: the endpoint is down, not unlucky
LOOPBACK = ("127.0.0.1", "localhost", "::1")  # what runs here is never behind a proxy
# Parameters that some hosted models refuse, and what they want instead: another name, or nothing.
INSTEAD = {"max_tokens": "max_completion_tokens", "temperature": None}
THIS_MESSAGE = {"content_filter", "context_length_exceeded"}  # codes of a 400 that says nothing about other messages
HOPELESS = {  # by status: no other message would fare better
    401: "refuses the key: check OPENAI_API_KEY",
    403: "does not let this key use the model '{name}'",
    404: "has no model '{name}': check both",
    **dict.fromkeys((400, 422), "does not take the request: {error}"),
}


@dataclass(frozen=True)
class Said:
    """One answer of a teacher.

    confidence is the probability that the teacher gives to its own text, None where it does not
    tell. text is None where no answer came; problem says why.
    """

    text: str | None
    confidence: float | None = None
    problem: str | None = None


@dataclass
class LocalTeacher:
    """A tuned model on this machine. temperature 0 takes the likeliest token, more draws one.

    shared: see `generation.generate_scored`, for who answers a part of what others answer.
    """

    model: object
    tokenizer: object
    name: str = "local"
    temperature: float = 0.0
    batch_size: int = 32
    shared: int | None = None

    def ask(self, task, texts):
        """A list of `Said`; the confidence is the product of the probabilities of all tokens."""
        chats = [task.messages(text) for text in texts]
        how = {"batch_size": self.batch_size, "temperature": self.temperature, "shared": self.shared}
        said, log_probs = generation.generate_scored(self.model, self.tokenizer, chats, label="labelling", **how)
        return [Said(text, math.exp(log_prob)) for text, log_prob in zip(said, log_probs, strict=True)]


@dataclass
class WordCounter:
    """A weak teacher that costs nothing: `baselines.word_counter` on labelled records.

    It is fitted anew whenever it is asked, which takes a second or so for a thousand records.
    """

    labelled: list
    pairs: bool = False
    name: str = "word counter"

    def ask(self, task, texts):
        """A list of `Said`; the confidence is about the fields with listed values only."""
        answers, sure = baselines.word_counter(task, self.labelled, texts, self.pairs)
        return [Said(task.write(answer), confidence) for answer, confidence in zip(answers, sure, strict=True)]


@dataclass
class Panel:
    """Several teachers, and a rule that makes one answer of theirs: choose(said, said, ...) -> `Said`."""

    members: list
    choose: object
    name: str = "panel"

    def ask(self, task, texts):
        """A list of `Said`. Every member is asked about every text, in the order of the members."""
        told = [member.ask(task, texts) for member in self.members]
        return [self.choose(*said) for said in zip(*told, strict=True)]


@dataclass
class Usage:
    """What was asked of an endpoint in this run. Tokens as it counts them, prices per million."""

    requests: int = 0
    reused: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def cost(self, input_price, output_price):
        """Price of the requests, in the currency of the two prices per million tokens."""
        return (self.input_tokens * input_price + self.output_tokens * output_price) / 1e6


@dataclass
class RemoteTeacher:
    """A model behind an OpenAI-compatible endpoint, asked in parallel, never twice the same.

    Every answer is kept in `store`, an SQLite database, as it comes: a run that was killed goes on from there, and
    processes may share it. It is reused where the address and the whole request are the same. Time-outs, 408, 409,
    429 and 5xx are asked again after a growing pause, or after the one that the endpoint asks for (Retry-After):
    that is the openai client's work. What still fails has its reason in `Said.problem`, and is not kept.

    timeout: seconds of silence that end a request (at most 10 to connect). A model that refuses max_tokens gets
    max_completion_tokens, one that refuses temperature keeps its own. guided asks the endpoint to keep to the
    task's JSON schema, log_probs for the tokens' probabilities; not every endpoint can.
    """

    name: str
    store: Path
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    concurrency: int = 4
    timeout: float = 60.0
    max_retries: int = 5
    max_tokens: int = 128
    temperature: float = 0.0
    guided: bool = False
    log_probs: bool = False
    usage: Usage = field(default_factory=Usage, repr=False)
    _refused: set = field(default_factory=set, init=False, repr=False)  # of `INSTEAD`, by this endpoint

    @classmethod
    def from_environment(cls, store, **options):
        """From SLMOPS_TEACHER_MODEL, OPENAI_BASE_URL and OPENAI_API_KEY; None without the first."""
        name = os.environ.get("SLMOPS_TEACHER_MODEL")
        return cls(name, Path(store), **options) if name else None

    @property
    def address(self):
        """The endpoint's base URL: base_url, else OPENAI_BASE_URL, else OpenAI's own."""
        return (self.base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1").rstrip("/")

    def ask(self, task, texts):
        """A list of `Said`. The messages list the schema's values, as for a model without examples.

        Raises CourseError at once where the key, the model, the certificates, the proxy or the store are wrong, and
        where nobody answers after `GIVE_UP_AFTER` failures in a row; the answers so far stay in the store.
        """
        requests = [self._request(task, text) for text in texts]
        keys = [hashlib.sha256(json.dumps([self.address, request]).encode()).hexdigest() for request in requests]
        wanted, known, failed = dict(zip(keys, requests, strict=True)), {}, {}
        with suppress(OSError):  # the store says it better
            Path(self.store).parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(sqlite3.connect(self.store, timeout=60, check_same_thread=False)) as store:
                store.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, said TEXT) WITHOUT ROWID")
                rows = store.execute("SELECT key, said FROM answers")
                known.update({key: Said(**json.loads(said)) for key, said in rows if key in wanted})
                self.usage.reused += len(known)
                if missing := {key: request for key, request in wanted.items() if key not in known}:
                    failed = self._ask_all(missing, known, store)
        except (CourseError, sqlite3.Error) as error:
            problem = str(error) if isinstance(error, CourseError) else self._cannot_keep(error)
            kept = f" {len(known)} of {len(wanted)} answers are kept in {self.store}: run again to go on."
            raise CourseError(problem + kept * bool(known)) from None
        return [known.get(key) or failed[key] for key in keys]

    def _cannot_keep(self, error):
        damaged = getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
        cure = "move that file away or name another" if damaged else "make room or name another place"
        return f"The teacher's answers cannot be kept in {self.store} ({error}): {cure}."

    def _request(self, task, text):
        """What is sent. Whatever may change the answer is in it, so it is the key of the store, too."""
        request = {"model": self.name, "messages": task.messages(text, explain=True)}
        request |= {"max_tokens": self.max_tokens, "temperature": self.temperature}
        request |= {"logprobs": True} if self.log_probs else {}
        if self.guided:
            schema = {"name": "answer", "schema": task.json_schema(), "strict": True}
            request["response_format"] = {"type": "json_schema", "json_schema": schema}
        return request

    def _ask_all(self, wanted, known, store):
        """Ask {key: request}; answers go to the store and to known. Returns {key: `Said`} of those without one."""
        store.execute("PRAGMA user_version = 1")  # where nothing can be written, it fails before anything is paid for
        failed, in_a_row, stop, lock = {}, 0, threading.Event(), threading.Lock()

        def ask_one(key):
            try:
                said = self._read(self._reply(client, wanted[key]), lock)
                with lock:
                    with store:  # a transaction
                        store.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, json.dumps(asdict(said))))
                    known[key] = said
            except _NoReply as error:
                failed[key] = Said(None, problem=str(error))
            except Exception:
                stop.set()  # at once: the next question would be paid for in vain
                raise

        with self._client(stop) as client, ThreadPoolExecutor(self.concurrency) as pool:
            jobs = {pool.submit(ask_one, key): key for key in wanted}
            try:
                for job in tqdm(as_completed(jobs), f"asking {self.name}", len(jobs), leave=False):
                    job.result()
                    in_a_row = in_a_row + 1 if jobs[job] in failed else 0
                    if in_a_row >= GIVE_UP_AFTER:
                        where, last = f"The teacher at {_shown(self.address)}", failed[jobs[job]].problem
                        raise CourseError(f"{where} failed {in_a_row} times in a row, last with: {last}.")
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)  # what is under way is waited for and kept, but not repeated
                raise
        return failed

    def _client(self, stop):
        def may_ask(request):
            if stop.is_set():
                raise _NoReply("not asked")

        try:
            url, proxies = urlsplit(self.address), urllib.request.getproxies()
            near = url.hostname in LOOPBACK or urllib.request.proxy_bypass(url.hostname or "")
            used = [] if near else [name for name in (url.scheme, "all") if name in proxies]
            self._by_proxy = f" by the proxy of {used[0].upper()}_PROXY" if used else ""
            mounts = {"http://": None, "https://": None} if near else {}  # instead of the environment's proxies
            http = openai.DefaultHttpxClient(mounts=mounts, event_hooks={"request": [may_ask]})
            timeout = openai.Timeout(self.timeout, connect=min(self.timeout, 10))
            options = {"timeout": timeout, "max_retries": self.max_retries, "http_client": http}
            return openai.OpenAI(base_url=self.address, api_key=self.api_key, **options)
        except openai.OpenAIError:
            problem = "The remote teacher needs a key: set OPENAI_API_KEY (any text will do where none is asked for)."
        except OSError as error:
            problem = f"The certificates that SSL_CERT_FILE or SSL_CERT_DIR names cannot be read: {_one_line(error)}."
        except Exception as error:  # of several libraries
            names = f"The address {_shown(self.address)}, or the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names"
            problem = f"{names}, cannot be used: {_one_line(error)}."
        raise CourseError(problem)

    def _reply(self, client, request):
        """The endpoint's reply. Raises CourseError where no other message would fare better, _NoReply where it may."""
        names = {name: INSTEAD[name] if name in self._refused else name for name in request}
        try:
            return client.chat.completions.create(**{names[key]: request[key] for key in request if names[key]})
        except openai.APIStatusError as error:
            param, unsupported = str(error.param), str(error.code).startswith("unsupported")
            if unsupported and param in INSTEAD and names.get(param) == param:
                self._refused.add(param)
                return self._reply(client, request)
            if error.status_code not in HOPELESS or str(error.code) in THIS_MESSAGE:
                code = f", {error.code}" if isinstance(error.code, str) else ""
                raise _NoReply(f"status {error.status_code}{code}") from None
            sentence = HOPELESS[error.status_code].format(name=self.name, error=_one_line(error))
            raise CourseError(f"The teacher at {_shown(self.address)} {sentence}.") from None
        except openai.APIConnectionError as error:
            if isinstance(error, openai.APITimeoutError) and "Connect" not in type(error.__cause__).__name__:
                raise _NoReply(f"no answer within {self.timeout:g} s") from None
            raise _NoReply(f"no connection{self._by_proxy} ({_one_line(error.__cause__)})") from None
        except UnicodeEncodeError:
            raise _NoReply("the message has half a character, which cannot be sent") from None
        except (openai.OpenAIError, ValueError, RecursionError):
            raise _NoReply("a reply that is no JSON") from None

    def _read(self, reply, lock):
        """The `Said` of a reply, whose tokens are counted. The client does not check what it was sent."""
        try:
            choice, used = reply.choices[0], reply.usage
            content, told = choice.message.content, choice.logprobs and choice.logprobs.content
            tokens = [int(used.prompt_tokens or 0), int(used.completion_tokens or 0)] if used else [0, 0]
            total = sum(token.logprob for token in told) if told else math.nan
            said = Said(content or None, math.exp(total) if total <= 0 else None, None if content else "an empty reply")
            if choice.finish_reason == "length":
                said = Said(None, problem=f"cut off after {self.max_tokens} tokens")
            if not isinstance(content, str | None):
                raise TypeError
        except (AttributeError, TypeError, ValueError, LookupError):
            raise _NoReply("a reply without an answer in it") from None
        with lock:
            self.usage.requests += 1
            self.usage.input_tokens += tokens[0]
            self.usage.output_tokens += tokens[1]
        return said


class _NoReply(Exception):
    """A request that failed after all its repetitions; nothing is kept of it."""


def _one_line(error):
    return " ".join(str(error).split())[:160] or type(error).__name__


def _shown(address):
    return re.sub(r"//.*@", "//", address)  # without a password
