"""Join the results of runs, each of one split of people and one pretraining seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from primus_scale.evaluate.results import assemble
from primus_scale.evaluate.zero_shot import summarise_zero_shot

DESCRIPTIONS = ("encoder", "data", "augment", "map")  # fields that ``evaluate`` adds


def pool(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Join the results of several runs (splits of people, pretraining seeds).

    Encoder, data and map are those of the first run; retrieval is listed for each run. Raises
    ValueError where classes, protocols or encoder architectures differ, or a run occurs twice.
    """
    if not results:
        raise ValueError("no results to pool")
    for key in ("schema", "classes", "protocol", "augment"):
        if any(result.get(key) != results[0].get(key) for result in results):
            raise ValueError(f"results differ in their {key}; pool only runs of one protocol")
    architectures = {(r.get("encoder") or {}).get("name") for r in results}
    if len(architectures) > 1:
        raise ValueError(f"results are of different encoders {architectures}; pool them apart")
    runs = [run for result in results for run in result["runs"]]
    names = [(run["split"], run["pretraining_seed"]) for run in runs]
    if len(set(names)) < len(names):
        raise ValueError(f"a pair of split and pretraining seed occurs twice in {sorted(names)}")
    pooled = assemble(
        runs,
        [record for result in results for record in result["records"]],
        classes=results[0]["classes"],
        protocol=results[0]["protocol"],
    )
    pooled |= {key: results[0][key] for key in DESCRIPTIONS if key in results[0]}
    if all("zero_shot" in result for result in results):
        records = [record for result in results for record in result["zero_shot"]["records"]]
        pooled["zero_shot"] = summarise_zero_shot(records, results[0]["zero_shot"]["prompts"])
    if any("retrieval" in result for result in results):
        pooled["retrieval"] = [one for result in results for one in result.get("retrieval", [])]
    return pooled
