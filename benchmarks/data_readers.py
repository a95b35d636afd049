"""Readers of the same windows: raw bytes, ours, and those of other libraries where installed.

Each reads in one thread, and its files are in the system's cache, in a format of its own, as its
library writes it. Other libraries yield windows one by one; ours yields batches.
"""

from __future__ import annotations

import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import webdataset

from benchmarks.synthetic import BLOCK
from primus_scale.config import DataConfig
from primus_scale.data.members import encode_npy
from primus_scale.data.reader import BatchLoader, batches
from primus_scale.data.record import Block
from primus_scale.data.record_place import ReadBuffers, list_places
from primus_scale.data.shard_set import ShardSet

BATCH = 256
SHUFFLE_BLOCKS = 8
SHARD_BYTES = 64 * 2**20
MOST_OF_SLOW = 4096  # windows that a slow reader reads in a round


class Reader(ABC):
    """Reads the windows of the packed shards at ``url``; its own files are below ``folder``."""

    name: str
    library: str | None = None  # import name of a package that may be missing

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder

    @classmethod
    def missing(cls) -> bool:
        """Whether its library is not installed."""
        return cls.library is not None and find_spec(cls.library) is None

    def prepare(self) -> None:  # noqa: B027 (not all need it)
        """Write the files that it reads."""

    @abstractmethod
    def read(self) -> int:
        """Read every window once; how many there were."""

    def close(self) -> None:  # noqa: B027
        """End what it has started."""

    def blocks(self) -> Iterator[Block]:
        """The windows to write, block by block."""
        shard_set = ShardSet.open(self.url)
        for record in range(len(shard_set)):
            yield shard_set.read_block(record)

    def windows(self) -> Iterator[dict[str, np.ndarray]]:
        """The windows to write, one by one: samples and embeddings."""
        for block in self.blocks():
            for row in range(len(block)):
                embeddings = {name: values[row] for name, values in block.embeddings.items()}
                yield {"imu": block.imu[row], **embeddings}


class RawBuffer(Reader):
    """The bytes of each record, into the same memory: the least that a reader can do."""

    name = "raw bytes into one buffer"

    def prepare(self) -> None:
        """Open the shards."""
        index = ShardSet.open(self.url).index
        self._windows = index.windows
        self._memory = ReadBuffers()  # at an address at which copies are quick
        self._places = list_places(index.shards)
        names = [shard.name for shard in index.shards]
        self._files = {name: os.open(f"{self.url}/{name}", os.O_RDONLY) for name in names}

    def read(self) -> int:
        """The records in the order of the shards."""
        for name, _, entry, *_ in self._places:
            os.preadv(self._files[name], [self._memory.take(entry.length)], entry.offset)
        return self._windows

    def close(self) -> None:
        """Close the shards."""
        for file in self._files.values():
            os.close(file)


class RawFiles(Reader):
    """The bytes of each shard, into memory of its own."""

    name = "raw bytes, whole files"

    def prepare(self) -> None:
        """Read the index."""
        self._index = ShardSet.open(self.url).index

    def read(self) -> int:
        """``Path.read_bytes`` of each shard."""
        for shard in self._index.shards:
            Path(self.url, shard.name).read_bytes()
        return self._index.windows


class Packed(Reader):
    """Packed shards: epochs after the first of one run."""

    name = "packed shards"
    crc = "always"

    def prepare(self) -> None:
        """A loader, which then has read one epoch."""
        self._loader: BatchLoader = _loader(self.url, self.crc)
        self._windows = ShardSet.open(self.url).windows
        self.read()

    def read(self) -> int:
        """As many batches as an epoch has."""
        return _read_batches(self._loader, self._windows)

    def close(self) -> None:
        """End the loader."""
        self._loader.close()


class PackedUnchecked(Packed):
    """The same, whose checksums are compared in the first epoch only."""

    name = "packed shards, data.crc=first"
    crc = "first"


class PackedFirst(Reader):
    """The first epoch of a run, in which contents are checked and memory is fresh."""

    name = "packed shards, first epoch"

    def prepare(self) -> None:
        """Count the windows."""
        self._windows = ShardSet.open(self.url).windows

    def read(self) -> int:
        """A run of one epoch."""
        with _loader(self.url, "always") as loader:
            return _read_batches(loader, self._windows)


class WebDatasetWindows(Reader):
    """The ``webdataset`` library on tars with one window a record, decoded by extension."""

    name = "webdataset, one window a record"

    def prepare(self) -> None:
        """Tars of npy members."""
        self.folder.mkdir()
        pattern = str(self.folder / "%06d.tar")
        with webdataset.ShardWriter(pattern, maxsize=SHARD_BYTES, verbose=0) as writer:
            for number, window in enumerate(self.windows()):
                members = {f"{name}.npy": encode_npy(value) for name, value in window.items()}
                writer.write({"__key__": f"{number:09d}", **members})

    def read(self) -> int:
        """Some windows, in the order of the tars: all would take too long."""
        tars = sorted(map(str, self.folder.glob("*.tar")))
        dataset = webdataset.WebDataset(tars, shardshuffle=False, empty_check=False).decode()
        return sum(1 for _ in itertools.islice(dataset, MOST_OF_SLOW))


class LitData(Reader):
    """litdata's ``StreamingDataset``, shuffled."""

    name = "litdata"
    library = "litdata"

    def prepare(self) -> None:
        """Chunks of 64 MiB."""
        from litdata.streaming.writer import BinaryWriter

        self.folder.mkdir()
        writer = BinaryWriter(str(self.folder), chunk_bytes=SHARD_BYTES)
        for number, window in enumerate(self.windows()):
            writer[number] = window
        writer.done()
        writer.merge()

    def read(self) -> int:
        """The windows of an epoch."""
        from litdata import StreamingDataset

        return sum(1 for _ in StreamingDataset(str(self.folder), shuffle=True))


class MosaicStreaming(Reader):
    """mosaicml-streaming's ``StreamingDataset``, shuffled."""

    name = "mosaicml-streaming"
    library = "streaming"

    def prepare(self) -> None:
        """MDS shards of 64 MiB."""
        from streaming import MDSWriter

        columns: dict[str, str] | None = None
        for window in self.windows():
            if columns is None:
                columns = {name: _mds_type(value) for name, value in window.items()}
                writer = MDSWriter(out=str(self.folder), columns=columns, size_limit=SHARD_BYTES)
            writer.write(window)
        writer.finish()

    def read(self) -> int:
        """The windows of an epoch."""
        from streaming import StreamingDataset

        dataset = StreamingDataset(local=str(self.folder), shuffle=True, batch_size=BATCH)
        return sum(1 for _ in dataset)


READERS: tuple[type[Reader], ...] = (
    RawBuffer,
    RawFiles,
    Packed,
    PackedUnchecked,
    PackedFirst,
    WebDatasetWindows,
    LitData,
    MosaicStreaming,
)


def libraries() -> dict[str, str]:
    """Versions of the packages that are compared, where installed."""
    packages = {"webdataset": "webdataset", "litdata": "litdata", "mosaicml-streaming": "streaming"}
    packages["isal"] = "isal"
    return {name: version(name) for name, module in packages.items() if find_spec(module)}


def data_config(url: str, **settings: Any) -> DataConfig:
    """Settings of a loader that reads in one thread."""
    return DataConfig(train=(url,), shuffle_blocks=SHUFFLE_BLOCKS, reader_threads=1, **settings)


def _loader(url: str, crc: str) -> BatchLoader:
    config = data_config(url, crc=crc)
    return batches(config, ShardSet.open(url), batch=BATCH, seed=0)


def _read_batches(loader: BatchLoader, windows: int) -> int:
    assert windows % BATCH == 0, f"write a multiple of {BATCH // BLOCK} blocks"
    return sum(len(next(loader)) for _ in range(windows // BATCH))


def _mds_type(value: np.ndarray) -> str:
    return f"ndarray:{value.dtype}:{','.join(map(str, value.shape))}"
