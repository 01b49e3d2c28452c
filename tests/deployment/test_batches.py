"""Several answers in one step each: the same as one at a time, with ONNX Runtime GenAI's own engine."""

import threading

import pytest

from slmops_lab.deployment import batches, runtime
from slmops_lab.errors import CourseError

TEXTS = ["x", "where is my tent?", "refund " * 30, "ruf mich an, öäü 😀"]
CHATS = [[{"role": "user", "content": text}] for text in TEXTS]


@pytest.fixture(scope="module")
def served(tiny_onnx):
    return runtime.GenAIRuntime(tiny_onnx)


@pytest.fixture(scope="module")
def batch(served):
    return batches.Batch(served)


def add(batch, served, chat, limit=12, stop=()):
    return batch.add(served.encode(chat, limit), limit, stop)


def whole(batch, rows, steps=200):
    """The rows' texts when all have ended, within so many steps; {row: steps until it ended}."""
    texts, ended, iterators = dict.fromkeys(rows, ""), {}, {row: iter(row) for row in rows}
    for step in range(steps):
        for row, pieces in list(iterators.items()):
            for piece in pieces:
                texts[row] += piece
                if not piece:
                    break
            else:
                ended[row] = step
                del iterators[row]
        if not iterators:
            return list(texts.values()), ended
        batch.step()
    raise AssertionError("it did not end")


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_batch_says_what_each_would_be_told_alone(batch, served, number):
    alone = [served.stream(chat, 12) for chat in CHATS[:number]]
    wanted = ["".join(answer) for answer in alone]
    rows = [add(batch, served, chat) for chat in CHATS[:number]]
    assert whole(batch, rows)[0] == wanted
    for row, answer in zip(rows, alone, strict=True):
        for fact in ("prompt_tokens", "answer_tokens", "finish_reason"):
            assert getattr(row, fact) == getattr(answer, fact)


def test_each_row_has_its_own_limit_and_is_told_when_it_ends(batch, served):
    rows = [add(batch, served, CHATS[1], limit) for limit in (3, 9)]
    texts, ended = whole(batch, rows)
    assert texts[1].startswith(texts[0])
    assert [row.answer_tokens for row in rows] == [3, 9] and ended[rows[0]] < ended[rows[1]]


def test_a_stop_text_ends_its_row_alone(batch, served):
    said = served.generate(CHATS[1], 24)
    stop = said[8:11]
    rows = [add(batch, served, CHATS[1], 24, ["never seen", stop]), add(batch, served, CHATS[1], 24)]
    assert whole(batch, rows)[0] == [said[: said.index(stop)], said]
    assert rows[0].finish_reason == "stop"
    with pytest.raises(CourseError, match="Give at most 4 stop texts"):
        add(batch, served, CHATS[1], 24, ["x"] * 5)
    assert whole(batch, [add(batch, served, CHATS[0])])[0] == [served.generate(CHATS[0], 12)], "nothing was left over"


def test_who_leaves_a_row_changes_nothing_for_the_others(batch, served):
    rows = [add(batch, served, chat) for chat in CHATS]
    left = iter(rows[1])
    next(left)
    batch.step()
    left.close()
    others = [rows[0], *rows[2:]]
    assert whole(batch, others)[0] == [served.generate(chat, 12) for chat in (CHATS[0], *CHATS[2:])]
    assert not batch._rows
    again = [add(batch, served, chat) for chat in CHATS[:2]]
    for pieces in [iter(row) for row in again]:
        assert next(pieces) == ""
        pieces.close()  # before its first step
    assert not batch._rows
    assert whole(batch, [add(batch, served, CHATS[2])])[0] == [served.generate(CHATS[2], 12)]


def test_more_than_fit_wait_for_the_next_batch(batch, served):
    chats = [*CHATS, *CHATS[:2]]
    texts, ended = whole(batch, [add(batch, served, chat, 5) for chat in chats])
    assert texts == [served.generate(chat, 5) for chat in chats]
    assert min(list(ended.values())[4:]) > max(list(ended.values())[:4]), "batching is static: see the module"


def test_another_thread_has_no_business_with_it(batch, served):
    said = []

    def step():
        try:
            add(batch, served, CHATS[0])
        except RuntimeError as error:
            said.append(str(error))

    thread = threading.Thread(target=step)
    thread.start()
    thread.join(20)
    assert said == ["Engine operations must be called from the Engine owner thread."]
