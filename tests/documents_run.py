"""Runs a page as its reader would: saves its files, types its commands, runs its Python."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from primus_scale.cli import main
from tests.documents import Block, blocks, saved_files


def run_page(page: Path) -> tuple[int, dict[str, Any]]:
    """Run the blocks of a page in their order, in the working folder.

    Of shell blocks every line is a command of ours. Returns how many these were, and the names that
    the page's Python has defined.
    """
    names: dict[str, Any] = {}
    commands = 0
    for name, text in saved_files(page).items():
        Path(name).write_text(text, encoding="utf-8")
    for block in blocks(page):
        if block.language == "sh":
            for line in block.text.splitlines():
                program, *words = shlex.split(line, comments=True)
                assert program == "primus-scale", f"{block.place}: {line}"
                assert main(words) == 0, f"{block.place}: {line}"
                commands += 1
        elif block.language == "python":
            run_python(block, names)
    return commands, names


def run_python(block: Block, names: dict[str, Any]) -> None:
    """Run a block of Python with these names, and add its own; errors tell the line of the page."""
    code = compile("\n" * (block.place.line - 1) + block.text, str(block.place.file), "exec")
    exec(code, names)
