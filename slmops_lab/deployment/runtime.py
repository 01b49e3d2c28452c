"""One `generate` over three runtimes: PyTorch, ONNX Runtime GenAI and Foundry Local.

Each runtime answers one chat at a time and loads no more than it needs: a process that serves an ONNX
model never imports torch. What a user can put right is a CourseError; what a runtime itself cannot do
(no memory, a damaged model) stays the exception that it raised. Queues and time limits are the endpoint's.
"""

import functools
import itertools
import json
import re
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmops_lab import measure
from slmops_lab.errors import CourseError
from slmops_lab.settings import home, threads
from slmops_lab.task import encoding
from slmops_lab.task.encoding import defuse

STOPS, STOP_LENGTH = 4, 100  # at most so many stop texts (as OpenAI's API), of so many characters each
# how ONNX Runtime GenAI begins a complaint about guidance; whatever else it complains about is no fault of the guidance
GUIDANCE = ("Error creating grammar", "Error computing mask", "Unsupported guidance type", "Guidance type")
GUIDANCE += ("Error committing tokens",)
ITEMS = 500  # of an array in a schema at most: the library writes each into its grammar, a billion until memory ends
# tokens of a prompt that are read in one piece: the library keeps Python's lock meanwhile, so nothing else is answered
PIECE = 256
ROOM = 256  # a generator that is kept has room for a multiple of so many tokens: the next message may be longer


class TooLong(CourseError):
    """A chat has more tokens than are read."""


class TorchRuntime:
    """PyTorch, from a Hugging Face folder, weights in fp32."""

    def __init__(self, folder):
        import torch

        from slmops_lab.training import base_model

        torch.set_num_threads(threads())
        self.model, self.tokenizer = base_model.open_model(folder)

    def generate(self, chat, max_new_tokens=64):
        """Answer to a list of {'role', 'content'} as text."""
        from slmops_lab.evaluation import generation

        return generation.generate(self.model, self.tokenizer, [chat], max_new_tokens, label=None)[0]

    def close(self):
        """Let go of the weights."""
        self.model = None


class Generation:
    """One answer in the making: iterate over it once for its pieces, stop iterating to end it early.

    prompt_tokens and cached_tokens (those of the prompt that were known and not read anew) are right at once,
    answer_tokens and finish_reason ('stop', or 'length' where the limit cut it off) when the pieces have ended.
    stop: texts that end the answer; each character of the answer is compared once with each of them.
    after: called when the generator is no longer needed and has not failed.
    Raises CourseError where there are more than `STOPS` stop texts or one is not 1 to `STOP_LENGTH` characters long.
    """

    def __init__(self, generator, tokenizer, prompt_tokens, limit, stop=(), after=None, cached_tokens=0):
        if len(stop) > STOPS or not all(1 <= len(text) <= STOP_LENGTH for text in stop):
            raise CourseError(f"Give at most {STOPS} stop texts of 1 to {STOP_LENGTH} characters each.")
        self._generator, self._decoder, self._limit = generator, tokenizer.create_stream(), limit
        self._stop, self._matched = [(text, _borders(text)) for text in stop], [0] * len(stop)
        self._ends, self._after = set(tokenizer.eos_token_ids), after
        self.prompt_tokens, self.cached_tokens = prompt_tokens, cached_tokens
        self.answer_tokens, self.finish_reason = 0, None

    def __iter__(self):
        if self._generator is None:  # it has ended, and the generator may be at work on another answer
            return
        failed = True
        try:
            yield from self._pieces()
            failed = False
        except GeneratorExit:  # nobody wants the rest
            failed = False
            raise
        finally:
            self._generator = None
            if self._after is not None and not failed:
                self._after()

    def _pieces(self):
        held = ""  # what may be the beginning of a stop text is not given out yet
        for token in self._tokens():
            if token in self._ends:
                self.finish_reason = "stop"
                break
            piece = self._decoder.decode(token)
            found, held = self._find(piece), held + piece
            if found is not None:
                self.finish_reason, held = "stop", held[: len(held) - len(piece) + found]
                break
            keep = max(self._matched, default=0)
            piece, held = held[: len(held) - keep], held[len(held) - keep :]
            if piece:
                yield piece
        self.finish_reason = self.finish_reason or "length"
        if held:
            yield held

    def _tokens(self):
        """Yield the answer's tokens up to the limit. One step may make several: those that guidance forces."""
        known = self._generator.token_count()
        while self.answer_tokens < self._limit and not self._generator.is_done():
            with _guidance_blamed():
                self._generator.generate_next_token()
            made = self._generator.get_sequence(0)[known:]
            known += len(made)
            chosen = self._generator.get_next_tokens()[0]
            ended = [chosen] if chosen in self._ends else []  # an end token is not put into the sequence
            for token in [*made, *ended][: self._limit - self.answer_tokens]:
                self.answer_tokens += 1
                yield token

    def _find(self, piece):
        """Where the first stop text to be complete begins, counted from the piece (below 0: before it), or None."""
        for end, character in enumerate(piece, 1):
            pairs = zip(self._stop, self._matched, strict=True)
            self._matched = [_longer(text, borders, matched, character) for (text, borders), matched in pairs]
            complete = [n for n, (text, _) in zip(self._matched, self._stop, strict=True) if n == len(text)]
            if complete:
                return end - max(complete)
        return None


def _longer(text, borders, matched, character):
    """How many characters of `text` match once `character` follows (Knuth, Morris, Pratt 1977, doi:10.1137/0206024)."""
    while matched and text[matched] != character:
        matched = borders[matched - 1]
    return matched + (text[matched] == character)


def _borders(text):
    """For each beginning of the text, the length of the longest shorter beginning that it also ends with."""
    borders = [0]
    for character in text[1:]:
        borders.append(_longer(text, borders, borders[-1], character))
    return borders


@contextmanager
def _guidance_blamed():
    """CourseError where the block fails because of the guidance; other failures stay what they are."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith(GUIDANCE):
            raise
        raise CourseError(f"No answer can be guided by that: {str(error).splitlines()[0].rstrip('.')}.") from error


def _refuse_counts(text):
    """Raise CourseError where a JSON schema counts more than `ITEMS` items, or is nested too deeply to tell."""

    def look(schema):
        inside = schema.items() if isinstance(schema, dict) else enumerate(schema) if isinstance(schema, list) else ()
        for name, told in inside:
            if name in ("minItems", "maxItems") and isinstance(told, int | float) and told > ITEMS:
                raise CourseError(f"No answer can be guided by that: {name} is more than {ITEMS}.")
            look(told)  # under every name: a property may be called as a keyword

    try:
        look(json.loads(text))
    except RecursionError:
        raise CourseError("No answer can be guided by that: the schema is nested too deeply.") from None
    except ValueError:  # no JSON: the library says where it ends
        return


def unforced(kind, text):
    """Guidance that allows the same texts and forces no token: each is the model's own choice among those that fit.

    What guidance forces it writes as the tokenizer would cut it up. A model that writes whole phrases as one token
    (`compression.add_phrases`) has never seen these pieces, and goes on with nonsense. The directive is llguidance's
    (https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md); a schema becomes a part of a grammar for it.
    """
    if kind == "json_schema":
        text = f"start: %json {text}"
    elif kind == "regex":
        text = f"start: /{text.replace('/', chr(92) + '/')}/"
    elif kind != "lark_grammar" or text.startswith("%llguidance"):
        return kind, text
    return "lark_grammar", f'%llguidance {{"no_forcing": true}}\n{text}'


def most_forced(kind, text):
    """How many tokens in a row can guidance force at most? None where that cannot be told.

    ONNX Runtime GenAI 0.18 writes forced tokens without a look at the room that its generator has, past the end of
    its memory: nobody may ask for them who cannot tell. Told are JSON schemas of objects, arrays, `anyOf` and literal
    values, without references or counts, and grammars like those of `Task.grammar`. A token has at least one byte,
    so the bytes of the longest answer are counted, without those of free text: nothing is forced in there.
    """
    counting = {"json_schema": _schema_bytes, "lark_grammar": _grammar_bytes}
    if kind not in counting:
        return None
    try:
        return counting[kind](text)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):  # a shape that is not known here
        return None


SAYS_NOTHING = {"title", "description", "default", "x-guidance", "additionalProperties", "required", "properties"}
FREE = 16  # bytes: what is forced at the edges of a free value, such as its quotes, or the rest of an escaped character


def _schema_bytes(text):
    def most(schema):
        told = set(schema) - SAYS_NOTHING
        if told - {"type", "const", "enum", "anyOf", "items"}:
            raise ValueError("it counts, refers or has patterns")
        if not isinstance(schema.get("additionalProperties", False), bool):
            raise ValueError("it describes properties that have no name")
        if set(schema.get("x-guidance", {})) - {"whitespace_flexible"}:
            raise ValueError("it has texts of its own between the values")
        values = [schema["const"]] if "const" in schema else schema.get("enum", [])
        parts = [len(json.dumps(value)) for value in values] + [most(one) for one in schema.get("anyOf", [])]
        known = schema.get("properties", {})
        names = [*known, *(name for name in schema.get("required", []) if name not in known)]
        inside = sum(len(json.dumps(name)) + 4 + most(known.get(name, {})) for name in names)
        return FREE + inside + max(parts, default=0) + most(schema.get("items", {})) if schema else FREE

    return most(json.loads(text, parse_float=int))  # which refuses what is no integer: it can be written at any length


def _grammar_bytes(text):
    literal = r'"(?:[^"\\]|\\.)*"'
    chunks, copied = "substring_chunks", '%regex {"substring_chunks": '
    rules = dict(line.split(": ", 1) for line in text.split("\n"))

    @functools.cache
    def most(name):
        if rules[name].startswith(copied):
            return FREE + max(len(chunk) for chunk in json.loads(rules[name].removeprefix("%regex "))[chunks])
        if rules[name] == "PIECE & /(?s:.)+/":
            return most("PIECE")
        if not re.fullmatch(rf"(?:{literal}|\w+|[| ])*", rules[name]):
            raise ValueError("it counts or repeats")
        without = re.sub(literal, lambda found: f" {len(json.loads(found[0]).encode())} ", rules[name])
        return max(sum(int(p) if p.isdigit() else most(p) for p in way.split()) for way in without.split("|"))

    return most("start")


def _read_on(generator, ids):
    """Let a generator read more tokens, in pieces; no piece is one token alone, which is computed in another way."""
    begin = 0
    while len(ids) - begin > PIECE + 1:
        generator.append_tokens(ids[begin : begin + PIECE])
        begin += PIECE
    generator.append_tokens(ids[begin:])


@dataclass
class _Reader:
    """A generator that has read a prompt, for how many tokens it has room, and what another answer can use of it."""

    generator: Any
    length: int
    about: tuple  # adapter and guidance, which a generator keeps for life
    constant: list  # the tokens with which each such prompt begins


def refuse_no_model(folder):
    """Raise CourseError where a folder holds no model for this runtime."""
    if not (Path(folder) / "genai_config.json").is_file():
        raise CourseError(f"{folder} is no ONNX Runtime GenAI model: it has no genai_config.json.")


class GenAIRuntime:
    """ONNX Runtime GenAI, from a folder that `export.to_onnx` or `export.with_adapters` made.

    adapters: {name: adapter file}, of which each request may choose one.
    The generator of the last answer is kept, with what its attention remembers: the next message with the same
    system turn is read from where the user's words begin, which saves time and changes no number. What users said is
    read anew each time, so nobody can tell by the time what somebody else has asked. In ONNX Runtime GenAI
    0.18 a generator keeps its adapter, guidance and search options for life, so another adapter or guidance
    begins anew; kept are those without guidance or with a JSON schema (a `Task.grammar` is made for one message),
    and none that draws. One answer at a time: an answer that is asked for while another is made has its own generator.
    """

    def __init__(self, folder, adapters=None):
        import onnxruntime_genai as og

        refuse_no_model(folder)
        config = og.Config(str(folder))
        options = {"session_options": {"intra_op_num_threads": threads()}}
        config.overlay(json.dumps({"model": {"decoder": options}}))
        self._og = og
        self.model = og.Model(config)
        self.tokenizer = og.Tokenizer(self.model)
        told = json.loads((Path(folder) / "genai_config.json").read_text(encoding="utf-8"))
        self.positions = told["model"]["context_length"]
        self._marks, self._phrases = control_marks(folder), has_phrases(folder)
        self._kept = deque(maxlen=1)  # who takes the `_Reader` out has it for himself
        self.names = list(adapters or {})
        if adapters:
            self.adapters = og.Adapters(self.model)
            for name, file in adapters.items():
                self.adapters.load(str(file), name)

    def prompt(self, chat):
        """Chat -> the text that the model reads, in its own chat template."""
        return self.tokenizer.apply_chat_template(json.dumps(defuse(chat, self._marks)), add_generation_prompt=True)

    def stream(self, chat, max_new_tokens=64, adapter=None, guidance=None, stop=(), longest_prompt=None, **sampling):
        """A `Generation`: the answer to a list of {'role', 'content'}, piece by piece.

        guidance: (kind, text), such as ('json_schema', schema as JSON) or ('lark_grammar', grammar):
        the answer can then be nothing else, unless the limit cuts it off. What it forces is written without a
        decoding step each, where `most_forced` knows an end to it, nothing is drawn, and the model has no phrases of
        its own (see `unforced`). stop: as in `Generation`.
        longest_prompt: tokens that are read at most, where that is less than the model could. sampling:
        search options of ONNX Runtime GenAI (temperature, top_p, random_seed); without any, each token is
        the likeliest. Raises `TooLong` on a chat that is, and CourseError on an adapter that was not
        loaded and a guidance that cannot be followed, here or while the answer is made.
        """
        if adapter is not None and adapter not in self.names:
            raise CourseError(f"There is no adapter '{adapter}' here: {', '.join(self.names) or 'none'} was loaded.")
        if guidance is not None and guidance[0] == "json_schema":
            _refuse_counts(guidance[1])
        ids = self.tokenizer.encode(self.prompt(chat))
        if longest_prompt is not None and len(ids) > (most := min(longest_prompt, self.positions)):
            raise TooLong(f"The messages have {len(ids):,} tokens, at most {most:,} are read.")
        self._refuse_too_long(len(ids), max_new_tokens)
        length, limits = len(ids) + max_new_tokens, (self.tokenizer, len(ids), max_new_tokens, stop)
        for_one = guidance is not None and guidance[0] != "json_schema"  # a `Task.grammar` is made for one message
        forced = None if guidance is None or self._phrases or sampling else most_forced(*guidance)
        if guidance is not None and self._phrases:
            guidance = unforced(*guidance)
        if sampling:  # a seed draws as it ever did: each token once
            return Generation(self.start(ids, length, adapter, guidance, sampling), *limits)
        if forced is not None and length + forced <= self.positions:
            guidance, length = (*guidance, True), length + forced
        if for_one:
            return Generation(self.start(ids, length, adapter, guidance), *limits)
        reader, known = self._read(chat, ids, length, (adapter, guidance))
        return Generation(reader.generator, *limits, lambda: self._kept.append(reader), known)

    def _read(self, chat, ids, length, about):
        """A `_Reader` of the tokens `ids` with room for `length`, and how many of them it knew.

        It is the kept one, rewound, where that is possible.
        """
        kept = self._kept.pop() if self._kept else None
        if kept is not None and kept.about == about and kept.length >= length:
            known = len(kept.constant)
            # one token alone is computed in another way than several, so at least two are left to be read
            if 0 < known < len(ids) - 1 and ids[:known].tolist() == kept.constant:
                kept.generator.rewind_to(known)
                _read_on(kept.generator, ids[known:])
                return kept, known
        kept = None  # its memory is free before more is asked for
        system = list(itertools.takewhile(lambda turn: turn["role"] == "system", chat))
        empty = self.tokenizer.encode(self.prompt([*system, {"role": "user", "content": ""}]))
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(ids.tolist(), empty.tolist(), strict=False))
        constant = [token for token, _ in same]
        length = min(self.positions, -(-length // ROOM) * ROOM)
        return _Reader(self.start(ids, length, *about), length, about, constant), 0

    def generate(self, chat, max_new_tokens=64, **how):
        """The whole answer as text; `how` and errors as in `stream`."""
        return "".join(self.stream(chat, max_new_tokens, **how))

    def generate_batch(self, chats, max_new_tokens=64, adapter=None):
        """Answers to several chats at once, the likeliest token each time; errors as in `stream`."""
        prompts = [self.prompt(chat) for chat in chats]
        ids = self.tokenizer.encode_batch(prompts)  # (chats, longest prompt), padded
        length = ids.shape()[1]
        self._refuse_too_long(length, max_new_tokens)
        generator = self.start(ids, length + max_new_tokens, adapter, batch_size=len(chats))
        while not generator.is_done():
            generator.generate_next_token()
        return [self.tokenizer.decode(generator.get_sequence(i)[length:]) for i in range(len(chats))]

    def start(self, ids, max_length, adapter=None, guidance=None, sampling=None, **search):
        """ONNX Runtime GenAI's own generator after it has read `ids`; further search options as they are.

        guidance: as in `stream`, or (kind, text, True) to have forced tokens written without a step: see `most_forced`.
        """
        params = self._og.GeneratorParams(self.model)
        params.set_search_options(max_length=max_length, do_sample=bool(sampling), **(sampling or {}), **search)
        with _guidance_blamed():
            if guidance is not None:
                params.set_guidance(*guidance)
            generator = self._og.Generator(self.model, params)
        if adapter is not None:
            generator.set_active_adapter(self.adapters, adapter)
        if "batch_size" in search:  # several prompts, side by side
            generator.append_tokens(ids)
        else:
            _read_on(generator, ids)
        return generator

    def _refuse_too_long(self, prompt_tokens, max_new_tokens):
        if prompt_tokens + max_new_tokens > self.positions:
            raise TooLong(
                f"The message has {prompt_tokens:,} tokens; with {max_new_tokens} for the answer "
                f"that is more than the {self.positions:,} positions of this model: shorten it."
            )

    def close(self):
        """Let go of the weights."""
        self._kept.clear()
        self.model = self.tokenizer = None


def has_phrases(folder):
    """Whether a model's tokenizer has tokens for whole texts besides its special ones: `compression.add_phrases`."""
    told = json.loads((Path(folder) / "tokenizer.json").read_text(encoding="utf-8"))
    return any(not token["special"] for token in told.get("added_tokens", []))


def control_marks(folder):
    """Regular expression of the marks by which a model's chat template tells its roles apart."""
    told = json.loads((Path(folder) / "tokenizer.json").read_text(encoding="utf-8"))
    marks = [token["content"] for token in told.get("added_tokens", []) if token.get("special")]
    return encoding.control_marks(marks)


class FoundryRuntime:
    """Foundry Local, in this process, from the same folder as `GenAIRuntime`.

    The folder is registered in the local catalogue under its name; an older registration of that
    name is replaced, so that a cell can be run again.
    """

    def __init__(self, folder, name="slmops-student"):
        import foundry_local_sdk as foundry

        self._foundry = foundry
        self._marks = control_marks(folder)
        cache = home() / "foundry"
        cache.mkdir(parents=True, exist_ok=True)
        places = {"model_cache_dir": str(cache), "logs_dir": str(cache / "logs")}
        told = foundry.Configuration(app_name="slmops", log_level=foundry.LogLevel.WARNING, **places)
        self.manager = foundry.FoundryLocalManager(told)
        catalog = self.manager.get_catalog(foundry.CatalogType.LOCAL)
        identity = f"{name}:1"
        if catalog.get_model(name) is not None:
            catalog.unregister_model(identity)
        with foundry.ModelInfoBuilder() as info:
            info.set_string_property("task", "chat-completion")
            place = str(Path(folder).resolve())
            self.model = catalog.register_model(model_path=place, model_id=identity, metadata=info)
        self.model.load()

    def stream(self, chat, max_new_tokens=64):
        """Yield the pieces of the answer to a list of {'role', 'content'} as they are made."""
        foundry = self._foundry
        search = foundry.SearchOptions(temperature=0.0, max_output_tokens=max_new_tokens)
        with foundry.ChatSession(self.model) as session:
            session.set_options(foundry.RequestOptions(search=search))
            session.set_streaming(True)
            with foundry.Request() as request:
                for message in defuse(chat, self._marks):
                    make = getattr(foundry.MessageItem, message["role"])
                    request.add_item(make(message["content"]))
                for item in session.process_streaming_request(request):
                    if isinstance(item, foundry.TextItem):
                        yield item.text

    def generate(self, chat, max_new_tokens=64):
        """Answer to a list of {'role', 'content'} as text."""
        return "".join(self.stream(chat, max_new_tokens))

    def close(self):
        """Unload the model and end the service."""
        self.model.unload()
        self.manager.close()


RUNTIMES = {"torch": TorchRuntime, "genai": GenAIRuntime, "foundry": FoundryRuntime}


def open_runtime(kind, folder):
    """'torch', 'genai' or 'foundry' and a model folder -> an object with generate and close."""
    if kind not in RUNTIMES:
        raise CourseError(f"There is no runtime '{kind}': give one of {', '.join(RUNTIMES)}.")
    return RUNTIMES[kind](folder)


def race(systems, chats, warm_up=3):
    """Answer every chat with every system in turn, each in a fresh process of its own.

    systems: {name: (kind, folder)}. They take turns message by message, so that whatever else the
    machine does hits all of them alike; one works at a time. Returns (answers, memory): a DataFrame
    with columns system, message, ms, text, and {name: peak bytes of its process}.
    """
    import pandas  # not at the top: the measured processes import this module and need neither
    from tqdm import tqdm

    workers = {name: measure.FreshProcess() for name in systems}
    rows = []
    try:
        for name, (kind, folder) in systems.items():
            workers[name].call(_open_here, kind, str(folder))
            for chat in chats[:warm_up]:
                workers[name].call(_answer_here, chat)
        names = list(systems)
        for number, chat in enumerate(tqdm(chats, desc="race", leave=False)):
            start = number % len(names)  # each is as often the first
            for name in names[start:] + names[:start]:
                text, milliseconds = workers[name].call(_answer_here, chat)
                rows.append((name, number, milliseconds, text))
        memory = {name: worker.peak_memory() for name, worker in workers.items()}
    finally:
        for worker in workers.values():
            worker.__exit__()
    return pandas.DataFrame(rows, columns=["system", "message", "ms", "text"]), memory


_here = None  # the runtime of this process: `race` gives each system a process of its own and one call to open it


def _open_here(kind, folder):
    global _here
    _here = open_runtime(kind, folder)


def _answer_here(chat):
    started = time.perf_counter()
    text = _here.generate(chat)
    return text, (time.perf_counter() - started) * 1e3
