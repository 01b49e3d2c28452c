"""Who is answered when, and with whom: over real sockets, with an engine that follows a script."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
from serving import CHAT, TOKEN, InThread, Slow

from slmops_lab.deployment import batches, runtime
from slmops_lab.deployment.endpoint import protocol, server, work

BEARER = {"Authorization": f"Bearer {TOKEN}"}


class Words:
    """A tokenizer: token 3 is the word "3 "."""

    eos_token_ids = (-1,)

    def create_stream(self):
        return self

    def decode(self, token):
        return f"{token} "


class Together(Slow):
    """A runtime whose engine makes 0, 1, 2 of each row, as many as `steps`, unless `failing` is the step's number."""

    def __init__(self, steps=3, failing=None):
        super().__init__()
        self.steps, self.failing, self.tokenizer = steps, failing, Words()
        self.encoded, self.sizes, self.gone, self.pause = [], [], [], 0

    def encode(self, chat, max_new_tokens, longest_prompt):
        self.encoded.append(chat[-1]["content"])
        if "too long" in chat[-1]["content"]:
            raise runtime.TooLong("It has 9 tokens.")
        return [7] * 5


class Script:
    """In place of `batches.Batch`."""

    def __init__(self, served):
        self.served, self.rows, self.threads = served, [], {threading.get_ident()}

    def add(self, ids, limit, stop=()):
        row = batches.Row(
            self.served.tokenizer, len(ids), limit, stop, lambda: self.served.gone.append(row.answer_tokens)
        )
        self.rows.append([row, 0])
        return row

    def step(self):
        self.threads.add(threading.get_ident())
        assert len(self.threads) == 1, "the engine belongs to one thread"
        live = [pair for pair in self.rows if not pair[0]._over]
        self.served.sizes.append(len(live))
        if self.served.failing == len(self.served.sizes):
            raise RuntimeError("/secret/path: std::bad_alloc")
        time.sleep(self.served.pause)
        for pair in live:
            row, made = pair
            row.take(made)
            pair[1] = made + 1
            if made + 1 == self.served.steps:
                row.end(True)


@pytest.fixture(autouse=True)
def scripted(monkeypatch):
    monkeypatch.setattr(work, "GenAIRuntime", Together)
    monkeypatch.setattr(batches, "Batch", Script)


def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def metric(served, name):
    text = httpx.get(f"{served.url}/metrics", headers=BEARER).text
    return float(next(line for line in text.splitlines() if line.startswith(name)).split()[-1])


def at_once(served, slow, asked, before=None):
    """The answers, or errors, to requests that wait at the same time, behind one that is answered alone."""
    client = served.client()

    def ask(**how):
        try:
            said = client.chat.completions.create(**{"model": "m", "messages": CHAT} | how)
            return list(said) if how.get("stream") else said
        except openai.APIError as error:
            return error

    with ThreadPoolExecutor(len(asked) + 1) as pool:
        first = pool.submit(ask, temperature=1)
        until(lambda: slow.asked)
        waiting = []
        for number, how in enumerate(asked, 2):
            waiting.append(pool.submit(ask, **how))
            until(lambda number=number: metric(served, "slmops_requests_inside") == number)
        if before:
            before()
        slow.go.set()
        assert first.result(30).choices
        return [one.result(30) for one in waiting]


def text(answer):
    return answer.choices[0].message.content


def test_plain_requests_that_wait_are_answered_together():
    slow = Together()
    with InThread(server.application(slow, "m", TOKEN)) as served:
        answers = at_once(served, slow, [{}] * 6)
        assert metric(served, 'slmops_batch_size_bucket{le="1.0"}') == 1
        assert metric(served, "slmops_batch_size_sum") == 7 and metric(served, "slmops_batch_size_count") == 3
        assert metric(served, "slmops_queue_seconds_count") == 7 and metric(served, "slmops_requests_inside") == 0
    assert [text(answer) for answer in answers] == ["0 1 2 "] * 6
    assert {answer.choices[0].finish_reason for answer in answers} == {"stop"}
    usage = answers[0].usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens_details.cached_tokens) == (5, 4, 0)
    assert slow.sizes == [4, 4, 4, 2, 2, 2]


SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
ALONE = [
    {"temperature": 0.5},
    {"temperature": 0.5, "seed": 1},
    {"response_format": SCHEMA},
    {"response_format": {"type": "json_object"}},
    {"model": "adapter"},
    {"messages": [{"role": "user", "content": "x" * (work.SHORT + 1)}]},
    {"messages": [{"role": "user", "content": "😀" * (work.SHORT // 4 + 1)}]},
]


@pytest.mark.parametrize("how", ALONE, ids=str)
def test_what_a_row_cannot_have_is_answered_alone(how):
    slow = Together()
    with InThread(server.application(slow, "m", TOKEN)) as served:
        answers = at_once(served, slow, [how, {}, {"stop": "1"}, how])
    assert [text(answer) for answer in answers] == ["begun", "0 1 2 ", "0 ", "begun"]
    assert len(slow.asked) == 3 and slow.sizes[0] == 2


def test_who_asks_for_too_much_is_told_and_the_others_are_answered():
    slow = Together()
    long = {"messages": [{"role": "user", "content": "too long"}]}
    with InThread(server.application(slow, "m", TOKEN)) as served:
        answers = at_once(served, slow, [{}, long, {}])
    assert answers[1].code == "context_length_exceeded" and answers[1].status_code == 400
    assert [text(answers[0]), text(answers[2])] == ["0 1 2 "] * 2


def test_who_is_turned_away_is_not_read():
    slow = Together()
    with InThread(server.application(slow, "m", TOKEN, protocol.Limits(queue=2))) as served:

        def one_more():
            with pytest.raises(openai.RateLimitError) as refused:
                served.client().chat.completions.create(model="m", messages=[{"role": "user", "content": "no"}])
            assert int(refused.value.response.headers["retry-after"]) >= 1

        answers = at_once(served, slow, [{}, {}], one_more)
    assert [text(answer) for answer in answers] == ["0 1 2 "] * 2
    assert slow.encoded == [CHAT[0]["content"]] * 2


def test_streams_are_rows_too():
    slow = Together(steps=5)
    with InThread(server.application(slow, "m", TOKEN)) as served:
        chunks, whole = at_once(served, slow, [{"stream": True}, {}])
    assert [c.choices[0].delta.content for c in chunks[:-1]] == ["0 ", "1 ", "2 ", "3 ", "4 "]
    assert chunks[-1].choices[0].finish_reason == "stop" and text(whole) == "0 1 2 3 4 "
    assert slow.sizes[0] == 2


def test_who_leaves_ends_a_row_and_no_other():
    slow = Together(steps=40)
    slow.pause = 0.05
    with InThread(server.application(slow, "m", TOKEN)) as served:
        left, stayed = at_once(served, slow, [{"timeout": 0.5}, {}])
        until(lambda: len(slow.gone) == 2 and metric(served, "slmops_requests_inside") == 0)
    assert isinstance(left, openai.APIError) and text(stayed) == "".join(f"{n} " for n in range(40))
    assert min(slow.gone) < 40 < max(slow.gone)


def test_rows_have_a_deadline():
    slow = Together(steps=10_000)
    slow.pause = 0.02
    with InThread(server.application(slow, "m", TOKEN, protocol.Limits(seconds=1))) as served:
        answers = at_once(served, slow, [{}, {}])
        until(lambda: len(slow.gone) == 2 and metric(served, "slmops_requests_inside") == 0)
    assert [answer.status_code for answer in answers] == [504, 504]


@pytest.mark.parametrize(("failing", "said"), [(1, "begun"), (2, None)], ids=["told nothing", "told something"])
def test_an_engine_that_fails_is_not_asked_again(failing, said, caplog):
    slow = Together(failing=failing)
    with InThread(server.application(slow, "m", TOKEN)) as served:
        answers = at_once(served, slow, [{}, {}, {}])
        for answer in answers:
            if said:  # by nobody else's fault: answered after all, alone
                assert text(answer) == said
            else:
                assert (answer.status_code, answer.code) == (500, "internal_error")
                assert "secret" not in str(answer.body)
        steps = len(slow.sizes)
        slow.asked.clear()
        slow.go.clear()
        assert [text(answer) for answer in at_once(served, slow, [{}, {}])] == ["begun"] * 2
        assert metric(served, "slmops_requests_inside") == 0
    assert len(slow.sizes) == steps and len(slow.asked) == 3
    assert caplog.text.count("The engine failed: from now on") == 1 and "/secret/path" in caplog.text


def test_an_engine_that_cannot_be_made_costs_nobody_an_answer(monkeypatch, caplog):
    def no_engine(_):
        raise RuntimeError("no KV cache")

    monkeypatch.setattr(batches, "Batch", no_engine)
    slow = Together()
    with InThread(server.application(slow, "m", TOKEN)) as served:
        assert [text(answer) for answer in at_once(served, slow, [{}, {}])] == ["begun"] * 2
    assert "no KV cache" in caplog.text


def test_of_two_hundred_at_once_every_one_is_answered_or_turned_away():
    slow = Together()
    slow.go.set()
    slow.pause = 0.01
    with InThread(server.application(slow, "m", TOKEN)) as served, ThreadPoolExecutor(200) as pool:
        body = {"model": "m", "messages": CHAT}

        def ask(_):
            with httpx.Client(timeout=60) as client:
                answer = client.post(f"{served.url}/v1/chat/completions", json=body, headers=BEARER)
            told = answer.json()
            return answer.status_code, told["choices"][0]["message"]["content"] if answer.is_success else None

        answers = list(pool.map(ask, range(200)))
        assert metric(served, "slmops_requests_inside") == 0
        turned = 'slmops_requests_refused_total{reason="queue_full"}'
        assert metric(served, turned) == sum(status == 429 for status, _ in answers) > 0
        assert ask(0) == (200, "begun"), "there is room again"
    assert {status for status, _ in answers} == {200, 429} and len(answers) == 200
    assert {said for status, said in answers if status == 200} <= {"0 1 2 ", "begun"}


def test_the_end_of_the_server_finishes_all_that_are_inside():
    slow = Together(steps=20)
    slow.pause = 0.05
    with InThread(server.application(slow, "m", TOKEN)) as served:

        def leave():
            served.server.should_exit = True

        answers = at_once(served, slow, [{}] * 8, leave)
    assert [text(answer) for answer in answers] == ["".join(f"{n} " for n in range(20))] * 8
