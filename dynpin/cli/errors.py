"""Exit codes, and errors as messages for people: the command line shows no traceback."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NoReturn

import typer

from dynpin.cli.printing import say
from dynpin.errors import DynpinError

__all__ = ["FINDING", "FINE", "STOPPED", "USAGE", "fail", "finding", "lacking", "reason_of", "run"]

FINE, FINDING, USAGE = 0, 1, 2
# Ctrl-C: 128 plus the number of the signal, as in shells.
STOPPED = 130


def fail(message: str) -> NoReturn:
    """End the command for wrong usage or unreadable input, with the message on stderr."""
    _say(message)
    raise typer.Exit(USAGE)


def finding(message: str | None = None) -> NoReturn:
    """End the command with a finding: a violation, a fault, a check that failed."""
    if message is not None:
        _say(message)
    raise typer.Exit(FINDING)


def lacking(what: str, module: str | None, extra: str) -> NoReturn:
    """End the command, since a package of an extra of dynpin is missing."""
    # The name dynpin is not ours on the public index: a bare name could install a stranger's code.
    fail(f"{what} needs {module}. Install dynpin again with its extra, from your clone:  pip install '.[{extra}]'")


def reason_of(error: Exception) -> str:
    """An error as text for people. For an error of the system: the file and the reason, without the number."""
    if isinstance(error, OSError) and not isinstance(error, DynpinError) and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def run(app: Callable[[], object]) -> int:
    """Call a Typer app, and turn remaining errors and Ctrl-C into a message and an exit code."""
    try:
        app()
    except SystemExit as ended:
        # Typer turns Ctrl-C into this, without a message.
        if ended.code == STOPPED:
            _say("stopped")
        return ended.code if isinstance(ended.code, int) else USAGE
    except (DynpinError, OSError, ValueError) as error:
        _say(reason_of(error))
        return USAGE
    except RecursionError:
        _say("the input is nested too deeply to be read")
        return USAGE
    except KeyboardInterrupt:
        _say("stopped")
        return STOPPED
    return FINE


def _say(message: str) -> None:
    say(f"dynpin: {message}", err=True)
