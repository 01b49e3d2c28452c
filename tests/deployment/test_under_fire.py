"""The endpoint with many clients at once, and with schemas and texts that are made to break it."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
from conftest import GUARD
from serving import BEARER, CHAT, TOKEN, InThread, Slow, metric, until

from slmops_lab.deployment.endpoint import launch, protocol, server


@pytest.fixture(scope="module")
def real(tiny_onnx):
    """A client of `slmops serve` in a process of its own, with a real model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(GUARD))
        with launch.running(tiny_onnx, "--name", "tiny", token=TOKEN) as (url, token):
            yield openai.OpenAI(base_url=url, api_key=token, max_retries=0, timeout=60)


def test_of_two_hundred_at_once_every_one_is_answered_or_turned_away():
    slow, body = Slow(), {"model": "m", "messages": CHAT}
    app = server.application(slow, "m", TOKEN, protocol.Limits(queue=16, seconds=120))
    with InThread(app) as served, ThreadPoolExecutor(200) as pool:

        def ask(_):
            with httpx.Client(timeout=120) as client:
                return client.post(f"{served.url}/v1/chat/completions", json=body, headers=BEARER)

        asked = [pool.submit(ask, number) for number in range(200)]
        until(lambda: sum(one.done() for one in asked) == 183)  # one runs, sixteen wait
        assert metric(served, "slmops_requests_inside ") == 17
        slow.go.set()
        answers = [one.result() for one in asked]
        assert sorted(answer.status_code for answer in answers) == [200] * 17 + [429] * 183
        assert metric(served, 'slmops_requests_refused_total{reason="queue_full"}') == 183
        assert metric(served, "slmops_requests_inside ") == 0
        assert ask(0).is_success, "there is room again"


def test_the_end_of_the_server_finishes_all_eight_that_are_inside():
    slow, answers = Slow(), []
    with InThread(server.application(slow, "m", TOKEN)) as served:

        def ask():
            answers.append(served.client().chat.completions.create(model="m", messages=CHAT).choices[0].finish_reason)

        asking = [threading.Thread(target=ask) for _ in range(8)]
        for thread in asking:
            thread.start()
        until(lambda: metric(served, "slmops_requests_inside ") == 8)
        served.server.should_exit = True
        slow.go.set()
        for thread in asking:
            thread.join(20)
    assert answers == ["stop"] * 8


def nested(depth, schema):
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"], "additionalProperties": False}
    return schema


EXPLODING = {
    "refers to itself": {"$ref": "#"},
    "a tree without end": {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    "many ways": {"anyOf": [{"type": "array", "items": {"enum": [n, str(n)]}} for n in range(150)]},
    "ways of ways": {"allOf": [{"anyOf": [{"required": [f"{n}{m}"]} for m in "abc"]} for n in range(60)]},
    "at least a billion items": {"type": "array", "items": {"type": "integer"}, "minItems": 10**9},
    "at most 3e6 items": {"properties": {"a": [{"anyOf": [{"type": "array", "maxItems": 3e6}]}]}, "type": "object"},
    "a property like a keyword": {"type": "object", "properties": {"enum": {"type": "array", "minItems": 10**9}}},
    "many times 500 items": {"anyOf": [{"type": "array", "items": {"enum": [n]}, "minItems": 500} for n in range(200)]},
    "a long repetition": {"type": "string", "pattern": "^(a{1,900}){1,900}$"},
    "a slow pattern": {"type": "string", "pattern": "^(a+)+(b|aa)*c{3,}(x?){80}x{80}$"},
    "deep": nested(150, {"type": "integer"}),
    "a long constant": {"const": "a" * 14_000},
}
NEVER = {
    "no value": {"enum": []},
    "no number": {"type": "integer", "minimum": 5, "maximum": 4},
    "nothing at all": {"not": {}},
    "two types": {"allOf": [{"type": "string"}, {"type": "integer"}]},
}


@pytest.mark.parametrize("schema", [*EXPLODING.values(), *NEVER.values()], ids=[*EXPLODING, *NEVER])
@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_that_is_made_to_explode_costs_nobody_else_anything(real, schema, stream):
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    try:
        done = real.chat.completions.create(
            model="tiny", messages=CHAT, response_format=wanted, max_tokens=64, stream=stream
        )
        reasons = [c.choices[0].finish_reason for c in done] if stream else [done.choices[0].finish_reason]
        assert reasons[-1] in ("length", "stop")
    except openai.APIError as error:  # in a stream it may come when the answer has begun
        assert stream or error.status_code in (400, 504)
        told = error.body["message"]
        assert told.startswith("No answer can be guided by that: ") and "\n" not in told
    assert real.chat.completions.create(model="tiny", messages=CHAT, max_tokens=2).choices


PLANES = ["é", "漢", "\ufeff", "😀", "👩🏽‍🚒", "🇬🇧", "𐍈", "𠜎", "\U000e0041", "\U0010fffd"]


@pytest.mark.parametrize("text", ["".join(PLANES), "".join(PLANES[::-1]) * 3, "x" * 7 + PLANES[3] * 9])
def test_no_character_is_cut_in_a_stream(real, text):
    """Byte-level tokens end inside of characters; a piece of a stream must not."""
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"const": text}}}
    how = {"model": "tiny", "messages": CHAT, "response_format": wanted, "max_tokens": 512}
    pieces = [c.choices[0].delta.content or "" for c in real.chat.completions.create(**how, stream=True)]
    whole = real.chat.completions.create(**how).choices[0].message.content
    assert json.loads(whole) == text and "".join(pieces) == whole
    assert not [piece for piece in pieces if "\ufffd" in piece]
