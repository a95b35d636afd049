"""The components of a training run: built from its configuration, checked before the first step."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from primus_scale.augment import Augment, build_augment, step_generator
from primus_scale.checkpoint.checkpoints import Checkpoints
from primus_scale.checkpoint.copies import RunStorage
from primus_scale.checkpoint.identity import config_digest, run_identity
from primus_scale.checkpoint.owner import Claimant
from primus_scale.config import Config, TeachersConfig
from primus_scale.counted import counted
from primus_scale.data.fraction import open_training
from primus_scale.data.index import TeacherSpace
from primus_scale.data.reader import BatchLoader, LoadedWindows, batches, load_windows
from primus_scale.data.schedule import check_order, describe_order
from primus_scale.data.shard_set import ShardSet, check_held_out, check_same_input
from primus_scale.distributed.collectives import on_first_rank
from primus_scale.distributed.group import Runtime
from primus_scale.distributed.precision import choose_precision
from primus_scale.encoders import ImuEncoder, build_encoder, check_channels
from primus_scale.encoders.card import EncoderCard, describe_encoder
from primus_scale.engine.engine import Engine, check_batch
from primus_scale.objective.model import PrimusModel
from primus_scale.objective.neighbours import (
    PendingNeighbours,
    describe_neighbours,
    prefetch_neighbours,
    support_spec,
)
from primus_scale.objective.terms import (
    check_objective,
    initial_biases,
    temperature_configs,
    uses_near,
    uses_neighbours,
    with_heads,
)
from primus_scale.sample import JOINT_MODALITIES, TEACHER_MODALITIES, Batch
from primus_scale.storage.apart import check_apart
from primus_scale.storage.folder import Folder
from primus_scale.support import RingSupportSet, SupportSet
from primus_scale.support.index import describe_index
from primus_scale.teachers import (
    Teacher,
    attach_teacher_embeddings,
    build_teachers,
    check_teachers,
    spaces_of,
)
from primus_scale.train.export import check_calibration


@dataclass(frozen=True)
class Run:
    """The components of a run on this rank; ``build_run`` makes them.

    teachers: teachers that run in the step (live mode), by modality; empty where the shards hold
    embeddings. support: None where the objective has no neighbour term. storage: the copy at
    ``train.storage``, or None. validation: held-out windows with teacher embeddings, or None.
    """

    config: Config
    runtime: Runtime
    data: ShardSet
    teachers: Mapping[str, Teacher]
    augment: Augment
    engine: Engine
    support: SupportSet | None
    checkpoints: Checkpoints
    storage: RunStorage | None
    validation: Batch | None

    def close(self) -> None:
        """Free what the components hold: processes, connections, hooks."""
        self.engine.close()
        if self.support is not None:
            self.support.close()

    def batches(self, start_step: int) -> BatchLoader:
        """The rank's share of the global batches from ``start_step`` to the end of the run."""
        return batches(
            self.config.data,
            self.data,
            batch=self.config.train.batch,
            seed=self.config.seed,
            start_step=start_step,
            stop_step=self.config.train.steps,
            rank=self.runtime.rank,
            world=self.runtime.world,
            live=bool(self.teachers),
            near=self.config.objective.near,
        )

    def inputs(self, loader: Iterable[Batch]) -> Iterator[tuple[Batch, PendingNeighbours | None]]:
        """Each batch on the device, with the searches for its neighbours already started.

        The searches of the next batch start before the current batch is yielded, so that they run
        while the current step computes. They are None without a support set.
        """
        ahead: tuple[Batch, PendingNeighbours | None] | None = None
        for loaded in loader:
            batch = self.prepare(loaded)
            pending = None
            if self.support is not None:
                pending = prefetch_neighbours(batch, self.support, self.config.objective.neighbours)
            if ahead is not None:
                yield ahead
            ahead = batch, pending
        if ahead is not None:
            yield ahead

    def prepare(self, batch: Batch) -> Batch:
        """The batch on the device, with its teacher embeddings."""
        batch = batch.to(self.runtime.device)
        return attach_teacher_embeddings(batch, self.teachers) if self.teachers else batch

    def views(self, batch: Batch, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """View 0 (as recorded) and view 1 (augmented) of a batch, each ``(B, C, T)``.

        step: counts from 1. Augmentations are drawn for all rows of the global batch, so that view
        1 of a window does not depend on the number of ranks.
        """
        first = self.runtime.rank * len(batch)
        rows = slice(first, first + len(batch))
        generator = step_generator(self.config.seed, step, self.runtime.device)
        return batch.imu, self.augment(batch.imu, generator, rows, self.config.train.batch)


def open_data(config: Config, world: int, *, sizes: bool = True) -> ShardSet:
    """The training shards, after the checks that a launcher can make before it starts ranks.

    sizes: see ``ShardSet.open``.
    ValueError or FileNotFoundError as ``check_apart``, ``check_batch``, ``open_training``,
    ``check_order``, ``check_calibration`` and ``check_objective``, and ValueError where the shards
    were embedded by other teachers than the configuration names.
    """
    check_apart(config.output, (*config.data.train, *config.data.validation))
    check_batch(config.train, world, config.data.session_windows)
    data = open_training(config.data, sizes=sizes)
    check_order(config.data, config.objective.near, data, config.train.batch)
    check_calibration(config.calibration, data)
    check_embeddings(config, data)
    return data


def check_embeddings(config: Config, data: ShardSet) -> None:
    """Check, in embedded mode, that ``data`` holds the embeddings that the configuration needs.

    ValueError as ``open_data``.
    """
    if config.teachers.mode == "embedded":
        _check_teacher_names(config.teachers, data)
        check_objective(config.objective, data.teachers)


def _check_teacher_names(named: TeachersConfig, data: ShardSet) -> None:
    """ValueError where the shards were embedded by another teacher than the configuration names.

    A modality whose teacher it does not name is not checked.
    """
    for modality in TEACHER_MODALITIES:
        wanted, space = getattr(named, modality), data.teachers.get(modality)
        if wanted and (space is None or space.teacher != wanted):
            found = f"{space.teacher!r} ({space.dim} wide)" if space else "no teacher"
            raise ValueError(
                f"teachers.{modality} is {wanted!r}, but data.train has {modality} embeddings of "
                f"{found}; leave teachers.{modality} unset to use the shards as they are, or embed "
                "them again (primus-scale shards embed)"
            )


def build_run(config: Config, runtime: Runtime, placement_group: Any = None) -> Run:
    """Open the data and build the components of the run.

    placement_group: of Ray, reserved for the actors of the support service; or None. Raises
    ValueError, FileNotFoundError or OSError where configuration, data or machine would break the
    run later.
    """
    announce = print if runtime.rank == 0 else lambda *_: None
    data = open_data(config, runtime.world, sizes=False)
    on_first_rank(data.check_sizes)  # once for all ranks: it lists whole folders
    precision = choose_precision(config.train.precision, runtime.device)
    training = config.train.model_copy(update={"precision": precision})
    announce(check_batch(training, runtime.world, config.data.session_windows))
    announce(describe_order(config.data, data, config.train.batch))
    teachers: dict[str, Teacher] = {}
    if config.teachers.mode == "live":
        teachers = build_teachers(config.teachers, data.index.window_format, runtime.device)
    spaces = spaces_of(teachers) or dict(data.teachers)
    check_objective(config.objective, spaces)  # live teachers are known only now
    spaces = with_heads(config.objective, spaces)
    validation = _load_validation(config, data, teachers, spaces)
    if config.data.validation and not spaces:
        announce("note: data.validation is not used: it is for retrieval, which needs a teacher")

    encoder = fresh_encoder(config, data, spaces)
    # Checkpoints export this copy: DeepSpeed may partition the parameters of the trained encoder.
    exported = copy.deepcopy(encoder)
    card = _encoder_card(config, data, spaces, exported)
    objective = config.objective
    model = PrimusModel(encoder, temperature_configs(objective), initial_biases(objective))
    folder = storage_folder(config)
    storage = RunStorage(folder.url, folder.patience) if folder is not None else None
    identity = run_identity(config, data, card)
    announce(_run_summary(data, spaces, exported))
    if uses_neighbours(config.objective):
        announce(describe_index(config.support, runtime.device))
        if warning := describe_neighbours(config.objective.neighbours):
            announce(warning)
    return Run(
        config=config,
        runtime=runtime,
        data=data,
        teachers=teachers,
        augment=build_augment(config.augment, data.index.units),
        engine=Engine(model, training, config.optimizer, runtime),
        support=_build_support(config, exported.spec.dims, runtime, placement_group),
        checkpoints=Checkpoints(
            config.output, config.train, runtime, identity, exported, card, storage
        ),
        storage=storage,
        validation=validation,
    )


def storage_folder(config: Config) -> Folder | None:
    """The run's folder at ``train.storage``; None where that is unset."""
    storage = config.train.storage
    return Folder(f"{storage}/{config.name}", config.data.patience()) if storage else None


def storage_claimant(config: Config) -> Claimant:
    """The run's claim to the folder at ``train.storage``; see ``owned_storage``."""
    return Claimant(config.output, config_digest(config), config.train.take_over)


def _build_support(
    config: Config, dims: Mapping[str, int], runtime: Runtime, placement_group: Any
) -> SupportSet | None:
    """The empty support set, in this process or in Ray actors; None where no term needs it."""
    spec = support_spec(config.objective, config.support, dims)
    if spec is None:
        return None
    if config.support.home == "in_process":
        return RingSupportSet(spec, runtime.device)
    from primus_scale.support.service import ServiceSupportSet

    return ServiceSupportSet(spec, config.support, runtime.device, placement_group)


def fresh_encoder(config: Config, data: ShardSet, spaces: Mapping[str, TeacherSpace]) -> ImuEncoder:
    """An encoder with new weights, the same on every rank."""
    check_channels(config.encoder, data.index.units)
    torch.manual_seed(config.seed)
    joint = [spaces[modality].space for modality in JOINT_MODALITIES if modality in spaces]
    return build_encoder(
        config.encoder,
        channels=len(data.index.channels),
        samples=data.index.window_samples,
        rate_hz=data.index.rate_hz,
        teacher_dims={modality: space.dim for modality, space in spaces.items()},
        shared=len(joint) > 1 and len(set(joint)) == 1,
        near=uses_near(config.objective),
        mean=data.mean,
        std=data.std,
    )


def _load_validation(
    config: Config,
    data: ShardSet,
    teachers: Mapping[str, Teacher],
    spaces: Mapping[str, TeacherSpace],
) -> Batch | None:
    """Held-out windows in the format of ``data``, with its teachers' embeddings, on the CPU."""
    urls = config.data.validation
    if not urls or not spaces:
        return None  # without a teacher there is nothing to retrieve
    held_out = load_windows(urls, config.data.patience(), most=config.data.validation_windows)
    check_same_input(data, held_out.shard_set)
    check_held_out(data, held_out.shard_set)
    if teachers:
        check_teachers(teachers, held_out.shard_set.teachers, urls[0])
    else:
        _check_same_teachers(held_out, spaces, urls[0])
    if not held_out.shard_set.teachers:
        return attach_teacher_embeddings(held_out.batch, teachers, "data.validation")
    return replace(held_out.batch, frames=None, texts=None)


def _check_same_teachers(
    held_out: LoadedWindows, spaces: Mapping[str, TeacherSpace], url: str
) -> None:
    """ValueError where held-out windows lack embeddings, or have those of another teacher."""
    found = held_out.shard_set.teachers
    if not found:
        raise ValueError(
            f"data.validation {url} holds no teacher embeddings, which retrieval needs; embed it "
            "(primus-scale shards embed), or leave data.validation empty"
        )
    for modality in found.keys() & spaces.keys():
        if found[modality].key != spaces[modality].key:
            raise ValueError(
                f"data.validation {url} has {modality} embeddings of key {found[modality].key} "
                f"({found[modality].teacher}), data.train of {spaces[modality].key} "
                f"({spaces[modality].teacher}); embed both with one teacher"
            )


def _run_summary(data: ShardSet, spaces: Mapping[str, TeacherSpace], encoder: ImuEncoder) -> str:
    """A line on data, teachers and encoder, for the start of the run."""
    index = data.index
    teachers = ", ".join(f"{name} {space.teacher} ({space.dim})" for name, space in spaces.items())
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    return (
        f"{counted(data.windows, 'window')} of {index.window_samples / index.rate_hz:g} s at "
        f"{index.rate_hz:g} Hz; teachers: {teachers or 'none'}; "
        f"encoder of {parameters:,} parameters"
    )


def _encoder_card(
    config: Config, data: ShardSet, spaces: Mapping[str, TeacherSpace], encoder: ImuEncoder
) -> EncoderCard:
    """The card that is exported with the encoder."""
    train = [
        {"url": folder.url, "windows": index.windows, "provenance": index.provenance}
        for folder, index in zip(data.folders, data.indexes, strict=True)
    ]
    return describe_encoder(
        encoder,
        teachers={modality: asdict(space) for modality, space in spaces.items()},
        data={"run": config.name, "train": train, "windows": data.windows},
        objective=config.objective.model_dump(mode="json"),
        licence="as its training data allow; see data.train",
        channels=data.index.channels,
        units=data.index.units,
    )
