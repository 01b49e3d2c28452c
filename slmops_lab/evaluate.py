"""Generate answers in batches, score them, and say how sure the scores are."""

from dataclasses import dataclass

import numpy
import pandas
import torch
from scipy import stats
from tqdm import tqdm
from transformers import LogitsProcessor, LogitsProcessorList

from slmops_lab import measure, training
from slmops_lab.settings import CourseError
from slmops_lab.tasks import Enum


def generate(model, tokenizer, chats, max_new_tokens=64, batch_size=32, label="answering"):
    """Greedy answers to a list of chats: a list of texts, in the same order.

    Batches hold prompts of similar length, padded on the left. label None shows no progress bar.
    """
    return _generate(model, tokenizer, chats, max_new_tokens, batch_size, label)[0]


def generate_scored(model, tokenizer, chats, max_new_tokens=64, batch_size=32, label="answering", temperature=0.0):
    """Like `generate`, and how sure the model was: (texts, log_probs), two lists.

    A log probability is that of all tokens of the answer with its end token, at temperature 1.
    temperature 0 takes the likeliest token each time, any other draws from softmax(logits / temperature).
    """
    return _generate(model, tokenizer, chats, max_new_tokens, batch_size, label, temperature, scored=True)


@torch.inference_mode()
def _generate(model, tokenizer, chats, max_new_tokens, batch_size, label, temperature=0.0, scored=False):
    prompts = [training.prompt_ids(tokenizer, chat) for chat in chats]
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    texts, log_probs = [""] * len(prompts), [0.0] * len(prompts)
    how = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    head = model.get_output_embeddings()
    with (
        head.register_forward_pre_hook(_contiguous),
        tqdm(total=len(prompts), desc=label, leave=False, disable=label is None) as bar,
    ):
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = tokenizer.pad({"input_ids": [prompts[i] for i in chosen]}, return_tensors="pt")
            batch = batch.to(model.device)
            gains = _Gains()
            listening = {"logits_processor": LogitsProcessorList([gains])} if scored else {}
            sequences = model.generate(**batch, max_new_tokens=max_new_tokens, **how, **listening)
            answers = sequences[:, batch["input_ids"].shape[1] :]
            if scored:
                ended = (answers == tokenizer.eos_token_id).cumsum(-1) > 0
                after = torch.nn.functional.pad(ended[:, :-1], (1, 0))  # padding behind the end token
                totals = gains.of(sequences).masked_fill(after, 0).sum(-1).tolist()
            for row, i in enumerate(chosen):
                texts[i] = tokenizer.decode(answers[row], skip_special_tokens=True)
                log_probs[i] = totals[row] if scored else None
            bar.update(len(chosen))
    if len(prompts) > 1:  # not between two requests, whose time may be taken
        measure.give_back()  # a cache that grows with each token leaves holes of every size
    return texts, log_probs


class _Gains(LogitsProcessor):
    """Notes the log probability of each token that `generate` takes, and changes nothing.

    Keeping the logits of all steps for it, as `generate` can, takes gigabytes for a batch.
    """

    def __init__(self):
        self.gained, self.last = [], None

    def __call__(self, input_ids, scores):
        self._note(input_ids)
        self.last = scores.float().log_softmax(-1)
        return scores

    def _note(self, input_ids):
        if self.last is not None:
            self.gained.append(self.last.gather(1, input_ids[:, -1:]))

    def of(self, sequences):
        """(batch, new tokens) log probabilities, once `generate` has returned (batch, all tokens)."""
        self._note(sequences)
        return torch.cat(self.gained, dim=1)


def _contiguous(head, inputs):
    """Without this, torch (2.13) copies a frozen head once per message: gigabytes for a batch.

    The head gets a slice, each message's last state; torch.matmul does not fold a batch that is not
    contiguous, unless a gradient is wanted.
    """
    return tuple(states.contiguous() for states in inputs)


@torch.inference_mode()
def nats(model, tokenizer, examples, batch_size=16):
    """What the right answers cost a model: a list, for each encoded example, of -log P(answer with its end).

    In nats; divided by its tokens and put into exp it is the perplexity of an answer.
    """
    batch_of, head = training.collate(tokenizer), model.get_output_embeddings()
    order = sorted(range(len(examples)), key=lambda i: -len(examples[i]["input_ids"]))
    costs = [0.0] * len(examples)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        with torch.autocast("cpu", torch.bfloat16, enabled=training.fast_bf16()):
            done = training.forward(model, batch_of([examples[i] for i in chosen]))
            log_probs = head(done.states).float().log_softmax(-1)
        gained = log_probs.gather(1, done.targets[:, None])[:, 0]
        answers = [sum(t != training.IGNORE for t in examples[i]["labels"]) for i in chosen]
        for i, own in zip(chosen, gained.split(answers), strict=True):
            costs[i] = -float(own.double().sum())
    measure.give_back()
    return costs


@dataclass(frozen=True)
class Scores:
    """Per-record results: columns `exact`, one per field, and `valid`, all boolean."""

    rows: pandas.DataFrame
    readings: list

    def save(self, path):
        """Keep the per-record results as JSON, for a later paired comparison."""
        self.rows.to_json(path, orient="split")

    @classmethod
    def load(cls, path):
        """`Scores` saved before; their readings are not kept."""
        return cls(pandas.read_json(path, orient="split").astype(bool), [])

    @property
    def exact(self):
        """Share of records with every field right."""
        return float(self.rows["exact"].mean())

    def first(self, count):
        """`Scores` of the first records only."""
        return Scores(self.rows[:count], self.readings[:count])

    def table(self):
        """One row per measure: share right, 95 % interval, number of records."""
        table = pandas.DataFrame({name: proportion(self.rows[name]) for name in self.rows}).T
        table["n"] = len(self.rows)
        return table.rename(index={"exact": "exact match", "valid": "valid JSON"})


def score(task, records, texts):
    """Compare model texts with the records' answers. An unreadable text is wrong in every field."""
    readings = [task.read(text) for text in texts]
    rows = []
    for record, reading in zip(records, readings, strict=True):
        got, want = reading.answer or {}, record["answer"]
        right = {name: name in got and got[name] == want[name] for name in task.fields}
        rows.append({"exact": all(right.values()), **right, "valid": reading.answer is not None})
    return Scores(pandas.DataFrame(rows), readings)


def proportion(successes):
    """{'share', 'low', 'high'} with the 95 % Wilson interval (Wilson 1927, scipy's).

    Of no records nothing is known: share nan, interval from 0 to 1.
    """
    hits = numpy.asarray(successes, bool)
    if not len(hits):
        return {"share": numpy.nan, "low": 0.0, "high": 1.0}
    interval = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return {"share": hits.mean(), "low": interval.low, "high": interval.high}


def ratio(ours, theirs, seed=0):
    """Mean of ours over mean of theirs on the same records, with a paired 95 % bootstrap interval.

    Both are (records,) arrays; records are resampled together (scipy.stats.bootstrap, percentile).
    Returns {'ratio', 'low', 'high'}.
    """
    ours, theirs = numpy.asarray(ours, float), numpy.asarray(theirs, float)

    def statistic(a, b, axis):
        return a.mean(axis) / numpy.maximum(b.mean(axis), 1e-12)

    result = stats.bootstrap(
        (ours, theirs),
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=2000,
        method="percentile",
        random_state=numpy.random.default_rng(seed),
    )
    interval = result.confidence_interval
    return {"ratio": statistic(ours, theirs, 0), "low": interval.low, "high": interval.high}


def difference(ours, theirs, seed=0):
    """Mean of ours minus mean of theirs, paired as in `ratio`. Returns {'points', 'low', 'high'}."""
    gap = numpy.asarray(ours, float) - numpy.asarray(theirs, float)
    if numpy.ptp(gap) == 0:
        return {"points": gap[0], "low": gap[0], "high": gap[0]}
    result = stats.bootstrap(
        (gap,),
        numpy.mean,
        vectorized=True,
        n_resamples=2000,
        method="percentile",
        random_state=numpy.random.default_rng(seed),
    )
    interval = result.confidence_interval
    return {"points": gap.mean(), "low": interval.low, "high": interval.high}


def paired_test(ours, theirs):
    """Do two models differ on the same records? McNemar's exact test (McNemar 1947), two-sided.

    Both are (records,) booleans: right or wrong. Returns {'only_ours', 'only_theirs', 'p'}: how many
    records only one of them gets right, and the probability of a split at least as uneven if both
    were equally good.
    """
    ours, theirs = numpy.asarray(ours, bool), numpy.asarray(theirs, bool)
    only_ours, only_theirs = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    p = stats.binomtest(only_ours, only_ours + only_theirs).pvalue if only_ours + only_theirs else 1.0
    return {"only_ours": only_ours, "only_theirs": only_theirs, "p": p}


def outcomes(name, records, readings):
    """What one field should be and what was read, a DataFrame with the text columns `truth` and `said`.

    None becomes 'null', an answer that could not be read '(unreadable)'.
    """
    truth = [record["answer"][name] or "null" for record in records]
    said = [(reading.answer[name] or "null") if reading.answer else "(unreadable)" for reading in readings]
    return pandas.DataFrame({"truth": truth, "said": said})


def confusions(pairs, top=6):
    """The commonest mistakes of `outcomes`: a DataFrame of truth, said and how many times."""
    wrong = pairs[pairs["truth"] != pairs["said"]]
    return wrong.value_counts().rename("times").reset_index().head(top)


def macro_f1(pairs, seed=0):
    """F1 of each class of `outcomes`, averaged over classes (scikit-learn's), with a 95 % bootstrap interval.

    Rare classes count as much as common ones. Returns {'f1', 'low', 'high'}.
    """
    from sklearn.metrics import f1_score

    classes = sorted(pairs["truth"].unique())
    truth, said = (pandas.Index(classes).get_indexer(pairs[column]) for column in ("truth", "said"))

    def statistic(rows):
        return f1_score(truth[rows], said[rows], labels=range(len(classes)), average="macro", zero_division=0)

    rows = numpy.arange(len(pairs))
    drawn = numpy.random.default_rng(seed)
    spread = [statistic(drawn.choice(rows, len(rows))) for _ in range(500)]
    low, high = numpy.percentile(spread, [2.5, 97.5])
    return {"f1": statistic(rows), "low": low, "high": high}


def keyword_baseline(task, train, texts):
    """Answers of a model that only sees which words occur: what a language model has to beat.

    The answers of `word_counter` with single words: a list of dicts.
    """
    return word_counter(task, train, texts)[0]


def word_counter(task, train, texts, pairs=False):
    """Answers of a model that only sees which words occur, and how sure it is: (answers, confidences).

    Enum fields: logistic regression on the presence of words (scikit-learn); pairs=True makes it
    stronger, with word pairs and tf-idf weights. Copy fields: the first piece of the text that has
    the shape of a value seen in training. answers is a list of dicts, confidences a list of
    probabilities, each the product over the enum fields. Raises CourseError where there is nothing
    to count: no labelled record, or none with a word of two letters.
    """
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    if not train:
        raise CourseError("There is no labelled message to count words in.")
    if not texts:
        return [], []
    answers, sure = [{} for _ in texts], numpy.ones(len(texts))
    for name, field in task.fields.items():
        labels = [record["answer"][name] for record in train]
        if isinstance(field, Enum) and len(set(labels)) > 1:
            words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True) if pairs else CountVectorizer(binary=True)
            model = make_pipeline(words, LogisticRegression(C=30 if pairs else 1, max_iter=1000))
            try:
                model.fit([record["text"] for record in train], labels)
            except ValueError as error:  # scikit-learn's "empty vocabulary"
                raise CourseError("No labelled message has a word of two letters or more to count.") from error
            chances = model.predict_proba(texts)
            values = model.classes_[chances.argmax(axis=1)]
            sure *= chances.max(axis=1)
        elif isinstance(field, Enum):
            values = [labels[0]] * len(texts)
        else:
            values = _copy_by_shape(labels, texts)
        for answer, value in zip(answers, values, strict=True):
            answer[name] = None if value is None else str(value)
    return answers, sure.tolist()


def _copy_by_shape(labels, texts):
    shapes = {_shape(label) for label in labels if label}
    found = []
    for text in texts:
        pieces = (piece.strip(".,;:!?#()\"'") for piece in text.split())
        found.append(next((p for p in pieces if _shape(p) in shapes), None))
    return found


def _shape(piece):
    """'TT-48213' -> 'AA-00000'."""
    return "".join("0" if c.isdigit() else "A" if c.isalpha() else c for c in piece)
