"""What clients send without being told to, and what they get back: over real sockets."""

import asyncio
import json
import threading
import time

import httpx
import openai
import pytest
from openai.types import Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.completion_create_params import CompletionCreateParamsBase
from openai.types.shared import ErrorObject
from serving import BEARER, CHAT, TOKEN, InThread, Slow, metric, until
from sse_starlette.sse import AppStatus

from slmops_lab.deployment import runtime
from slmops_lab.deployment.endpoint import launch, observability, protocol, server
from slmops_lab.errors import CourseError

ROUTE = "/v1/chat/completions"
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
SCHEMA = {"type": "object", "properties": {"kind": {"enum": ["warm", "cold"]}}, "required": ["kind"]}
SHOP = "https://shop.example"


@pytest.fixture(scope="module")
def fast():
    return Slow(going=True)


@pytest.fixture(scope="module")
def served(fast):
    """An endpoint without a model, with an adapter that has slashes in its name."""
    fast.names = ["adapter", "team/desk/2"]
    with InThread(
        server.application(fast, "m", TOKEN, protocol.Limits(body_bytes=20_000), origins=[SHOP + "/"])
    ) as made:
        yield made


@pytest.fixture(scope="module")
def real(tiny_onnx):
    """An endpoint with a tiny model that makes five tokens at most."""
    with InThread(
        server.application(runtime.GenAIRuntime(tiny_onnx), "m", TOKEN, protocol.Limits(answer_tokens=5))
    ) as made:
        yield made


@pytest.fixture
def slow():
    held = Slow()
    yield held
    held.go.set()


def ask(served, change=(), **headers):
    """The answer to a request that is right but for the change."""
    body = {"model": "m", "messages": CHAT} | dict(change)
    return httpx.post(served.url + ROUTE, json=body, headers=BEARER | headers)


def refusal(answer, status=400):
    """The error of an answer, as OpenAI's package knows errors."""
    assert answer.status_code == status, answer.text
    return exactly(ErrorObject, answer.json()["error"])


def exactly(kind, told):
    """What was told as a type of OpenAI's package: each value of its type, and nothing that the type does not know."""
    made = kind.model_validate(told, strict=True)
    open_ones = [made]
    while open_ones:
        one = open_ones.pop()
        assert not one.model_extra, one
        fields = [getattr(one, name) for name in type(one).model_fields]
        inside = [item for field in fields for item in (field if isinstance(field, list) else [field])]
        open_ones += [item for item in inside if hasattr(item, "model_extra")]
    return made


NOTHING = [
    *[{name: 0} for name in ("frequency_penalty", "presence_penalty", "top_logprobs", "min_p", "mirostat", "top_k")],
    *[{name: 0.0} for name in ("frequency_penalty", "presence_penalty")],
    *[{name: False} for name in ("logprobs", "store", "parallel_tool_calls", "cache_prompt", "think", "stream")],
    *[{name: []} for name in ("tools", "functions", "stop", "stop_token_ids", "bad_words")],
    *[{name: 1} for name in ("n", "repetition_penalty", "repeat_penalty", "best_of", "typical_p")],
    {"logit_bias": {}},
    {"tool_choice": "none"},
    {"tool_choice": "auto", "function_call": "auto"},
    {"modalities": ["text"]},
    {"response_format": {"type": "text"}},
    {"reasoning_effort": "none"},
    {"verbosity": "medium"},
    {"service_tier": "auto"},
    {"service_tier": "default"},
    {"top_k": -1},
    {"chat_template_kwargs": {"enable_thinking": False}},
    {"stream_options": {"include_obfuscation": False}},
]
LABELS = [
    {"store": True},
    {"metadata": {"shop": "7"}},
    {"user": "u", "safety_identifier": "u", "prompt_cache_key": "k", "prompt_cache_retention": "24h"},
    {"parallel_tool_calls": True},
    {"keep_alive": "5m", "cache_prompt": True, "id_slot": 0},
    {"keep_alive": -1},
]


@pytest.mark.parametrize("extra", NOTHING + LABELS, ids=str)
def test_what_asks_for_nothing_is_accepted_and_changes_nothing(served, fast, extra):
    assert ask(served).status_code == 200
    done = ask(served, extra)
    assert done.status_code == 200, done.text
    assert fast.asked[-1] == fast.asked[-2]


CHANGES = {
    "frequency_penalty": 0.5,
    "presence_penalty": -1,
    "logprobs": True,
    "top_logprobs": 3,
    "logit_bias": {"50": -100},
    "tools": [TOOL],
    "functions": [TOOL["function"]],
    "tool_choice": "required",
    "function_call": {"name": "look_up"},
    "modalities": ["text", "audio"],
    "audio": {"voice": "alloy", "format": "wav"},
    "prediction": {"type": "content", "content": "x"},
    "web_search_options": {},
    "moderation": {"model": "x"},
    "reasoning_effort": "high",
    "verbosity": "low",
    "service_tier": "flex",
    "repetition_penalty": 1.1,
    "repeat_penalty": True,
    "min_p": 0.05,
    "best_of": 2,
    "n": 2,
    "top_k": -2,
    "chat_template_kwargs": {"enable_thinking": True},
    "n_predict": 7,
    "echo": 0,
    "guided_regex": "a+",
    "made_up": 1,
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_would_change_the_answer_is_refused_by_its_name(served, name):
    told = refusal(ask(served, {name: CHANGES[name]}))
    assert told.param == name and told.message.startswith(f"{name}: ") and told.code == "invalid_value"
    assert ("this server has no tools" in told.message) == ("tool" in name or "function" in name)
    nested = refusal(ask(served, {"stream": True, "stream_options": {name: CHANGES[name]}}))
    assert nested.param == f"stream_options.{name}"


def test_null_is_not_set_wherever_it_stands(served, fast):
    assert ask(served).status_code == 200
    known = set(CompletionCreateParamsBase.__annotations__) - {"model", "messages"} | {"stream"}
    assert len(known) > 30
    assert ask(served, dict.fromkeys(known)).status_code == 200
    assert fast.asked[-1] == fast.asked[-2]
    named = {"name": "x", "schema": SCHEMA, "description": None, "strict": None}
    parts = [{"type": "text", "text": "x", "annotations": None}]
    inside = {
        "response_format": {"type": "json_schema", "json_schema": named},
        "stream_options": {"include_usage": None, "include_obfuscation": None},
        "messages": [{"role": "user", "name": None, "content": parts}],
    }
    assert ask(served, inside).status_code == 200
    for name in ("model", "messages"):
        assert refusal(ask(served, {name: None})).message == f"{name}: Field required"


def test_more_tokens_than_are_made_are_cut_to_as_many_as_are(real, served, fast):
    for asked in (
        {"max_tokens": 4096},
        {"max_completion_tokens": 10**12},
        {"max_tokens": 513, "max_completion_tokens": None},
    ):
        assert ask(served, asked).status_code == 200 and fast.asked[-1]["max_new_tokens"] == 512
        told = ask(real, asked).json()
        assert (told["usage"]["completion_tokens"], told["choices"][0]["finish_reason"]) == (5, "length")
    assert ask(served, {"max_tokens": 511}).status_code == 200 and fast.asked[-1]["max_new_tokens"] == 511
    guided = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "string", "minLength": 200}}}
    assert ask(real, {"response_format": guided}).json()["choices"][0]["finish_reason"] == "length"


EMPTY = {"refusal": None, "annotations": [], "audio": None, "tool_calls": None, "function_call": None}
ECHOES = [
    ({"content": "fine", **EMPTY}, "fine"),
    ({"content": "fine", "tool_calls": [], "reasoning_content": None, "provider_specific_fields": {}}, "fine"),
    ({"content": None, **EMPTY}, ""),
    ({"content": None}, ""),
    ({"content": []}, ""),
    ({}, ""),
    ({"content": [{"type": "text", "text": "fi"}, {"type": "text", "text": "ne"}]}, "fine"),
]


@pytest.mark.parametrize(("turn", "read"), ECHOES)
def test_an_answer_may_come_back_as_a_turn(served, fast, turn, read):
    chat = [*CHAT, {"role": "assistant", **turn}, {"role": "user", "content": "and?"}]
    done = ask(served, {"messages": chat})
    assert done.status_code == 200, done.text
    assert fast.chats[-1][1] == {"role": "assistant", "content": read}


def test_the_official_clients_own_message_may_come_back(served, fast):
    client = served.client()
    said = client.chat.completions.create(model="m", messages=CHAT).choices[0].message
    for turn in (said, said.model_dump(), said.model_dump(exclude_none=True)):
        client.chat.completions.create(model="m", messages=[*CHAT, turn, *CHAT])
        assert fast.chats[-1][1] == {"role": "assistant", "content": "begun"}


def test_turns_that_others_give(served, fast):
    label = {"cache_control": {"type": "ephemeral"}}
    chat = [
        {"role": "user", "content": [{"type": "text", "text": "a", **label}, {"type": "text", "text": "b"}], **label},
        {"role": "system", "content": "in the middle"},
        {"role": "developer", "content": "too", "tool_calls": []},
    ]
    assert ask(served, {"messages": chat}).status_code == 200
    read = [("user", "ab"), ("system", "in the middle"), ("system", "too")]
    assert [(turn["role"], turn["content"]) for turn in fast.chats[-1]] == read


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
REFUSED = [
    ([{"role": "user", "content": [{"type": "text", "text": "x"}, IMAGE]}], "messages[0].content[1].type", "text only"),
    ([{"role": "user", "content": [{"type": "input_audio"}]}], "messages[0].content[0].type", "text only"),
    ([*CHAT, {"role": "tool", "tool_call_id": "1", "content": "x"}], "messages[1].role", "has no tools"),
    ([*CHAT, {"role": "function", "name": "f", "content": "x"}], "messages[1].role", "has no tools"),
    ([*CHAT, {"role": "assistant", "tool_calls": [TOOL]}], "messages[1].tool_calls", "has no tools"),
    ([*CHAT, {"role": "assistant", "function_call": {"name": "f"}}], "messages[1].function_call", "has no tools"),
    ([{"role": "user", "content": None}], "messages[0].content", "Field required"),
    ([{"role": "user", "content": 5}], "messages[0].content", "valid string"),
    ([{"role": "user", "content": [{"text": "x"}]}], "messages[0].content[0].type", "Field required"),
    ([{"role": "user", "content": "x", "mood": 1}], "messages[0].mood", "Extra inputs"),
    (["x"], "messages[0]", "valid dictionary"),
]


@pytest.mark.parametrize(("chat", "param", "sentence"), REFUSED)
def test_turns_that_are_refused_are_named_as_openai_names_them(served, chat, param, sentence):
    told = refusal(ask(served, {"messages": chat}))
    assert told.param == param and told.message.startswith(f"{param}: ") and sentence in told.message


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"type": "json_schema", "json_schema": {"schema": SCHEMA}}, "response_format.json_schema.name"),
        ({"type": "json_schema", "json_schema": {"name": "x"}}, "response_format.json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": []}}, "response_format.json_schema.schema"),
        ({"type": "json_schema"}, "response_format.json_schema"),
        ({"type": "json_object", "schema": SCHEMA}, "response_format.schema"),
        ({"type": "grammar"}, "response_format"),
    ],
)
def test_a_format_is_named_as_openai_names_it(served, asked, param):
    assert refusal(ask(served, {"response_format": asked})).param == param


def test_a_body_that_is_no_json_object_is_told_what_to_send(served):
    for body, kind in (
        (b'{"model": "m"}', "application/x-www-form-urlencoded"),
        (b"{", "application/json"),
        (b"[]", "application/json"),
    ):
        told = refusal(httpx.post(served.url + ROUTE, content=body, headers=BEARER | {"Content-Type": kind}))
        assert told.message == "the body: send a JSON object, as Content-Type: application/json"


def test_answers_and_pieces_are_what_openais_package_knows(real):
    whole = exactly(ChatCompletion, ask(real).json())
    assert whole.usage.prompt_tokens_details.cached_tokens >= 0
    lines = ask(real, {"stream": True, "stream_options": {"include_usage": True}}).text.splitlines()
    told = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert told.pop() == "[DONE]"
    chunks = [exactly(ChatCompletionChunk, json.loads(line)) for line in told]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    listed = httpx.get(f"{real.url}/v1/models", headers=BEARER).json()
    assert listed["object"] == "list" and [exactly(Model, one).id for one in listed["data"]] == ["m"]


def test_a_model_is_found_by_its_name_slashes_included(served):
    client = served.client()
    for name in ("m", "adapter", "team/desk/2"):
        assert client.models.retrieve(name).id == name
        assert exactly(Model, httpx.get(f"{served.url}/v1/models/{name}", headers=BEARER).json()).id == name
    with pytest.raises(openai.NotFoundError, match=r"There is no model 'gpt/4': m, adapter, team/desk/2\.") as missing:
        client.models.retrieve("gpt/4")
    assert missing.value.code == "model_not_found"
    assert refusal(httpx.get(f"{served.url}/v1/models/m"), 401).code == "invalid_api_key"


ELSEWHERE = ["/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/chat", "/chat/completions", "/api/chat", "/"]


@pytest.mark.parametrize("path", ELSEWHERE)
def test_what_is_not_offered_says_what_is(served, path):
    told = refusal(httpx.post(served.url + path, json={}, headers=BEARER), 404)
    assert told.code == "not_found" and told.message.startswith(f"POST {path} is not offered, but ")
    for offered in ("POST /v1/chat/completions", "GET /v1/models", "GET /v1/models/{model}", "base URL ends with /v1"):
        assert offered in told.message


def test_other_methods_and_head(served):
    for method in ("GET", "PUT", "DELETE", "OPTIONS"):
        answer = httpx.request(method, served.url + ROUTE, headers=BEARER)
        assert refusal(answer, 405).code == "method_not_allowed" and answer.headers["allow"] == "POST"
    for path in ("/healthz", "/v1/models", "/v1/models/m", "/metrics"):
        got, head = (httpx.request(method, served.url + path, headers=BEARER) for method in ("GET", "HEAD"))
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"] == got.headers["content-type"] and int(head.headers["content-length"])
    assert httpx.head(f"{served.url}/v1/models").status_code == 401
    assert httpx.head(served.url + ROUTE, headers=BEARER).status_code == 405


def preflight(served, origin):
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    asked["Access-Control-Request-Headers"] = "authorization,content-type,x-stainless-os"
    return httpx.options(served.url + ROUTE, headers=asked)


def test_web_pages_that_were_named_may_ask(served):
    allowed = preflight(served, SHOP)
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, SHOP)
    assert "x-stainless-os" in allowed.headers["access-control-allow-headers"]
    assert "access-control-allow-origin" not in preflight(served, "https://evil.example").headers
    large = {"messages": [{"role": "user", "content": "x" * 30_000}]}
    for change, status in (
        ({}, 200),
        ({"stream": True}, 200),
        ({"tools": [TOOL]}, 400),
        ({"model": "x"}, 404),
        (large, 413),
    ):
        answer = ask(served, change, Origin=SHOP)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, SHOP)
        assert "x-request-id" in answer.headers["access-control-expose-headers"]
    assert "access-control-allow-origin" not in ask(served, Origin="https://evil.example").headers


def test_no_web_page_may_ask_unless_it_was_named():
    with InThread(server.application(Slow(going=True), "m")) as made:
        assert refusal(preflight(made, SHOP), 405).code == "method_not_allowed"
        assert not [name for name in ask(made, Origin=SHOP).headers if name.startswith("access-control")]
    with pytest.raises(CourseError, match="with a token: name those that have it with --allow-origin"):
        server.application(Slow(), "m", TOKEN, origins=["*"])
    with InThread(server.application(Slow(going=True), "m", origins=["*"])) as made:
        assert ask(made, Origin=SHOP).headers["access-control-allow-origin"] == "*"


def test_a_host_that_is_not_known_is_told_which_option_allows_it(served):
    for host in ("host.docker.internal", "host.docker.internal:8000", "HOST.docker.internal:8000"):
        told = refusal(ask(served, Host=host))
        assert told.code == "host_not_allowed" and "start it with --allow-host host.docker.internal." in told.message
    for host in ("localhost:1", "LOCALHOST", "127.0.0.1", "[::1]:8000"):
        assert ask(served, Host=host).status_code == 200
    for host in ("localhost.evil.example", "evil.example:127.0.0.1", "", "::1:x"):
        assert refusal(ask(served, Host=host)).code == "host_not_allowed"


def test_the_command_takes_hosts_and_web_pages(tiny_onnx):
    options = ("--allow-host", "host.docker.internal", "--allow-origin", SHOP)
    with launch.running(tiny_onnx, *options, token=TOKEN) as (url, _):
        for host, status in (("host.docker.internal", 200), ("localhost", 200), ("evil.example", 400)):
            answer = httpx.get(f"{url}/models", headers=BEARER | {"Host": host, "Origin": SHOP})
            assert answer.status_code == status
            assert status != 200 or answer.headers["access-control-allow-origin"] == SHOP
    with pytest.raises(CourseError, match="did not start: Any web page may ask"):
        with launch.running(tiny_onnx, "--allow-origin", "*"):
            pass


def test_clients_that_give_up_and_ask_again_leave_nothing_running(slow):
    with InThread(server.application(slow, "m", TOKEN)) as made:
        hasty = made.client().with_options(timeout=1, max_retries=1)

        def give_up():
            with pytest.raises((openai.APITimeoutError, openai.RateLimitError)):
                hasty.chat.completions.create(model="m", messages=CHAT)

        crowd = [threading.Thread(target=give_up) for _ in range(17)]
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join(60)
        until(lambda: metric(made, "slmops_requests_inside") == 0)
        assert slow.left == [None] * len(slow.asked), "what had begun has ended before its end"
        slow.go.set()
        assert ask(made).status_code == 200


def test_a_client_that_leaves_when_a_piece_comes_is_not_overlooked():
    async def leave():
        worker, channel = server.Worker(Slow(), protocol.Limits(), observability.Metrics()), asyncio.Queue()
        waiting = asyncio.ensure_future(worker._before(time.monotonic() + 9, channel))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        channel.put_nowait("a piece")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(leave())


def test_every_answer_has_an_id_of_its_own(served):
    large = {"messages": [{"role": "user", "content": "x" * 30_000}]}
    changes = [{}, {"stream": True}, {"model": "x"}, {"tools": [TOOL]}, large]
    answers = [ask(served, change) for change in changes]
    answers += [ask(served, Host="evil.example"), preflight(served, SHOP), httpx.get(f"{served.url}/v1/models")]
    for method, path in (
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("HEAD", "/v1/models"),
        ("GET", "/no"),
        ("PUT", ROUTE),
    ):
        answers.append(httpx.request(method, served.url + path, headers=BEARER))
    names = [answer.headers["x-request-id"] for answer in answers]
    assert [answer.status_code for answer in answers] == [
        200,
        200,
        404,
        400,
        413,
        400,
        200,
        401,
        200,
        200,
        200,
        404,
        405,
    ]
    assert len(set(names)) == len(names) and all(name.startswith("req_") for name in names)
    assert served.client().chat.completions.create(model="m", messages=CHAT)._request_id.startswith("req_")


def test_the_id_is_in_the_request_log(tmp_path):
    log = observability.RequestLog(tmp_path / "log.jsonl")
    with InThread(server.application(Slow(going=True), "m", TOKEN, log=log.path)) as made:
        names = [ask(made, change).headers["x-request-id"] for change in ({}, {"stream": True})]
    assert [line["request_id"] for line in log.read()] == names


class Failing(Slow):
    def stream(self, chat, **how):
        raise RuntimeError("no memory left")


def fail(*_):
    raise KeyError("a fault of the endpoint itself")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("place", ["runtime", "endpoint"])
def test_the_id_is_in_the_log_line_of_a_500(place, stream, caplog, monkeypatch):
    if place == "endpoint":
        monkeypatch.setattr(server._Answer, "__init__", fail)
    with InThread(server.application(Failing(), "m", TOKEN)) as made:
        answer = ask(made, {"stream": stream})
    assert refusal(answer, 500).code == "internal_error"
    (line,) = [record for record in caplog.records if record.name == server.__name__]
    assert answer.headers["x-request-id"] in line.getMessage() and line.levelname == "ERROR"


def test_alive_is_not_ready(served, monkeypatch):
    assert httpx.get(f"{served.url}/readyz").json() == {"status": "ready"}
    monkeypatch.setattr(AppStatus, "should_exit", True)  # what a signal does
    assert refusal(httpx.get(f"{served.url}/readyz"), 503).code == "shutting_down"
    assert httpx.get(f"{served.url}/healthz").status_code == 200


def test_the_time_in_the_queue_is_measured(slow):
    with InThread(server.application(slow, "m", TOKEN)) as made:
        crowd = [threading.Thread(target=ask, args=(made,)) for _ in range(2)]
        for thread in crowd:
            thread.start()
        until(lambda: metric(made, "slmops_requests_inside") == 2)
        time.sleep(0.3)
        slow.go.set()
        for thread in crowd:
            thread.join(20)
        assert metric(made, "slmops_queue_seconds_count") == 2
        assert 0.3 < metric(made, "slmops_queue_seconds_sum") < 20


def test_kept_tokens_are_counted(real):
    chat = [{"role": "system", "content": f"Be brief. {time.time()}"}, *CHAT]
    counter = "gen_ai_client_inference_usage_cache_read_input_tokens_total"
    first = ask(real, {"messages": chat}).json()["usage"]
    before = metric(real, counter)
    again = ask(real, {"messages": chat}).json()["usage"]
    assert first["prompt_tokens_details"] == {"cached_tokens": 0}
    assert 5 < again["prompt_tokens_details"]["cached_tokens"] < again["prompt_tokens"] == first["prompt_tokens"]
    assert metric(real, counter) - before == again["prompt_tokens_details"]["cached_tokens"]


def test_the_likeliest_words_may_be_chosen_from(real):
    def said(**how):
        return ask(real, how).json()["choices"][0]["message"]["content"]

    assert said(top_k=1, temperature=2, seed=1) == said() == said(top_k=7)
    assert said(top_k=0, temperature=2, seed=1) == said(top_k=-1, temperature=2, seed=1) == said(temperature=2, seed=1)
    assert said(top_k=1_000, temperature=2, seed=1)
    assert refusal(ask(real, {"top_k": 10**6, "temperature": 2})).param == "top_k"  # the runtime would fail
