"""Verbs of narrations, by rules: enough to see at a glance what people do in a data set.

No grammar is parsed. A narration says who, then what they do: the first word that is neither the
subject nor an auxiliary nor an adverb is taken as its verb. Forms of one verb are counted together
under the form met most often.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_ARTICLES = frozenset({"a", "an", "the", "this", "that", "another", "one"})
_SUBJECTS = frozenset(
    {
        "c",
        "person",
        "wearer",
        "man",
        "woman",
        "boy",
        "girl",
        "lady",
        "child",
        "someone",
        "somebody",
        "he",
        "she",
        "they",
        "i",
        "it",
        "participant",
        "subject",
        "user",
        "player",
        "camera",
    }
)
_AUXILIARIES = frozenset(
    {
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "being",
        "am",
        "has",
        "have",
        "had",
        "do",
        "does",
        "did",
        "will",
        "then",
        "and",
        "now",
        "still",
        "also",
        "again",
        "to",
        "starts",
        "begins",
        "continues",
        "keeps",
        "tries",
    }
)


def narration_verb(text: str) -> str | None:
    """The word of ``text`` that these rules take for its verb, in lower case; None without one."""
    words = [word.lower() for word in _WORD.findall(text)]
    for word in words:
        if word in _ARTICLES or word in _SUBJECTS or word in _AUXILIARIES or word.endswith("ly"):
            continue
        return word
    return None


def count_verbs(texts: Iterable[str]) -> Counter[str]:
    """How often each verb occurs, its forms together under the commonest of them."""
    forms: dict[str, Counter[str]] = {}
    for text in texts:
        if verb := narration_verb(text):
            forms.setdefault(_stem(verb), Counter())[verb] += 1
    # Of forms equally common the first in the alphabet, so that equal texts give equal counts.
    return Counter(
        {min(form, key=lambda word: (-form[word], word)): form.total() for form in forms.values()}
    )


def _stem(word: str) -> str:
    """What the forms of a regular verb have in common: pick, picks, picking, picked."""
    for ending in ("ing", "ies", "ied", "es", "ed", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 2:
            stem = word.removesuffix(ending)
            if ending in ("ing", "ed") and stem[-1] == stem[-2:-1] and stem[-1] not in "lsz":
                stem = stem[:-1]  # running, stopped
            if ending in ("ies", "ied"):
                stem += "y"
            return stem
    return word
