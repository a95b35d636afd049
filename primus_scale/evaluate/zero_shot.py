"""Classification without labels: the class whose description is nearest in the space of texts.

Each label has some wordings; its prototype is the normalised mean of their embeddings. A window
belongs to the class whose prototype has the highest cosine with the encoder's text embedding of the
window. Sources: Radford et al., "CLIP", ICML 2021, arXiv 2103.00020, section 3.1 (means over
prompts: 3.1.4); for IMU, Moon et al., "IMU2CLIP", arXiv 2210.14395.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from primus_scale.encoders.card import EncoderCard
from primus_scale.evaluate.draws import LabelledWindows
from primus_scale.evaluate.results import accuracy_of, macro_f1_of
from primus_scale.evaluate.statistics import score_people
from primus_scale.evaluate.teacher_space import embed_in_space, teacher_of
from primus_scale.storage.names import nearest, quoted
from primus_scale.storage.yaml_text import read_yaml
from primus_scale.teachers import embed_windows

TEXT = "text"

Prompts = Mapping[str, tuple[str, ...]]  # wordings by label


def run_zero_shot(
    test: LabelledWindows,
    encoder: nn.Module,
    card: EncoderCard,
    prompts: Prompts | str,
    *,
    split: int = 0,
    pretraining_seed: int = 0,
) -> dict[str, Any]:
    """Classify the test windows by ``prompts``; the result is that of ``summarise_zero_shot``.

    prompts: wordings by label, or a YAML file of them; those of other labels are not used. Raises
    ValueError where the encoder has no head for text, a label of the task has no wording, or the
    text teacher is not the encoder's.
    """
    if TEXT not in card.teachers:
        raise ValueError(
            "few_shot.prompts: the encoder has no head for text, so it cannot be asked by texts; "
            "pretrain with a text teacher (teachers.text, objective.weights.imu_text), or leave "
            "few_shot.prompts empty"
        )
    chosen = _prompts_of(test.classes, read_prompts(prompts))
    device = next(encoder.parameters()).device
    teacher = teacher_of(card, TEXT, device)
    embeddings = embed_in_space(encoder, test.imu, TEXT)

    def answers(wordings: Sequence[tuple[str, ...]]) -> np.ndarray:
        prototypes, _ = embed_windows(teacher, wordings)
        best: np.ndarray = (embeddings @ prototypes.cpu().T).argmax(dim=1).numpy()
        return best

    alone = [answers([(one,) for one in row]) for row in zip(*chosen.values(), strict=False)]
    record = {
        "split": split,
        "pretraining_seed": pretraining_seed,
        "by_wording": [float(np.mean(one == test.label)) for one in alone],
        **score_people(test.label, answers([*chosen.values()]), test.person, len(test.classes)),
    }
    return summarise_zero_shot([record], chosen)


def summarise_zero_shot(records: Sequence[dict[str, Any]], prompts: Prompts) -> dict[str, Any]:
    """Accuracy and macro-F1 with intervals over people, of one run or several, ready for JSON.

    chance: accuracy of random answers. confusion: counts over all runs. by_wording in a record: the
    accuracy with the first wording of every label alone, with the second one, and so on.
    """
    fits = {(r["split"], r["pretraining_seed"], 0): r for r in records}
    confusions = [answers["confusion"] for r in records for answers in r["people"].values()]
    return {
        "accuracy": accuracy_of(fits),
        "macro_f1": macro_f1_of(fits),
        "chance": 1 / len(prompts),
        "confusion": np.sum(confusions, axis=0).tolist(),
        "prompts": {label: list(wordings) for label, wordings in prompts.items()},
        "records": list(records),
    }


def read_prompts(prompts: Prompts | str) -> Prompts:
    """The prompts, read from a YAML file if ``prompts`` is its path.

    Raises FileNotFoundError where there is no such file, ValueError where it is no mapping of
    labels to lists of texts.
    """
    if not isinstance(prompts, str):
        return prompts
    path = Path(prompts)
    if not path.is_file():
        raise FileNotFoundError(
            f"few_shot.prompts: no file {path}; write one with a line `label: [wording, ...]` for "
            "each label"
        )
    try:
        tree = read_yaml(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from None
    good = isinstance(tree, dict) and all(
        isinstance(texts, list) and all(isinstance(text, str) for text in texts)
        for texts in tree.values()
    )
    if not good:
        raise ValueError(
            f"{path} is no mapping of labels to lists of texts; write a line "
            "`label: [wording, ...]` for each label"
        )
    return {str(label): tuple(texts) for label, texts in tree.items()}


def _prompts_of(classes: Sequence[str], prompts: Prompts) -> dict[str, tuple[str, ...]]:
    """The wordings of each class, without empty ones; ValueError naming classes without any."""
    kept = {
        label: tuple(text.strip() for text in texts if text.strip())
        for label, texts in prompts.items()
    }
    if missing := [label for label in classes if not kept.get(label)]:
        raise ValueError(
            f"few_shot.prompts: no wording of the labels {', '.join(map(quoted, missing))}"
            f"{nearest(missing[0], set(kept) - set(classes), 'label with one')}; add some for each"
        )
    return {label: kept[label] for label in classes}
