"""Who is in a shard folder, as its index says (``provenance``, field ``people``).

An encoder's card has the provenance of its training data. So an evaluation can tell whether the
people of its labels and of its test were among those of pretraining.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable


def people_by_dataset(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The people of each data set, sorted, from pairs of data set and person."""
    people: defaultdict[str, set[str]] = defaultdict(set)
    for dataset, person in pairs:
        people[dataset].add(person)
    return {dataset: sorted(people[dataset]) for dataset in sorted(people)}
