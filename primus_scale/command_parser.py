"""Parsers of command lines: help with defaults, the nearest good word for a bad one.

A command's arguments may be added when they are first needed (``fill``). Some defaults come from
modules that are slow to import, and the help of ``primus-scale`` need not import them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn, Self


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows a flag's default if it has one, and does not change texts of several lines."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        absent = action.default is None or action.default is False or action.default == []
        return action.help if absent else super()._get_help_string(action)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


class Parser(argparse.ArgumentParser):
    """An argument parser that shows defaults and answers a bad flag with the nearest good one."""

    def __init__(
        self, *args: Any, fill: Callable[[Parser], None] | None = None, **kwargs: Any
    ) -> None:
        """fill: adds the arguments to the parser that it is given, once they are needed."""
        kwargs.setdefault("formatter_class", HelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)
        self._fill = fill

    def filled(self) -> Self:
        """The parser with its arguments."""
        if self._fill is not None:
            fill, self._fill = self._fill, None
            fill(self)
        return self

    def filled_below(self) -> Self:
        """The parser with its arguments and those of all its commands."""
        for action in self.filled()._actions:
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    parser.filled_below()
        return self

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse unknown flags here, where the subcommand's own flags are known."""
        self.filled()
        parsed, extras = super().parse_known_args(args, namespace)
        if hasattr(parsed, "overrides"):  # argparse takes them next to other positionals only
            late = [one for one in extras if "=" in one and not one.startswith("-")]
            parsed.overrides = [*parsed.overrides, *late]
            extras = [one for one in extras if one not in late]
        unknown = [extra for extra in extras if extra.startswith("-")]
        keys = [text.partition("=")[0] for text in getattr(parsed, "overrides", ())]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            self.error(f"{twice}= is given twice; give it once")
        if unknown:
            from primus_scale.storage.names import nearest_name

            near = nearest_name(unknown[0].partition("=")[0], self._option_string_actions)
            self.error(f"unknown flag {unknown[0]}; the nearest flag is {near}")
        return parsed, extras

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Name the nearest command or choice, where argparse lists all."""
        if action.choices is not None and value not in action.choices:
            from primus_scale.storage.names import nearest, quoted

            known = [str(choice) for choice in action.choices]
            raise argparse.ArgumentError(
                action, f"invalid choice: {quoted(str(value))}{nearest(str(value), known)}"
            )

    def error(self, message: str) -> NoReturn:
        """Print the message and where help is, without the long usage text, and exit with 2."""
        self.exit(2, f"{self.prog}: error: {message}\nsee {self.prog} --help\n")


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """``--config FILE [key=value ...]``: the arguments that every launcher shares."""
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML file of the run")
    add_overrides(parser)


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """``[key=value ...]``: settings that replace those of a configuration."""
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key=value",
        help="configuration values that replace the file's, e.g. train.steps=100",
    )
