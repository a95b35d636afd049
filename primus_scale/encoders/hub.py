"""Encoders on the Hugging Face Hub: ``hf://OWNER/NAME`` or ``hf://OWNER/NAME@REVISION``.

Files are read by ``huggingface_hub``, so its settings hold: the token of ``hf auth login`` or
``HF_TOKEN`` for private repositories, ``HF_HOME`` for its cache, ``HF_HUB_OFFLINE=1`` to use that
cache alone, ``HF_ENDPOINT`` for another hub. Only the card and the weights are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from primus_scale.encoders.card import CARD_FILE
from primus_scale.encoders.export import WEIGHTS_FILE
from primus_scale.storage.names import quoted
from primus_scale.storage.urls import HUB_SCHEME, redact

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_PLACE = re.compile(rf"(?P<repo>{_NAME}/{_NAME})(?:@(?P<revision>[^\s@]+))?")
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


class HubPlace(NamedTuple):
    """A repository of the Hub, and the branch, tag or commit in it; None is the branch main."""

    repo: str
    revision: str | None

    def __str__(self) -> str:
        return f"{HUB_SCHEME}{self.repo}" + (f"@{self.revision}" if self.revision else "")


def parse_hub(text: str) -> HubPlace:
    """The place of ``hf://OWNER/NAME[@REVISION]``; ValueError where it has another form."""
    match = _PLACE.fullmatch(text.removeprefix(HUB_SCHEME).rstrip("/"))
    if not text.startswith(HUB_SCHEME) or match is None:
        raise ValueError(
            f"{quoted(redact(text))} names no encoder on the Hub; write hf://OWNER/NAME, or "
            "hf://OWNER/NAME@REVISION for a branch, a tag or a commit"
        )
    return HubPlace(match["repo"], match["revision"])


def fetch_export(text: str) -> Path:
    """The folder in the cache with the encoder of ``hf://OWNER/NAME[@REVISION]``.

    Weights and card are of one commit, also if the branch moves meanwhile. FileNotFoundError where
    repository, revision or file do not exist, or this user may not read them. OSError where the
    Hub fails, or cannot be reached and the cache does not have the files.
    """
    from huggingface_hub import hf_hub_download

    place = parse_hub(text)
    with explain_hub_errors(place):
        card = Path(hf_hub_download(place.repo, CARD_FILE, revision=place.revision))
        folder = card.parent  # named after the commit
        hf_hub_download(place.repo, WEIGHTS_FILE, revision=folder.name)
    return folder


@contextmanager
def explain_hub_errors(place: HubPlace) -> Iterator[None]:
    """Turn the errors of ``huggingface_hub`` into OSErrors that say what to do."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise FileNotFoundError(
            f"{place}: access must be granted on the repository's page; {LOG_IN}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{place}: there is no such repository, or it is private and not for this user; "
            f"check owner and name, or {LOG_IN}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(
            f"{place}: the repository has no such revision; give a branch, a tag or a commit"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise OSError(
            f"{place} is not in the cache, and the Hub cannot be reached (no network, or "
            "HF_HUB_OFFLINE is set); load it once with a network, or copy the folder of the encoder"
        ) from error
    except errors.EntryNotFoundError as error:
        raise FileNotFoundError(
            f"{place} holds no {CARD_FILE} with {WEIGHTS_FILE}, so it is no encoder of "
            "primus-scale; `primus-scale push` writes one"
        ) from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        advice = LOG_IN if status in (401, 403) else "try again later"
        raise OSError(
            f"{place}: the Hub answered {status}: {_first_line(error)}; {advice}"
        ) from error
    except errors.HTTPError as error:  # of the library that connects: no network, a time-out
        raise OSError(
            f"{place}: the Hub cannot be reached ({_first_line(error)}); try again"
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise OSError(f"{place}: HF_HUB_OFFLINE is set; unset it to reach the Hub") from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return redact(lines[0])[:300]
