"""Print text for people, without control sequences for the terminal."""

from __future__ import annotations

import json
import sys
from contextvars import ContextVar

__all__ = ["expect_json", "lacks_json", "print_json", "printable", "say"]

# Whether this command was called with --json, and has not yet printed its document.
_lacks_json: ContextVar[bool] = ContextVar("lacks_json", default=False)


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
    _lacks_json.set(False)
    print(json.dumps(value, indent=2), flush=True)


def expect_json(is_wanted: bool) -> bool:
    """The value of ``--json``, unchanged. It is kept for :func:`lacks_json`."""
    _lacks_json.set(is_wanted)
    return is_wanted


def lacks_json() -> bool:
    """Whether the command was called with ``--json`` and has printed no document yet."""
    return _lacks_json.get()
