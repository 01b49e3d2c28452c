"""Remote teachers against a real HTTP server on this machine that answers, fails and lies as told."""

import math
import os
import socket
import subprocess
import sys
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
        options = {"concurrency": 1, "max_retries": 2, **options}
        teacher = teachers.RemoteTeacher("m", tmp_path / "store.jsonl", server.url, "secret-key", **options)
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


def test_other_settings_are_another_question(endpoint, ask):
    server = endpoint()
    ask(server)
    ask(server, temperature=0.7)
    assert len(server.seen) == 2


def test_a_line_cut_by_a_kill_is_asked_again(endpoint, ask, tmp_path):
    server = endpoint()
    ask(server, 2)
    store = tmp_path / "store.jsonl"
    store.write_text(store.read_text()[:-20])
    answers, _ = ask(server, 2)
    assert len(server.seen) == 3 and all(said.text for said in answers)
    ask(server, 2)
    assert len(server.seen) == 3, "the repaired store is whole again"


def test_no_more_requests_at_once_than_allowed(endpoint, ask):
    server = endpoint(*["slow"] * 4)
    ask(server, 4, concurrency=2)
    assert server.most_at_once == 2


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
        ("cut", "no connection"),
        ("slow", "no answer within 0.3 s"),
        ((200, {}, b"{not json"), "a reply that is no JSON"),
        ((200, {"Content-Type": "text/html"}, b"<html>log in first</html>"), "a reply without an answer in it"),
        ((200, {}, {"hello": 1}), "a reply without an answer in it"),
        ((200, {}, {"choices": []}), "a reply without an answer in it"),
    ],
    ids=["500", "429", "cut", "time-out", "no JSON", "HTML", "other JSON", "no choices"],
)
def test_trouble_that_stays_is_no_label(endpoint, ask, tmp_path, trouble, problem):
    server = endpoint(*[trouble] * 2)
    answers, teacher = ask(server, 2, timeout=0.3, max_retries=0)
    assert [said.problem for said in answers] == [problem, problem]
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
    [(401, "refuses the key"), (403, "may not use 'm'"), (404, "no model 'm'"), (400, "does not take the request")],
)
def test_what_no_repetition_cures_stops_at_once(endpoint, ask, tmp_path, status, sentence):
    server = endpoint(reply(), (status, {}, {"error": {"message": "no"}}))
    with pytest.raises(
        CourseError, match=f"{sentence}.*[12] answers are kept in .*store.jsonl: run again to go on"
    ) as error:
        ask(server, 10)
    assert len(server.seen) <= 3 and "\n" not in str(error.value)
    assert "secret-key" not in str(error.value) and "secret-key" not in (tmp_path / "store.jsonl").read_text()


def test_an_endpoint_that_is_down(ask, endpoint):
    server = endpoint()
    server.shutdown()
    server.server_close()
    with pytest.raises(CourseError, match="failed 5 times in a row, last with: no connection"):
        ask(server, 10)


FULL = """
import resource, sys
from slmops_lab import settings
from slmops_lab.task import schema
from slmops_lab.training import teachers
url, folder, store = sys.argv[1:]
teacher = teachers.RemoteTeacher("m", store, url, "k", concurrency=1)
resource.setrlimit(resource.RLIMIT_FSIZE, (250, 250))  # room for the first answer and a part of the second
try:
    teacher.ask(schema.load(folder), ["a", "b", "c"])
except settings.CourseError as error:
    print(error)
"""


def test_a_disk_that_fills_up_keeps_what_was_answered(endpoint, colours, tmp_path):
    server = endpoint()
    store = tmp_path / "store.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", FULL, server.url, str(colours), str(store)], capture_output=True, text=True
    )
    sentence = f"An answer of the teacher could not be kept in {store} (File too large)"
    assert done.stdout == f"{sentence}; make room and run again to go on after the 1 that were.\n", done.stderr
    again = teachers.RemoteTeacher("m", store, server.url, "k", concurrency=1)
    assert all(said.text for said in again.ask(schema.load(colours), ["a", "b", "c"]))
    assert again.usage.reused == 1


def test_a_store_that_cannot_be_written_costs_nothing(endpoint, colours, tmp_path):
    server = endpoint()
    (tmp_path / "file").write_text("no folder")
    for store, why in [(tmp_path / "file" / "store.jsonl", "Not a directory"), (tmp_path, "Is a directory")]:
        with pytest.raises(CourseError, match=f"cannot be read: {why}") as error:
            teachers.RemoteTeacher("m", store, server.url, "k").ask(schema.load(colours), ["a"])
        assert "\n" not in str(error.value)
    with pytest.raises(CourseError, match="cannot be kept in .*. Nothing was asked"):
        teachers.RemoteTeacher("m", "/proc/nothing/store.jsonl", server.url, "k").ask(schema.load(colours), ["a"])
    assert not server.seen


def test_the_key_is_not_shown(tmp_path):
    assert "secret" not in repr(teachers.RemoteTeacher("m", tmp_path / "s", "http://127.0.0.1:1/v1", "secret"))


def test_no_key(tmp_path, colours, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(CourseError, match="set OPENAI_API_KEY"):
        teachers.RemoteTeacher("m", tmp_path / "s", "http://127.0.0.1:1/v1").ask(schema.load(colours), ["a"])


def test_a_teacher_by_configuration(tmp_path, endpoint, colours, monkeypatch):
    monkeypatch.delenv("SLMOPS_TEACHER_MODEL", raising=False)
    assert teachers.RemoteTeacher.from_environment(tmp_path / "s.jsonl") is None
    server = endpoint()
    monkeypatch.setenv("SLMOPS_TEACHER_MODEL", "big")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    teachers.RemoteTeacher.from_environment(tmp_path / "s.jsonl").ask(schema.load(colours), ["a"])
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
    teacher = teachers.RemoteTeacher("m", tmp_path / "s.jsonl", server.url, "k", concurrency=1)
    desk = data.load(colours)
    labelled = distillation.label(teacher, desk.task, desk.pool)
    assert labelled[0].answer == {"kind": "warm", "word": "red"} and labelled[0].problem is None
    assert [one.answer for one in labelled[1:]] == [None] * 3
    assert labelled[1].problem == "no JSON"
    assert "which the schema does not list" in labelled[2].problem
    assert "does not occur in the text" in labelled[3].problem


def test_a_teacher_of_prose(endpoint, colours, tmp_path):
    server = endpoint(*[reply("I would say it is warm.")] * 4)
    teacher = teachers.RemoteTeacher("m", tmp_path / "s.jsonl", server.url, "k")
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
    teacher = teachers.RemoteTeacher(str(tiny_folder), tmp_path / "s.jsonl", served, "any", **options)
    answers = teacher.ask(task, texts)
    assert len(answers) == 3 and all(said.text or said.problem for said in answers)
    assert teacher.usage.requests == 3 and teacher.usage.input_tokens > 100 and teacher.usage.output_tokens > 0
    again = teachers.RemoteTeacher(str(tiny_folder), tmp_path / "s.jsonl", served, "any", **options)
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
        model.generation_config.suppress_tokens = None
        real = model.forward

        def forward(*args, **kwargs):
            out = real(*args, **kwargs)
            out.logits = torch.full_like(out.logits, -1e4)
            out.logits[..., end] = 0.0
            return out

        monkeypatch.setattr(model, "forward", forward)
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
