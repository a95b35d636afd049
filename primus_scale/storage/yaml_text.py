"""YAML that somebody else may have written: read within bounds, and refused in one way.

tree = read_yaml(path.read_bytes())            # numbers, booleans and text, as YAML 1.1 has them
tree = read_yaml(data, texts_only=True)        # every scalar as it is written

The library itself fails in many ways: RecursionError where lists are nested deeply, hours and
gigabytes where aliases stand for aliases, a bare ValueError for a date or a number that is none.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

from primus_scale.storage.names import quoted

MOST_BYTES = 2**20
MOST_DEPTH = 32  # lists and mappings within each other
MOST_VALUES = 100_000  # with those that aliases repeat
_TEXT = 100  # characters that count as one more value
_MERGE = "tag:yaml.org,2002:merge"


def read_yaml(data: bytes | str, *, texts_only: bool = False) -> Any:
    """What the YAML text in ``data`` holds.

    texts_only: scalars are texts as they are written, so that person 007 and a column called no
    stay so. ValueError with the line where there is one, and nothing else, where it is no YAML or
    no UTF-8, a key is there twice, or it is longer, deeper or by its aliases larger than any such
    file is. The message quotes little.
    """
    size = len(data) if isinstance(data, bytes) else len(data.encode("utf-8", "replace"))
    if size > MOST_BYTES:
        raise ValueError(f"longer than {MOST_BYTES:,} bytes, which no such file is")
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
        _check_depth(text)
        loader = _TextLoader(text) if texts_only else _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_size(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1 if isinstance(data, bytes) else 1
        raise ValueError(f"line {line}: no UTF-8 text; save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise ValueError(_told(error)) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (ValueError, TypeError, AttributeError, OverflowError, KeyError) as error:
        # Of a scalar that looks like a number, a date or binary data, and is none.
        raise ValueError(f"a value of it cannot be read ({str(error)[:200]})") from None


def _check_depth(text: str) -> None:
    """YAMLError where lists and mappings go too deep; read in events, which need no recursion."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MOST_DEPTH:
                problem = f"more than {MOST_DEPTH} lists and mappings within each other"
                raise yaml.YAMLError(_placed(problem, event.start_mark))
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _check_size(root: yaml.Node) -> None:
    """YAMLError where aliases stand for more than anybody writes, or for what they stand in."""
    sizes: dict[int, int] = {}
    around: set[int] = set()

    def size(node: yaml.Node) -> int:
        if isinstance(node, yaml.ScalarNode):
            return 1 + len(node.value) // _TEXT
        key = id(node)
        if key in around:
            raise yaml.YAMLError(_placed("an alias stands for what it stands in", node.start_mark))
        if key not in sizes:
            around.add(key)
            pairs = isinstance(node, yaml.MappingNode)
            inner = [part for pair in node.value for part in pair] if pairs else node.value
            sizes[key] = 1 + sum(map(size, inner))
            around.discard(key)
        return sizes[key]

    if size(root) > MOST_VALUES:
        raise yaml.YAMLError(f"more than {MOST_VALUES:,} values, by its aliases")


def _told(error: yaml.YAMLError) -> str:
    """What is wrong and where, without the lines around it, which may hold what is secret."""
    problem = " ".join(str(getattr(error, "problem", None) or error).split())[:200]
    return _placed(problem, getattr(error, "problem_mark", None))


def _placed(problem: str, mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem


def _check_keys(node: yaml.MappingNode) -> None:
    """ConstructorError where a key is there twice; of merged mappings the own keys win."""
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(
                None, None, "a key that is a list or a mapping", key.start_mark
            )
        if key.value in seen and key.tag != _MERGE:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {quoted(key.value)[1:-1]} is there twice", key.start_mark
            )
        seen.add(key.value)


class _Loader(yaml.SafeLoader):
    """Numbers, booleans and text; a key that is there twice is refused."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._checked: set[int] = set()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Check the keys as they are written, before others are merged in."""
        if id(node) not in self._checked:
            self._checked.add(id(node))
            _check_keys(node)
        super().flatten_mapping(node)


class _TextLoader(yaml.BaseLoader):
    """Leaves scalars as they are written."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping whose keys are each there once."""
        _check_keys(node)
        return super().construct_mapping(node, deep)
