"""The settings of the few-shot evaluation."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, field_validator

from primus_scale.config.base import ConfigModel, Url
from primus_scale.storage.names import quoted
from primus_scale.storage.urls import HUB_SCHEME, parse_local, parse_place

ArmName = Literal[
    "pretrained",
    "pretrained_finetuned",
    "lora",
    "knn",
    "prototypes",
    "scratch",
    "random",
    "features",
    "features_scaled",
    "features_whitened",
    "forest",
    "catch22",
    "tsfel",
    "minirocket",
    "multirocket_hydra",
]

_OWN_NAME = re.compile(r"[A-Za-z][\w-]{0,40}")
_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


Unit = Literal["person", "placement", "dataset", "session", "recording"]
Shared = Literal["people", "recordings", "captures", "days", "intervals", "copies"]


DATA = "{data}"  # in a study: where the data of a trial are


def _check_task_url(text: str) -> str:
    return text if text.startswith(f"{DATA}/") else parse_place(text)


TaskUrl = Annotated[str, AfterValidator(_check_task_url)]


class TaskConfig(ConfigModel):
    """What is classified, and who is on which side (docs/tasks.md)."""

    data: tuple[TaskUrl, ...] = ()  # shard folders, read as one; empty: --data names it
    # the class of each label in the data, null: its windows are left out; others stay as they are
    labels: dict[str, str | None] = Field({})
    by: Unit = "person"  # what is on one side as a whole
    # what is tested: a share of the units, or their names; None: the folders label/ and test/
    test: float | tuple[str, ...] | None = None
    seed: int | None = None  # of a share; None: the split of the study, or 0
    may_share: tuple[Shared, ...] = ()  # what the sides may have in common

    @field_validator("test", mode="before")
    @classmethod
    def _one_name(cls, test: Any) -> Any:
        return (test,) if isinstance(test, str) else test


class FewShotConfig(ConfigModel):
    """The few-shot evaluation; ``primus-scale evaluate --help`` shows these descriptions."""

    task: TaskConfig = Field(
        TaskConfig(),
        description="data, label map and split by people or placements (docs/tasks.md)",
    )
    k: tuple[Annotated[int, Field(ge=1)] | Literal["all"], ...] = Field(
        (1, 5, 10, 50, "all"), min_length=1, description="labels a class"
    )
    draws: int = Field(10, ge=1, description="random choices of the labelled windows")
    trained_draws: int = Field(
        3,
        ge=1,
        description="draws for the arms that train an encoder, the first of draws",
    )
    seed: int = Field(0, description="of the choices and of fresh weights")
    steps: int = Field(
        800,
        ge=1,
        description="most training steps of these arms; how many is chosen on label people",
    )
    batch: int = Field(64, ge=1, description="windows in a training step of these arms")
    lrs: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (3e-4, 1e-3, 3e-3),
        min_length=1,
        description="learning rates to choose from, on label people only",
    )
    arms: tuple[ArmName, ...] = Field(
        ("pretrained", "pretrained_finetuned", "scratch", "random", "features"),
        min_length=1,
        description="what is compared: the encoder frozen and fine-tuned, and the baselines",
    )
    own: dict[str, str] = Field(
        {},
        description="other encoders by a name of yours: module:function, or an exported one's "
        "folder (docs/arms.md)",
    )
    mixed_model: bool = Field(
        False, description="check differences by a mixed model as well, with statsmodels"
    )
    prompts: dict[str, tuple[str, ...]] | str = Field(
        {},
        description="wordings of each label, or a YAML file of them: classifies without labels, "
        "by the encoder's head for text",
    )
    retrieval: tuple[Url, ...] = Field(
        (), description="shard folders with text or video, in which IMU and these find each other"
    )
    adapt: bool = Field(
        False,
        description="windows may be of other sensors: the encoder's input is made anew for their "
        "channels",
    )
    calibrated: bool = Field(True, description="use the calibration stored in the encoder")
    threads: int = Field(0, ge=0, description="CPU threads; 0 is 1. With more, one process")

    @field_validator("k", "lrs", "arms", "retrieval")
    @classmethod
    def _check_twice(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) < len(values):
            raise ValueError("holds a value twice; name each once")
        return values

    @field_validator("own")
    @classmethod
    def _check_own(cls, own: dict[str, str]) -> dict[str, str]:
        for name, source in own.items():
            if not _OWN_NAME.fullmatch(name) or name in get_args(ArmName):
                raise ValueError(
                    f"{quoted(name)} cannot name an arm; take letters, digits, - and _, and not "
                    f"the name of a built-in arm ({', '.join(get_args(ArmName))})"
                )
            if not is_function(source) and not source.startswith(HUB_SCHEME):
                parse_local(source)
        return own


def is_function(source: str) -> bool:
    """Whether an encoder of ``few_shot.own`` is a ``module:function``, not an encoder's place."""
    return _FUNCTION.fullmatch(source) is not None
