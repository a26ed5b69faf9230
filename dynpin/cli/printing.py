"""What is printed for a person: text in which nothing speaks to the terminal."""

from __future__ import annotations

import json
import sys

__all__ = ["print_json", "printable", "say"]


def printable(text: str) -> str:
    """The text with a mark for each character that a terminal would obey or hide: it may be an attacker's.

    That is every control and escape (ESC, CR, BEL, the C1 controls), line breaks, and what turns the direction of
    writing (U+202E). One mark stands for each, so that positions stay what they are.
    """
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def say(text: str = "", *, err: bool = False) -> None:
    """Print lines for a person, on stdout or stderr; each is made :func:`printable`.

    They are not wrapped: what is named (a path, a pin, a command) survives copy and paste. JSON, which escapes by
    itself, and files for other programs are printed by ``typer.echo``.
    """
    # Not typer.echo: to a stream that is ASCII it writes UTF-8 all the same.
    print("\n".join(map(printable, text.split("\n"))), file=sys.stderr if err else sys.stdout, flush=True)


def print_json(value: object) -> None:
    """Print a value as JSON, indented; what is neither text, number nor list in it is an error of ours."""
    print(json.dumps(value, indent=2), flush=True)
