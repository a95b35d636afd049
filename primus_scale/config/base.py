"""The base of all configuration models."""

from __future__ import annotations

from typing import Annotated, Any, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from primus_scale.storage.urls import parse_place

Url = Annotated[str, AfterValidator(parse_place)]  # or a path; free of credentials


class ConfigModel(BaseModel):
    """Base of all configuration models: frozen, closed to unknown keys, numbers finite.

    Where a field is a list, one number or text stands for a list of it: ``few_shot.k=5``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _one_for_a_list(cls, tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        lists = {
            n for n, field in cls.model_fields.items() if get_origin(field.annotation) is tuple
        }
        return {
            key: (value,) if key in lists and isinstance(value, str | int | float) else value
            for key, value in tree.items()
        }
