"""Other people's clients at our endpoint, each in its own way: curl, and those that the extra `clients` installs."""

import json
import shutil
import subprocess
from typing import Literal

import pydantic
import pytest
from serving import TOKEN

from slmops_lab.deployment.endpoint import launch

ASKED = "where is my tent?"
CHAT = [{"role": "user", "content": ASKED}]


class Colour(pydantic.BaseModel, extra="forbid"):
    """Is a colour warm or cold, and how much?"""

    kind: Literal["warm", "cold"]
    degree: int = pydantic.Field(ge=1, le=9)


@pytest.fixture(scope="module")
def url(tiny_onnx):
    """Base URL of an endpoint with a tiny model."""
    with launch.running(tiny_onnx, "--name", "tiny", token=TOKEN) as (address, _):
        yield address


@pytest.fixture(scope="module")
def said(url):
    """What the model answers to `ASKED` in nine tokens."""
    import openai

    client = openai.OpenAI(base_url=url, api_key=TOKEN)
    return client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=9).choices[0].message.content


def curl(url, **asked):
    """What curl prints, given the request on its standard input."""
    if not shutil.which("curl"):
        pytest.skip("curl is not here")
    headers = ["-H", f"Authorization: Bearer {TOKEN}", "-H", "Content-Type: application/json"]
    command = ["curl", "--silent", "--show-error", "--fail-with-body", "--no-buffer", *headers, "--data", "@-"]
    body = json.dumps({"model": "tiny", "messages": CHAT, "max_tokens": 9, **asked})
    return subprocess.run([*command, f"{url}/chat/completions"], input=body, capture_output=True, text=True, timeout=60)


def test_curl(url, said):
    assert json.loads(curl(url).stdout)["choices"][0]["message"]["content"] == said
    lines = [line.removeprefix("data: ") for line in curl(url, stream=True).stdout.split("\n\n") if line]
    pieces = [json.loads(line)["choices"][0]["delta"].get("content", "") for line in lines[:-1]]
    assert "".join(pieces) == said and lines[-1] == "[DONE]"
    form = {"type": "json_schema", "json_schema": {"name": "colour", "schema": Colour.model_json_schema()}}
    told = json.loads(curl(url, response_format=form, max_tokens=64).stdout)
    assert Colour.model_validate_json(told["choices"][0]["message"]["content"])
    refused = curl(url, logprobs=True)
    assert refused.returncode == 22 and json.loads(refused.stdout)["error"]["param"] == "logprobs"


def test_langchain(url, said):
    langchain = pytest.importorskip("langchain_openai")
    known = {"model": "tiny", "base_url": url, "api_key": TOKEN, "max_retries": 0}
    chat = langchain.ChatOpenAI(**known, max_tokens=9)
    whole = chat.invoke(ASKED)
    assert whole.text == said and whole.usage_metadata["output_tokens"] <= 9
    assert "".join(piece.text for piece in chat.stream(ASKED)) == said
    again = chat.invoke([("system", "Be brief."), ("user", ASKED), whole, ("user", "and now?")])
    assert again.usage_metadata["input_tokens"] > whole.usage_metadata["input_tokens"]
    for strict in (None, True):
        assert isinstance(
            langchain.ChatOpenAI(**known).with_structured_output(Colour, strict=strict).invoke(ASKED), Colour
        )
    structured = langchain.ChatOpenAI(**known).with_structured_output(Colour, method="json_schema")
    assert isinstance(list(structured.stream(ASKED))[-1], Colour)
    with pytest.raises(Exception, match="this server has no tools"):
        langchain.ChatOpenAI(**known).with_structured_output(Colour, method="function_calling").invoke(ASKED)


def test_litellm(url, said, monkeypatch):
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # which it would fetch when it is imported
    litellm = pytest.importorskip("litellm")
    known = {"model": "openai/tiny", "api_base": url, "api_key": TOKEN, "messages": CHAT, "num_retries": 0}
    whole = litellm.completion(**known, max_tokens=9)
    assert whole.choices[0].message.content == said and whole.usage.completion_tokens <= 9
    pieces = list(litellm.completion(**known, max_tokens=9, stream=True, stream_options={"include_usage": True}))
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices) == said
    assert pieces[-1].usage.total_tokens == whole.usage.total_tokens
    form = {"type": "json_schema", "json_schema": {"name": "colour", "schema": Colour.model_json_schema()}}
    for asked in (Colour, form):
        guided = litellm.completion(**known, response_format=asked)
        assert Colour.model_validate_json(guided.choices[0].message.content)
    echoed = [*CHAT, whole.choices[0].message, *CHAT]
    assert litellm.completion(**known | {"messages": echoed}, max_tokens=2).choices


def test_llama_index(url, said):
    like = pytest.importorskip("llama_index.llms.openai_like")
    from llama_index.core.llms import ChatMessage
    from llama_index.core.prompts import PromptTemplate

    known = {"model": "tiny", "api_base": url, "api_key": TOKEN, "is_chat_model": True, "max_retries": 0}
    model = like.OpenAILike(**known, max_tokens=9, temperature=0)  # its own default draws
    asked = [ChatMessage(role="user", content=ASKED)]
    whole = model.chat(asked)
    assert whole.message.content == said
    assert "".join(piece.delta or "" for piece in model.stream_chat(asked)) == said
    assert model.chat([*asked, whole.message, *asked]).message.content
    guided = like.OpenAILike(**known, should_use_structured_outputs=True)
    assert isinstance(guided.structured_predict(Colour, PromptTemplate(ASKED)), Colour)
    assert isinstance(guided.as_structured_llm(Colour).chat(asked).raw, Colour)
