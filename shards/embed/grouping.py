"""Which windows are embedded together: runs of the source's order, cut where no picture is shared.

Devices of one moment, and windows that overlap, share pictures, and stand side by side in window
shards. A cut between them would send these pictures through the teacher twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

from primus_scale.data.record_place import RecordPlace
from shards.write.copying import RecordReader

LOOK_AHEAD = 64  # windows after the limit, among which the best cut is searched
_CUTS_AT_ONCE = 16


def plan_groups(
    source_url: str, places: Sequence[RecordPlace], *, windows: int, size: int
) -> list[list[RecordPlace]]:
    """All windows at ``places`` in the folder at ``source_url``, in their order, in groups.

    windows, size: limits of a group, the latter in bytes of records. At most ``LOOK_AHEAD`` windows
    more go into it, where a cut would part windows that share pictures. Raises as ``read_record``.
    """
    finder = _CutFinder(places, RecordReader(source_url))
    with ThreadPoolExecutor(_CUTS_AT_ONCE) as pool:
        cuts = sorted(
            {*pool.map(finder.best_cut, _cuts_by_limits(places, windows, size)), len(places)}
        )
    return [list(places[start:end]) for start, end in pairwise([0, *cuts])]


def _cuts_by_limits(places: Sequence[RecordPlace], windows: int, size: int) -> list[int]:
    """Numbers of the windows with which the second and later groups begin, by the limits alone."""
    cuts, start, size_so_far = [], 0, 0
    for number, place in enumerate(places):
        if number > start and (
            number - start == windows or size_so_far + place.entry.length > size
        ):
            cuts.append(number)
            start, size_so_far = number, 0
        size_so_far += place.entry.length
    return cuts


class _CutFinder:
    """Searches for places between windows that share no picture."""

    def __init__(self, places: Sequence[RecordPlace], reader: RecordReader) -> None:
        self._places = places
        self._reader = reader

    def best_cut(self, first: int) -> int:
        """The window, from the one with the number ``first`` on, before which to cut.

        It is the nearest that shares the fewest pictures with the one before it; the end of all
        windows counts as sharing none.
        """
        best, fewest = first, None
        before = self._pictures(first - 1)
        for number in range(first, min(first + LOOK_AHEAD, len(self._places) + 1)):
            here = self._pictures(number) if number < len(self._places) else set()
            shared = len(here & before)
            if fewest is None or shared < fewest:
                best, fewest = number, shared
            if not shared:
                break
            before = here
        return best

    def _pictures(self, number: int) -> set[bytes]:
        (members,) = self._reader.read([self._places[number]])
        return {bytes(data) for name, data in members.items() if name.endswith(".jpg")}
