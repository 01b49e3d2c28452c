"""Requests, answers and errors as OpenAI's clients know them.

Only their shape: what a model can do with a request, and whether it may ask for that much, `server` decides.
"""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pydantic
from fastapi.responses import JSONResponse
from pydantic import Field
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


class Part(pydantic.BaseModel, extra="forbid"):
    """A piece of a message; text is all this model reads."""

    type: Literal["text"]
    text: str


class Turn(pydantic.BaseModel, extra="forbid"):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]
    name: str | None = None

    def plain(self):
        """The message as {"role", "content"}, its parts joined."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class NamedSchema(pydantic.BaseModel, extra="forbid"):
    """The JSON schema that an answer has to follow."""

    name: str = Field(min_length=1, max_length=64)
    definition: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class PlainFormat(pydantic.BaseModel, extra="forbid"):
    """An answer in free text, or in any JSON."""

    type: Literal["text", "json_object"]


class SchemaFormat(pydantic.BaseModel, extra="forbid"):
    """An answer that follows a JSON schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


class StreamOptions(pydantic.BaseModel, extra="forbid"):
    """What a stream tells besides the text."""

    include_usage: bool = False


Stop = Annotated[str, Field(min_length=1, max_length=STOP_LENGTH)]


class ChatRequest(pydantic.BaseModel, extra="forbid"):
    """What may be asked of /v1/chat/completions. Without a temperature each token is the likeliest."""

    model: str
    messages: list[Turn] = Field(min_length=1, max_length=64)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(0.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int | None = Field(None, ge=0, lt=2**31)
    stop: Stop | Annotated[list[Stop], Field(max_length=STOPS)] | None = None
    response_format: Annotated[PlainFormat | SchemaFormat, Field(discriminator="type")] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Literal[1] = 1
    user: str | None = None

    @pydantic.field_validator("stop", mode="wrap")
    @classmethod
    def _few_and_short(cls, value, validate):
        try:
            return validate(value)
        except pydantic.ValidationError:  # a complaint for each of the shapes that it could have had
            message = f"give at most {STOPS} texts of 1 to {STOP_LENGTH} characters each"
            raise PydanticCustomError("stop", message) from None

    def stops(self):
        """Texts at which the answer ends: a list, empty for none."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    def sampling(self):
        """Search options of ONNX Runtime GenAI, none for the likeliest token each time."""
        if self.temperature == 0:
            return {}
        chosen = {"temperature": self.temperature, "top_p": self.top_p, "top_k": 0}
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


class Completion(pydantic.BaseModel):
    """A whole answer of /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


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
