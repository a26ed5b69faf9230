"""Ctrl-C: one line, no traceback, and the exit code that shells know."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest
import typer

from dynpin.cli.errors import STOPPED, run

from .processes import COMMAND, python

# Sends Ctrl-C when the module is looked for: imports are most of the time in which a person changes his mind.
WHILE_IMPORTED = """
import signal
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder())
from dynpin.cli import main
main()
"""
AT_EXIT = """
import atexit, signal
atexit.register(signal.raise_signal, signal.SIGINT)
from dynpin.cli import main
main()
"""


@pytest.mark.parametrize("when", ["in a command", "before Typer"])
def test_ctrl_c_is_said_in_one_line(when: str, capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer(add_completion=False)

    @app.command()
    def work() -> None:
        signal.raise_signal(signal.SIGINT)

    assert run((lambda: app(args=[])) if when == "in a command" else work) == STOPPED == 130
    assert capsys.readouterr() == ("", "dynpin: stopped\n")


@pytest.mark.parametrize(
    "module",
    ["dynpin.cli.app", "typer", "typer.core", "dynpin.cli.errors", "ssl", "dynpin.cli.hosts", "sqlite3", "rich.table"],
)
def test_ctrl_c_while_the_command_is_imported(module: str) -> None:
    done = python(WHILE_IMPORTED.format(module=module), "hosts", "list")
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"dynpin: stopped\n")


def test_ctrl_c_while_python_ends() -> None:
    done = python(AT_EXIT, "--version")
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


def test_ctrl_c_where_a_passphrase_is_asked_for(tmp_path: Path) -> None:
    terminal, end = pty.openpty()
    try:
        with subprocess.Popen(
            [*COMMAND, "keys", "new", "bank.test"],
            stdin=end,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            start_new_session=True,
        ) as child:
            assert child.stderr is not None
            asked = b""
            while b"Passphrase" not in asked:
                asked += os.read(child.stderr.fileno(), 1000)
            child.send_signal(signal.SIGINT)
            said = child.stderr.read()
            code = child.wait()
    finally:
        os.close(terminal)
        os.close(end)
    # Where the signal comes while the prompt is written, getpass writes it twice.
    told = said.replace(b"Passphrase of the private half: ", b"")
    assert (code, told.splitlines()[-1:]) == (130, [b"dynpin: stopped"])
    assert b"Traceback" not in asked + said
    assert list(tmp_path.iterdir()) == []
