import random
import re
from pathlib import Path

import pytest

from shards.files.narrations import clean_text, is_other_person, read_narrations
from shards.files.source import Source

UNTOUCHED = """
The man performs CPR on the dummy
CPR is performed
He swallows a vitamin C tablet
She eats vitamin C, then drinks
Vitamin C helps
Vitamin C's taste is sour
C clamp
C clamps are on the bench
C-clamp tightened
C clamp tightened by hand
He fixes the board with a C clamp
C major chord
C minor, then G major
C sharp is played
C and G chords
C, D and E are played
C string is tuned
C chord, then the F chord
C class amplifiers
C series bus
C bus arrives
C shaped cushion
C programming lesson
C++ code is typed
C# is opened in the editor
C: drive is full
C4 is taped
C
C.
CC
CC the manager
Ccs are measured
Claire picks up the cup
Charlie's C's look odd
Cs and Ds
C3PO walks
C/D discs lie there
USB-C cable is plugged in
a USB C cable
the type-C plug
Section C is read aloud
Plan B fails. C major follows
a row of C's on the page
He gives C a minor feel
hepatitis C vaccine
20 °C
It is 20 °C outside
A.C. is turned on
B.C. and D.C. power
A C E
The letter c is written
c walks
cc'd the boss
ca. 5 cm
#1 on the list
#cooking is fun
#open the door
#Oslo at night
#CC is a channel
#carrots
#unsurely
F#C is no key
e-mail#C
in the key of C# minor
C'mon, walks on
C'est la vie
Ça va
Сергей picks up the cup
走って、C に行く
naïve café – “Ünïcödé” 👩‍🍳 № 5
picks UP 3.5 (three and a half) Cups!
A person walks
unsure what to do
something
the cup, the cup
O walks
""".strip().splitlines()


def test_words_are_not_harmed() -> None:
    assert {text: clean_text(text) for text in UNTOUCHED} == {text: text for text in UNTOUCHED}


@pytest.mark.parametrize("subject", ["#C C sees: ", "#c c sees: ", "C sees: ", "#Summary C sees: "])
def test_words_behind_the_wearer_are_not_harmed(subject: str) -> None:
    texts = [text for text in UNTOUCHED if text[0] not in "#C"]
    expected = {text: "A person sees: " + text for text in texts}
    assert {text: clean_text(subject + text) for text in texts} == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#C C picks up the cup", "A person picks up the cup"),
        ("#c c picks up the cup", "A person picks up the cup"),
        ("# C C picks up the cup", "A person picks up the cup"),
        ("  #C\tC  picks\n up\u00a0the cup ", "A person picks up the cup"),
        ("\ufeff#C C walks.", "A person walks."),
        ("#C C's phone rings", "A person's phone rings"),
        ("#C C’s phone rings", "A person's phone rings"),
        ("#C C clamps the board with a C clamp", "A person clamps the board with a C clamp"),
        ("#C C clamp falls", "A person clamp falls"),  # after the marker it is never a letter
        ("#C C and X talk", "A person and X talk"),
        ("#C picks up the cup", "picks up the cup"),
        ("#summary C was in a kitchen. C cooked.", "A person was in a kitchen. A person cooked."),
        ("#Summary #C C cooks", "A person cooks"),
        ("#C C talks to #O Ann", "A person talks to Ann"),
        ("#C C performs CPR", "A person performs CPR"),
        ("C picks up the cup with his left hand.", "A person picks up the cup with his left hand."),
        ("C slowly walks", "A person slowly walks"),
        ("C is on the bench", "A person is on the bench"),
        ("C was here! C then left; C came back", "A person was here! A person then left; "
         "A person came back"),
        ("C, holding a cup, sits down", "A person, holding a cup, sits down"),
        ("C and the man walk", "A person and the man walk"),
        ("C's left hand moves", "A person's left hand moves"),
        ("“C walks”", "“A person walks”"),
        ("C passes the ball", "A person passes the ball"),
        ("The ball rolls to C's left foot", "The ball rolls to the person's left foot"),
        ("She hands C the cup", "She hands the person the cup"),
        ("He takes vitamin C. C drinks", "He takes vitamin C. A person drinks"),
        ("#C C picks #unsure", "A person picks something"),
        ("#C C picks the #Unsure from the box", "A person picks something from the box"),
        ("#C C puts an #unsure, then a cup", "A person puts something, then a cup"),
        ("#unsure falls", "something falls"),
    ],
)  # fmt: skip
def test_markers_go(text: str, expected: str) -> None:
    assert clean_text(text) == expected
    assert clean_text(expected) == expected


@pytest.mark.parametrize(
    "text", ["#O The man walks", "#o A woman", " #O's hand", "# O talks to C", "#O", "#O #unsure"]
)
def test_other_people_are_dropped(text: str) -> None:
    assert is_other_person(text)
    assert clean_text(text) is None


@pytest.mark.parametrize("text", ["#C C talks to #O Ann", "O walks", "#Oslo", "#open", "", "o"])
def test_others_are_not_taken_for_other_people(text: str) -> None:
    assert not is_other_person(text)


@pytest.mark.parametrize(
    "text",
    ["", " \n", "\ufeff", "...", "♪ ♪", "#C", "#C C", "#C C.", "#unsure", "the #unsure",
     "#C C #unsure", "#Summary"],
)  # fmt: skip
def test_where_nothing_is_said_nothing_is_left(text: str) -> None:
    assert clean_text(text) is None
    assert not is_other_person(text)


VERBS = "adds bends carries does eats flips goes has is jumps kicks lifts moves opens puts runs"


@pytest.mark.parametrize("marker", ["", "#C ", "#c ", "#summary "])
def test_the_wearer_before_verbs(marker: str) -> None:
    for verb in VERBS.split():
        text = f"{marker}C {verb} it. C {verb} it with C's right hand"
        expected = f"A person {verb} it. A person {verb} it with the person's right hand"
        assert clean_text(text) == expected


def test_only_the_wearer_changes_in_random_texts() -> None:
    words = " ".join(UNTOUCHED).replace("#", "").split() + 40 * ["C", "C's", "and", "left", "."]
    changed = 0
    for seed in range(2000):
        chosen = random.Random(seed).choices(words, k=8)
        text = " ".join(chosen)
        cleaned = clean_text(text)
        assert cleaned is not None
        changed += cleaned != text
        assert _without_the_wearer(cleaned) == _without_the_wearer(text)
    assert changed > 20


def _without_the_wearer(text: str) -> str:
    return re.sub(r"\b(?:A person|the person|C)\b", "@", text)


def test_a_file_is_cleaned_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    rows = ["9,#O The man sits", "4,#C C sits", "2,", "1,#unsure", "3,#O The man walks"]
    (tmp_path / "said.csv").write_text("\n".join(["start_s,text", *rows, "2.5,vitamin C"]))
    narrations, notes = read_narrations(Source(str(tmp_path)), "said.csv")
    assert narrations == ((2.5, 2.5, "vitamin C"), (4.0, 4.0, "A person sits"))
    assert notes == (
        "narrations left out: 2, of another person",
        "narrations left out: 2, without text",
    )
    (tmp_path / "said.csv").write_text("start_s,text\n1,walks")
    assert read_narrations(Source(str(tmp_path)), "said.csv") == (((1.0, 1.0, "walks"),), ())
