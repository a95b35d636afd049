"""Input for benchmarks: random windows and support entries of realistic shape and geometry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from primus_scale.config import EncoderConfig
from primus_scale.data.index import TeacherSpace
from primus_scale.data.record import make_block
from primus_scale.encoders import ImuEncoder, build_encoder
from primus_scale.encoders.card import describe_encoder
from primus_scale.encoders.export import save_encoder
from primus_scale.sample import CHANNELS, SIGNAL, Window, WindowMeta, window_uid
from primus_scale.support import SupportEntries, SupportSet
from shards.write.writer import PackedShardWriter, WindowShardWriter

RATE_HZ, SAMPLES, BLOCK = 50.0, 250, 256
SESSION_WINDOWS, HOP_S = 128, 1.24  # windows of a session, and the time between their starts
# CLIP's, in one space: one shared head, as in the paper; hand-crafted features of six channels.
TEACHER_DIMS = {"video": 512, "text": 512, SIGNAL: 188}
CLASSES = 6  # of a few-shot task
CLUSTERS = 20_000  # activities recur: embeddings of a real set are anything but uniform
SPREAD = 0.5  # of an entry about its cluster, relative to the length of a centre
FILLED_AT_ONCE = 8192


def write_random_shards(
    url: str, blocks: int = 16, teacher_dims: Mapping[str, int] = TEACHER_DIMS
) -> None:
    """Random windows with random unit embeddings: contents do not change the cost of a step.

    They lie in the order of sessions. A reader may take them in mixed order all the same.
    """
    rng = np.random.default_rng(0)
    spaces = {
        modality: TeacherSpace(
            dim=dim,
            key="bench",
            space="signal" if modality == SIGNAL else "bench",
            teacher="bench",
        )
        for modality, dim in teacher_dims.items()
    }
    with PackedShardWriter(url, rate_hz=RATE_HZ, teachers=spaces, sessions=True) as writer:
        for number in range(blocks):
            metas = [window_meta(number * BLOCK + row) for row in range(BLOCK)]
            imu = rng.standard_normal((BLOCK, len(CHANNELS), SAMPLES)).astype(np.float32)
            embeddings = {m: _unit_rows(rng, BLOCK, dim) for m, dim in teacher_dims.items()}
            present = dict.fromkeys(teacher_dims, np.ones(BLOCK, dtype=np.bool_))
            writer.write(make_block(imu, metas, (), embeddings=embeddings, present=present))


class Clusters:
    """Unit vectors of width ``dim`` about ``count`` centres, on the device of ``draws``."""

    def __init__(self, dim: int, draws: torch.Generator, count: int = CLUSTERS) -> None:
        self._draws = draws
        self._centres = self._normal(count, dim)

    def draw(self, rows: int) -> torch.Tensor:
        """Some of them, ``(rows, dim)`` float32."""
        device = self._draws.device
        chosen = torch.randint(len(self._centres), (rows,), generator=self._draws, device=device)
        noise = self._normal(rows, self._centres.shape[1])
        return functional.normalize(self._centres[chosen] + SPREAD * noise, dim=1)

    def _normal(self, rows: int, dim: int) -> torch.Tensor:
        return torch.randn(rows, dim, generator=self._draws, device=self._draws.device)


def fill_support(support: SupportSet, count: int, device: torch.device | str = "cpu") -> None:
    """Add ``count`` clustered entries, the same on every rank: search costs what it does full."""
    draws = torch.Generator(device).manual_seed(0)
    clusters = {modality: Clusters(dim, draws) for modality, dim in support.spec.dims.items()}
    for first in range(0, count, FILLED_AT_ONCE):
        rows = min(FILLED_AT_ONCE, count - first)
        embeddings = {modality: each.draw(rows) for modality, each in clusters.items()}
        ids = torch.arange(first, first + rows, device=device)
        there = torch.ones(rows, dtype=torch.bool, device=device)
        support.enqueue(SupportEntries(ids, ids, ids, embeddings, dict.fromkeys(embeddings, there)))
    support.flush()


def window_meta(number: int) -> WindowMeta:
    """Of window ``number``: in sessions of SESSION_WINDOWS, HOP_S apart."""
    session, place = divmod(number, SESSION_WINDOWS)
    start_s = HOP_S * place
    return WindowMeta(
        uid=window_uid("bench", str(session), "none", start_s),
        dataset="bench",
        recording=str(session),
        device="none",
        placement="none",
        person="none",
        session=str(session),
        start_s=start_s,
    )


def _unit_rows(rng: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    values = rng.standard_normal((rows, dim))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)


def write_few_shot(folder: Path, people: int, windows: int = 40) -> str:
    """Shards ``label/`` and ``test/`` of random windows of six classes; a class has a strength."""
    rng = np.random.default_rng(0)
    for part, numbers in (("label", range(people)), ("test", range(people, people + people // 2))):
        with WindowShardWriter(str(folder / part), rate_hz=RATE_HZ) as writer:
            for person in numbers:
                for place in range(windows):
                    meta = window_meta(person * SESSION_WINDOWS + place)
                    label = place % CLASSES
                    imu = rng.standard_normal((len(CHANNELS), SAMPLES)) * (1 + label)
                    meta = replace(meta, person=f"person {person}", label=f"class {label}")
                    writer.write(Window(imu.astype(np.float32), meta))
    return str(folder)


def untrained_encoder(config: EncoderConfig) -> ImuEncoder:
    """With fresh weights, for the windows that are written here, without heads for teachers."""
    torch.manual_seed(0)
    return build_encoder(
        config,
        channels=len(CHANNELS),
        samples=SAMPLES,
        rate_hz=RATE_HZ,
        teacher_dims={},
        shared=False,
        mean=(0.0,) * len(CHANNELS),
        std=(1.0,) * len(CHANNELS),
    )


def export_untrained(folder: Path) -> str:
    """An exported ``conv_stats`` of size S with fresh weights."""
    encoder = untrained_encoder(EncoderConfig(name="conv_stats", size="S"))
    card = describe_encoder(encoder, teachers={}, data={}, objective={}, licence="none")
    save_encoder(encoder, folder, card)
    return str(folder)
