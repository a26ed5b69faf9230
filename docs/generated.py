"""The pages that come from the code: each command's own help, and every setting of the collector."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from dynpin.cli.app import COMMANDS, app, command, make_readable
from dynpin.cli.collect_settings import FLAGS, Settings, described

if TYPE_CHECKING:
    from typer._click import Command

__all__ = ["command_pages", "settings_page", "write_generated"]

# As wide as a terminal of 80 columns.
_WIDTH = 78
_HELP = ["-h", "--help"]

_SETTINGS_HEAD = """# collector.toml

The settings of `dynpin collect`. Each is a line of this file, a variable of the environment, or a flag. A flag wins
over the environment, and the environment wins over the file. `dynpin collect config` prints each one and its source.

- The file is `collector.toml` in the working folder. `--config FILE` or `DYNPIN_COLLECTOR_CONFIG` names another one.
- Paths in the file count from its folder.
- The variable of `limit_source` is `DYNPIN_COLLECTOR_LIMIT_SOURCE`, and so on for each setting. Several values have
  spaces or commas between them.
- A flag with several values is repeated.
- A setting that dynpin does not know is an error. The message names the setting that you may mean.

| Setting | What it says | Default | Example | Flag |
|---|---|---|---|---|
"""


def settings_page() -> str:
    """The table of `collector.toml`, from the class that reads it."""
    return _SETTINGS_HEAD + "".join(f"| {' | '.join(row)} |\n" for row in _settings_rows())


def _settings_rows() -> Iterator[tuple[str, ...]]:
    for name, field in Settings.model_fields.items():
        text = described(name).partition(" The default is ")[0]
        yield (
            f"`{name}`",
            text,
            f"`{_toml(field.default)}`" if field.default not in (None, "") else "none",
            f"`{_toml((field.examples or [None])[0])}`",
            f"`{FLAGS[name]}`",
        )


def _toml(value: object) -> str:
    """A value as TOML has it; JSON writes these kinds in the same way."""
    return json.dumps(value, default=str)


def command_pages() -> dict[str, str]:
    """A page for each command, with the help of each command below it, and the index of all."""
    pages = {name: _command_page(name) for name in COMMANDS}
    rows = "".join(f"| [`dynpin {name}`]({name}.md) | {row.help} |\n" for name, row in COMMANDS.items())
    names = "\n".join(COMMANDS)
    pages["index"] = (
        "# Commands\n\nEach page here is the command's own help: `dynpin COMMAND --help` prints the same.\n\n"
        f"| Command | What it does |\n|---|---|\n{rows}\n"
        f"```text\n{_help(get_command(app), 'dynpin')}\n```\n\n```{{toctree}}\n:hidden:\n\n{names}\n```\n"
    )
    return pages


def _command_page(name: str) -> str:
    called = command(name)
    make_readable(called, called.context_class(called, info_name=name, help_option_names=_HELP))
    parts = list(_with_those_below(called, f"dynpin {name}"))
    heads = ["#"] + ["##"] * (len(parts) - 1)
    return "\n".join(
        f"{head} {path}\n\n```text\n{_help(each, path)}\n```\n" for head, (path, each) in zip(heads, parts, strict=True)
    )


def _with_those_below(each: Command, path: str) -> Iterator[tuple[str, Command]]:
    if not each.hidden:
        yield path, each
    if isinstance(each, TyperGroup):
        for name, below in each.commands.items():
            yield from _with_those_below(below, f"{path} {name}")


def _help(each: Command, path: str) -> str:
    if isinstance(each, TyperCommand | TyperGroup):
        each.rich_markup_mode = None  # plain text, without Rich's boxes
    context = each.context_class(
        each, info_name=path, terminal_width=_WIDTH, max_content_width=_WIDTH, help_option_names=_HELP
    )
    return each.get_help(context).strip()


def write_generated(reference: Path) -> None:
    """Write the pages below the folder `reference`; files that are right already are not touched."""
    pages = {f"commands/{name}.md": text for name, text in command_pages().items()}
    pages["collector-toml.md"] = settings_page()
    for name, text in pages.items():
        path = reference / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
