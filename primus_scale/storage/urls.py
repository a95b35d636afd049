"""Places of data, runs and results: URLs, and paths of this machine.

    parse_place("s3://bucket/shards/")               # "s3://bucket/shards"
    parse_place("s3://")                             # ValueError: no bucket; a variable is unset?
    parse_place("https://me:secret@host/shards")     # ValueError without the secret
    redact("no answer from https://me:secret@host")  # "no answer from https://***@host"

A URL without a bucket must not be read as a folder ``s3:`` of this machine. A URL must not hold
credentials, since configurations, reports and messages repeat it. Credentials belong where the
storage's client looks for them, such as the environment.
"""

from __future__ import annotations

import re
from pathlib import Path

HUB_SCHEME = "hf://"  # encoders on the Hugging Face Hub, which are no folders of data

# ``abfs://container@account`` and ``sftp://user@host`` have no secret, ``https://token@host`` has.
_USER = re.compile(r"(?<=://)[^/?#\s@]*:[^/?#\s@]*@|(?:(?<=http://)|(?<=https://))[^/?#\s@]+@")
_QUERY = re.compile(r"(://[^?\s'\"]*)\?[^\s'\"]+")  # where signatures and tokens stand

# Storages whose URLs name a bucket, a container, a repository or a host first.
_REMOTE = re.compile(
    r"s3[an]?|gs|gcs|az|abfss?|adl|wasbs?|oci|oss|tos|r2|b2|https?|ftps?|sftp|ssh|smb|webdav|webhdfs"
    r"|hf|github|lakefs",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(//)?(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$\{?[A-Za-z_]\w*\}?|\$\([^)]*\)|\{\{?\s*\w+\s*\}?\}|<\w[\w-]*>")


def parse_place(place: str | Path) -> str:
    """A URL or a path, without slashes at its end.

    ValueError where it is empty, or a path that looks like a part of a URL. Also where a URL has no
    bucket or host, or has a variable there that was not filled in, and where it holds a password, a
    token or a query.
    """
    text = str(place)
    clean = redact(text)
    if clean != text:
        raise ValueError(
            f"{clean} has credentials or a query in it, which would be written down with the data "
            "and the run; put them where the storage's client looks for them, such as "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
        )
    if problem := _problem(text):
        raise ValueError(
            f"{text!r} {problem}; write a path, or a URL like s3://BUCKET/FOLDER, and check that "
            "every variable in it is set"
        )
    short = text.rstrip("/") or "/"
    return text if short.endswith(":") else short  # file:/// is the root, file: is not


def parse_local(place: str | Path) -> Path:
    """The path of a folder or file that must lie on this machine.

    ValueError as ``parse_place``, and where it is a URL.
    """
    path = parse_place(place)
    if "://" in path:
        raise ValueError(f"{path} is a URL; this must be a path of this machine")
    return Path(path)


def redact(text: str) -> str:
    """``text`` with ``***`` for passwords, tokens and queries in the URLs that it quotes."""
    return _QUERY.sub(r"\1?***", _USER.sub("***@", text))


def _problem(text: str) -> str | None:
    """Why ``text`` is no URL and no path; None where it is one."""
    if not text.strip():
        return "names no place"
    if "\0" in text or "\n" in text:
        return "has a line break or a null byte in it"
    *_, last = links = text.split("::")
    if len(links) > 1 and not re.match(r"\w+(://|::\w+(://|::))", text):
        return "has :: in it, which joins URLs"
    for link in links:
        match = _SCHEME.match(link)
        scheme, slashes, rest = match.groups() if match else ("", None, link)
        if _REMOTE.fullmatch(scheme):
            if slashes is None:
                return f"lacks // after {scheme}:"
            if problem := _host_problem(rest):
                return problem
        if slashes and not rest and link is last:
            return "names no place"
        if (found := _VARIABLE.match(rest)) and rest[found.end() :][:1] in ("", "/"):
            return f"begins with {found[0]}, which is not filled in"
    return None


def _host_problem(rest: str) -> str | None:
    """What is wrong with the bucket or host at the beginning of what follows ``://``."""
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    name = host.rpartition("@")[2].partition(":")[0] if not host.startswith("[") else host
    if name in ("", ".", ".."):
        return "names no bucket or host"
    if found := _VARIABLE.search(host):
        return f"has {found[0]} for a bucket or host, which is not filled in"
    if any(character.isspace() or character in "${}<>\\" for character in host):
        return f"has {host!r} for a bucket or host"
    return None
