"""What the documents hold: commands, snippets, links, names of files and of settings.

``page_commands(page)`` and the others give what stands in a page, each with the place where it
stands, so that a test can say what is wrong where.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
CONFIGS = tuple(sorted((ROOT / "configs").rglob("*.yaml")))
LAUNCH_FILES = (
    ROOT / "launch/cluster.yaml",
    ROOT / "launch/kuberay/rayjob.yaml",
    ROOT / "launch/slurm/pretrain.sbatch",
)
PROGRAMS = tuple(sorted(p for d in ("launch", "benchmarks") for p in (ROOT / d).glob("*.py")))

# What a command that is looked at begins with; what stands before it (srun, ray job submit, nice,
# RAY_ADDRESS=auto) is the business of others.
FIRST_WORDS = ("primus-scale", "python", "deepspeed", "torchrun", "sbatch", "make", "pip")
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
_SAVED = re.compile(r"<!-- file: (\S+) -->\s*```\w*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(?:#([\w-]+))?\)")
_OPTIONAL = re.compile(r"(?<=\s)\[((?:--|key=value)[^\]]*)\]")
_COMMAND_IN_TEXT = re.compile(rf"(?<![\w/])(?:{'|'.join(FIRST_WORDS)}|srun|ray job submit) [^`]*")
_CONTINUED = re.compile(r"\\\n\s*")


@dataclass(frozen=True)
class Place:
    """Where something stands: ``docs/ray.md:12``."""

    file: Path
    line: int

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT).as_posix()}:{self.line}"


@dataclass(frozen=True)
class Command:
    """The words of a command, from its program on.

    whole: it can be run as it stands, but for what stands in capitals for a name or a number; else
    it may be no more than the name of a command, such as ``primus-scale shards build``.
    """

    words: tuple[str, ...]
    place: Place
    whole: bool


@dataclass(frozen=True)
class Block:
    """A block of code of a page. language: as the page names it, or nothing."""

    language: str
    text: str
    place: Place


def blocks(page: Path, language: str | None = None) -> list[Block]:
    """The blocks of code of a page, all or those of a language."""
    text = page.read_text(encoding="utf-8")
    found = [Block(m[2], m[3], _place(page, text, m.start(3))) for m in _FENCE.finditer(text)]
    return [block for block in found if language in (None, block.language)]


def saved_files(page: Path) -> dict[str, str]:
    """The files that a page tells its reader to save, by their names."""
    return dict(_SAVED.findall(page.read_text(encoding="utf-8")))


def spans(page: Path) -> list[tuple[str, Place]]:
    """What stands between backticks in the text of a page, on one line each."""
    text = page.read_text(encoding="utf-8")
    outside = _FENCE.sub(lambda block: re.sub(r"[^\n]", " ", block[0]), text)
    found = _SPAN.finditer(outside)
    return [(" ".join(one[1].split()), _place(page, text, one.start())) for one in found]


def links(page: Path) -> list[tuple[str, str, Place]]:
    """Path and anchor of the links of a page that lead to files, either may be empty."""
    text = page.read_text(encoding="utf-8")
    return [(m[1], m[2] or "", _place(page, text, m.start())) for m in _LINK.finditer(text)]


def anchors(page: Path) -> set[str]:
    """Names by which the headings of a page can be linked to."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


def page_commands(page: Path) -> list[Command]:
    """Commands in blocks of shell code, and those between backticks."""
    found = []
    for block in blocks(page, "sh"):
        found += _commands(block.text, block.place, whole=True)
    for span, place in spans(page):
        text = f"primus-scale {span}" if span.startswith("shards ") else span
        first = re.sub(r"^(\w+=\S* )+", "", text).split()[0]
        if Path(first).name in (*FIRST_WORDS, "srun", "ray"):
            found += _commands(text, place, whole=False)
    return found


def comment_commands(file: Path) -> list[Command]:
    """Commands in the comments at the head of a file: of a configuration, or for a launcher."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if lines and not line.startswith("#"):
            break
        lines.append(line[1:] if line.startswith("#") else "")
    return _commands_in_text("\n".join(lines), Place(file, 1))


def docstring_commands(file: Path) -> list[Command]:
    """Commands in the indented lines of a module's docstring."""
    doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    indented = [line for line in doc.splitlines() if line.startswith("    ") or not line]
    return _commands_in_text("\n".join(indented), Place(file, 1))


def _commands_in_text(text: str, place: Place) -> list[Command]:
    """Those that begin somewhere in a line and go on to its end."""
    found = []
    for line in _CONTINUED.sub("", text).splitlines():
        for match in _COMMAND_IN_TEXT.finditer(line):
            # Some words may follow that are none of the command's: ``make pretrain, once, ...``
            command = re.split(r"(?<=\w)[,;.](?: |$)|   ", match[0].strip())[0]
            found += _commands(command, place, whole=" --" in command)
    return found


def _commands(text: str, place: Place, whole: bool) -> Iterator[Command]:
    for line in _OPTIONAL.sub(r"\1", _CONTINUED.sub("", text)).splitlines():
        reader = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        reader.whitespace_split = True
        words: list[str] = []
        for word in [*reader, ";"]:
            if not set(word) <= set(";&|>"):
                words.append(word)
                continue
            starts = (n for n, one in enumerate(words) if Path(one).name in FIRST_WORDS)
            if (start := next(starts, None)) is not None:
                yield Command(tuple(words[start:]), place, whole)
            words = []


def _place(file: Path, text: str, offset: int) -> Place:
    return Place(file, text.count("\n", 0, offset) + 1)
