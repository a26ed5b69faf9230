"""`dynpin run -- COMMAND`: start a Python program with pins enforced, without a change to its code."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from dynpin.cli.errors import fail
from dynpin.cli.options import AuditOption
from dynpin.cli.printing import say
from dynpin.cli.stores import StoreOption, open_store
from dynpin.clientstore.injection import environment_for

__all__ = ["SETTINGS", "run"]

# Arguments after COMMAND belong to the program, with or without `--` before it.
SETTINGS = {"allow_interspersed_args": False}

_PYTHON, _SHELL = re.compile(r"python[\d.]*[a-z]?"), re.compile(r"(a|ba|da|fi|k|mk|z)?sh")
# Options of Python that take a value, in the same or the next argument; and those that end Python's own options.
_VALUE, _LONG_WITH_VALUE, _PROGRAM = "WX", "--check-hash-based-pycs", "cm"
_DEAF = {
    "I": "is isolated from the environment",
    "E": "does not see the environment",
    "S": "starts without its site module",
}
# Exit code 0 if the bootstrap has run.
_SEEN = "import sys; from dynpin.clientstore.injection import is_injected; sys.exit(not is_injected())"
_PROXY = "use the proxy of `dynpin lab proxy`"
_INSTEAD = f"Call dynpin.clientstore.inject() in the program, or {_PROXY}"


class _Program(NamedTuple):
    """The program of a command: its Python and the options of that Python, or None for a shell."""

    python: str | None
    options: list[str]


def run(
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", help="The program and its arguments.")],
    store: StoreOption = None,
    audit: AuditOption = False,
    no_reports: Annotated[bool, typer.Option("--no-reports", help="Send no violation reports.")] = False,
) -> None:
    """Start a Python program, and check its TLS connections, and those of its Python children, against the pins.

    COMMAND is Python with its arguments, or a program that is written in Python, such as pip. Connections that do not
    use Python's ssl module are not covered.

    Example: dynpin run -- python script.py
    """
    path = shutil.which(command[0])
    if path is None:
        is_script = Path(command[0]).is_file()
        hint = f"try: dynpin run -- python {command[0]}" if is_script else "check its name, and PATH"
        fail(f"{command[0]} is not a program that can be started; {hint}")
    program = _program(path, command)
    with open_store(store) as pins:  # opened before the program starts, to check that it can be opened
        environment = environment_for(str(pins.path), audit=audit, reports=not no_reports)
    if program.python is None:
        say(f"dynpin: {command[0]} is not Python: pins are checked only in the Pythons that it starts", err=True)
    else:
        _see(program.python, program.options, environment)
    for name in ("SIGPIPE", "SIGXFSZ"):
        # Python ignores these signals, and the new program would inherit that.
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    os.execve(path, command, environment)  # noqa: S606 - it becomes the program: signals, exit code and terminal


def _program(path: str, command: list[str]) -> _Program:
    name = Path(path).name
    if _is(_PYTHON, path) or _is(_PYTHON, str(Path(path).resolve())):
        return _Program(path, _options(name, command[1:]))
    line = [path] if _is(_SHELL, path) else _first_line(path)
    if line and _is(_PYTHON, line[0]):
        python = shutil.which(line[0])
        if python is None:
            fail(
                f"{path} is to be run by {line[0]}, which is not there; install it, or correct the first line of {path}"
            )
        return _Program(python, _options(name, line[1:]))
    if not line or not _is(_SHELL, line[0]):
        fail(f"{command[0]} is not a Python program, so its connections cannot be checked against the pins; {_PROXY}")
    return _Program(None, [])


def _is(kind: re.Pattern[str], program: str) -> bool:
    return kind.fullmatch(Path(program).name) is not None


def _first_line(path: str) -> list[str]:
    """The interpreter of a script and its options, from the first line; empty if it is not a script."""
    with Path(path).open("rb") as file:
        first, second = (file.readline(4096).decode(errors="replace").strip() for _ in range(2))
    line = first.removeprefix("#!").split() if first.startswith("#!") else []
    if line and Path(line[0]).name == "env":
        return line[2:] if line[1:2] == ["-S"] else line[1:]
    if line and second.startswith("'''exec' "):
        # If the path of Python is long or has a space, pip writes a script that begins as a shell script.
        return [word for word in shlex.split(second)[1:] if not word.startswith("$")]
    return line


def _options(name: str, arguments: list[str]) -> list[str]:
    """The options of Python itself. Options that ignore the environment are refused."""
    options: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument in ("-", "--") or not argument.startswith("-"):
            break
        if argument.startswith("--"):
            options += [argument, next(rest, "")] if argument == _LONG_WITH_VALUE else [argument]
            continue
        for index, letter in enumerate(argument):
            if letter in _DEAF:
                fail(f"{name} -{letter} {_DEAF[letter]}, through which pins are enforced; leave it out. {_INSTEAD}")
            if letter in _PROGRAM:
                return options if index == 1 else [*options, argument[:index]]
            if letter in _VALUE:
                options += [argument] if argument[index + 1 :] else [argument, next(rest, "")]
                break
        else:
            options.append(argument)
    return options


def _see(python: str, options: list[str], environment: dict[str, str]) -> None:
    """Start the same Python once, to check that the bootstrap runs in it, since the command line may mislead."""
    seen = subprocess.run(  # noqa: S603 - the user's own command
        [python, *options, "-c", _SEEN],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if seen.returncode != 0:
        told = seen.stderr.strip().rpartition("\n")[2]
        own = told.startswith("dynpin: ")
        fail(told.removeprefix("dynpin: ") if own else f"{python} does not run what enforces pins: {told}. {_INSTEAD}")
