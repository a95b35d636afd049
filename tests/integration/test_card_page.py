"""The data card as its readers see it: on a screen and on a phone."""

from pathlib import Path

from shards.card.page import write_card
from tests.browser import check_page
from tests.shard_factory import make_windows, write_windows


def test_nothing_of_the_card_is_cut_on_a_screen_or_on_a_phone(tmp_path: Path) -> None:
    write_windows(str(tmp_path / "windows"), make_windows(24, frames=2))
    write_card([str(tmp_path / "windows")], str(tmp_path / "card"), report=lambda _line: None)
    page = (tmp_path / "card/card.html").read_text()
    check_page(page, tmp_path, least_height=70)  # a bar alone needs no more
