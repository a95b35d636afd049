"""What a shell needs to complete a command: its subcommands, flags, choices, and paths."""

from __future__ import annotations

import argparse

import shtab

# As the help calls them.
PATHS = ("FILE", "FILE.csv", "DIR", "URL", "CKPT", "OUT", "SRC", "ENCODER")


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script for ``shell`` (bash, zsh or tcsh) of a parser with all its arguments."""
    _complete_paths(parser)
    return str(shtab.complete(parser, shell))


def _complete_paths(parser: argparse.ArgumentParser) -> None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                _complete_paths(below)
        elif action.metavar in PATHS:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
