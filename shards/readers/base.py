"""The interface of all readers: list the recordings of a source, and open one of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import ClassVar

from shards.files.source import Source
from shards.readers.unread import describe_unread
from shards.recording import Recording, RecordingRef, WindowSchema


class Reader(ABC):
    """Reads one data set or one kind of recording.

    Options of a reader are keyword arguments of its ``__init__`` (all with defaults), which the
    command line takes as ``--option name=value``. A reader holds no open file, so it can be sent
    to other processes.
    """

    name: ClassVar[str]  # in commands; also the windows' data set unless the reader sets another
    requires: ClassVar[frozenset[str]] = frozenset()  # of video and text; the default
    # Patterns of files of the data set that no recording needs (see `shards.readers.unread`).
    other_files: ClassVar[tuple[str, ...]] = ()
    unread_reason: ClassVar[str] = "not part of any recording"

    def __init__(self, source: Source) -> None:
        self.source = source
        self.left_out: list[str] = []  # lines on what the last listing left out by its rules

    def schema(self) -> WindowSchema:
        """Channels, units, rate and length of the windows by default."""
        return WindowSchema()

    @abstractmethod
    def recordings(self) -> list[RecordingRef]:
        """All recordings of the source, sorted by name; quick, opens no recording.

        FileNotFoundError or ValueError, naming what was looked for, where the source is not laid
        out as the data set's documentation says, or holds no recording.
        """

    def unread(self, refs: Sequence[RecordingRef]) -> list[str]:
        """Lines on files of the source that belong to none of ``refs``; call ``recordings`` before.

        These are broken links, pipes and the like, and files that are neither of a recording nor in
        ``other_files``: they may be misnamed.
        """
        used = {path for ref in refs for path in ref.files}
        files = self.source.find("**/*")
        return [
            *(f"{path} {why}" for path, why in sorted(self.source.skipped.items())),
            *self.left_out,
            *describe_unread(files, used, self.other_files, self.unread_reason),
        ]

    @abstractmethod
    def open(self, ref: RecordingRef) -> AbstractContextManager[Recording]:
        """The recording, usable inside the ``with`` block.

        ValueError or OSError naming the file, the field and the next step where a file is missing,
        empty, truncated or of another format.
        """
