"""Would a command of the documents be taken? It is parsed by the program that it names.

Words in capitals, ``<...>`` and ``$...`` stand for a name or a number, ``...`` for more words.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import io
import re
from collections.abc import Container, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import metadata
from pathlib import Path

from primus_scale.config import Config, ConfigModel, FewShotConfig
from primus_scale.config_file import apply_overrides, load_config
from tests.documents import ROOT, Command, saved_files

OURS = ("primus_scale", "shards", "launch", "benchmarks", "tests")
LAUNCHERS = ("deepspeed", "torchrun", "sbatch")
SBATCH_STARTS = "launch.deepspeed_train"  # with what follows the script's name
_STANDS_FOR = re.compile(r"[A-Z][A-Z_]*|<[^>]+>|\$.+|\[[A-Z]+\]|\.{3}")
_INCOMPLETE = re.compile(r"arguments are required|is required|expected (one|at least one) argument")


def fault(command: Command) -> str:
    """What is wrong with a command, or nothing."""
    program, *words = command.words
    name = Path(program).name
    if name == "make":
        return _fault_of_make(words)
    if name == "pip":
        return _fault_of_pip(words)
    if name == "primus-scale":
        saved = saved_files(command.place.file)
        return _fault_of_program("primus_scale.cli", words, command.whole, saved)
    if words[:1] == ["-m"] and len(words) > 1:
        return _fault_of_module(words[1], words[2:], command.whole)
    for number, word in enumerate(words):
        if word.endswith((".py", ".sbatch")):
            if not (ROOT / word).is_file():
                return f"no file {word}"
            module = word.removesuffix(".py").replace("/", ".")
            module = SBATCH_STARTS if word.endswith(".sbatch") else module
            return _fault_of_program(module, words[number + 1 :], command.whole)
    if command.whole and name not in LAUNCHERS:
        return "starts nothing that is known"
    return ""


def extras() -> set[str]:
    """The extras of the installed package."""
    return set(metadata("primus-scale").get_all("Provides-Extra") or ())


def setting_names(model: type[ConfigModel], prefix: str = "") -> Iterator[str]:
    """The dotted names of all settings and sections."""
    for name, field in model.model_fields.items():
        yield prefix + name
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, ConfigModel):
            yield from setting_names(inner, f"{prefix}{name}.")


def parser_of(module: str) -> argparse.ArgumentParser:
    """The parser of a program; ImportError or AttributeError where there is none."""
    program = importlib.import_module(module)
    if hasattr(program, "__path__"):  # python -m PACKAGE
        program = importlib.import_module(f"{module}.__main__")
    return program.build_parser()


def flags(parser: argparse.ArgumentParser) -> set[str]:
    """The flags of a program and of all its commands."""
    found = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                found |= flags(inner)
    return found


def _fault_of_make(words: Sequence[str]) -> str:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([\w-]+):", makefile, re.MULTILINE)
    unknown = [word for word in words if "=" not in word and word not in targets]
    return f"no target {unknown[0]} in the Makefile" if unknown else ""


def _fault_of_pip(words: Sequence[str]) -> str:
    groups = [group for word in words for group in re.findall(r"\[(.+)\]", word)]
    unknown = {name for group in groups for name in group.split(",")} - extras()
    return f"no extra {unknown} in setup.py" if unknown else ""


def _fault_of_module(module: str, words: Sequence[str], whole: bool) -> str:
    if module.split(".")[0] in OURS:
        return _fault_of_program(module, words, whole)
    return "" if importlib.util.find_spec(module) else f"no module {module}"


def _fault_of_program(
    module: str, words: Sequence[str], whole: bool, saved: Container[str] = ()
) -> str:
    """saved: names of the files that the page has its reader save."""
    try:
        parser = parser_of(module)
    except (ImportError, AttributeError) as error:
        return str(error)
    elided = "..." in words
    filled, reached = _filled(parser, words)
    said = io.StringIO()
    try:
        with redirect_stderr(said), redirect_stdout(io.StringIO()):
            args = parser.parse_args(filled)
    except SystemExit as stop:
        if stop.code == 0:
            return ""
        if _INCOMPLETE.search(said.getvalue()):  # which argparse says before it looks at flags
            named = {word.partition("=")[0] for word in filled if word.startswith("--")}
            if unknown := named - {"--", *reached._option_string_actions}:
                return f"no flags {unknown}"
            if elided or not whole:
                return ""
        return said.getvalue()
    return _fault_of_overrides(args, saved)


def _filled(
    parser: argparse.ArgumentParser, words: Sequence[str]
) -> tuple[list[str], argparse.ArgumentParser]:
    """The words, with something that fits for each that stands for something; who parses them.

    That is the parser of the command that the words name, or as much of it as they name.
    """
    filled: list[str] = []
    for number, word in enumerate(words):
        before = words[number - 1] if number else ""
        commands = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        action = parser._option_string_actions.get(before)
        if commands and not word.startswith("-"):
            choices = commands[0].choices
            if _STANDS_FOR.fullmatch(word):
                wanted = {one for one in words if one.startswith("--")}
                word = next(name for name, inner in choices.items() if wanted <= flags(inner))
            if word not in choices:
                return [*filled, *words[number:]], parser
            below, reached = _filled(choices[word], words[number + 1 :])
            return [*filled, word, *below], reached
        if action is not None and _STANDS_FOR.fullmatch(word):
            word = next(iter(action.choices)) if action.choices else "1"
        if word != "...":
            filled.append(word)
    return filled, parser


def _fault_of_overrides(args: argparse.Namespace, saved: Container[str]) -> str:
    """A configuration that cannot be read, or settings that are not there or have wrong values."""
    overrides = [one for one in getattr(args, "overrides", []) if one != "key=value"]
    config = getattr(args, "config", None)
    if config is None and not overrides:
        return ""
    model = FewShotConfig if config is None else Config
    keys = [override.partition("=")[0] for override in overrides]
    if unknown := set(keys) - set(setting_names(model)):
        return f"no settings {unknown}"
    known = [one for one in overrides if not _STANDS_FOR.fullmatch(one.partition("=")[2])]
    try:
        if config is None:
            apply_overrides(FewShotConfig(), known)
        elif not _STANDS_FOR.fullmatch(config) and config != "1" and config not in saved:
            load_config(ROOT / config, known)
    except (ValueError, OSError) as error:
        return str(error)
    return ""
