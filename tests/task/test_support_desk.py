"""What data/support_desk/README.md promises of the data."""

import collections
import filecmp
import itertools
import json
import re
import subprocess
import sys

import numpy
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from slmops_lab.evaluation import baselines
from slmops_lab.settings import ROOT
from slmops_lab.task import data

FOLDER = ROOT / "data" / "support_desk"


@pytest.fixture(scope="module")
def desk():
    return data.load(FOLDER)


def near_duplicates(texts, others, limit=0.6):
    """Pairs (i, j): character-trigram Jaccard of texts[i] and others[j] is over the limit."""
    counter = CountVectorizer(analyzer="char", ngram_range=(3, 3), binary=True)
    counter.fit([*texts, *others])
    ours, theirs = counter.transform(texts).astype("float32"), counter.transform(others).astype("float32")
    shared = (ours @ theirs.T).toarray()
    sizes = [numpy.asarray(m.sum(1)).ravel() for m in (ours, theirs)]
    either = sizes[0][:, None] + sizes[1][None, :] - shared
    return [tuple(map(int, pair)) for pair in numpy.argwhere(shared > limit * either)]


def test_sizes(desk):
    sizes = desk.sizes()["records"]
    assert sizes["train"] >= 600 and sizes["test"] >= 400
    assert sizes["drift"] >= 120 and sizes["pool"] >= 3000
    assert len(desk.task.fields["intent"].values) == 12


def test_near_duplicate_search_finds_planted_ones():
    texts = ["My parcel has not come yet and it is late", "something else"]
    assert near_duplicates(texts, ["what?", "my parcel has not come yet, it is late"]) == [(0, 1)]
    assert near_duplicates(texts, ["what?"]) == []


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(data.SPLITS, 2)))
def test_no_near_duplicates_across_splits(desk, one, other):
    texts, others = ([r["text"] for r in getattr(desk, name)] for name in (one, other))
    assert [(texts[i], others[j]) for i, j in near_duplicates(texts, others)] == []


def test_every_value_occurs_in_every_written_split(desk):
    for split in (desk.train, desk.test, desk.drift):
        for name in ("intent", "urgency"):
            counts = collections.Counter(r["answer"][name] for r in split)
            assert min(counts[v] for v in desk.task.fields[name].values) >= 10


@pytest.mark.parametrize(("split", "count"), [("train", 216), ("test", 84)])
def test_replies_and_summaries_keep_what_the_card_says(desk, split, count):
    messages = {record["id"]: record for record in getattr(desk, split)}
    lines = (FOLDER / "replies" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    written = [json.loads(line) for line in lines]
    assert len({w["id"] for w in written}) == len(written) == count
    assert len({w["reply"] for w in written}) == len({w["summary"] for w in written}) == len(written)
    intents = collections.Counter(messages[w["id"]]["answer"]["intent"] for w in written)
    assert len(intents) == 12 and len(set(intents.values())) == 1, "as many of each"
    for w in written:
        message = messages[w["id"]]
        number = message["answer"]["order_id"]
        assert 15 <= len(w["reply"].split()) <= 50 and 8 <= len(w["summary"].split()) <= 22, w
        assert w["reply"].count("?") <= 1, w
        assert number is None or number in w["reply"], w
        assert number is None or number not in w["summary"], w
        assert all(digits in message["text"] for digits in re.findall(r"\d+", w["reply"] + w["summary"])), w


def test_numbers_mislead(desk):
    """About half of the messages name an order; many hold digits that are none."""
    for split in (desk.train, desk.test):
        named = [r for r in split if r["answer"]["order_id"]]
        others = [r for r in split if any(c.isdigit() for c in r["text"].replace(r["answer"]["order_id"] or "", ""))]
        assert 0.4 < len(named) / len(split) < 0.7
        assert len(others) / len(split) > 0.25


def test_keywords_are_not_enough(desk):
    guesses = baselines.keyword_baseline(desk.task, desk.train, [r["text"] for r in desk.test])
    exact = sum(g == r["answer"] for g, r in zip(guesses, desk.test, strict=True)) / len(desk.test)
    assert 0.3 < exact < 0.8


def test_the_pool_is_what_its_generator_makes(tmp_path):
    command = [sys.executable, str(FOLDER / "generate_pool.py"), "--out", str(tmp_path)]
    subprocess.run([*command, "--seed", "20", "--count", "3200"], check=True, stdout=subprocess.DEVNULL)
    for name in ("pool.jsonl", "pool_gold.jsonl"):
        assert filecmp.cmp(tmp_path / name, FOLDER / name, shallow=False), name


def test_the_pools_gold_answers_are_valid_and_kept_apart(desk):
    gold = {r["id"]: r["answer"] for r in map(json.loads, open(FOLDER / "pool_gold.jsonl", encoding="utf-8"))}
    assert set(gold) == {r["id"] for r in desk.pool}
    assert [p for r in desk.pool if (p := desk.task.problem(gold[r["id"]], r["text"]))] == []


def test_the_cards_counts_are_the_files(desk):
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for name, count in desk.sizes()["records"].items():
        assert f"| {name}.jsonl | {count:,} |" in card
    for value in desk.task.fields["intent"].values:
        counts = [sum(r["answer"]["intent"] == value for r in s) for s in (desk.train, desk.test, desk.drift)]
        assert f"| {value} | " + " | ".join(map(str, counts)) + " |" in card
