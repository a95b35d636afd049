"""Several shard folders below one, written at once: all end with an index, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from primus_scale.data.index import INDEX_NAME
from primus_scale.storage.folder import Folder
from shards.write.writer import PackedShardWriter, WindowShardWriter

Writer = TypeVar("Writer", WindowShardWriter, PackedShardWriter)


@contextmanager
def finished_together(
    root: str, writers: Mapping[str, Callable[[str], Writer]]
) -> Iterator[dict[str, Writer]]:
    """Writers by folder below ``root``, opened by functions that take their URLs.

    The last folder gets its index last, and loses an old one first: if it has one, all have.
    """
    with ExitStack() as stack:
        opened: dict[str, Writer] = {}
        for folder in reversed(list(writers)):
            opened[folder] = stack.enter_context(writers[folder](f"{root}/{folder}"))
        yield {folder: opened[folder] for folder in writers}
        with ExitStack() as undo:
            for folder in writers:
                opened[folder].close()
                undo.callback(Folder(f"{root}/{folder}").remove, INDEX_NAME)
            undo.pop_all()
