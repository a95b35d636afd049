"""Send an exported encoder to the Hub: weights, card, and a page made from the card."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from primus_scale.encoders.card import CARD_FILE, read_card
from primus_scale.encoders.export import WEIGHTS_FILE
from primus_scale.encoders.hub import HubPlace, explain_hub_errors, parse_hub
from primus_scale.encoders.pretrained import read_weights
from primus_scale.encoders.sources import find_export
from primus_scale.share.model_card import render_model_card
from primus_scale.share.results import results_beside
from primus_scale.storage.files import check_writable

PAGE = "README.md"
_MOST_NAMED = 3  # files in a message
PLACES = ("url", "source")  # fields of provenance that hold a path or a URL


def push(source: str, place: str, *, private: bool = False, name_people: bool = False) -> str:
    """Send the encoder that ``source`` names to ``hf://OWNER/NAME``; returns the commit's URL.

    The repository is made where it is not there, private with ``private``. name_people: see
    ``published_files``. ValueError where ``private`` is set and the repository is public, where
    ``place`` has a revision, or the encoder is damaged; errors of the Hub as OSError.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    target, api = _target(place), HfApi()
    with tempfile.TemporaryDirectory() as folder, explain_hub_errors(target):
        files = write_published(source, place, folder, name_people=name_people)
        api.create_repo(target.repo, private=private or None, exist_ok=True)
        if private and not api.model_info(target.repo).private:
            raise ValueError(
                f"{target} is there already and is public; make it private on its page, or choose "
                "another name"
            )
        operations = [CommitOperationAdd(path.name, path) for path in files]
        summary = f"Upload an encoder of primus-scale ({Path(source).name})"
        try:
            commit = api.create_commit(target.repo, operations, commit_message=summary)
        except RuntimeError as error:  # the library's for a file that could not be sent
            raise OSError(f"{target}: {error} ({error.__cause__}); start it again") from error
    return str(commit.commit_url)


def write_published(
    source: str, place: str, out: str | Path, *, name_people: bool = False
) -> list[Path]:
    """Write what ``push`` would send into the folder ``out``; returns the files.

    ``out`` must be empty, or hold what was written by an earlier call; FileExistsError otherwise.
    """
    folder = Path(out)
    files = published_files(source, _target(place), name_people=name_people)
    check_writable(folder)
    _check_replaceable(folder, files, source)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in files]


def _check_replaceable(folder: Path, files: Collection[str], source: str) -> None:
    found = {path.name for path in folder.iterdir()}
    if found and (found != set(files) or folder.samefile(find_export(source))):
        raise FileExistsError(
            f"{folder} holds {', '.join(sorted(found)[:_MOST_NAMED])}, which stay as they are; "
            "name a new folder"
        )


def published_files(source: str, target: HubPlace, *, name_people: bool) -> dict[str, bytes]:
    """By name the files that a repository gets.

    If the encoder lies beside the results of its evaluation, and its card has none, the card gets
    them. name_people: keep the names of the people of the training data in the card, from which
    ``evaluate`` knows who was pretrained on; otherwise it has their numbers. Of places of data,
    only the last part is kept.
    """
    folder = find_export(source)
    card = read_card(folder)
    weights = read_weights(folder, card, source)
    if not card.about.results:
        rows = results_beside(folder, card.weights_sha256)
        about = card.about.model_copy(update={"results": rows})
        card = card.model_copy(update={"about": about})
    card = card.model_copy(update={"data": _for_publication(card.data, name_people=name_people)})
    text = json.dumps(card.model_dump(mode="json"), indent=2) + "\n"
    return {
        WEIGHTS_FILE: weights,
        CARD_FILE: text.encode("utf-8"),
        PAGE: render_model_card(card, target.repo).encode("utf-8"),
    }


def _for_publication(value: Any, *, name_people: bool) -> Any:
    """The card's ``data``, or a part of it, without what is nobody else's business.

    It is free JSON: the provenance of shards that were made from shards holds that of the latter,
    at any depth. People are counted, and places keep their last part.
    """
    if isinstance(value, list):
        return [_for_publication(one, name_people=name_people) for one in value]
    if not isinstance(value, dict):
        return value
    published: dict[str, Any] = {}
    for name, one in value.items():
        if name == "people" and not name_people:
            published["people_counted"] = _counted(one)
        elif name in PLACES and isinstance(one, str):
            published[name] = one.rstrip("/").rpartition("/")[2]
        else:
            published[name] = _for_publication(one, name_people=name_people)
    return published


def _counted(people: Any) -> dict[str, int]:
    """The number of people of each data set."""
    named = people.items() if isinstance(people, dict) else ()
    return {name: len(names) for name, names in named if isinstance(names, list)}


def _target(place: str) -> HubPlace:
    target = parse_hub(place)
    if target.revision:
        raise ValueError(f"{target}: an encoder is sent to the branch main; leave @REVISION out")
    return target
