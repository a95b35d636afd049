"""URLs of data hold no credentials: configurations, reports and messages repeat them.

    check_url("s3://bucket/shards")                  # returns it
    check_url("https://me:secret@host/shards")       # ValueError without the secret
    redact("no answer from https://me:secret@host")  # "no answer from https://***@host"

What a URL may not hold belongs where the storage's client looks for it, such as the environment.
"""

from __future__ import annotations

import re

# ``abfs://container@account`` and ``sftp://user@host`` hold no secret, ``https://token@host`` does.
_USER = re.compile(r"(?<=://)[^/?#\s@]*:[^/?#\s@]*@|(?:(?<=http://)|(?<=https://))[^/?#\s@]+@")
_QUERY = re.compile(r"(://[^?\s'\"]*)\?[^\s'\"]+")  # where signatures and tokens stand


def check_url(url: str) -> str:
    """``url`` itself, or a path; ValueError where it holds a password, a token or a query."""
    clean = redact(url)
    if clean != url:
        raise ValueError(
            f"{clean} has credentials or a query in it, which would be written down with the data "
            "and the run; put them where the storage's client looks for them, such as "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
        )
    return url


def redact(text: str) -> str:
    """``text`` with ``***`` for passwords, tokens and queries in the URLs that it quotes."""
    return _QUERY.sub(r"\1?***", _USER.sub("***@", text))
