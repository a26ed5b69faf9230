"""Exit codes, and errors as messages for people: the command line shows no traceback."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import NoReturn

import typer

from dynpin.cli.printing import expect_json, lacks_json, print_json, say
from dynpin.errors import DynpinError

__all__ = ["FINDING", "FINE", "STOPPED", "USAGE", "fail", "finding", "lacking", "messages", "reason_of", "run"]

FINE, FINDING, USAGE = 0, 1, 2
# Ctrl-C: 128 plus the number of the signal, as in shells.
STOPPED = 130
# What a person can do about an error of the system.
_TODO = {
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.ENAMETOOLONG: "check the path",
    errno.ELOOP: "check the links in its path",
    errno.ENXIO: "name a file",
    errno.EISDIR: "name a file in it",
    errno.EACCES: "check its permissions",
    errno.EPERM: "check its permissions",
    errno.EROFS: "name a place that can be written",
    errno.ENOSPC: "make room there",
    errno.ECONNREFUSED: "check that the server runs, and its port",
    errno.ECONNRESET: "check that the server speaks TLS on this port",
    errno.ETIMEDOUT: "check its address, and the network",
    errno.EHOSTUNREACH: "check its address, and the network",
    errno.ENETUNREACH: "check its address, and the network",
}


def fail(message: str) -> NoReturn:
    """End the command for wrong usage or unreadable input, with the message on stderr."""
    expect_json(False)
    _say(message)
    raise typer.Exit(USAGE)


def finding(message: str | None = None) -> NoReturn:
    """End the command with a finding: a violation, a fault, a check that failed.

    With ``--json``, a command that has printed no document prints one with the message.
    """
    if message is not None:
        _say(message)
    if lacks_json():
        print_json({"ok": False, "message": message})
    raise typer.Exit(FINDING)


def lacking(what: str, module: str | None, extra: str) -> NoReturn:
    """End the command, since a package of an extra of dynpin is missing."""
    # The name dynpin is not ours on the public index: a bare name could install a stranger's code.
    fail(f"{what} needs {module}. Install dynpin again with its extra, from your clone:  pip install '.[{extra}]'")


def reason_of(error: Exception, of: object = None) -> str:
    """An error as text for people. For an error of the system: the file, the reason, and what to do.

    Args:
        error: the error.
        of: the name of what it is about, if the error has no file.
    """
    if not isinstance(error, OSError) or isinstance(error, DynpinError) or not error.strerror:
        return str(error) if of is None else f"{of}: {error}"
    about = os.fsdecode(error.filename) if error.filename and of is None else of
    # The numbers of name servers are others than those of the system.
    is_name = type(error).__name__ == "gaierror"
    todo = "check its name, and your DNS" if is_name else _TODO.get(error.errno or 0)
    return f"{'' if about is None else f'{about}: '}{error.strerror}{'' if todo is None else f'; {todo}'}"


@contextmanager
def messages() -> Generator[None]:
    """Turn what a command raises into a message and exit code 2. So a command catches only what it can say better."""
    try:
        yield
    except (DynpinError, OSError, ValueError, ModuleNotFoundError) as error:
        fail(reason_of(error))
    except RecursionError:
        fail("the input is nested too deeply to be read")


def run(app: Callable[[], object]) -> int:
    """Call a Typer app. Its exit code, and a message after Ctrl-C."""
    try:
        app()
    except SystemExit as ended:
        # Typer turns Ctrl-C into this, without a message.
        if ended.code == STOPPED:
            _say("stopped")
        return ended.code if isinstance(ended.code, int) else USAGE
    except KeyboardInterrupt:
        _say("stopped")
        return STOPPED
    return FINE


def _say(message: str) -> None:
    say(f"dynpin: {message}", err=True)
