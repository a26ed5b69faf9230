"""The passphrase of a backup key: asked twice at the terminal, or read from a file."""

from __future__ import annotations

import getpass
import os
import stat
import sys
from pathlib import Path
from typing import Annotated

import typer

from dynpin.cli.errors import fail
from dynpin.cli.printing import say
from dynpin.deploy.keys import LONGEST_PASSPHRASE, check_passphrase
from dynpin.files import open_at_once

__all__ = ["PassphraseFileOption", "passphrase", "passphrase_of_keys"]

PassphraseFileOption = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help="Read the passphrase from the first line of this file; - is stdin. By default the command asks for it.",
        show_default=False,
    ),
]


def passphrase(file: Path | None) -> bytes:
    """The passphrase of the private half; wrong usage ends the command."""
    if file is None:
        return _asked_twice()
    text = _first_line(file)
    try:
        check_passphrase(text)
    except ValueError as error:
        fail(f"{'stdin' if str(file) == '-' else file}: {error}")
    return text


def passphrase_of_keys(file: Path | None) -> bytes:
    """The passphrase of existing keys, of any length; wrong usage ends the command."""
    return _asked("Passphrase of the keys: ", "signed") if file is None else _first_line(file)


def _first_line(file: Path) -> bytes:
    # Read one byte more than the limit, for the end of the line. The file may be a whole disk.
    size = LONGEST_PASSPHRASE + 3
    if str(file) == "-":
        text = sys.stdin.buffer.readline(size)
    else:
        with os.fdopen(open_at_once(file), "rb") as opened:
            text = opened.readline(size)
        status = file.stat()
        if stat.S_ISREG(status.st_mode) and status.st_mode & (stat.S_IRGRP | stat.S_IROTH):
            say(f"dynpin: other users of this machine can read {file}: chmod 600 {file}", err=True)
    return text.rstrip(b"\r\n")


def _asked_twice() -> bytes:
    while True:
        text = _asked("Passphrase of the private half: ", "written")
        try:
            check_passphrase(text)
        except ValueError as error:
            say(str(error), err=True)
            continue
        if _asked("The same again: ", "written") == text:
            return text
        say("the two are not the same", err=True)


def _asked(question: str, is_not: str) -> bytes:
    """What a person types at the terminal, unseen; `is_not` says what is not done without it."""
    # Without a terminal, getpass would warn, and then read a visible line.
    if not sys.stdin.isatty():
        fail("there is no terminal to ask for the passphrase: name a file with --passphrase-file, or - for stdin")
    try:
        return getpass.getpass(question).encode("utf-8", "surrogateescape")
    except EOFError:
        fail(f"no passphrase was typed, and nothing was {is_not}")
