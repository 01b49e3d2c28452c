"""Teachers: whoever answers messages so that a student can learn from the answers.

A teacher has a `name` and `ask(task, texts)`, which returns one `Said` for each text, in order. The
kinds are here: a tuned model of our own, any endpoint that speaks OpenAI's chat protocol, a counter
of words, and a panel of several of them with a rule.
"""

import hashlib
import json
import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tqdm import tqdm

from slmops_lab.errors import CourseError
from slmops_lab.evaluation import baselines, generation

GIVE_UP_AFTER = 5  # failed requests in a row: the endpoint is down, not unlucky


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
    """A tuned model on this machine. temperature 0 takes the likeliest token, more draws one."""

    model: object
    tokenizer: object
    name: str = "local"
    temperature: float = 0.0
    batch_size: int = 32

    def ask(self, task, texts):
        """A list of `Said`; the confidence is the product of the probabilities of all tokens."""
        chats = [task.messages(text) for text in texts]
        said, log_probs = generation.generate_scored(
            self.model,
            self.tokenizer,
            chats,
            batch_size=self.batch_size,
            label="labelling",
            temperature=self.temperature,
        )
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

    Every answer is written to `store` (JSON lines) as it comes; a run that was killed goes on from
    there. Time-outs, 408, 409, 429 and 5xx are asked again after a growing pause, or after the
    one that the endpoint asks for (Retry-After): that is the openai client's work. What still fails has its
    reason in `Said.problem`. A wrong key or model raises CourseError at once, an address where nobody
    answers after `GIVE_UP_AFTER` failures in a row; the answers so far stay in the store.

    guided asks the endpoint to keep to the task's JSON schema, log_probs for the tokens'
    probabilities; not every endpoint can.
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

    @classmethod
    def from_environment(cls, store, **options):
        """From SLMOPS_TEACHER_MODEL, OPENAI_BASE_URL and OPENAI_API_KEY; None without the first."""
        name = os.environ.get("SLMOPS_TEACHER_MODEL")
        return cls(name, Path(store), **options) if name else None

    def ask(self, task, texts):
        """A list of `Said`. The messages list the schema's values, as for a model without examples."""
        chats = [task.messages(text, explain=True) for text in texts]
        keys = [self._key(chat) for chat in chats]
        known = self._read_store()
        wanted = {key: chat for key, chat in zip(keys, chats, strict=True) if key not in known}
        self.usage.reused += len(set(keys) - set(wanted))
        if wanted:
            try:
                known |= self._ask_all(task, wanted)
            except OSError as error:  # a disk may fill up on the way
                lost = f"An answer of the teacher could not be kept in {self.store} ({error.strerror})"
                kept = len(self._read_store())
                raise CourseError(f"{lost}; make room and run again to go on after the {kept} that were.") from None
        return [known[key] for key in keys]

    def _key(self, chat):
        how = [self.name, self.temperature, self.max_tokens, self.guided, self.log_probs, chat]
        return hashlib.sha256(json.dumps(how).encode()).hexdigest()[:32]

    def _read_store(self):
        try:
            lines = Path(self.store).read_text(encoding="utf-8").split("\n")
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise CourseError(f"The answers of the teacher in {self.store} cannot be read: {error.strerror}.") from None
        known = {}
        for line in lines:
            with suppress(ValueError):  # a run was killed while it wrote this line: the answer is asked for again
                row = json.loads(line)
                key = row.pop("key")
                known[key] = Said(**row)
        return known

    def _ask_all(self, task, wanted):
        try:  # before the first question is paid for
            Path(self.store).parent.mkdir(parents=True, exist_ok=True)
            open(self.store, "a", encoding="utf-8").close()
        except OSError as error:
            sentence = f"The answers of the teacher cannot be kept in {self.store}: {error.strerror}."
            raise CourseError(f"{sentence} Nothing was asked.") from None
        answers, failures = {}, 0
        self._stop, self._writing = threading.Event(), threading.Lock()
        with (
            self._client() as client,
            open(self.store, "a", encoding="utf-8") as store,
            tqdm(total=len(wanted), desc=f"asking {self.name}", leave=False) as bar,
            ThreadPoolExecutor(self.concurrency) as pool,
        ):
            if store.tell():
                store.write("\n")  # ends a line that a killed run may have left open
            jobs = {pool.submit(self._ask_one, client, task, chat, key, store): key for key, chat in wanted.items()}
            try:
                for job in as_completed(jobs):
                    try:
                        answers[jobs[job]], failures = job.result(), 0
                    except _NoReply as error:
                        answers[jobs[job]], failures = Said(None, problem=str(error)), failures + 1
                        if failures >= GIVE_UP_AFTER:
                            where = f"The teacher at {client.base_url} failed {failures} times in a row"
                            raise CourseError(f"{where}, last with: {error}.") from None
                    bar.update()
            except BaseException as error:
                self._stop.set()
                pool.shutdown(cancel_futures=True)  # what is under way is waited for, and kept
                if isinstance(error, CourseError):
                    kept = len(self._read_store())
                    raise CourseError(f"{error} {kept} answers are kept in {self.store}: run again to go on.") from None
                raise
        return answers

    def _client(self):
        import openai

        try:
            return openai.OpenAI(
                base_url=self.base_url, api_key=self.api_key, timeout=self.timeout, max_retries=self.max_retries
            )
        except openai.OpenAIError:
            sentence = "The remote teacher needs a key: set OPENAI_API_KEY (any text will do where none is asked for)."
            raise CourseError(sentence) from None

    def _ask_one(self, client, task, chat, key, store):
        if self._stop.is_set():
            raise _NoReply("not asked")
        said = self._read(self._reply(client, task, chat))
        with self._writing:
            store.write(json.dumps({"key": key, **asdict(said)}, ensure_ascii=False) + "\n")
            store.flush()
        return said

    def _reply(self, client, task, chat):
        import openai

        options = {"logprobs": True} if self.log_probs else {}
        if self.guided:
            schema = {"name": "answer", "schema": task.json_schema(), "strict": True}
            options["response_format"] = {"type": "json_schema", "json_schema": schema}
        where = client.base_url
        try:
            reply = client.chat.completions.create(
                model=self.name, messages=chat, max_tokens=self.max_tokens, temperature=self.temperature, **options
            )
        except openai.AuthenticationError:
            raise CourseError(f"The teacher at {where} refuses the key: check OPENAI_API_KEY.") from None
        except openai.PermissionDeniedError:
            raise CourseError(f"The key may not use '{self.name}' at {where}.") from None
        except openai.NotFoundError:
            raise CourseError(f"There is no model '{self.name}' at {where}: check both.") from None
        except openai.BadRequestError as error:
            raise CourseError(f"The teacher at {where} does not take the request: {_one_line(error)}.") from None
        except openai.APITimeoutError:
            raise _NoReply(f"no answer within {self.timeout:g} s") from None
        except openai.APIConnectionError:
            raise _NoReply("no connection") from None
        except openai.APIStatusError as error:
            raise _NoReply(f"status {error.status_code}") from None
        except (openai.OpenAIError, ValueError):
            raise _NoReply("a reply that is no JSON") from None
        if not getattr(reply, "choices", None) or not getattr(reply.choices[0], "message", None):
            raise _NoReply("a reply without an answer in it")  # the client does not check what it was sent
        return reply

    def _read(self, reply):
        with self._writing:
            self.usage.requests += 1
            if reply.usage:
                self.usage.input_tokens += reply.usage.prompt_tokens or 0
                self.usage.output_tokens += reply.usage.completion_tokens or 0
        choice = reply.choices[0]
        if choice.finish_reason == "length":
            return Said(None, problem=f"cut off after {self.max_tokens} tokens")
        if not choice.message.content:
            return Said(None, problem="an empty reply")
        told = choice.logprobs.content if choice.logprobs else None
        return Said(choice.message.content, math.exp(sum(token.logprob for token in told)) if told else None)


class _NoReply(Exception):
    """A request that failed after all its repetitions; nothing is kept of it."""


def _one_line(error):
    return " ".join(str(error).split())[:160]
