"""What a language model has to beat: answers that only see which words occur.

They know no word order and no word that they were not fitted on. Fitting a thousand messages takes a second.
"""

import numpy

from slmops_lab.errors import CourseError
from slmops_lab.task.schema import Enum


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
