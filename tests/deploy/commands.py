"""The command, run as a person runs it."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from dynpin.cli.app import app

__all__ = ["app", "dynpin"]


def dynpin(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin, env={"COLUMNS": "200", "NO_COLOR": "1"})
