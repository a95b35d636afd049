"""The data of a study's splits: built-in data that are built where none lie, or given ones."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from primus_scale.config import Config
from primus_scale.study.plan import TRAINING, data_of, training_of
from primus_scale.study.study_file import Study
from primus_scale.study.trial import has_index
from shards.split.split import leave_out

TEACHERS = ("--video", "efficientnet-lite0", "--text", "minilm", "--signal", "handcrafted")
COMMAND = (sys.executable, "-m", "primus_scale.cli")


def prepare_data(
    study: Study, out: Path, split: int, order: str, configs: Mapping[str, Config]
) -> None:
    """Build and embed the data of a split, unless they are there, or the study names others.

    configs: of the variants, whose tasks may lie elsewhere.

    Raises FileNotFoundError where a folder that the study names holds no shards,
    ChildProcessError (with the log) where a command failed, and ValueError where a variant's
    ``pretrain_without`` matches no window or all of them.
    """
    if study.data is None:
        build_data(study, out, split, order)
    else:
        _check_data(study, out, split, configs)
    _leave_out(study, out, split)


def _check_data(study: Study, out: Path, split: int, configs: Mapping[str, Config]) -> None:
    """FileNotFoundError where the data that the study names are not there."""
    data = data_of(study, out, split)
    needed = {TRAINING: None}
    for config in configs.values() if study.evaluate else ():
        task = config.few_shot.task
        if not task.data:
            whole = task.test is not None
            needed |= dict.fromkeys(["few_shot"] if whole else ["few_shot/label", "few_shot/test"])
    for name in needed:
        if not has_index(f"{data}/{name}"):
            raise FileNotFoundError(
                f"{data}/{name} holds no index.json; write it (primus-scale shards build and "
                "embed), or correct data in the study's file"
            )


def _leave_out(study: Study, out: Path, split: int) -> None:
    """Write what variants with ``pretrain_without`` are pretrained on, where it is not there."""
    whole = f"{data_of(study, out, split)}/{TRAINING}"
    for name, variant in study.variants.items():
        without = variant.pretrain_without.named
        own = training_of(study, out, name, split)
        if without and not has_index(own):
            try:
                leave_out([whole], str(Path(own).parent), without)
            except ValueError as error:
                field = f"variants.{name}.pretrain_without"
                raise ValueError(f"study {study.name}: {field}: {error}") from None


def packing_order(configs: Mapping[str, Config]) -> str:
    """The order of the packed shards, which all variants share; ValueError where they differ."""
    orders = {
        name: "shuffled" if config.data.session_windows is None else "sessions"
        for name, config in configs.items()
    }
    if len(set(orders.values())) > 1:
        raise ValueError(
            f"variants read shards in different orders ({orders}); set data.session_windows for "
            "all of them or none, or make two studies"
        )
    return next(iter(orders.values()))


def build_data(study: Study, out: Path, split: int, order: str) -> None:
    """Window, packed (in ``order``) and few-shot shards of one split, unless they are there."""
    data = out / f"split{split}" / "data"
    log = out / f"split{split}" / "data.log"
    if not (data / "few_shot/test/index.json").exists():
        # few_shot/test is finished last: without it the rest is of a build that was killed.
        run_command(log, *build_command(study, data, split))
    for part in (path.name for path in (data / "windows").iterdir()):
        if not (data / "packed" / part / "index.json").exists():
            source, packed = str(data / "windows" / part), str(data / "packed" / part)
            options = ("--src", source, "--out", packed, "--order", order)
            run_command(log, "shards", "embed", *options, *TEACHERS)


def build_command(study: Study, data: Path, split: int) -> list[str]:
    """The command that writes the built-in data of a split into the folder ``data``."""
    people = [str(number) for number in study.test_people.get(split, ())]
    tested = ["--test-people", *people] if people else []
    place = ["--out", str(data), "--split", str(split), *tested, "--overwrite"]
    return ["shards", "build", "demo", *place]


def run_command(log: Path, *command: str) -> None:
    """Run one primus-scale command, its output appended to ``log``; ChildProcessError naming it."""
    print("running  primus-scale", *command, flush=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as stream:
        done = subprocess.run([*COMMAND, *command], stdout=stream, stderr=stream, check=False)
    if done.returncode != 0:
        message = f"primus-scale {command[0]} ended with {done.returncode}; see {log}"
        raise ChildProcessError(message)
