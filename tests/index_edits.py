"""Ways to alter ``index.json``: any byte, and its structure."""

import random
from collections.abc import Callable, Iterator
from typing import Any

from primus_scale.data.index import SCHEMA_VERSION

Edit = Callable[[dict[str, Any]], Any]


def shard(tree: dict[str, Any]) -> Any:
    return tree["shards"][0]


def record(tree: dict[str, Any], number: int = 0) -> Any:
    return tree["shards"][0]["records"][number]


def swap(values: list[Any], first: int = 0, second: int = 1) -> None:
    values[first], values[second] = values[second], values[first]


def deep(levels: int) -> Any:
    tree: Any = 0
    for _ in range(levels):
        tree = [tree]
    return tree


def parts(tree: dict[str, Any]) -> Any:
    """Of sessions, in the second record."""
    return tree["shards"][0]["sessions"][1]


# Of a packed folder of at least two shards, two records in the first, with both teachers, and
# three parts of sessions in the second record.
EDITS: dict[str, Edit] = {
    "labels swapped": lambda t: swap(t["labels"]),
    "a label renamed": lambda t: t["labels"].__setitem__(1, "other"),
    "a label removed": lambda t: t["labels"].pop(0),
    "a label twice": lambda t: t["labels"].__setitem__(1, t["labels"][0]),
    "units of g": lambda t: t.update(units=["g"] * 3 + t["units"][3:]),
    "units of degrees": lambda t: t.update(units=t["units"][:3] + ["deg/s"] * 3),
    "a unit removed": lambda t: t["units"].pop(),
    "twice the rate": lambda t: t.update(rate_hz=2 * t["rate_hz"]),
    "a rate of text": lambda t: t.update(rate_hz=str(t["rate_hz"])),
    "a rate without end": lambda t: t.update(rate_hz=1e308),
    "a negative rate": lambda t: t.update(rate_hz=-50.0),
    "channels swapped": lambda t: swap(t["channels"]),
    "sensors swapped": lambda t: t.update(channels=t["channels"][3:] + t["channels"][:3]),
    "a channel twice": lambda t: t["channels"].__setitem__(1, t["channels"][0]),
    "a channel removed": lambda t: [t[k].pop() for k in ("channels", "units", "mean", "std")],
    "means swapped": lambda t: swap(t["mean"]),
    "a mean moved a little": lambda t: t["mean"].__setitem__(0, t["mean"][0] + 0.01),
    "deviations swapped": lambda t: swap(t["std"], 0, 5),
    "a deviation of 0": lambda t: t["std"].__setitem__(0, 0.0),
    "another window length": lambda t: t.update(window_samples=t["window_samples"] // 2),
    "a huge window length": lambda t: t.update(window_samples=10**15),
    "kind of windows": lambda t: t.update(kind="window"),
    "no kind": lambda t: t.pop("kind"),
    "a field renamed": lambda t: t.update(mean_=t.pop("mean")),
    "a field too many": lambda t: t.update(note="x"),
    "no shards": lambda t: t.update(shards=[]),
    "a shard removed": lambda t: t["shards"].pop(),
    "a shard twice": lambda t: t["shards"].append(shard(t)),
    "a shard under another name too": lambda t: t["shards"].append({**shard(t), "name": "b.tar"}),
    "shards swapped": lambda t: swap(t["shards"]),
    "names of shards swapped": lambda t: (
        shard(t).update(name=t["shards"][1]["name"]),
        t["shards"][1].update(name="shard-000000.tar"),
    ),
    "a shard that leads out": lambda t: shard(t).update(name="../shard-000000.tar"),
    "a shard at a URL": lambda t: shard(t).update(name="http://x/shard-000000.tar"),
    "a shard without a name": lambda t: shard(t).update(name=""),
    "another size": lambda t: shard(t).update(size=shard(t)["size"] + 512),
    "a huge size": lambda t: shard(t).update(size=2**62),
    "another sha256": lambda t: shard(t).update(sha256="0" * 64),
    "no sha256": lambda t: shard(t).pop("sha256"),
    "a record removed": lambda t: shard(t)["records"].pop(),
    "the first record removed": lambda t: shard(t)["records"].pop(0),
    "a record twice": lambda t: shard(t)["records"].append(record(t)),
    "records swapped": lambda t: swap(shard(t)["records"]),
    "an offset moved": lambda t: record(t, 1).__setitem__(0, record(t, 1)[0] + 512),
    "a negative offset": lambda t: record(t).__setitem__(0, -512),
    "a length cut": lambda t: record(t, 1).__setitem__(1, record(t, 1)[1] - 512),
    "a negative length": lambda t: record(t).__setitem__(1, -1),
    "fewer windows": lambda t: record(t).__setitem__(2, record(t)[2] - 1),
    "more windows": lambda t: record(t).__setitem__(2, record(t)[2] + 1),
    "windows without end": lambda t: record(t).__setitem__(2, 10**12),
    "windows beyond 64 bits": lambda t: record(t).__setitem__(2, 2**70),
    "no window": lambda t: record(t).__setitem__(2, 0),
    "another crc32": lambda t: record(t).__setitem__(3, record(t)[3] ^ 1),
    "a crc32 beyond 32 bits": lambda t: record(t).__setitem__(3, 2**32),
    "a record of three": lambda t: record(t).pop(),
    "a record of text": lambda t: record(t).__setitem__(1, str(record(t)[1])),
    "another session": lambda t: parts(t)[0].__setitem__(0, parts(t)[0][0] ^ 1),
    "a session beyond 64 bits": lambda t: parts(t)[0].__setitem__(0, 2**63),
    "a session of text": lambda t: parts(t)[0].__setitem__(0, str(parts(t)[0][0])),
    "sessions swapped": lambda t: swap(parts(t), 0, 2),
    "sessions joined": lambda t: (parts(t).pop(0), parts(t)[0].__setitem__(1, 2)),
    "a window moved to another session": lambda t: (
        parts(t)[0].__setitem__(1, parts(t)[0][1] + 1),
        parts(t)[2].__setitem__(1, parts(t)[2][1] - 1),
    ),
    "a window more in a session": lambda t: parts(t)[0].__setitem__(1, parts(t)[0][1] + 1),
    "a session of no window": lambda t: parts(t).append([1, 0, 0.0]),
    "a session of -1 windows": lambda t: parts(t).extend([[1, -1, 0.0], [1, 1, 0.0]]),
    "another step": lambda t: parts(t)[2].__setitem__(2, parts(t)[2][2] / 2),
    "a negative step": lambda t: parts(t)[2].__setitem__(2, -1.0),
    "a step of text": lambda t: parts(t)[2].__setitem__(2, "5.0"),
    "a step without end": lambda t: parts(t)[2].__setitem__(2, 1e308),
    "a session of two": lambda t: parts(t)[0].pop(),
    "a record without sessions": lambda t: shard(t)["sessions"].pop(),
    "a shard without sessions": lambda t: shard(t).pop("sessions"),
    "no sessions": lambda t: [shard.pop("sessions") for shard in t["shards"]],
    "a teacher removed": lambda t: t["teachers"].pop("text"),
    "teachers swapped": lambda t: t.update(
        teachers={"video": t["teachers"]["text"], "text": t["teachers"]["video"]}
    ),
    "another width": lambda t: t["teachers"]["video"].update(dim=4),
    "a huge width": lambda t: t["teachers"]["video"].update(dim=10**15),
    "an unknown modality": lambda t: t["teachers"].update(audio=t["teachers"]["text"]),
    "provenance nested deeply": lambda t: t.update(provenance={"x": deep(900)}),
    "another provenance": lambda t: t.update(provenance={}),
    "another embedding key": lambda t: t["teachers"]["video"].update(key="x"),
    "the schema before": lambda t: t.update(schema=2),
    "the next schema": lambda t: t.update(schema=SCHEMA_VERSION + 1),
    "no schema": lambda t: t.pop("schema"),
}
# What a forger can claim who also seals it: nothing in the folder tells against it.
BELIEVED = {
    "twice the rate",
    "a rate without end",
    "shards swapped",
    "another provenance",
    "another embedding key",
    "no sessions",
}


def flips(text: bytes, seed: int) -> Iterator[bytes]:
    """``text`` with each byte in turn replaced by another one."""
    rng = random.Random(seed)
    for place, byte in enumerate(text):
        other = rng.choice([value for value in range(256) if value != byte])
        yield text[:place] + bytes([other]) + text[place + 1 :]


def bit_flips(text: bytes) -> Iterator[bytes]:
    """``text`` with each bit in turn turned over."""
    for place, byte in enumerate(text):
        for bit in range(8):
            yield text[:place] + bytes([byte ^ 1 << bit]) + text[place + 1 :]
