"""Runs a page as its reader would: saves its files, types its commands, runs its Python."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from primus_scale.cli import main
from tests.documents import blocks, saved_files


def run_page(page: Path) -> tuple[int, dict[str, Any]]:
    """Run the blocks of a page in their order, in the working folder.

    Of shell blocks every line is a command of ours. Returns how many these were, and the names that
    the page's Python has defined.
    """
    names, commands = {"__name__": "page"}, 0
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
            code = compile("\n" * (block.place.line - 1) + block.text, str(page), "exec")
            exec(code, names)
    return commands, names
