"""Cuts between groups of windows that are embedded together."""

from dataclasses import replace
from pathlib import Path

import pytest

from primus_scale.data.index import read_index
from primus_scale.data.record_place import list_places
from primus_scale.sample import Window
from shards.embed.grouping import LOOK_AHEAD, plan_groups
from tests.shard_factory import make_windows, write_windows
from tests.teacher_models import jpeg


def moments(count: int, devices: int, *, overlap: bool = False) -> list[Window]:
    """Windows of moments with two pictures; those that overlap share one with the next."""
    plain = make_windows(count * devices, frames=0)
    return [
        replace(window, frames=(jpeg(moment if overlap else 2 * moment), jpeg(after)))
        for number, window in enumerate(plain)
        for moment in (number // devices,)
        for after in (moment + 1 if overlap else 2 * moment + 1,)
    ]


def groups_of(folder: Path, content: list[Window], **limits: int) -> list[int]:
    """Sizes of the groups; together they are all windows in their order."""
    write_windows(str(folder), content, shard_bytes=30_000)
    places = list_places(read_index(str(folder)).shards)
    groups = plan_groups(str(folder), places, **({"windows": 10**6, "size": 2**40} | limits))
    assert [place for group in groups for place in group] == places
    return [len(group) for group in groups]


def test_devices_of_a_moment_stay_together(tmp_path: Path) -> None:
    assert groups_of(tmp_path, moments(10, 3), windows=4) == [6, 3, 3, 6, 3, 3, 6]


def test_without_pictures_groups_end_at_their_limit(tmp_path: Path) -> None:
    assert groups_of(tmp_path, make_windows(23, frames=0), windows=5) == [5, 5, 5, 5, 3]


def test_moments_that_overlap_without_end_are_cut_between_moments(tmp_path: Path) -> None:
    """All three devices of a moment share two pictures, neighbouring moments one."""
    assert groups_of(tmp_path, moments(70, 3, overlap=True), windows=100) == [102, 108]


def test_windows_that_all_share_their_pictures_are_cut_at_the_limit(tmp_path: Path) -> None:
    alike = [replace(w, frames=(jpeg(1),)) for w in make_windows(3 * LOOK_AHEAD, frames=0)]
    assert groups_of(tmp_path, alike, windows=2 * LOOK_AHEAD) == [2 * LOOK_AHEAD, LOOK_AHEAD]


@pytest.mark.parametrize("windows", [1, 2])
def test_a_limit_below_a_moment_still_ends_groups(tmp_path: Path, windows: int) -> None:
    sizes = groups_of(tmp_path, moments(6, 3), windows=windows)
    assert sum(sizes) == 18
    assert max(sizes) <= 3 * windows


def test_groups_are_bounded_by_bytes_too(tmp_path: Path) -> None:
    windows = moments(10, 3)
    write_windows(str(tmp_path), windows)
    longest = max(p.entry.length for p in list_places(read_index(str(tmp_path)).shards))
    sizes = groups_of(tmp_path / "again", windows, size=7 * longest)
    assert sizes == [9, 6, 6, 9]
    assert all(size % 3 == 0 for size in sizes)
