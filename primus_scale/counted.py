"""A number and its noun, for messages: ``1 window``, ``2,000 windows``, ``3 people``."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """``number`` and ``noun``, in the plural (noun and s, if not given) unless it is one."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
