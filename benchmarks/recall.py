"""How often approximate indexes of the support set find the nearest entry, and at what cost.

    python -m benchmarks.recall --entries 65536 1000000

Entries are clustered as in ``benchmarks.synthetic``. Two kinds of queries: ``near``, an entry moved
by noise, as a window alike a past one; ``fresh``, drawn as the entries are, so that the nearest
entry is hardly nearer than the others of its cluster: the hardest case. Times are CPU time of the
process on a CPU, wall time on CUDA.
"""

from __future__ import annotations

from primus_scale.stopping import end_while_loading

if __name__ == "__main__":
    end_while_loading()  # first: the imports below take seconds

import argparse
import gc
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import psutil
import torch
from torch.nn import functional

from benchmarks.machine import clock_of, describe_machine
from benchmarks.run import run_benchmark
from benchmarks.synthetic import CLUSTERS, Clusters
from primus_scale.command_parser import Parser
from primus_scale.support.index import build_index
from primus_scale.support.keys import STORAGE, SURPLUS, IndexKind, KeyIndex, Keys
from primus_scale.support.search import set_threads

MOVED = 0.5  # a near query from its entry, relative to its length
WRITTEN_AT_ONCE = 2**16
UPDATED = 256  # rows written at a time once the set is full, as by a step of training


class ClusteredKeys:
    """``entries`` clustered unit vectors of width ``dim`` as keys, and queries to them."""

    def __init__(
        self,
        entries: int,
        dim: int,
        *,
        storage: str = "float16",
        clusters: int = CLUSTERS,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self._draws = torch.Generator(device).manual_seed(seed)
        self._clusters = Clusters(dim, self._draws, clusters)
        self.keys = Keys.empty(entries, dim, STORAGE[storage], device)
        for first in range(0, entries, WRITTEN_AT_ONCE):
            self.write(torch.arange(first, min(first + WRITTEN_AT_ONCE, entries), device=device))

    def write(self, places: torch.Tensor) -> None:
        """Put new entries at ``places`` ``(n,)``."""
        self.keys.raise_used(int(places.max()) + 1)
        padded = functional.pad(self.fresh(len(places)), (0, 1))  # 0: all of them answer
        self.keys.matrix[places] = padded.to(self.keys.matrix.dtype)

    def near(self, count: int) -> torch.Tensor:
        """Queries ``(count, dim)``, each near an entry."""
        device = self._draws.device
        chosen = torch.randint(self.keys.used, (count,), generator=self._draws, device=device)
        noise = torch.randn(count, self.keys.dim, generator=self._draws, device=device)
        moved = self.keys.unit(chosen) + MOVED * functional.normalize(noise, dim=1)
        return functional.normalize(moved, dim=1)

    def fresh(self, count: int) -> torch.Tensor:
        """Vectors ``(count, dim)`` drawn as the entries are."""
        return self._clusters.draw(count)


def measure_recall(
    entries: int = 1_000_000,
    dim: int = 512,
    *,
    kind: IndexKind = "ivf",
    batch: int = 256,
    queries: int = 2048,
    storage: str = "float16",
    device: str = "cpu",
    threads: int = 1,
) -> dict[str, Any]:
    """Recall@1 of an index at its default settings, and its costs against those of brute force.

    Returns by name: ``recall_near`` and ``recall_fresh``; ``flat_ms`` and ``index_ms``, of a lookup
    by ``batch`` queries; ``build_s``; ``write_ms``, of 256 rows; ``memory_mb``, beyond the keys.
    """
    torch.set_num_threads(threads)
    set_threads(threads)
    clock = clock_of(device)
    data = ClusteredKeys(entries, dim, storage=storage, device=device)
    exact = build_index("flat", data.keys, "faiss", learning="at_once")
    index = build_index(kind, data.keys, "faiss", learning="at_once")
    index.written(torch.arange(entries, device=device))
    count = max(queries, batch)
    asked = {"near": data.near(count), "fresh": data.fresh(count)}
    before, start = _memory(device), clock()
    index.search(asked["near"][:1], 1)
    build_s, memory = clock() - start, _memory(device) - before
    figures: dict[str, Any] = {"entries": entries, "dim": dim, "kind": kind, "storage": storage}
    for name, some in asked.items():
        expected, flat_ms = _search(exact, some, batch, clock)
        found, index_ms = _search(index, some, batch, clock)
        figures[f"recall_{name}"] = (found == expected).float().mean().item()
    return {
        **figures,
        "flat_ms": flat_ms,
        "index_ms": index_ms,
        "build_s": build_s,
        "write_ms": _write(index, data, clock),
        "memory_mb": memory / 2**20,
        "batch": batch,
        "machine": describe_machine(threads),
    }


def _search(
    index: KeyIndex, queries: torch.Tensor, batch: int, clock: Callable[[], float]
) -> tuple[torch.Tensor, float]:
    """Nearest places ``(n,)``, and milliseconds a batch, as ``RingPart`` asks for one neighbour."""
    index.search(queries[:batch], 1 + SURPLUS)  # the first one allocates
    start = clock()
    found = [index.search(some, 1 + SURPLUS)[1][:, 0] for some in queries.split(batch)]
    return torch.cat(found), 1e3 * (clock() - start) / len(found)


def _write(index: KeyIndex, data: ClusteredKeys, clock: Callable[[], float]) -> float:
    """Milliseconds of the index when ``UPDATED`` rows are written."""
    spent, rounds = 0.0, 10
    rows = torch.arange(min(UPDATED, data.keys.used), device=data.keys.matrix.device)
    for number in range(rounds):
        places = (UPDATED * number + rows) % data.keys.used  # the oldest first, and round again
        data.write(places)
        start = clock()
        index.written(places)
        spent += clock() - start
    return 1e3 * spent / rounds


def _memory(device: str) -> int:
    """Bytes in use, also by FAISS, whose allocations torch does not see."""
    gc.collect()
    if device == "cpu":
        return psutil.Process().memory_info().rss
    free, total = torch.cuda.mem_get_info()
    return total - free


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; a user's error is one line and exit code 1."""
    return run_benchmark(build_parser(), argv, _measure_all)


def build_parser() -> Parser:
    """The arguments of the command."""
    parser = Parser(
        prog="python -m benchmarks.recall",
        description="How often an approximate index of the support set finds the nearest entry, "
        "and at what cost against brute force: a line of JSON for each size.",
    )
    parser.add_argument(
        "--entries", type=int, nargs="+", default=[65_536, 1_000_000], help="sizes of the set"
    )
    parser.add_argument("--index", choices=["ivf", "cagra"], default="ivf", help="kind of index")
    parser.add_argument("--batch", type=int, default=256, help="queries in a lookup")
    parser.add_argument(
        "--storage", choices=sorted(STORAGE), default="float16", help="numbers of the entries"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="of the set")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    return parser


def _measure_all(args: argparse.Namespace) -> int:
    """Measure several sizes, a line of JSON for each."""
    for entries in args.entries:
        figures = measure_recall(
            entries,
            kind=args.index,
            batch=args.batch,
            storage=args.storage,
            device=args.device,
            threads=args.threads,
        )
        print(json.dumps(figures), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
