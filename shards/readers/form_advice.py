"""Advice on a ``recording.yaml`` that does not describe how its text table is written."""

from __future__ import annotations

from primus_scale.storage.names import quoted
from shards.files.sniff import Sniffed, sniff
from shards.files.source import Source
from shards.files.text_tables import TextForm
from shards.readers.table_yaml import TableFile

DRAFT = "primus-scale shards init folder --src DIR"
WORDS = {"\t": "tab", " ": "space"}


def advise(source: Source, path: str, file: TableFile) -> str:
    """The end of a message: keys that fit the file at ``path`` better; empty where all fit."""
    try:
        found = sniff(source, path)
    except (OSError, ValueError):
        return ""
    if found is None:
        return ""
    keys = [f"{key}: {value}" for key, value in differing(found, file.form(), header=file.header)]
    if not keys:
        return ""
    where = f" (line {found.form.skip_lines + 1} names the columns)" if found.names else ""
    return (
        f". The file seems to be written otherwise than described{where}: write "
        f"{', '.join(keys)}; or let `{DRAFT}` draft the description"
    )


def differing(found: Sniffed, form: TextForm, *, header: bool) -> list[tuple[str, str]]:
    """Keys of ``form`` that do not fit the table found, each with the value that does."""
    delimiter = form.delimiter or (found.form.delimiter if found.stated else ",")
    keys = []
    if found.form.delimiter != delimiter:
        assert found.form.delimiter is not None
        keys.append(("delimiter", spell_separator(found.form.delimiter)))
    if found.form.decimal != form.decimal:
        keys.append(("decimal", spell_separator(found.form.decimal)))
    if (found.names is not None) != header:
        keys.append(("header", str(found.names is not None).lower()))
    for name in ("skip_lines", "skip_below"):
        if (value := getattr(found.form, name)) != getattr(form, name):
            keys.append((name, str(value)))
    if found.form.encoding != form.encoding:
        keys.append(("encoding", found.form.encoding))
    return keys


def spell_separator(delimiter: str) -> str:
    """A separator as a YAML value."""
    return WORDS.get(delimiter, quoted(delimiter).replace("'", '"'))
