import numpy
import pytest
from lessons import CHATS

from slmops_lab.evaluation import baselines, generation, intervals, scoring
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
    with pytest.raises(ValueError):
        scoring.score(task, records, texts[:2])


def test_intervals():
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3: 81 of 263
    interval = intervals.proportion([True] * 81 + [False] * 182)
    assert (round(interval["low"], 4), round(interval["high"], 4)) == (0.2553, 0.3662)
    assert (intervals.proportion([])["low"], intervals.proportion([])["high"]) == (0, 1)
    rng = numpy.random.default_rng(0)
    ours, theirs = rng.random(400) < 0.6, rng.random(400) < 0.8
    kept = intervals.ratio(ours, theirs)
    assert kept["ratio"] == pytest.approx(ours.mean() / theirs.mean())
    assert kept["low"] < kept["ratio"] < kept["high"]
    gap = intervals.difference(ours, theirs)
    assert gap["low"] < gap["points"] < gap["high"] < 0
    assert intervals.difference(ours, ours)["high"] == 0


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


def test_paired_test_by_hand():
    ours = [True] * 10 + [False] * 4 + [True] * 1
    theirs = [True] * 10 + [True] * 4 + [False] * 1
    found = intervals.paired_test(ours, theirs)
    assert (found["only_ours"], found["only_theirs"]) == (1, 4)
    assert found["p"] == pytest.approx(2 * (1 + 5) / 2**5)  # at most 1 of 5 coins, either way
    assert intervals.paired_test(ours, ours)["p"] == 1.0


def test_macro_f1_counts_rare_classes_as_much():
    task_like = [{"answer": {"kind": kind, "word": None}} for kind in ["warm"] * 9 + ["cold"]]
    always_warm = [schema.Reading({"kind": "warm", "word": None})] * 9 + [schema.Reading(None, "no JSON")]
    pairs = scoring.outcomes("kind", task_like, always_warm)
    assert pairs["said"].iloc[-1] == "(unreadable)"
    found = intervals.macro_f1(pairs)
    assert found["f1"] == pytest.approx(0.5)  # 1 for warm, 0 for cold
    assert found["low"] <= found["f1"] <= found["high"] <= 1
    (mistake,) = scoring.confusions(pairs).to_dict("records")
    assert mistake == {"truth": "cold", "said": "(unreadable)", "times": 1}
    assert set(scoring.outcomes("word", task_like[:1], always_warm[:1]).iloc[0]) == {"null"}


def test_the_head_is_not_copied_per_message(tiny):
    """It would be where its input is not contiguous and no gradient is wanted."""
    model, tokenizer = tiny
    model.requires_grad_(False)
    seen = []
    model.lm_head.register_forward_hook(lambda head, inputs, out: seen.append(inputs[0].is_contiguous()))
    generation.generate(model, tokenizer, CHATS, 4, label=None)
    assert len(seen) >= 4 and all(seen)
    assert not model.lm_head._forward_pre_hooks
