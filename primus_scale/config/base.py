"""The base of all configuration models."""

from __future__ import annotations

from typing import Annotated, Any, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from primus_scale.storage.urls import parse_place

Url = Annotated[str, AfterValidator(parse_place)]  # or a path; free of credentials


class ConfigModel(BaseModel):
    """Base of all configuration models: frozen, closed to unknown keys, numbers finite.

    Where a field is a list, one number or text stands for a list of it: ``few_shot.k=5``. true and
    false are no numbers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _written_plainly(cls, tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        kinds = {name: field.annotation for name, field in cls.model_fields.items()}
        return {key: _as_meant(value, kinds.get(key)) for key, value in tree.items()}


def _as_meant(value: Any, kind: Any) -> Any:
    """The value of a field of this kind, as ``ConfigModel`` says."""
    several = get_origin(kind) is tuple
    if isinstance(value, bool) and (several or {kind, *get_args(kind)} & {int, float}):
        value = str(value).lower()  # pydantic would take it for 1 or 0, and refuses a text
    return (value,) if several and isinstance(value, str | int | float) else value
