"""The words of splits: sides, units that are on one side, and what sides may have in common."""

LABEL, TEST, UNUSED = "label", "test", "unused"
SIDES = (LABEL, TEST, UNUSED)
UNITS = ("person", "placement", "dataset", "session", "recording")
PLURALS = {
    **{"person": "people", "placement": "placements", "dataset": "data sets"},
    **{"session": "sessions", "recording": "recordings"},
}
KINDS = ("people", "recordings", "captures", "days", "intervals", "copies")
