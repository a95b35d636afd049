"""The configuration of a run: one tree of frozen, typed models.

``config_file`` reads it from YAML. The program uses every field (a test proves it). The comment or
description at a field is the place where its meaning is written.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from primus_scale.config.augment import AUGMENT_OPS, DEFAULT_AUGMENT, AugmentOp
from primus_scale.config.base import ConfigModel, Url
from primus_scale.config.few_shot import ArmName, FewShotConfig, TaskConfig
from primus_scale.config.objective import (
    NearConfig,
    NeighboursConfig,
    ObjectiveConfig,
    SignalConfig,
    TemperatureConfig,
)
from primus_scale.storage.names import check_name
from primus_scale.storage.patience import Patience
from primus_scale.storage.urls import parse_place

__all__ = [
    "AUGMENT_OPS",
    "DEFAULT_AUGMENT",
    "ArmName",
    "AugmentOp",
    "CalibrationConfig",
    "Config",
    "ConfigModel",
    "DataConfig",
    "EncoderConfig",
    "FewShotConfig",
    "LaunchConfig",
    "NearConfig",
    "NeighboursConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "SignalConfig",
    "SupportConfig",
    "TaskConfig",
    "TeachersConfig",
    "TemperatureConfig",
    "TrainConfig",
]


class DataConfig(ConfigModel):
    """Where windows come from, and how they are read."""

    train: tuple[Url, ...] = Field(description="shard folders (any fsspec URL); read as one set")
    # share of the windows at train that are used; a smaller share is part of every larger one
    fraction: float = Field(1.0, gt=0, le=1)
    # session: whole sessions, so fewer people and less time (needs shards in the order of
    # sessions). window: the first windows of each session in a record, so less of every person
    fraction_by: Literal["session", "window"] = "session"
    validation: tuple[Url, ...] = ()  # shard folders of held-out windows for retrieval recall
    validation_windows: int = Field(4096, ge=2)  # at most so many of them, evenly spaced
    shuffle_blocks: int = Field(8, ge=1)  # records whose windows are shuffled together
    # windows of one session in a batch (even); None: a batch mixes the windows of all
    session_windows: int | None = Field(None, ge=2, multiple_of=2)
    reader_threads: int = Field(2, ge=1)  # concurrent ranged reads of one rank
    prefetch_batches: int = Field(2, ge=1)  # batches held ready ahead of the step
    # which reads of a record compare its bytes with their checksum; first: those of a rank's first
    # epoch, so bytes that change on the disk or on the way later are not found
    crc: Literal["always", "first"] = "always"
    timeout_s: float = Field(30.0, gt=0)  # of one request to object storage, for each 64 MiB
    patience_s: float = Field(300.0, ge=0)  # how long a request that fails is repeated

    def patience(self) -> Patience:
        """How reads and writes of this run wait for storage; see ``Patience``."""
        return Patience(self.timeout_s, self.patience_s)


class TeachersConfig(ConfigModel):
    """The frozen encoders whose embeddings supervise the IMU encoder.

    ``video`` and ``text`` name a packaged teacher (``efficientnet-lite0``, ``minilm``) or a
    ``transformers`` model by hub name or local path. ``signal`` names a teacher of the window's own
    samples, by fixed formulas. ``embedded`` mode reads embeddings from packed shards and needs no
    name; ``live`` mode runs the teachers in the step.
    """

    mode: Literal["embedded", "live"] = "embedded"
    video: str | None = None
    text: str | None = None
    signal: Literal["handcrafted"] | None = None
    batch: int = Field(64, ge=1)  # frames, texts or windows in one teacher forward pass


class EncoderConfig(ConfigModel):
    """The IMU encoder and the width of its self-supervision head."""

    name: Literal["stacked_rnn", "stacked_rnn_time", "conv_stats", "transformer"] = "stacked_rnn"
    size: Literal["XS", "S", "B", "L"] = "S"  # transformer (S, B, L) and conv_stats only
    # over time. own: the GRU's last state, the mean of the transformer's tokens; stats: mean and
    # deviation of input and last layer; conv_stats has statistics of all layers in either case
    pooling: Literal["own", "stats"] = "own"
    # where statistics are pooled: add channels that do not depend on how the device is turned
    gravity: bool = True
    # last: of the last layer; all: the pooled statistics of all layers stand before them;
    # handcrafted: hand-crafted features do. The heads take those of the last layer
    features: Literal["last", "all", "handcrafted"] = "last"
    patch: int = Field(10, ge=1)  # transformer only: samples in one patch
    ss_dim: int = Field(512, ge=1)
    near_dim: int = Field(64, ge=1)  # of the head for objective.weights.imu_near
    # auto: one head for video and text where they share a space, one for each where not
    heads: Literal["auto", "shared", "separate"] = "auto"


class SupportConfig(ConfigModel):
    """The support set: a ring of past windows that all ranks share.

    ``in_process``: each rank holds all of it. ``service``: Ray actors hold a part each, and search
    for the next step while the current step computes.
    """

    capacity: int = Field(8192, ge=2)
    minimum_fill: int = Field(1024, ge=1)  # neighbours are valid from this many entries on
    storage: Literal["float32", "float16"] = "float32"  # of the unit vectors held
    # flat is exact; ivf (CPU, GPU) and cagra (GPU) are quicker for large sets. auto: flat, or ivf
    # where that pays on this device
    index: Literal["auto", "flat", "ivf", "cagra"] = "auto"
    home: Literal["in_process", "service"] = "in_process"
    actors: int = Field(2, ge=1)  # of the service, as all below
    cpus_per_actor: float = Field(0.0, ge=0)
    gpus_per_actor: float = Field(0.0, ge=0)  # above 0, the set is in device memory
    threads: int = Field(1, ge=1)  # CPU threads of an actor
    timeout_s: float = Field(30.0, gt=0)  # a step waits so long for an actor, then leaves it out
    # True: a step's search starts after the batch before is added, with the result of in_process
    synchronous: bool = False


class OptimizerConfig(ConfigModel):
    """Optimiser and learning-rate schedule, in optimiser steps."""

    name: Literal["adamw", "adam"] = "adamw"
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup_steps: int = Field(20, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    clip: float = Field(5.0, ge=0)  # gradient norm; 0 turns clipping off


class TrainConfig(ConfigModel):
    """The training loop. Batch sizes count windows over all ranks."""

    batch: int = Field(256, ge=2)  # global batch; must divide by the number of ranks
    accumulation: int = Field(1, ge=1)  # encoder passes a step; the negatives stay global
    steps: int = Field(750, ge=1)
    # bf16 is autocast; auto: bf16 where all devices compute in it natively, fp32 elsewhere
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    zero_stage: Literal[0, 1, 2, 3] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(0, ge=0)  # CPU threads of one rank; 0 leaves torch's choice
    log_every: int = Field(10, ge=1)
    validate_every: int = Field(250, ge=1)
    pictures_every: int = Field(250, ge=1)
    checkpoint_every: int = Field(250, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    # any fsspec URL; checkpoints, logs and the encoder are copied to STORAGE/NAME, and a run
    # continues from there if its output does not have them. So machines need not share the output
    storage: Url | None = None
    # True: continue from the copy of a run with another output, because that output is lost
    take_over: bool = False
    stuck_after_s: float = Field(600.0, gt=0)  # without progress; then all ranks end, and say why
    max_nonfinite: int = Field(5, ge=0)  # skipped steps in a row before the run stops


class CalibrationConfig(ConfigModel):
    """The linear step on ``features`` that the exported encoder carries, ready for a linear probe.

    It is fitted without labels when the run ends, on training windows as they are recorded. So it
    changes nothing in the training, and a finished run that is started again with another kind
    exports its encoder with that one.
    """

    # scaling: each feature has mean 0 and deviation 1. whitening: then what differs between
    # sessions, such as how a device sits, is reduced
    kind: Literal["none", "scaling", "whitening"] = "scaling"
    windows: int = Field(4096, ge=2)  # at most so many, spread over the shards


class LaunchConfig(ConfigModel):
    """How Ray starts the workers (``launch/ray_train.py``); other launchers have own arguments."""

    # [MIN, MAX]: as many as the cluster has resources for; the number changes with the machines
    workers: int | tuple[int, int] = 1
    cpus_per_worker: float = Field(1.0, gt=0)
    gpus_per_worker: float = Field(0.0, ge=0)
    max_failures: int = Field(2, ge=0)  # restarts of the workers, each from the last checkpoint
    resize_every_s: float = Field(60.0, gt=0)  # between checks for resources for more workers
    # Ray's labels of the machines for workers: {ray.io/accelerator-type: H100}
    labels: dict[str, str] = Field({})

    @field_validator("workers")
    @classmethod
    def _check_workers(cls, workers: int | tuple[int, int]) -> int | tuple[int, int]:
        least, most = (workers, workers) if isinstance(workers, int) else workers
        if not 1 <= least <= most:
            raise ValueError("must be a number from 1 on, or [MIN, MAX] of such numbers")
        return workers

    @property
    def worker_counts(self) -> range:
        """All numbers of workers that the run may have."""
        least, most = (self.workers,) * 2 if isinstance(self.workers, int) else self.workers
        return range(least, most + 1)


class Config(ConfigModel):
    """A whole run. ``output`` receives checkpoints, logs, the encoder and the reports."""

    name: str
    output: str
    seed: int = 0
    data: DataConfig
    teachers: TeachersConfig = TeachersConfig()
    encoder: EncoderConfig = EncoderConfig()
    augment: tuple[AugmentOp, ...] = DEFAULT_AUGMENT
    objective: ObjectiveConfig = ObjectiveConfig()
    support: SupportConfig = SupportConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    launch: LaunchConfig = LaunchConfig()
    few_shot: FewShotConfig = FewShotConfig()

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        return check_name(name, "name")  # it names folders, at train.storage and in Ray's records

    @field_validator("output")
    @classmethod
    def _check_output(cls, output: str) -> str:
        if "://" in parse_place(output):
            raise ValueError("must be a path; set train.storage to have a copy at a URL")
        return output

    def _check_sessions(self) -> None:
        windows, batch = self.data.session_windows, self.train.batch
        if windows is None and self.objective.weights.imu_near:
            raise ValueError(
                "objective.weights.imu_near is set but data.session_windows is not: a batch would "
                "hold few windows near in time; set it to the windows of one session in a batch, "
                "such as train.batch / 8"
            )
        if windows is not None and batch % windows:
            raise ValueError(
                f"train.batch ({batch}) is no multiple of data.session_windows ({windows}); use "
                f"{max(batch - batch % windows, windows)}, or another multiple"
            )

    @model_validator(mode="after")
    def _check_across(self) -> Config:
        if self.support.minimum_fill > self.support.capacity:
            raise ValueError(
                f"support.minimum_fill ({self.support.minimum_fill}) exceeds support.capacity "
                f"({self.support.capacity}); lower the first or raise the second"
            )
        self._check_sessions()
        if self.objective.neighbours.k > self.support.minimum_fill:
            raise ValueError(
                f"objective.neighbours.k ({self.objective.neighbours.k}) exceeds "
                f"support.minimum_fill ({self.support.minimum_fill}); raise support.minimum_fill"
            )
        longest_read_s = self.data.timeout_s + self.data.patience_s
        if self.train.stuck_after_s <= longest_read_s:
            raise ValueError(
                f"train.stuck_after_s ({self.train.stuck_after_s:g}) does not exceed "
                f"data.timeout_s + data.patience_s ({longest_read_s:g}): a rank that waits for "
                "data would count as stuck; raise the first or lower the others"
            )
        named = (self.teachers.video, self.teachers.text, self.teachers.signal)
        if self.teachers.mode == "live" and not any(named):
            raise ValueError(
                "teachers.mode is live but none of teachers.video, teachers.text and "
                "teachers.signal is set; name a teacher, or use teachers.mode=embedded"
            )
        return self
