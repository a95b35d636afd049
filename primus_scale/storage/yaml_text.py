"""Read YAML that somebody else may have written: limited in size, with one kind of error.

tree = read_yaml(path.read_bytes())            # numbers, booleans and text
tree = read_yaml(data, texts_only=True)        # every scalar as it is written

Values are those of YAML 1.1, but for two kinds of numbers: 010 is no octal 8, and 1:30 no 90.

The library alone fails in many ways: RecursionError where lists are nested deeply, hours and
gigabytes where aliases refer to aliases, a ValueError without a place for a bad date or number.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from primus_scale.storage.names import quoted

MOST_BYTES = 2**20
MOST_DEPTH = 32  # nested lists and mappings
MOST_VALUES = 100_000  # values, those that aliases repeat included
_TEXT_PER_VALUE = 100  # so many characters of a text count as one more value
_OCTAL_OR_SEXAGESIMAL = re.compile(r"[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_MERGE = "tag:yaml.org,2002:merge"


def read_yaml(data: bytes | str, *, texts_only: bool = False) -> Any:
    """The value of the YAML text ``data``.

    texts_only: keep every scalar as the text that is written, so that person 007 and a column
    called no do not change. Raises no other error than ValueError: where the text is not YAML, not
    UTF-8, too long, too deeply nested or too large after its aliases are resolved, and where a key
    occurs twice. The message has the line, where it is known, and quotes little.
    """
    size = len(data) if isinstance(data, bytes) else len(data.encode("utf-8", "replace"))
    if size > MOST_BYTES:
        raise ValueError(f"longer than {MOST_BYTES:,} bytes, the most that is read")
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
        # A scalar looks like a number, a date or binary data, but is none.
        raise ValueError(f"a value of it cannot be read ({str(error)[:200]})") from None


def _check_depth(text: str) -> None:
    """YAMLError where lists and mappings are nested too deeply; events need no recursion."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MOST_DEPTH:
                problem = f"more than {MOST_DEPTH} nested lists and mappings"
                raise yaml.YAMLError(_placed(problem, event.start_mark))
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _check_size(root: yaml.Node) -> None:
    """YAMLError where aliases expand to too many values, or refer to a value that contains them."""
    sizes: dict[int, int] = {}
    around: set[int] = set()

    def size(node: yaml.Node) -> int:
        if isinstance(node, yaml.ScalarNode):
            return 1 + len(node.value) // _TEXT_PER_VALUE
        key = id(node)
        if key in around:
            raise yaml.YAMLError(_placed("an alias refers to its own value", node.start_mark))
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
    """What is wrong and where, without the text around it, which may hold secrets."""
    problem = " ".join(str(getattr(error, "problem", None) or error).split())[:200]
    return _placed(problem, getattr(error, "problem_mark", None))


def _placed(problem: str, mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem


def _check_keys(node: yaml.MappingNode) -> None:
    """ConstructorError where a key occurs twice. A key may repeat one of a merged mapping."""
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
    """Loads numbers, booleans and text; refuses a mapping with the same key twice."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._checked: set[int] = set()

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        """The tag of a node; that of a text for a number that few write on purpose."""
        tag = super().resolve(kind, value, implicit)
        unusual = tag in _NUMBERS and implicit[0] and _OCTAL_OR_SEXAGESIMAL.fullmatch(value)
        return self.DEFAULT_SCALAR_TAG if unusual else tag

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Check the keys as they are written, before mappings are merged in."""
        if id(node) not in self._checked:
            self._checked.add(id(node))
            _check_keys(node)
        super().flatten_mapping(node)


class _TextLoader(yaml.BaseLoader):
    """Loads every scalar as the text that is written."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Check that no key occurs twice."""
        _check_keys(node)
        return super().construct_mapping(node, deep)
