"""Requests, answers and errors as OpenAI's clients know them.

Only their shape: what a model can do with a request, and whether it may ask for that much, `server` decides.
Wherever null stands for a field, the field is not set. What is not done here is refused by its name: `ASKS_NOTHING`.
"""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pydantic
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, Field, WithJsonSchema, WrapValidator
from pydantic_core import PydanticCustomError

from slmops_lab.deployment.runtime import STOP_LENGTH, STOPS

TOKEN_VARIABLE = "SLMOPS_SERVE_TOKEN"
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and how many may wait."""

    body_bytes: int = 200_000
    schema_bytes: int = 16_000
    prompt_tokens: int = 2_048
    answer_tokens: int = 512
    queue: int = 16  # requests that wait; one more is running
    seconds: float = 30.0  # from arrival to the last token


# What this server does not do, with the values that ask for nothing: clients send them without being told to, and the
# answer is the same. Any other value would change it, so it is refused, and so is every field that is not known here.
# The names are OpenAI's and those of llama.cpp, Ollama and vLLM, whose clients come here, too.
ASKS_NOTHING = [
    ([0], "frequency_penalty presence_penalty top_logprobs"),
    ([0], "min_p mirostat dry_multiplier xtc_probability min_tokens n_probs"),
    ([1], "repetition_penalty repeat_penalty length_penalty typical_p tfs_z best_of"),
    ([-1], "n_predict"),
    ([False], "logprobs use_beam_search ignore_eos echo continue_final_message think enable_thinking"),
    ([True], "add_generation_prompt skip_special_tokens"),
    ([{}], "logit_bias options extra_body"),
    ([[]], "tools functions stop_token_ids bad_words documents"),  # agents without tools send an empty list
    ([""], "grammar"),
    (["none", "auto"], "tool_choice function_call"),
    (["none"], "reasoning_effort"),  # this model does not reason
    ([{}, {"enable_thinking": False}], "chat_template_kwargs"),
    (["medium"], "verbosity"),  # what OpenAI takes for not set
    (["auto", "default"], "service_tier"),
    ([["text"]], "modalities"),
]
# The client's own notes, and how to keep or find what was computed: whatever they say, the answer is the same.
# Without tools none are called in parallel; without a penalty for repetition it looks back at nothing.
LABELS = "user metadata store safety_identifier prompt_cache_key prompt_cache_retention prompt_cache_options "
LABELS += "cache_prompt keep_alive id_slot parallel_tool_calls repeat_last_n"
NO_TOOLS, NOT_DONE = "this server has no tools", "this server does not do that: leave it out"


def _only(values, why):
    """A field that may have these values, and for others says why not."""

    def check(value):
        if not any(value == known and isinstance(value, bool) == isinstance(known, bool) for known in values):
            raise PydanticCustomError("not_done", "{why}", {"why": why})
        return value

    return Annotated[Any, AfterValidator(check), WithJsonSchema({"enum": [*values, None]})]


def _saying(sentence):
    """Says this in place of a complaint, or of one for each of the shapes that a value could have had."""

    def check(value, validate):
        try:
            return validate(value)
        except pydantic.ValidationError:
            raise PydanticCustomError("told", sentence) from None

    return WrapValidator(check)


class _Shape(pydantic.BaseModel, extra="forbid"):
    """Fields by their names and no others; those that are null are not set."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _without_null(cls, told):
        return {name: value for name, value in told.items() if value is not None} if isinstance(told, dict) else told


class Part(_Shape):
    """A piece of a message; text is all this model reads."""

    type: Annotated[Literal["text"], _saying("this model reads text only")]
    text: str
    cache_control: Any = None  # labels, as above
    prompt_cache_breakpoint: Any = None


class Turn(_Shape):
    """One message of a chat. An answer may come back as it was given, with all its empty fields."""

    role: Annotated[
        Literal["system", "developer", "user", "assistant"],
        _saying(f"give system, developer, user or assistant: {NO_TOOLS}"),
    ]
    content: str | list[Part]
    name: str | None = None
    cache_control: Any = None
    tool_calls: _only([[]], NO_TOOLS) = None
    function_call: _only([], NO_TOOLS) = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _echoed(cls, turn):
        if not isinstance(turn, dict) or turn.get("role") != "assistant":
            return turn
        return {"content": ""} | {name: value for name, value in turn.items() if value not in (None, [], {})}

    def plain(self):
        """The message as {"role", "content"}, its parts joined."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class NamedSchema(_Shape):
    """The JSON schema that an answer has to follow."""

    name: str = Field(min_length=1, max_length=64)
    definition: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class PlainFormat(_Shape):
    """An answer in free text, or in any JSON."""

    type: Literal["text", "json_object"]


class SchemaFormat(_Shape):
    """An answer that follows a JSON schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


class StreamOptions(_Shape):
    """What a stream tells besides the text."""

    include_usage: bool = False
    include_obfuscation: _only([False], NOT_DONE) = None


Stop = Annotated[str, Field(min_length=1, max_length=STOP_LENGTH)]
_besides = dict.fromkeys(LABELS.split(), (Any, None)) | {
    name: (_only(values, NO_TOOLS if "tool" in name or "function" in name else NOT_DONE), None)
    for values, names in ASKS_NOTHING
    for name in names.split()
}


class ChatRequest(pydantic.create_model("Besides", __base__=_Shape, **_besides)):
    """What may be asked of /v1/chat/completions. Without a temperature each token is the likeliest."""

    model: str
    messages: list[Turn] = Field(min_length=1, max_length=64)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(0.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=-1, le=1_000)  # as other servers have it: 0 and -1 for all words
    seed: int | None = Field(None, ge=0, lt=2**31)
    stop: Annotated[
        Stop | Annotated[list[Stop], Field(max_length=STOPS)] | None,
        _saying(f"give at most {STOPS} texts of 1 to {STOP_LENGTH} characters each"),
    ] = None
    response_format: Annotated[PlainFormat | SchemaFormat, Field(discriminator="type")] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Literal[1] = 1

    def stops(self):
        """Texts at which the answer ends: a list, empty for none."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    def sampling(self):
        """Search options of ONNX Runtime GenAI, none for the likeliest token each time."""
        if self.temperature == 0:
            return {}
        chosen = {"temperature": self.temperature, "top_p": self.top_p, "top_k": max(0, self.top_k)}
        return chosen if self.seed is None else chosen | {"random_seed": self.seed}

    def guidance(self):
        """(kind, text) for `GenAIRuntime.stream`, or None."""
        if self.response_format is None or self.response_format.type == "text":
            return None
        named = self.response_format.type == "json_schema"
        schema = self.response_format.json_schema.definition if named else {"type": "object"}
        # white space without end would be valid JSON, too
        return "json_schema", json.dumps({**schema, "x-guidance": {"whitespace_flexible": False}})


class Message(pydantic.BaseModel):
    """The answer as a message of the chat."""

    role: Literal["assistant"] = "assistant"
    content: str


class Choice(pydantic.BaseModel):
    """The one answer that is given, and why it ended."""

    index: int = 0
    message: Message
    finish_reason: Literal["stop", "length"]
    logprobs: None = None


class Usage(pydantic.BaseModel):
    """Tokens read and made."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[Literal["cached_tokens"], int]  # of the prompt's tokens, those not read anew


class Completion(pydantic.BaseModel):
    """A whole answer of /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


def place(loc, body, missing):
    """Where in the body a complaint is about, as OpenAI writes it: messages[0].content, without a union's shapes.

    missing: whether the last part of pydantic's `loc` is a field that should be there. Empty for the whole body.
    """
    where = ""
    for number, part in enumerate(loc, 1):
        if isinstance(body, list) and isinstance(part, int):
            where, body = f"{where}[{part}]", body[part]
        elif isinstance(body, dict) and (part in body or (missing and number == len(loc))):
            where, body = f"{where}.{part}".lstrip("."), body.get(part)
    return where


class Told(pydantic.BaseModel):
    """What is wrong, and with which field."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(pydantic.BaseModel):
    """What every error looks like."""

    error: Told


class Refusal(Exception):
    """A request that is answered by an error of OpenAI's shape."""

    def __init__(self, status, message, code=None, param=None, headers=None):
        super().__init__(message)
        self.status, self.code, self.param, self.headers = status, code, param, headers

    def body(self):
        """The error as OpenAI puts it: a dict."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        told = Told(message=str(self), type=kind, param=self.param, code=self.code)
        return ErrorBody(error=told).model_dump()

    def response(self):
        """The error as a response of Starlette."""
        return JSONResponse(self.body(), self.status, self.headers)
