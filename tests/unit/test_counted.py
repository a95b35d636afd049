"""Numbers with their nouns, as messages have them."""

from primus_scale.counted import counted


def test_one_is_singular_and_all_else_is_not() -> None:
    found = [counted(number, "window") for number in (0, 1, 2000)]
    assert found == ["0 windows", "1 window", "2,000 windows"]
    assert [counted(n, "person", "people") for n in (1, 3)] == ["1 person", "3 people"]
