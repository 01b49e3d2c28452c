import numpy
import pytest
from lessons import CHATS

from slmops_lab.errors import CourseError
from slmops_lab.evaluation import baselines, generation, scoring
from slmops_lab.task import schema


def test_answers_do_not_depend_on_the_batch(tiny):
    model, tokenizer = tiny
    together = generation.generate(model, tokenizer, CHATS, 12, batch_size=3)
    alone = [generation.generate(model, tokenizer, [chat], 12)[0] for chat in CHATS]
    assert together == alone


def test_scores_by_hand(colours):
    task = schema.load(colours)
    records = [{"answer": {"kind": "warm", "word": w}} for w in ("red", "red", None, "red")]
    texts = [
        '{"kind":"warm","word":"red"}',
        '{"kind":"cold","word":"red"}',
        '{"kind":"warm","word":null}',
        "?",
    ]
    scores = scoring.score(task, records, texts)
    assert scores.rows.sum().to_dict() == {"exact": 2, "kind": 2, "word": 3, "valid": 3}
    assert scores.table().loc["exact match", "share"] == 0.5
    assert scoring.score(task, records[:1], [None]).rows.sum().sum() == 0  # an answer that was never given


def test_keyword_baseline_learns_words_and_shapes(colours):
    task = schema.load(colours)
    train = [
        {"text": f"{w} {n} now", "answer": {"kind": k, "word": n}}
        for w, k in [("sun", "warm"), ("ice", "cold")]
        for n in ("AB-12", "XY-98")
    ]
    guesses = baselines.keyword_baseline(task, train, ["ice please CD-77.", "sun 12345"])
    assert guesses == [{"kind": "cold", "word": "CD-77"}, {"kind": "warm", "word": None}]
    assert baselines.keyword_baseline(task, train, []) == []
    assert baselines.word_counter(task, train, ["ice please CD-77.", "sun 12345"])[0] == guesses
    _, (sure, torn) = baselines.word_counter(task, train, ["ice ice AB-12", "sun or ice"])
    assert torn == pytest.approx(0.5, abs=0.01) and torn < sure < 1
    assert baselines.word_counter(task, train, []) == ([], [])


def test_confusions_are_counted_with_what_could_not_be_read():
    records = [{"answer": {"kind": kind, "word": None}} for kind in ["warm"] * 9 + ["cold"]]
    readings = [schema.Reading({"kind": "warm", "word": None})] * 9 + [schema.Reading(None, "no JSON")]
    pairs = scoring.outcomes("kind", records, readings)
    (mistake,) = scoring.confusions(pairs).to_dict("records")
    assert mistake == {"truth": "cold", "said": "(unreadable)", "times": 1}
    assert set(scoring.outcomes("word", records[:1], readings[:1]).iloc[0]) == {"(none)"}
    assert len(scoring.confusions(pairs, top=0)) == len(scoring.confusions(pairs[:9])) == 0


def test_a_label_called_null_is_not_mistaken_for_none():
    read = [schema.Reading({"word": None})]
    assert len(scoring.confusions(scoring.outcomes("word", [{"answer": {"word": "null"}}], read))) == 1


def test_scores_of_nothing(colours):
    nothing = scoring.score(schema.load(colours), [], [])
    assert numpy.isnan(nothing.exact) and nothing.table().loc["valid JSON", "high"] == 1
    assert len(scoring.confusions(scoring.outcomes("kind", [], []))) == 0


@pytest.mark.parametrize(
    "records, texts, sentence",
    [
        ([{"answer": {"kind": "warm", "word": None}}], [], "0 texts, 1 records"),
        ([], ["?"], "1 texts, 0 records"),
        ([{"id": "pool-1", "text": "a red boat"}], ["?"], "The record 'pool-1' has no answer to compare with"),
        ([{"id": "pool-1", "answer": None}], ["?"], "The record 'pool-1' has no answer to compare with"),
    ],
)
def test_what_cannot_be_scored(colours, records, texts, sentence):
    task = schema.load(colours)
    with pytest.raises(CourseError, match=sentence):
        scoring.score(task, records, texts)
    with pytest.raises(CourseError, match=sentence.replace("texts", "readings")):
        scoring.outcomes("kind", records, [schema.Reading(None, "no JSON")] * len(texts))


def test_the_head_is_not_copied_per_message(tiny):
    """It would be where its input is not contiguous and no gradient is wanted."""
    model, tokenizer = tiny
    model.requires_grad_(False)
    seen = []
    model.lm_head.register_forward_hook(lambda head, inputs, out: seen.append(inputs[0].is_contiguous()))
    generation.generate(model, tokenizer, CHATS, 4, label=None)
    assert len(seen) >= 4 and all(seen)
    assert not model.lm_head._forward_pre_hooks
