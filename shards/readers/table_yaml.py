"""What a ``recording.yaml`` says of one file of rows: how it is written, its columns, its clock.

A sensor and the labels of each row are such files; ``docs/folder.md`` shows the keys.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, model_validator

from primus_scale.config import ConfigModel
from primus_scale.signal.units import UNIT_FACTORS
from primus_scale.storage.names import check_name, nearest, quoted
from shards.files.tables import PARQUET
from shards.files.text_tables import TextForm
from shards.readers.name_patterns import RECORDING, check_file_name

TABLES = (".csv", ".parquet", ".npy", ".tsv", ".txt", ".dat", ".log", ".pq")
FARTHEST_S = 1e10  # of an offset: 300 years, more than any clock's zero is away
_DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "space": " ", "pipe": "|"}
# Steps of an analog-digital converter: the unit of one, or how many make one.
_STEPS = {
    "g": ("g", 1.0),
    "mg": ("mg", 1.0),
    "m_s2": ("m/s2", 1.0),
    "deg_s": ("deg/s", 1.0),
    "mdeg_s": ("deg/s", 1e-3),
    "rad_s": ("rad/s", 1.0),
    "mrad_s": ("mrad/s", 1.0),
    "V": ("V", 1.0),
    "mV": ("mV", 1.0),
    "uV": ("uV", 1.0),
    "uT": ("uT", 1.0),
}
SCALES = {f"lsb_per_{name}": (unit, 1 / one) for name, (unit, one) in _STEPS.items()} | {
    f"{name}_per_lsb": (unit, one) for name, (unit, one) in _STEPS.items()
}


def _check_path(file: str) -> str:
    try:
        name = check_name(file.removeprefix("./"), "file")
    except ValueError as error:
        raise ValueError(
            f"{error}; it must lie in the folder or below, written with / between folders"
        ) from None
    return check_file_name(name)


def _check_table(file: str) -> str:
    if file.endswith(RECORDING):
        raise ValueError(f"{quoted(file)}: write its ending too, such as {file}.csv")
    if not file.lower().endswith(TABLES):
        raise ValueError(f"{quoted(file)} is none of {', '.join(TABLES)}; convert it to one")
    return file


FilePath = Annotated[str, Field(min_length=1), AfterValidator(_check_path)]
TablePath = Annotated[FilePath, AfterValidator(_check_table)]


@dataclass(frozen=True)
class Scale:
    """What the numbers of a file are: ``(number - zero) * factor`` is in ``unit``.

    unit: a key of UNIT_FACTORS. raw: whether the numbers are counts of a converter.
    """

    unit: str
    factor: float = 1.0
    zero: float = 0.0

    @property
    def raw(self) -> bool:
        """Whether the numbers are not in the unit yet."""
        return (self.factor, self.zero) != (1.0, 0.0)


def parse_scale(unit: object) -> Scale:
    """From a unit, or from ``{lsb_per_g: 4096}`` and the like, with ``zero`` where there is one.

    ValueError naming the nearest known unit or key.
    """
    if isinstance(unit, Mapping):
        return _of_counts(dict(unit))
    if not isinstance(unit, str) or unit not in UNIT_FACTORS:
        raise ValueError(
            f"unknown unit {quoted(unit)}{nearest(str(unit), UNIT_FACTORS)}; known are "
            f"{', '.join(UNIT_FACTORS)}, and for counts such as {{lsb_per_g: 4096}}"
        )
    return Scale(unit)


def _of_counts(keys: dict[str, Any]) -> Scale:
    zero = _number("zero", keys.pop("zero", 0.0))
    if len(keys) != 1:
        raise ValueError("write one scale of counts, such as {lsb_per_g: 4096}, and zero or not")
    ((key, text),) = keys.items()
    if key not in SCALES:
        raise ValueError(f"unknown key {quoted(key)}{nearest(str(key), SCALES)}")
    number = _number(key, text)
    if number <= 0:
        raise ValueError(f"{key} must be positive (got {quoted(text)})")
    unit, one = SCALES[key]
    return Scale(unit, one / number if key.startswith("lsb_per_") else one * number, zero)


def _number(key: str, text: object) -> float:
    try:
        number = float(str(text))
    except ValueError:
        number = float("nan")
    if not abs(number) < 1e12:
        raise ValueError(f"{key} must be a number (got {quoted(text)})")
    return number


def _check_delimiter(text: object) -> object:
    delimiter = _DELIMITERS.get(text, text) if isinstance(text, str) else text
    if isinstance(delimiter, str) and not delimiter.isascii():
        raise ValueError(f"{quoted(delimiter)} is no delimiter that can be read; it must be ASCII")
    return delimiter


def _check_encoding(name: str) -> str:
    try:
        return codecs.lookup(name).name
    except (LookupError, ValueError):
        raise ValueError(f"unknown encoding {quoted(name)}, such as utf-8 or latin-1") from None


def _check_zone(name: str) -> str:
    try:
        pc.assume_timezone(pa.array([0], pa.timestamp("ns")), name)
    except pa.ArrowException:
        raise ValueError(
            f"unknown time zone {quoted(name)}; write one such as +02:00 or Europe/Berlin"
        ) from None
    return name


class TimeColumn(ConfigModel):
    """Times of samples.

    column: by name, or by number where columns have none; two, where date and time of day are
    apart. unit: of numbers; dates and times of day are known by how they are written, and iso says
    that there is nothing else. format: of times written otherwise (strptime). zone: of dates
    without one. offset_s is added to all.
    """

    column: str | tuple[str, str]
    unit: Literal["iso", "s", "ms", "us", "ns"]
    offset_s: float = Field(0.0, ge=-FARTHEST_S, le=FARTHEST_S)
    format: str | None = Field(None, min_length=1, max_length=100)
    zone: Annotated[str, AfterValidator(_check_zone)] | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The column, or both."""
        return (self.column,) if isinstance(self.column, str) else self.column


class TableFile(ConfigModel):
    """A file of rows, and how it is written where it is text (see ``TextForm``).

    delimiter: one character or a word for it. header: whether a line names the columns; where none
    does, they are called 0, 1, and so on, as those of npy files are.
    """

    file: TablePath
    delimiter: (
        Annotated[
            Annotated[str, Field(min_length=1, max_length=1)], BeforeValidator(_check_delimiter)
        ]
        | None
    ) = None
    decimal: Literal[".", ","] = "."
    header: bool = True
    skip_lines: int = Field(0, ge=0, le=10_000)
    skip_below: int = Field(0, ge=0, le=100)
    encoding: Annotated[str, AfterValidator(_check_encoding)] = "utf-8"

    @property
    def is_array(self) -> bool:
        """Whether it is an npy file."""
        return self.file.lower().endswith(".npy")

    @property
    def is_text(self) -> bool:
        """Whether it is text, rather than Parquet or npy."""
        return not self.is_array and not self.file.lower().endswith(PARQUET)

    def form(self) -> TextForm:
        """How the text is written."""
        return TextForm(
            self.delimiter, self.decimal, self.skip_lines, self.skip_below, self.encoding
        )

    @model_validator(mode="after")
    def _check_form(self) -> TableFile:
        of_text = set(TableFile.model_fields) - {"file"}
        if not self.is_text and (said := sorted(of_text & self.model_fields_set)):
            raise ValueError(f"{said[0]} is of text files; leave it out for {quoted(self.file)}")
        return self


class RowsFile(TableFile):
    """Rows that have times, of a column (``time``) or ``1 / rate_hz`` apart from ``start_s`` on."""

    time: TimeColumn | None = None
    rate_hz: float | None = Field(None, gt=0, le=1e6)
    start_s: float | None = Field(None, ge=-FARTHEST_S, le=FARTHEST_S)

    def clock(self) -> str:
        """Where the rows' times come from, for the recording's ``sync``."""
        if self.time is None:
            return f"{self.file} at {self.rate_hz:g} Hz from {self.start_s or 0.0:g} s"
        shift = f" {self.time.offset_s:+g} s" if self.time.offset_s else ""
        names = " and ".join(self.time.columns)
        return f"{self.file} by its column {names} ({self.time.unit}){shift}"

    def used(self) -> list[str]:
        """The columns that are read."""
        return [*(self.time.columns if self.time else ())]

    def check_clock(self) -> None:
        """ValueError where it is not clear how the rows are timed, or a column is no number."""
        if (self.time is None) == (self.rate_hz is None):
            raise ValueError(
                "give either time (the column and unit of the samples' times) or rate_hz (samples "
                "are evenly spaced)"
            )
        if self.time is not None and self.start_s is not None:
            raise ValueError("start_s goes with rate_hz; with time, write time.offset_s")
        if self.is_array or not self.header:
            kind = "an npy file" if self.is_array else "a file without a header"
            for column in self.used():
                if not (column.isdecimal() and len(column) < 7):
                    raise ValueError(
                        f"columns of {kind} are numbers, the first is 0; got {quoted(column)}"
                    )
        if self.is_array and self.time and (self.time.unit == "iso" or len(self.used()) < 1):
            raise ValueError("times of an npy file are numbers; give their unit")


class SensorFile(RowsFile):
    """One sensor. columns: channel to column, by name or number.

    unit: of the values, a key of UNIT_FACTORS, or of raw counts such as ``{lsb_per_g: 4096}``.
    limit: full scale, as a number in the file.
    """

    columns: dict[str, str] = Field(min_length=1)
    unit: Annotated[Scale, PlainValidator(parse_scale)]
    limit: float | None = Field(None, gt=0)

    def used(self) -> list[str]:
        """The columns of values, then those of times."""
        return [*self.columns.values(), *super().used()]

    @model_validator(mode="after")
    def _check_rows(self) -> SensorFile:
        self.check_clock()
        return self


class LabelsFile(RowsFile):
    """Activities: rows ``start_s``, ``end_s``, ``label``, or a column with the label of each row.

    column: that column; its rows have times as those of a sensor. offset_s is added to all times.
    """

    column: str | None = None
    offset_s: float = Field(0.0, ge=-FARTHEST_S, le=FARTHEST_S)

    @model_validator(mode="after")
    def _check_rows(self) -> LabelsFile:
        if self.is_array:
            raise ValueError(f"{quoted(self.file)} holds numbers; labels are read from a table")
        if self.column is not None:
            self.check_clock()
        elif self.time or self.rate_hz or self.start_s is not None or not self.header:
            raise ValueError(
                "time, rate_hz, start_s and header go with column (the label of each row); without "
                "it the columns are start_s, end_s and label"
            )
        return self

    def used(self) -> list[str]:
        """The column of labels, then those of times."""
        return [*([self.column] if self.column else []), *super().used()]
