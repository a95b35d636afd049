"""Narrations: texts cleaned of annotators' markers, and files of them (CSV, SRT, VTT, JSON).

clean_text("#C C picks #unsure with C's left hand")
    # "A person picks something with the person's left hand"
narrations, notes = read_narrations(source, "spoken.srt")

Cleaning takes out what only the annotators' conventions put in, and never touches a word. Texts
without such markers come out as they went in, but for white space.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from shards.files.cues import read_cues
from shards.files.source import Source
from shards.recording import Narration

_OTHER = re.compile(r"\s*#\s?O\b(?![-+#])", re.I)
_MARKER = re.compile(r"(?:^#\s?|(?<!\S)#)(?:C|O|summary)(?![\w'’+#-])", re.I)
_UNSURE = re.compile(r"(?:\b(?:the|an?)\s+)?(?<!\w)#\s?unsure\b", re.I)
# After the marker "#C" the letter can only be the wearer.
_MARKED = re.compile(r"(?:^#\s?|(?<!\S)#)C C(?P<own>['’]s)?(?![\w'’+#-])", re.I)
# Where a C begins a sentence, it is the wearer if a verb in the third person follows, or a word
# that may stand before one. It is a letter in "C chord", "C major", "C class", "C shaped".
_NO_VERB = (
    "series|shaped|rated|sized|keyed|string|ring|spring|tuning|programming|coding|casing|wiring"
)
_VERB = (
    r"[a-z]+[b-hj-rtv-z]s(?! (?:are|were|have)\b)|[a-z]+[a-df-z]ed|[a-z]{2,}ing|[a-z]{2,}ly|is|was|"
    r"has|had|did|went|came|took|put|cut|sat|stood|held|got|made|gave|left|kept|threw|ran|can|could|"
    r"will|would|may|might|must|should|then|also|again|still|just|now|never|who|and(?! [A-Z]\b)|"
    r"with (?:his|her|their|both)"
)
_SUBJECT = re.compile(
    r"(?:^|(?<=[.!?;] ))(?P<quote>[\"'“‘(]?)C(?:"
    rf"(?=,? (?!(?:{_NO_VERB})\b)(?:{_VERB})\b(?!['’-]))"
    r"|(?P<own>['’]s)(?= (?!(?:are|were|and|or|in|on|is)\b)[a-z]))"
)
# Elsewhere only where it can be nothing else: before a part of the body, or between a verb of
# giving and the thing that is given.
_BODY = (
    "left|right|own|hands?|fingers?|thumbs?|wrists?|palms?|arms?|elbows?|shoulders?|body|head|face|"
    "mouth|eyes?|hair|neck|chest|back|waist|lap|hips?|legs?|knees?|ankles?|foot|feet"
)
_OWNER = re.compile(
    r"\b(?P<before>in|on|with|to|from|of|by|at|near|behind|beside|towards?|and|onto|into|against|"
    rf"under|over|around|across) C['’]s(?= (?:{_BODY})\b)"
)
_RECEIVER = re.compile(
    r"\b(?P<before>gives?|gave|hands?|handed|passes|passed|shows?|showed|tells?|told|offers?|"
    r"offered|brings?|brought|throws) C"
    r"(?= (?:a|an|the|some|his|her|their|another|something) (?!major\b|minor\b))"
)


def is_other_person(text: str) -> bool:
    """Whether a narration is marked (Ego4D's "#O" at its beginning) as of somebody else."""
    return _OTHER.match(text) is not None


def clean_text(text: str) -> str | None:
    """The narration without markers; None where another person acts, or where nothing is left.

    Markers are those of Ego4D (its narration guidelines) and Ego-Exo4D (atomic descriptions):

    - "#C" (the wearer acts), "#O" within a text, and "#summary" go; "#O" at its beginning: None.
    - "#unsure", with its article, becomes "something"; None where it is all there is.
    - "C" is the wearer after "#C", or where it begins a sentence and a small word follows that can
      follow a person: "C picks" becomes "A person picks", "C's hand" "A person's hand".
    - Elsewhere it becomes "the person" before a part of the body ("in C's left hand") and after a
      verb of giving ("hands C the cup"). All other letters stay: vitamin C, C major, USB-C, C++.

    White space is collapsed. Letters, capitals, digits and punctuation of all scripts stay.
    """
    if is_other_person(text):
        return None
    text = " ".join(text.replace("\ufeff", "").split())
    text = _MARKED.sub(_person, text)
    text = " ".join(_MARKER.sub(" ", text).split())
    text = _SUBJECT.sub(_person, text)
    text = _OWNER.sub(r"\g<before> the person's", text)
    text = _RECEIVER.sub(r"\g<before> the person", text)
    words = _UNSURE.sub("", text).removeprefix("A person").removeprefix("'s")
    if not any(map(str.isalnum, words)):
        return None
    return _UNSURE.sub("something", text)


def _person(match: re.Match[str]) -> str:
    quote = match.groupdict().get("quote") or ""
    return f"{quote}A person{chr(39) + 's' if match['own'] else ''}"


def read_narrations(source: Source, path: str) -> tuple[tuple[Narration, ...], tuple[str, ...]]:
    """The narrations of a file, cleaned, by time; and notes that count those left out.

    Files and errors: `shards.files.cues.read_cues`.
    """
    return clean_narrations(read_cues(source, path))


def clean_narrations(
    narrations: Iterable[Narration],
) -> tuple[tuple[Narration, ...], tuple[str, ...]]:
    """The narrations with their texts cleaned, in their order; and notes that count those left out.

    Left out are those of which ``clean_text`` makes nothing.
    """
    cleaned, others, empty = [], 0, 0
    for narration in narrations:
        text = clean_text(narration.text)
        if text is not None:
            cleaned.append(narration._replace(text=text))
        elif is_other_person(narration.text):
            others += 1
        else:
            empty += 1
    counts = ((others, "of another person"), (empty, "without text"))
    notes = (f"narrations left out: {count}, {what}" for count, what in counts if count)
    return tuple(cleaned), tuple(notes)
