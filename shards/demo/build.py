"""The built-in data as shard folders.

windows/train        synthetic triplets, and real IMU without labels of the split's people
windows/validation   synthetic triplets: unseen takes of the same clips and of four others
few_shot/label       real labelled windows of the same people
few_shot/test        real labelled windows of the other people
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np

from primus_scale.counted import counted
from primus_scale.distributed.storage_lock import locked_folder
from primus_scale.sample import Window, WindowMeta, window_uid
from primus_scale.stopping import ignore_interrupts_in_children
from primus_scale.storage.urls import parse_place
from shards.demo.hapt import RATE_HZ as HAPT_RATE_HZ
from shards.demo.hapt import (
    HaptRecording,
    labelled_windows,
    load_hapt,
    named_split,
    people_split,
    window_starts,
)
from shards.demo.mocap import STILL_CLIPS, TRAIN_CLIPS, VALIDATION_CLIPS
from shards.demo.sensor import PLACEMENTS
from shards.demo.take import RATE_HZ, TAKE_MOMENTS, WINDOW_S, TakeRequest, perform_take
from shards.placements import WAIST
from shards.readers.uci import ACTIVITIES, hapt_person
from shards.write.together import finished_together
from shards.write.writer import WindowShardWriter

FOLDERS = ("windows/train", "windows/validation", "few_shot/label", "few_shot/test")
TRAINING_PER_VALIDATION = 6  # training moments for each validation moment
LABELLED_HOP_S = 2.5  # between windows of the few-shot task
WINDOW_SAMPLES = round(WINDOW_S * RATE_HZ)

assert HAPT_RATE_HZ == RATE_HZ


def build_demo(
    out_url: str,
    *,
    seed: int = 0,
    split: int = 0,
    test_people: Sequence[int] | None = None,
    moments: int = 1200,
    placements: int = 2,
    frames: int = 2,
    pixels: int = 128,
    unlabelled_hop_s: float = 1.24,
    workers: int | None = None,
    overwrite: bool = False,
    report: Callable[[str], None] = print,
) -> dict[str, int]:
    """Write the four folders below ``out_url`` and return how many windows each holds.

    seed: of everything drawn; equal seeds give byte-identical shards. split: which people are
    tested on (``people_split``). test_people: these are, instead (``named_split``), and ``split``
    is only the number of the split in the results. moments: synthetic training moments of 5 s, and
    a sixth as many for validation; each gives a window at each of ``placements`` of the nine
    placements on the body, and these share its ``frames`` pictures of ``pixels`` x ``pixels``.
    unlabelled_hop_s: time between the starts of windows of real IMU for pretraining. workers:
    processes (None: one a core). report: called with lines of progress.

    Raises ValueError for numbers out of range, FileExistsError where a folder holds shards already
    and ``overwrite`` is not set, FileNotFoundError where a package of the demo is missing, OSError
    where another process writes there.
    """
    _check(moments, placements, frames, pixels, unlabelled_hop_s)
    label_people, tested = people_split(split) if test_people is None else named_split(test_people)
    recordings = load_hapt()
    of_label_people = [recording for recording in recordings if recording.person in label_people]
    of_test_people = [recording for recording in recordings if recording.person in tested]
    provenance = _provenance(seed, split)
    with _open_writers(out_url, provenance, overwrite) as writers:
        options = {"seed": seed, "placements": placements, "frames": frames, "pixels": pixels}
        train, validation = plan_takes(moments, options)
        windows = _perform(train + validation, workers or os.cpu_count() or 1, report)
        last_train = moments * placements
        contents = (
            [*windows[:last_train], *_unlabelled(of_label_people, unlabelled_hop_s)],
            windows[last_train:],
            [*_labelled(of_label_people)],
            [*_labelled(of_test_people)],
        )
        for (folder, writer), content in zip(writers.items(), contents, strict=True):
            for window in content:
                writer.write(window)
            report(f"{folder}: {counted(len(content), 'window')}")
    return {folder: len(content) for folder, content in zip(FOLDERS, contents, strict=True)}


@contextmanager
def _open_writers(
    out_url: str, provenance: dict[str, Any], overwrite: bool
) -> Iterator[dict[str, WindowShardWriter]]:
    """Writers of ``FOLDERS``, with the output locked."""
    root = parse_place(out_url)
    opening = partial(
        WindowShardWriter, rate_hz=RATE_HZ, provenance=provenance, overwrite=overwrite
    )
    with (
        locked_folder(root, instead="another --out"),
        finished_together(root, dict.fromkeys(FOLDERS, opening)) as writers,
    ):
        yield writers


def _check(moments: int, placements: int, frames: int, pixels: int, hop_s: float) -> None:
    if moments < 1:
        raise ValueError(f"moments must be at least 1, got {moments}")
    if not 1 <= placements <= len(PLACEMENTS):
        raise ValueError(f"placements must lie in 1..{len(PLACEMENTS)}, got {placements}")
    if frames < 0:
        raise ValueError(f"frames must not be negative, got {frames}")
    if pixels < 16:
        raise ValueError(f"pixels must be at least 16, got {pixels}")
    if hop_s < 1 / RATE_HZ:
        raise ValueError(f"unlabelled_hop_s must be at least {1 / RATE_HZ}, got {hop_s}")


def _provenance(seed: int, split: int) -> dict[str, Any]:
    return {
        "source": "primus-scale built-in demo",
        "seed": seed,
        "split": split,
        "datasets": {
            "demo-mocap": "SYNTHETIC: motion-capture clips of pybullet_data (zlib licence) "
            "and a few still postures, replayed on a model body; IMU simulated, frames "
            "rendered, narrations from templates",
            "hapt": "real: UCI HAPT, 30 people with a smartphone at the waist (CC BY 4.0)",
        },
    }


def plan_takes(
    moments: int, options: dict[str, int]
) -> tuple[list[TakeRequest], list[TakeRequest]]:
    """Takes for training and for validation; each set goes through its clips in turn.

    Validation has new takes of the training clips (what was learnt?) and takes of other clips (does
    it carry over to unseen motions?). options: the other fields of ``TakeRequest``.
    """
    trained = TRAIN_CLIPS + STILL_CLIPS
    wanted = (
        (trained, moments),
        (VALIDATION_CLIPS + trained, -(-moments // TRAINING_PER_VALIDATION)),
    )
    lists: list[list[TakeRequest]] = []
    number = 0
    for clips, left in wanted:
        lists.append([])
        while left > 0:
            clip = clips[len(lists[-1]) % len(clips)]
            count = min(TAKE_MOMENTS, left)
            lists[-1].append(TakeRequest(number=number, clip=clip, moments=count, **options))
            number += 1
            left -= count
    return lists[0], lists[1]


def _perform(
    requests: Sequence[TakeRequest], workers: int, report: Callable[[str], None]
) -> list[Window]:
    """The windows of all takes, in the order of ``requests``."""
    with ExitStack() as stack:
        if workers == 1:
            takes: Iterator[list[Window]] = map(perform_take, requests)
        else:
            # Spawned, not forked: the caller may have started threads.
            context = multiprocessing.get_context("spawn")
            executor = ProcessPoolExecutor(min(workers, len(requests)), mp_context=context)
            stack.enter_context(executor)
            with ignore_interrupts_in_children():
                takes = executor.map(perform_take, requests, chunksize=2)
        return [w for take in _counted(takes, len(requests), report) for w in take]


def _counted(
    takes: Iterator[list[Window]], total: int, report: Callable[[str], None]
) -> Iterator[list[Window]]:
    every = max(total // 10, 1)
    for done, take in enumerate(takes, start=1):
        if done % every == 0 or done == total:
            report(f"synthetic takes: {done} of {total}")
        yield take


def _unlabelled(recordings: Sequence[HaptRecording], hop_s: float) -> Iterator[Window]:
    hop = round(hop_s * RATE_HZ)
    for recording in recordings:
        for start in window_starts(recording.imu.shape[1], WINDOW_SAMPLES, hop):
            yield hapt_window(recording, start, label=None)


def _labelled(recordings: Sequence[HaptRecording]) -> Iterator[Window]:
    hop = round(LABELLED_HOP_S * RATE_HZ)
    for recording in recordings:
        for start, label in labelled_windows(recording, WINDOW_SAMPLES, hop):
            yield hapt_window(recording, start, ACTIVITIES[label])


def hapt_window(recording: HaptRecording, start: int, label: str | None) -> Window:
    """The window from sample ``start`` on, named as the reader ``hapt`` names it."""
    name = f"exp{recording.experiment:02d}"
    start_s = start / RATE_HZ
    meta = WindowMeta(
        uid=window_uid("hapt", name, "smartphone", start_s),
        dataset="hapt",
        recording=name,
        device="smartphone",
        placement=WAIST,
        person=hapt_person(recording.person),
        session=name,
        start_s=start_s,
        label=label,
    )
    imu = recording.imu[:, start : start + WINDOW_SAMPLES]
    return Window(imu=np.ascontiguousarray(imu), meta=meta)
