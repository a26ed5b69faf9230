"""The deploy tools' commands, mounted as the lead's app mounts them, and run as a person runs them."""

from __future__ import annotations

import typer
from typer.testing import CliRunner, Result

from dynpin.cli import check, export, guard, keys, lint, rotate

app = typer.Typer(pretty_exceptions_enable=False)
app.command(name="lint")(lint.lint)
app.command(name="export")(export.export)
app.command(name="check")(check.check)
app.command(name="guard")(guard.guard)
app.add_typer(keys.app, name="keys")
app.add_typer(rotate.app, name="rotate")


@app.callback()
def root() -> None:
    """The command."""


def dynpin(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin, env={"COLUMNS": "200", "NO_COLOR": "1"})
