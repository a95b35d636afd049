"""Search by brute force: the largest inner products of queries with the rows of a ring.

There are two implementations. FAISS is the usual one (on CUDA with its GPU build). Plain torch is
used on CUDA without that build, and as the reference in tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch

SearchBackend = Literal["faiss", "torch"]
Search = Callable[[torch.Tensor, torch.Tensor, int], tuple[torch.Tensor, torch.Tensor]]

SCORES_AT_ONCE = 2**27  # elements of a score matrix, 512 MB; larger batches are split


def make_search(backend: SearchBackend, device: torch.device) -> Search:
    """A function ``(queries (B, D), keys (M, D), k) -> (scores (B, k), places (B, k))``.

    Tensors are float32, contiguous, on ``device``. Scores are in falling order. Places are int64
    row numbers of ``keys``. ValueError where FAISS is not installed; it comes with an extra, for
    CPU or for GPU.
    """
    if backend == "torch":
        return search_with_torch
    faiss = import_faiss()
    if device.type != "cuda":
        return _FaissOnCpu(faiss)
    if faiss.get_num_gpus() > 0:
        return _FaissOnGpu(faiss, device)
    return search_with_torch  # the CPU build cannot reach device memory


def search_with_torch(
    queries: torch.Tensor, keys: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The search that ``make_search`` describes, with matmul and topk."""
    rows = max(1, SCORES_AT_ONCE // len(keys))
    pieces = [(piece @ keys.T).topk(k, dim=1) for piece in queries.split(rows)]
    return torch.cat([piece.values for piece in pieces]), torch.cat([p.indices for p in pieces])


def set_threads(threads: int) -> None:
    """Let FAISS use ``threads`` CPU threads in this process."""
    import_faiss().omp_set_num_threads(threads)


def import_faiss() -> Any:
    """The module faiss; ValueError where it is not installed."""
    try:
        import faiss
    except ModuleNotFoundError:
        raise ValueError(
            "the support set needs faiss, which is not installed: pip install 'primus-scale[cpu]' "
            "(or [gpu], never both)"
        ) from None
    return faiss


class _FaissOnCpu:
    def __init__(self, faiss: Any) -> None:
        self._faiss = faiss
        # Below this many query elements FAISS does not use BLAS, and then takes six times as long
        # for 64 queries of width 1280.
        faiss.cvar.distance_compute_blas_threshold = 0

    def __call__(
        self, queries: torch.Tensor, keys: torch.Tensor, k: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        inner_product = self._faiss.METRIC_INNER_PRODUCT
        scores, places = self._faiss.knn(queries.numpy(), keys.numpy(), k, inner_product)
        return torch.from_numpy(scores), torch.from_numpy(places)


class _FaissOnGpu:
    def __init__(self, faiss: Any, device: torch.device) -> None:
        import faiss.contrib.torch_utils  # lets faiss.knn_gpu take torch tensors

        self._faiss = faiss
        self._device = device.index if device.index is not None else torch.cuda.current_device()
        self._resources = faiss.StandardGpuResources()

    def __call__(
        self, queries: torch.Tensor, keys: torch.Tensor, k: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self._faiss.knn_gpu(
            self._resources,
            queries,
            keys,
            k,
            metric=self._faiss.METRIC_INNER_PRODUCT,
            device=self._device,
        )
