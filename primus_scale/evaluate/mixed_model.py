"""Paired differences by a mixed model, as a check of the bootstrap over people.

The gain of person p on draw d of labels, in share of the person's windows, is

    gain_pd = mean + a_p + b_d + e_pd,

with normal a (people), b (draws of labels; a draw of another split is another one) and e. Every
person counts alike, where the bootstrap weighs people by their windows. The interval also holds for
labels drawn anew, which that of the bootstrap does not. Fitted by restricted maximum likelihood
(``statsmodels``). Source: Baayen, Davidson, Bates, "Mixed-effects modeling with crossed random
effects for subjects and items", Journal of Memory and Language 2008.
"""

from __future__ import annotations

import importlib
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from primus_scale.evaluate.statistics import LEVEL

Fit = tuple[int, int, int]  # split of people, pretraining seed, draw of labels
# The parts of a model; the next is fitted where the one before has no maximum.
TERMS = (("person", "draw"), ("person",), ("draw",))


def mixed_gain(
    gain: np.ndarray, person: Sequence[str], draw: Sequence[str]
) -> dict[str, float] | None:
    """Mean gain and its 95 % interval, with the deviations of the three parts, for JSON.

    gain, person, draw ``(n,)``: of each person on each draw. Keys ``mean``, ``low``, ``high``,
    ``people``, ``person_sd``, ``draw_sd``, ``residual_sd``. The interval uses Student's t with as
    many degrees of freedom as people, less one. A part that is too small to be estimated is left
    out and has deviation 0. None where there are fewer than two people or two draws, where gains
    are all equal, or where no model has a maximum.
    """
    groups = {"person": np.unique(person, return_inverse=True)[1]}
    groups["draw"] = np.unique(draw, return_inverse=True)[1]
    people, scale = int(groups["person"].max()) + 1, float(np.std(gain))
    if people < 2 or groups["draw"].max() < 1 or scale < 1e-9:
        return None
    for terms in TERMS:
        fit = _fit(gain / scale, {term: groups[term] for term in terms})
        if fit is not None:
            break
    else:
        return None
    mean, error, deviations = fit
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, people - 1)) * error
    return {
        "mean": scale * mean,
        "low": scale * (mean - reach),
        "high": scale * (mean + reach),
        "people": people,
        **{f"{part}_sd": scale * deviations.get(part, 0.0) for part in ("person", "draw")},
        "residual_sd": scale * deviations["residual"],
    }


def gains_of_people(
    ours: Mapping[Fit, Mapping[str, Any]], theirs: Mapping[Fit, Mapping[str, Any]]
) -> tuple[np.ndarray, list[str], list[str]]:
    """The arguments of ``mixed_gain``: gains on the fits that both have, averaged over seeds."""
    gains: dict[tuple[str, str], list[float]] = defaultdict(list)
    for split, seed, draw in sorted(ours.keys() & theirs.keys()):
        pair = [records[split, seed, draw]["people"] for records in (ours, theirs)]
        for name, answers in pair[0].items():
            more = answers["correct"] - pair[1][name]["correct"]
            gains[name, f"{split}/{draw}"].append(more / answers["total"])
    people, draws = zip(*gains, strict=True)
    return np.array([np.mean(of_seeds) for of_seeds in gains.values()]), [*people], [*draws]


def _fit(
    gain: np.ndarray, groups: dict[str, np.ndarray]
) -> tuple[float, float, dict[str, float]] | None:
    """Mean, its standard error and the deviations of the parts; None without a maximum."""
    library: Any = importlib.import_module("statsmodels.regression.mixed_linear_model")
    indicators = [np.eye(group.max() + 1)[group] for group in groups.values()]
    names = [[[f"{i}" for i in range(matrix.shape[1])]] for matrix in indicators]
    parts = library.VCSpec(list(groups), names, [[matrix] for matrix in indicators])
    ones = np.ones((len(gain), 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of boundaries, which the result tells as well
        try:
            model = library.MixedLM(gain, ones, groups=np.zeros(len(gain)), exog_vc=parts)
            fitted = model.fit(reml=True)
        except (ValueError, np.linalg.LinAlgError):
            return None
    variance = dict(zip(groups, fitted.vcomp, strict=True), residual=fitted.scale)
    error = float(fitted.bse_fe[0])
    if not fitted.converged or not np.isfinite(error):
        return None
    deviations = {name: float(np.sqrt(max(value, 0.0))) for name, value in variance.items()}
    return float(fitted.fe_params[0]), error, deviations
