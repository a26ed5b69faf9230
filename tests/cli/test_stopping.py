"""Ctrl-C: one line, no traceback, and the exit code that shells know."""

from __future__ import annotations

import signal

import pytest
import typer

from dynpin.cli.errors import STOPPED, run


@pytest.mark.parametrize("when", ["in a command", "before Typer"])
def test_ctrl_c_is_said_in_one_line(when: str, capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer(add_completion=False)

    @app.command()
    def work() -> None:
        signal.raise_signal(signal.SIGINT)

    assert run((lambda: app(args=[])) if when == "in a command" else work) == STOPPED == 130
    assert capsys.readouterr() == ("", "dynpin: stopped\n")
