"""Which columns of a user's array are an encoder's channels, and the units that they are in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from primus_scale.counted import counted
from primus_scale.signal.units import UNIT_FACTORS
from primus_scale.storage.names import nearest


def channel_columns(
    wanted: Sequence[str], given: Sequence[str] | None, named: Sequence[str] | None, columns: int
) -> list[int]:
    """The column of each wanted channel.

    given: names of the columns by the user, None for none. named: those of a DataFrame. Without
    either, or where a DataFrame numbers its columns, they are the wanted channels in their order.
    Raises ValueError where a channel is missing or named twice, a DataFrame has other names only,
    or the number of columns is another.
    """
    unknown = given is None and named and not set(wanted) & set(named)
    if unknown and not all(name.isdecimal() for name in named or ()):
        raise ValueError(
            f"no column of the DataFrame is called as a channel of the encoder "
            f"({', '.join(wanted)}); its columns are {', '.join(named or ())}: rename them, or "
            "name them in their order with channels=(...)"
        )
    names = given or (named if named and set(wanted) & set(named) else None)
    if names is None:
        if columns != len(wanted):
            raise ValueError(
                f"the array has {counted(columns, 'column')}, but the encoder takes {len(wanted)}: "
                f"{', '.join(wanted)}; name the array's columns with channels=(...)"
            )
        return list(range(columns))
    names = list(names)
    if len(names) != columns:
        raise ValueError(f"channels names {counted(len(names), 'column')}, the array has {columns}")
    for name in wanted:
        if name not in names:
            raise ValueError(
                f"the array has no column {name}, which the encoder takes{nearest(name, names)}; "
                f"its columns are {', '.join(names)}: rename them, or load an encoder of "
                "these channels"
            )
        if names.count(name) > 1:
            raise ValueError(f"channels names {name} twice")
    return [names.index(name) for name in wanted]


def channel_units(
    units: str | Sequence[str] | Mapping[str, str] | None,
    channels: Sequence[str],
    default: Sequence[str],
    columns: Sequence[int],
    width: int,
) -> tuple[str, ...]:
    """The unit of each of an encoder's ``channels``, as the array has it.

    units: one for all, one for each sensor of the channels (``acc_x`` is of the sensor ``acc``), in
    their order or by name, or one for each of the array's ``width`` columns; None: ``default``, the
    encoder's. columns: of the channels. Raises ValueError where units are of another number,
    unknown or of other quantities.
    """
    sensors = list(dict.fromkeys(map(sensor_of, channels)))
    if units is None:
        found = tuple(default)
    elif isinstance(units, str):
        found = (units,) * len(channels)
    elif isinstance(units, Mapping):
        if set(units) != set(sensors):
            raise ValueError(
                f"units names {', '.join(map(str, units)) or 'no sensor'}; give one for each of "
                f"{', '.join(sensors)}"
            )
        found = tuple(units[sensor_of(name)] for name in channels)
    elif len(units) == len(sensors):
        found = tuple(units[sensors.index(sensor_of(name))] for name in channels)
    elif len(units) == width:
        found = tuple(units[column] for column in columns)
    else:
        raise ValueError(
            f"units has {len(units)} entries; give one for each sensor ({', '.join(sensors)}) or "
            f"one for each of the {width} columns"
        )
    for unit, name, own in zip(found, channels, default, strict=True):
        if unit not in UNIT_FACTORS:
            raise ValueError(f"unknown unit {unit!r}; known are {', '.join(UNIT_FACTORS)}")
        if UNIT_FACTORS[unit][0] != own:
            raise ValueError(
                f"{unit} is no unit of {name}, which the encoder takes in {own}; check units"
            )
    return found


def unit_factors(units: Sequence[str]) -> np.ndarray:
    """The factor of each unit to SI, float64."""
    return np.array([UNIT_FACTORS[unit][1] for unit in units])


def sensor_of(channel: str) -> str:
    """The sensor that a channel is of: ``acc`` of ``acc_x``."""
    return channel.split("_")[0]
