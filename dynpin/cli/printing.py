"""Print text for people, without control sequences for the terminal."""

from __future__ import annotations

import json
import sys

__all__ = ["print_json", "printable", "say"]


def printable(text: str) -> str:
    """The text with a mark for each character that a terminal would obey or hide, since it may be an attacker's text.

    These are all controls (ESC, CR, BEL, the C1 controls), line breaks, and characters that change the direction of
    writing (U+202E). Each gets one mark, so that positions do not change.
    """
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def say(text: str = "", *, err: bool = False) -> None:
    """Print lines for people on stdout or stderr, each made :func:`printable`.

    Lines are not wrapped, so that a path, a pin or a command can be copied. JSON, which escapes by itself, and files
    for other programs are printed with ``typer.echo``.
    """
    # Not typer.echo, which writes UTF-8 even to an ASCII stream.
    print("\n".join(map(printable, text.split("\n"))), file=sys.stderr if err else sys.stdout, flush=True)


def print_json(value: object) -> None:
    """Print a value as indented JSON. A value that is not of a JSON type raises, since it is a bug."""
    print(json.dumps(value, indent=2), flush=True)
