"""Search by words: BM25 by hand, over the same stems as SQLite's full-text index."""

import re
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing

import numpy as np

from ftcourse.errors import CourseError

TOKENIZER = "porter unicode61"
"""SQLite's: words without case and accents, cut to their stem by Porter (1980)."""

_STOP_WORDS = """
a about am an and any are as at be been but by can did do does for from had has have how i if in
into is it its may me my of on or our should so that the their them then there these they this to
was we were what when where which who whom why will with would you your
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""Words that say little about a page: a query leaves them out, a page keeps them."""


def stem_words(texts: Sequence[str]) -> list[list[str]]:
    """Return the stems of each text, as SQLite's index has them.

    >>> stem_words(["The Wren flies for 26 minutes."])
    [['the', 'wren', 'fli', 'for', '26', 'minut']]
    """
    make = f"create virtual table texts using fts5(text, tokenize='{TOKENIZER}')"
    ask = "select doc, term from stems order by doc, offset"
    found: list[list[str]] = [[] for _ in texts]
    with closing(sqlite3.connect(":memory:")) as base:
        base.execute(make)
        base.execute("create virtual table stems using fts5vocab(texts, instance)")
        rows = enumerate(texts)
        base.executemany("insert into texts (rowid, text) values (?, ?)", rows)
        for number, stem in base.execute(ask):
            found[number].append(stem)
    return found


def content_words(query: str) -> list[str]:
    """Return the words of a query without stop words, or all if all are.

    >>> content_words("How long does the Wren fly?")
    ['long', 'Wren', 'fly']
    """
    words = re.findall(r"[^\W_]+", query)
    if not words:
        must = "A query has a word or a number."
        raise CourseError(must, repr(query)[:200], "Ask in words.")
    told = [word for word in words if word.lower() not in STOP_WORDS]
    return told or words


class BM25:
    """Scores texts by the words that they share with a query.

    A rare word counts more, a repeated word counts less each
    time, and a long text counts less (Robertson and Zaragoza,
    2009, equation 3.15). The idf is SQLite's, never below 1e-6.

    Twin: SQLite's bm25() of FTS5, with the other sign.
    """

    def __init__(self, texts: Sequence[str], k1: float = 1.2, b: float = 0.75):
        """Count the stems of each text."""
        if isinstance(texts, str) or not len(texts):
            got = repr(texts)[:200]
            raise CourseError("BM25 needs texts.", got, "Give a list of texts.")
        if not (k1 >= 0 and 0 <= b <= 1):
            must = "k1 is 0 or more, and b is 0 to 1."
            raise CourseError(must, f"k1={k1}, b={b}", "Try k1=1.2, b=0.75.")
        self.k1, self.b = k1, b
        self.counts = [Counter(stems) for stems in stem_words(texts)]
        self.lengths = np.array([c.total() for c in self.counts])
        self.texts_with = Counter(w for c in self.counts for w in c)

    def idf(self, word: str) -> float:
        """Return how much a stem tells: the rarer, the more."""
        n, having = len(self.counts), self.texts_with[word]
        odds = (n - having + 0.5) / (having + 0.5)
        return float(np.log(odds)) if odds > 1 else 1e-6

    def scores(self, query: str) -> np.ndarray:
        """Return the score of each text. Shape (texts,)."""
        mean = max(self.lengths.mean(), 1)
        length = 1 - self.b + self.b * self.lengths / mean
        total = np.zeros(len(self.counts))
        [stems] = stem_words([" ".join(content_words(query))])
        for word in stems:
            times = np.array([c[word] for c in self.counts])
            below = times + self.k1 * length
            rise = times * (self.k1 + 1) / below
            total += self.idf(word) * np.nan_to_num(rise)
        return total

    def search(self, query: str, k: int = 3) -> list[int]:
        """Return the places of the best k texts that share a word, ties in their order."""
        scores = self.scores(query)
        best = np.argsort(-scores, kind="stable")[:k]
        return [int(i) for i in best if scores[i] > 0]
