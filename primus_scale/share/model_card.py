"""The page of an encoder on the Hub: ``README.md``, made from its card."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import jinja2
import yaml

from primus_scale.encoders.about import CardResult
from primus_scale.encoders.card import EncoderCard
from primus_scale.evaluate.lead import labels_of

TEMPLATE = "model_card.md"
TAGS = ("imu", "inertial-sensors", "accelerometer", "human-activity-recognition", "time-series")
# Licences that the Hub knows, by our spelling in lower case with dashes.
KNOWN_LICENCES = (
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "mpl-2.0", "gpl-3.0"),
    *("cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0"),
)


def render_model_card(card: EncoderCard, repo: str) -> str:
    """The text of ``README.md`` for the repository ``repo``, ``OWNER/NAME``."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("primus_scale.share"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown; cells are escaped by the filter
    )
    environment.filters |= {"cell": _cell, "percent": _percent}
    return environment.get_template(TEMPLATE).render(
        metadata=yaml.safe_dump(hub_metadata(card, repo), sort_keys=False, allow_unicode=True),
        card=card,
        about=card.about,
        repo=repo,
        title=card.about.title or repo.partition("/")[2],
        channels=[*zip(card.channels, card.units, strict=True)],
        datasets=_datasets(card),
        windows=card.data.get("windows"),
        tables=[*_tables(card.about.results)],
        terms={name: w for name, w in card.objective.get("weights", {}).items() if w},
    )


def hub_metadata(card: EncoderCard, repo: str) -> dict[str, Any]:
    """The header of ``README.md`` that the Hub reads: licence, tags, results by task."""
    licence = re.sub(r"\s+", "-", card.licence.strip().lower())
    known = licence in KNOWN_LICENCES
    metadata: dict[str, Any] = {
        "license": licence if known else "other",
        **({} if known else {"license_name": _slug(card.licence)}),
        "library_name": "primus-scale",
        "pipeline_tag": "feature-extraction",
        "tags": list(TAGS),
    }
    if card.about.results:
        results = [_indexed(row) for row in card.about.results]
        metadata["metrics"] = ["accuracy"]
        metadata["model-index"] = [{"name": repo.partition("/")[2], "results": results}]
    return metadata


def _indexed(row: CardResult) -> dict[str, Any]:
    """A result as the Hub's model index has it; accuracies in percent."""
    labels = f"{labels_of(row.labels)}, {row.protocol}"
    return {
        "task": {"type": "other", "name": labels},
        "dataset": {"type": _slug(row.task), "name": _one_line(row.task)},
        "metrics": [{"type": "accuracy", "name": "in %", "value": round(100 * row.value, 1)}],
    }


def _tables(rows: Sequence[CardResult]) -> list[tuple[str, list[CardResult]]]:
    """Results by task, in their order."""
    tables: dict[str, list[CardResult]] = {}
    for row in rows:
        tables.setdefault(row.task, []).append(row)
    return [*tables.items()]


def _datasets(card: EncoderCard) -> dict[str, str]:
    """What the card says of each data set; its ``data`` are free JSON."""
    train = card.data.get("train")
    notes: dict[Any, Any] = {}
    for source in train if isinstance(train, list) else ():
        provenance = source.get("provenance") if isinstance(source, dict) else None
        found = provenance.get("datasets") if isinstance(provenance, dict) else None
        notes |= found if isinstance(found, dict) else {}
    return {str(name): str(note) for name, note in notes.items()}


def _slug(text: str) -> str:
    """Text as an identifier: what is no letter or digit becomes a dash."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60].strip("-") or "unknown"


def _cell(text: object) -> str:
    """Text in a cell of a Markdown table, or in a line: no line breaks, no bars, no HTML."""
    return _one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
