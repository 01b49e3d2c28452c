"""Remote teachers against a real HTTP server on this machine that answers, fails and lies as told."""

import json
import math
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
import torch
from conftest import GUARD
from endpoint import reply

from slmops_lab.errors import CourseError
from slmops_lab.evaluation import generation
from slmops_lab.task import data, encoding, schema
from slmops_lab.training import distillation, teachers


@pytest.fixture
def ask(colours, tmp_path):
    """Function: server, number of different messages, options -> (answers, teacher)."""

    def run(server, count=1, **options):
        options = {"name": "m", "base_url": server.url, "concurrency": 1, "max_retries": 2, **options}
        teacher = teachers.RemoteTeacher(store=tmp_path / "store.sqlite", api_key="secret-key", **options)
        return teacher.ask(schema.load(colours), [f"message {i}" for i in range(count)]), teacher

    return run


def test_it_answers_in_order_and_counts_tokens(endpoint, ask):
    server = endpoint(*[reply(f"answer {i}") for i in range(3)])
    answers, teacher = ask(server, 3)
    assert [said.text for said in answers] == ["answer 0", "answer 1", "answer 2"]
    assert (teacher.usage.requests, teacher.usage.input_tokens, teacher.usage.output_tokens) == (3, 30, 15)
    assert teacher.usage.cost(2.0, 10.0) == pytest.approx((30 * 2 + 15 * 10) / 1e6)
    _, asked = server.seen[0]
    assert asked["model"] == "m" and "warm, cold" in asked["messages"][0]["content"]


def test_nothing_is_asked_twice(endpoint, ask):
    server = endpoint()
    ask(server, 2)
    answers, teacher = ask(server, 3)
    assert len(server.seen) == 3 and len(answers) == 3
    assert teacher.usage.requests == 1 and teacher.usage.reused == 2


@pytest.mark.parametrize(
    "other",
    [{"name": "n"}, {"temperature": 0.7}, {"max_tokens": 64}, {"guided": True}, {"log_probs": True}],
    ids=lambda other: next(iter(other)),
)
def test_whatever_changes_the_answer_is_another_question(endpoint, ask, other):
    server = endpoint()
    ask(server)
    ask(server, **other)
    assert len(server.seen) == 2 and server.seen[0][1] != server.seen[1][1]


def test_another_endpoint_is_another_teacher(endpoint, ask):
    one, other = endpoint(then=reply("of one")), endpoint(then=reply("of the other"))
    for server, text in [(one, "of one"), (other, "of the other"), (one, "of one")]:
        answers, _ = ask(server)
        assert answers[0].text == text
    assert len(one.seen) == len(other.seen) == 1


def test_another_schema_is_another_question(endpoint, ask, colours):
    server = endpoint()
    ask(server)
    wider = (colours / "schema.json").read_text().replace('"cold"', '"cold", "grey"')
    (colours / "schema.json").write_text(wider)
    ask(server)
    assert len(server.seen) == 2


def test_how_one_asks_is_not_what_one_asks(endpoint, ask):
    server = endpoint()
    ask(server)
    ask(server, timeout=7, max_retries=1, concurrency=3, base_url=f"{server.url}/")
    assert len(server.seen) == 1


def test_no_more_requests_at_once_than_allowed(endpoint, ask):
    two = threading.Barrier(2)

    def when_two_are_here(asked):
        two.wait(10)
        return reply()

    server = endpoint(then=when_two_are_here)
    answers, _ = ask(server, 4, concurrency=2)
    assert server.most_at_once == 2 and all(said.text for said in answers)


@pytest.mark.parametrize(
    "trouble",
    [
        (429, {"Retry-After": "0.2"}, {"error": {"message": "slow down"}}),
        (500, {}, {"error": {"message": "oops"}}),
        (503, {}, b"<html>come back later</html>"),
        "cut",
        "slow",
    ],
    ids=["429", "500", "503", "cut", "time-out"],
)
def test_trouble_that_passes_is_not_noticed(endpoint, ask, trouble):
    server = endpoint(trouble, reply("fine"))
    answers, _ = ask(server, timeout=0.5)
    assert [said.text for said in answers] == ["fine"] and len(server.seen) == 2


def test_the_pause_that_the_endpoint_asks_for_is_kept(endpoint, ask):
    server = endpoint((429, {"Retry-After": "0.6"}, {"error": {"message": "slow down"}}))
    ask(server)
    (first, _), (second, _) = server.seen
    assert second - first >= 0.6


@pytest.mark.parametrize(
    "trouble, problem",
    [
        ((500, {}, {"error": {"message": "oops"}}), "status 500"),
        ((429, {}, {"error": {"message": "slow down"}}), "status 429"),
        ("cut", "no connection (peer closed connection"),
        ("slow", "no answer within 0.3 s"),
        ((200, {}, b"{not json"), "a reply that is no JSON"),
        ((200, {"Content-Type": "text/html"}, b"<html>log in first</html>"), "a reply without an answer in it"),
        ((200, {}, {"hello": 1}), "a reply without an answer in it"),
        ((200, {}, {"choices": []}), "a reply without an answer in it"),
        ((200, {}, {"choices": [None]}), "a reply without an answer in it"),
        ((200, {}, {"choices": [{"message": {"content": ["a", "list"]}}]}), "a reply without an answer in it"),
        (reply() | {"usage": {"prompt_tokens": "many"}}, "a reply without an answer in it"),
        (reply(log_probs=["likely"]), "a reply without an answer in it"),
        ((418, {}, {"error": {"message": 1, "param": ["a"], "code": {"b": 2}}}), "status 418"),
        ((200, {}, b"[" * 100_000), "a reply that is no JSON"),
        ((400, {}, {"error": {"message": "no", "code": "content_filter"}}), "status 400, content_filter"),
        ((400, {}, {"error": {"message": "no", "code": "context_length_exceeded"}}), "status 400, context_length"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_trouble_that_stays_is_no_label(endpoint, ask, tmp_path, trouble, problem):
    server = endpoint(*[trouble] * 2)
    answers, teacher = ask(server, 2, timeout=0.3, max_retries=0)
    assert all(said.problem.startswith(problem) for said in answers)
    assert all(said.text is None for said in answers)
    assert teacher.usage.requests == 0
    again, _ = ask(server, 2)
    assert all(said.text for said in again), "a failure is not kept: the next run asks again"


@pytest.mark.parametrize(
    "answer, problem",
    [(reply("half of", finish="length"), "cut off after 128 tokens"), (reply(""), "an empty reply")],
)
def test_useless_answers_are_paid_for_once(endpoint, ask, answer, problem):
    server = endpoint(answer)
    for _ in range(2):
        answers, _ = ask(server)
        assert answers[0].problem == problem
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "status, sentence",
    [
        (401, "refuses the key"),
        (403, "does not let this key use the model 'm'"),
        (404, "has no model 'm'"),
        (400, "does not take the request: .*no"),
        (422, "does not take the request: .*no"),
    ],
)
def test_what_no_repetition_cures_stops_at_once(endpoint, ask, tmp_path, status, sentence):
    server = endpoint(reply(), (status, {}, {"error": {"message": "no"}}))
    with pytest.raises(CourseError, match=f"{sentence}.* 1 of 10 answers are kept in .*: run again") as error:
        ask(server, 10)
    assert len(server.seen) == 2 and "\n" not in str(error.value)
    assert "secret-key" not in str(error.value) and b"secret-key" not in (tmp_path / "store.sqlite").read_bytes()


def test_an_endpoint_that_is_down(ask, endpoint, monkeypatch):
    server = endpoint()
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # which has nothing to do with it
    server.shutdown()
    server.server_close()
    with pytest.raises(CourseError, match=r"failed 5 times in a row, last with: no connection \(.*refused"):
        ask(server, 10)


ASK = """
import json, resource, sys
from slmops_lab.errors import CourseError
from slmops_lab.task import schema
from slmops_lab.training import teachers
url, folder, store, rounds = sys.argv[1:]
for limit, texts in json.loads(rounds):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        print(len(teachers.RemoteTeacher("m", store, url, "k", concurrency=1).ask(schema.load(folder), texts)))
    except CourseError as error:
        print(error)
"""


def another_process(server, colours, store, rounds):
    """A process that asks texts for each (largest file in bytes, texts) of rounds."""
    command = [sys.executable, "-c", ASK, server.url, str(colours), str(store), json.dumps(rounds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_disk_that_fills_up_keeps_what_was_answered(endpoint, colours, tmp_path):
    server = endpoint(then=reply("x" * 3000))
    store = tmp_path / "store.sqlite"
    texts = [str(i) for i in range(10)]
    asker = another_process(server, colours, store, [(0, ["a"]), (16_384, texts), (1, ["b"])])
    nothing, some, nothing_more = asker.communicate(timeout=120)[0].splitlines()
    cannot = f"The teacher's answers cannot be kept in {store} (disk I/O error): make room or name another place."
    assert nothing == nothing_more == cannot
    kept = len(server.seen) - 1  # the last one was asked, and had no room; nothing else was asked in vain
    assert 1 <= kept < 10 and some == f"{cannot} {kept} of 10 answers are kept in {store}: run again to go on."
    again = teachers.RemoteTeacher("m", store, server.url, "k", concurrency=1)
    assert all(said.text for said in again.ask(schema.load(colours), texts))
    assert again.usage.reused == kept


def test_two_processes_share_a_store_and_one_is_killed(endpoint, colours, tmp_path):
    asked_for_b, go_on = threading.Event(), threading.Event()

    def wait_at_b(asked):
        if asked["messages"][-1]["content"] == "b" and not asked_for_b.is_set():
            asked_for_b.set()
            go_on.wait(60)
        return reply()

    server = endpoint(then=wait_at_b)
    store = tmp_path / "store.sqlite"
    other = another_process(server, colours, store, [(10**9, ["a", "b", "c"])])
    assert asked_for_b.wait(120)
    ours = teachers.RemoteTeacher("m", store, server.url, "k")
    ours.ask(schema.load(colours), ["d", "a", "e"])
    assert (ours.usage.requests, ours.usage.reused) == (2, 1), "what the other process was told is there at once"
    other.kill()
    other.communicate()
    go_on.set()
    ours.ask(schema.load(colours), ["a", "b", "c", "d", "e"])
    assert (ours.usage.requests, ours.usage.reused) == (4, 4)


def test_an_interruption_asks_nothing_more_and_keeps_what_was_answered(endpoint, ask, monkeypatch):
    under_way = threading.Event()

    def slow(asked):
        under_way.set()
        time.sleep(0.5)
        return (500, {}, {"error": {"message": "oops"}})

    def interrupted(jobs):  # where a KeyboardInterrupt finds the main thread: waiting for answers
        assert under_way.wait(20)
        raise KeyboardInterrupt

    server = endpoint(reply(), then=slow)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(teachers, "as_completed", interrupted)
        ask(server, 20, concurrency=2, max_retries=5)
    assert len(server.seen) <= 4, "what was under way, but no repetition of it"
    server.then = reply()
    _, teacher = ask(server, 20, concurrency=2)
    assert teacher.usage.reused == 1


def test_a_store_that_cannot_be_used_costs_nothing(endpoint, colours, tmp_path):
    server = endpoint()
    task = schema.load(colours)
    (tmp_path / "file").write_text("no folder")
    old = tmp_path / "old.jsonl"
    old.write_text('{"key": "1", "text": "warm"}\n' * 100)
    damaged = tmp_path / "damaged.sqlite"
    teachers.RemoteTeacher("m", damaged, endpoint().url, "k").ask(task, [str(i) for i in range(100)])
    with open(damaged, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)
    place, move = "make room or name another place", "move that file away or name another"
    for store, cure in [
        (tmp_path / "file" / "store.sqlite", f"unable to open database file.: {place}"),
        (tmp_path, f"unable to open database file.: {place}"),
        (Path("/proc/nothing/store.sqlite"), f"unable to open database file.: {place}"),
        (old, f"file is not a database.: {move}"),
        (damaged, f"malformed.: {move}"),
    ]:
        before = store.read_bytes() if store.is_file() else None
        with pytest.raises(CourseError, match=f"cannot be kept in {store} .*{cure}") as error:
            teachers.RemoteTeacher("m", store, server.url, "k").ask(task, ["a"])
        assert "\n" not in str(error.value)
        assert before is None or store.read_bytes() == before
    assert not server.seen


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_is_never_behind_a_proxy(endpoint, ask, monkeypatch, host):
    server = endpoint()
    monkeypatch.delenv("NO_PROXY")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    answers, _ = ask(server, base_url=server.url.replace("127.0.0.1", host), max_retries=0)
    assert answers[0].text


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("SSL_CERT_FILE", "/nowhere/ca.pem", "certificates that SSL_CERT_FILE .* cannot be read: .*No such file"),
        ("SSL_CERT_FILE", "/dev/null", "certificates that SSL_CERT_FILE .* cannot be read"),
        ("HTTP_PROXY", "nonsense://somewhere", "the proxy that HTTP_PROXY, .* cannot be used"),
        ("OPENAI_BASE_URL", "http://[bad", r"The address http://\[bad, .* cannot be used"),
        ("OPENAI_BASE_URL", "127.0.0.1:1/v1", "no connection .*protocol"),
        ("HTTP_PROXY", "http://127.0.0.1:9", r"no connection by the proxy of HTTP_PROXY .*refused"),
    ],
)
def test_trouble_on_the_way_is_not_blamed_on_the_store(colours, tmp_path, monkeypatch, name, value, sentence):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://user:secret@teacher.example/v1")
    monkeypatch.setenv(name, value)
    teacher = teachers.RemoteTeacher("m", tmp_path / "s.sqlite", api_key="k", max_retries=0)
    with pytest.raises(CourseError, match=sentence) as error:
        teacher.ask(schema.load(colours), list("abcdef"))
    assert not any(word in str(error.value) for word in ("kept", "room", "secret", "\n"))


def refuses(*names, code="unsupported_parameter"):
    """An endpoint's step: a 400 that names the first of these parameters which the request has."""

    def step(asked):
        for name in names:
            if name in asked:
                return (400, {}, {"error": {"message": f"no {name}", "param": name, "code": code}})
        return reply()

    return step


def test_a_model_that_wants_other_parameters_gets_them(endpoint, ask):
    server = endpoint(then=refuses("max_tokens", "temperature"))
    answers, teacher = ask(server, 3)
    assert all(said.text for said in answers) and teacher.usage.requests == 3
    assert len(server.seen) == 5, "once for each parameter, then it is remembered"
    _, asked = server.seen[-1]
    assert asked["max_completion_tokens"] == 128 and "max_tokens" not in asked and "temperature" not in asked
    ask(server, 3)
    assert len(server.seen) == 5, "the answers are kept under what was asked for"


@pytest.mark.parametrize(
    ("refused", "code"),
    [
        (["temperature"], "decimal_above_max_value"),
        (["max_tokens", "max_completion_tokens"], "unsupported_parameter"),
        (["model"], "unsupported_value"),
    ],
)
def test_a_wrong_value_is_not_a_refused_parameter(endpoint, ask, refused, code):
    server = endpoint(then=refuses(*refused, code=code))
    with pytest.raises(CourseError, match=f"does not take the request: .*no {refused[-1]}"):
        ask(server)
    assert len(server.seen) == len(refused)


def test_half_a_character_is_not_sent(endpoint, colours, tmp_path):
    server = endpoint()
    teacher = teachers.RemoteTeacher("m", tmp_path / "s.sqlite", server.url, "k")
    broken, whole = teacher.ask(schema.load(colours), ["a \ud800 boat", "a boat"])
    assert "half a character" in broken.problem and whole.text and len(server.seen) == 1


def test_the_key_is_not_shown(tmp_path):
    assert "secret" not in repr(teachers.RemoteTeacher("m", tmp_path / "s", "http://127.0.0.1:1/v1", "secret"))


def test_no_key(tmp_path, colours, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(CourseError, match="set OPENAI_API_KEY"):
        teachers.RemoteTeacher("m", tmp_path / "s", "http://127.0.0.1:1/v1").ask(schema.load(colours), ["a"])


def test_a_teacher_by_configuration(tmp_path, endpoint, colours, monkeypatch):
    monkeypatch.delenv("SLMOPS_TEACHER_MODEL", raising=False)
    assert teachers.RemoteTeacher.from_environment(tmp_path / "s.sqlite") is None
    server = endpoint()
    monkeypatch.setenv("SLMOPS_TEACHER_MODEL", "big")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    teachers.RemoteTeacher.from_environment(tmp_path / "s.sqlite").ask(schema.load(colours), ["a"])
    assert server.seen[0][1]["model"] == "big"


def test_guided_and_with_probabilities(endpoint, ask):
    server = endpoint(reply(log_probs=[math.log(0.5), math.log(0.5)]))
    answers, _ = ask(server, guided=True, log_probs=True)
    assert answers[0].confidence == pytest.approx(0.25)
    _, asked = server.seen[0]
    assert asked["logprobs"] is True
    assert asked["response_format"]["json_schema"]["schema"]["properties"]["kind"]["enum"] == ["warm", "cold"]


def test_remote_labels_are_checked_like_all_others(endpoint, colours, tmp_path):
    server = endpoint(
        reply('{"kind":"warm","word":"red"}'),
        reply("Sure! Here is your JSON:"),
        reply('{"kind":"hot","word":"orange"}'),
        reply('{"kind":"cold","word":"sea"}'),
    )
    teacher = teachers.RemoteTeacher("m", tmp_path / "s.sqlite", server.url, "k", concurrency=1)
    desk = data.load(colours)
    labelled = distillation.label(teacher, desk.task, desk.pool)
    assert labelled[0].answer == {"kind": "warm", "word": "red"} and labelled[0].problem is None
    assert [one.answer for one in labelled[1:]] == [None] * 3
    assert labelled[1].problem == "no JSON"
    assert "which the schema does not list" in labelled[2].problem
    assert "does not occur in the text" in labelled[3].problem


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "\ud800", "NaN", '{"kind":"\ud800"}'])
def test_what_cannot_be_read_is_paid_for_once_and_never_a_label(endpoint, colours, tmp_path, text):
    server = endpoint(reply(text))
    desk = data.load(colours)
    for _ in range(2):
        teacher = teachers.RemoteTeacher("m", tmp_path / "s.sqlite", server.url, "k", concurrency=1)
        labelled = distillation.label(teacher, desk.task, desk.pool)
        assert labelled[0].answer is None and labelled[0].problem and labelled[0].said == text
        assert all(one.answer for one in labelled[1:])
    assert len(server.seen) == 4


def test_a_teacher_of_prose(endpoint, colours, tmp_path):
    server = endpoint(*[reply("I would say it is warm.")] * 4)
    teacher = teachers.RemoteTeacher("m", tmp_path / "s.sqlite", server.url, "k")
    desk = data.load(colours)
    with pytest.raises(CourseError, match="None of the 4 answers of the teacher 'm' can be used; 4 times: no JSON"):
        distillation.label(teacher, desk.task, desk.pool)


@pytest.fixture(scope="module")
def served(tiny_folder, tmp_path_factory):
    """Address of `transformers serve`, a real OpenAI-compatible server, with the tiny model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("transformers")
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    command = [program, "serve", tiny_folder, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    guarded = os.environ | {"PYTHONPATH": str(GUARD)}
    with open(log, "wb") as file, subprocess.Popen(command, stdout=file, stderr=file, env=guarded) as server:
        try:
            for _ in range(240):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                    break
                except OSError:
                    assert server.poll() is None, log.read_text()
                    time.sleep(0.5)
            else:
                pytest.fail(f"transformers serve did not come up: {log.read_text()}")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()


def test_a_real_server(served, tiny_folder, colours, tmp_path):
    """What it says is rubbish (its weights are random), but it says it in the protocol."""
    task = schema.load(colours)
    texts = ["please paint it red", "a blue boat", "gimme green"]
    options = {"max_tokens": 6, "max_retries": 0, "timeout": 120}
    teacher = teachers.RemoteTeacher(str(tiny_folder), tmp_path / "s.sqlite", served, "any", **options)
    answers = teacher.ask(task, texts)
    assert len(answers) == 3 and all(said.text or said.problem for said in answers)
    assert teacher.usage.requests == 3 and teacher.usage.input_tokens > 100 and teacher.usage.output_tokens > 0
    again = teachers.RemoteTeacher(str(tiny_folder), tmp_path / "s.sqlite", served, "any", **options)
    assert again.ask(task, texts) == answers and again.usage.requests == 0
    records = [{"id": str(i), "text": text} for i, text in enumerate(texts)]
    with pytest.raises(CourseError, match="None of the 3 answers of the teacher .* can be used"):
        distillation.label(again, task, records)


def test_an_empty_pool(colours, tiny):
    with pytest.raises(CourseError, match="pool is empty"):
        distillation.label(teachers.LocalTeacher(*tiny), schema.load(colours), [])


def test_doubtful_labels_are_left_out(colours):
    class Unsure:
        name = "unsure"

        def ask(self, task, texts):
            text = '{"kind":"warm","word":null}'
            return [teachers.Said(text, 0.9), teachers.Said(text, 0.2), teachers.Said(text), teachers.Said(text, 0.5)]

    desk = data.load(colours)
    labelled = distillation.label(Unsure(), desk.task, desk.pool, least_sure=0.5)
    assert [one.problem for one in labelled] == [None, "not sure enough", None, None]
    assert labelled[1].answer is None and labelled[1].confidence == 0.2


def test_confidence_is_the_probability_of_the_whole_answer(colours, tiny):
    model, tokenizer = tiny
    task = schema.load(colours)
    texts = ["I like red", "please paint the whole boat blue, with a broad green stripe"]
    chats = [task.messages(text) for text in texts]
    compared = 0
    for temperature in (0.0, 1.0, 0.5):
        torch.manual_seed(1)
        said, log_probs = generation.generate_scored(model, tokenizer, chats, 6, label=None, temperature=temperature)
        for chat, text, log_prob in zip(chats, said, log_probs, strict=True):
            prompt = encoding.prompt_ids(tokenizer, chat)
            answer = tokenizer(text, add_special_tokens=False)["input_ids"]
            if len(answer) != 6:  # drawn tokens need not be what the tokenizer makes of their text
                continue
            with torch.inference_mode():
                log_p = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
            by_hand = sum(log_p[len(prompt) - 1 + i, token].item() for i, token in enumerate(answer))
            assert log_prob == pytest.approx(by_hand, abs=1e-3)
            compared += 1
    assert compared
    said, log_probs = generation.generate_scored(model, tokenizer, chats, 6, label=None)
    assert said == generation.generate(model, tokenizer, chats, 6, label=None)


def test_the_end_token_counts_and_what_follows_does_not(tiny, monkeypatch):
    model, tokenizer = tiny
    chats = [[{"role": "user", "content": word}] for word in ("a", "b")]
    end = tokenizer.eos_token_id
    with torch.no_grad():  # every token but the end is impossible: one token long, probability one
        head = model.get_output_embeddings()
        real = head.forward

        def forward(states):
            logits = torch.full_like(real(states), -1e4)
            logits[..., end] = 0.0
            return logits

        monkeypatch.setattr(head, "forward", forward)
        said, log_probs = generation.generate_scored(model, tokenizer, chats, 6, label=None)
    assert said == ["", ""] and log_probs == pytest.approx([0.0, 0.0])


def test_a_drawn_answer_differs_from_draw_to_draw(colours, tiny):
    task = schema.load(colours)
    torch.manual_seed(0)
    drawn = teachers.LocalTeacher(*tiny, temperature=1.0)
    assert drawn.ask(task, ["I like red"]) != drawn.ask(task, ["I like red"])
    likeliest = teachers.LocalTeacher(*tiny)
    assert likeliest.ask(task, ["I like red"]) == likeliest.ask(task, ["I like red"])


@pytest.fixture
def sky(colours):
    """(task, labelled records): the word says the kind."""
    words = [("sun", "warm"), ("ice", "cold")]
    return schema.load(colours), [
        {"text": f"{word} {code} now", "answer": {"kind": kind, "word": code}}
        for word, kind in words
        for code in ("AB-12", "XY-98")
    ]


def test_a_word_counter_is_a_teacher(sky):
    task, labelled = sky
    counter = teachers.WordCounter(labelled)
    clear, torn = counter.ask(task, ["ice ice CD-77", "sun or ice"])
    assert task.read(clear.text).answer == {"kind": "cold", "word": "CD-77"}
    assert torn.confidence == pytest.approx(0.5, abs=0.01) and torn.confidence < clear.confidence < 1
    pool = [{"id": "1", "text": "ice CD-77"}, {"id": "2", "text": "sun or ice"}]
    sure, doubtful = distillation.label(counter, task, pool, least_sure=0.51)
    assert sure.answer == {"kind": "cold", "word": "CD-77"}
    assert doubtful.problem == "not sure enough"


@pytest.mark.parametrize(
    ("texts", "sentence"), [([], "no labelled message"), (["a AB-12", "b"], "word of two letters")]
)
def test_a_word_counter_without_words(colours, texts, sentence):
    kinds = ["warm", "cold"]
    labelled = [{"text": "a" if i else "b", "answer": {"kind": kinds[i], "word": None}} for i, _ in enumerate(texts)]
    with pytest.raises(CourseError, match=sentence):
        teachers.WordCounter(labelled).ask(schema.load(colours), ["sun"])


def test_a_panel_answers_by_its_rule(sky):
    task, labelled = sky

    class Stubborn:
        name = "stubborn"

        def ask(self, task, texts):
            return [teachers.Said('{"kind":"warm","word":null}', 0.6) for _ in texts]

    def surer(*said):
        return max(said, key=lambda one: one.confidence)

    panel = teachers.Panel([Stubborn(), teachers.WordCounter(labelled)], surer, name="the surer")
    ice, nothing = distillation.label(
        panel, task, [{"id": "1", "text": "ice ice ice AB-12"}, {"id": "2", "text": "hm"}]
    )
    assert ice.answer == {"kind": "cold", "word": "AB-12"} and ice.confidence > 0.6
    assert nothing.answer == {"kind": "warm", "word": None} and nothing.confidence == 0.6
    with pytest.raises(CourseError, match="None of the 1 answers of the teacher 'the surer' can be used"):
        distillation.label(
            teachers.Panel([Stubborn()], lambda one: teachers.Said(None, problem="no"), "the surer"),
            task,
            [{"id": "1", "text": "x"}],
        )
