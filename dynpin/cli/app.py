"""The whole command: the table of its commands, and its own options."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from typer.core import TyperArgument, TyperGroup
from typer.main import get_group

from dynpin._version import __version__
from dynpin.cli.errors import messages

if TYPE_CHECKING:
    # Typer 0.29 contains click; older versions use click itself.
    from typer._click import Command, Context, Parameter

__all__ = ["COMMANDS", "Row", "app", "command", "make_readable"]

_CLIENT, _SERVER, _STUDY = "For clients", "For servers", "For study"


class Row(NamedTuple):
    """A command, before its module is imported: its panel and its text in `dynpin --help`."""

    panel: str
    help: str


# Each command is in the module of its name, as a function of that name or as a group `app`. Its text is the beginning
# of its docstring. So `dynpin --help` needs only the table, and a call imports only the module of its command.
COMMANDS = {
    "get": Row(
        _CLIENT,
        "Visit URL with a pin store: enforce what is pinned, note what the response pins, and print what was decided.",
    ),
    "run": Row(
        _CLIENT,
        "Start a Python program, and check its TLS connections, and those of its Python children, against the pins.",
    ),
    "hosts": Row(
        _CLIENT, "The Known Pinned Hosts of a pin store: list, show, forget, pin, import, export and check them."
    ),
    "reports": Row(_CLIENT, "The violation reports that are waiting to be sent (RFC 7469 §3)."),
    "init": Row(
        _SERVER, "Begin to pin a site: check its chain, make a backup key, and write a dynpin.toml that names both."
    ),
    "pin": Row(
        _SERVER,
        "Print the pin of each FILE: the base64 SHA-256 of its SubjectPublicKeyInfo, as browsers and curl write it.",
    ),
    "keys": Row(_SERVER, "Make backup keys, and check that there is one of each type."),
    "lint": Row(
        _SERVER,
        "Find the faults of a Public-Key-Pins header: what clients make of it, why (RFC 7469), and what to do instead.",
    ),
    "check": Row(_SERVER, "Look at a live site from every side, and say what is wrong with its pinning."),
    "ramp": Row(_SERVER, "Show how far max-age has grown, hold it, or move it by hand."),
    "nodes": Row(_SERVER, "See what the nodes of a site send, and whether they agree."),
    "rotate": Row(_SERVER, "Replace a pinned key without locking anybody out."),
    "recovery": Row(_SERVER, "Sign a list of the keys of your hosts, so that locked-out clients can connect again."),
    "guard": Row(
        _SERVER, "Tell whether deploying NEWCHAIN would lock clients out: exit code 1 if so, with what to do instead."
    ),
    "export": Row(
        _SERVER,
        "Write the pins of KEY for FORMAT: header lines for a server, static pins for an app or a tool, a signed file.",
    ),
    "collect": Row(_SERVER, "Receive violation reports (RFC 7469 §3), store them, and say what they mean."),
    "demo": Row(_STUDY, "Play a story of pinning: a bank, its client, a hostile hotspot, a rotation and a lock-out."),
    "lab": Row(_STUDY, "How pinning succeeds and fails, played on real sockets."),
    "simulate": Row(
        _STUDY,
        "Play a policy on a population of clients: who is locked out, and whom an attacker fools, day by day.",
    ),
}


@cache
def command(name: str) -> Command:
    """A command of the table. This imports its module, and Typer reads the signatures of its verbs: once."""
    module = import_module(f"dynpin.cli.{name}")
    # A group with one command, since Typer makes a command of a function or an app only in a group.
    holder = typer.Typer(rich_markup_mode="rich", add_completion=False)
    if hasattr(module, "app"):
        holder.add_typer(module.app, name=name, rich_help_panel=COMMANDS[name].panel)
    else:
        settings = getattr(module, "SETTINGS", None)
        holder.command(name=name, rich_help_panel=COMMANDS[name].panel, context_settings=settings)(
            getattr(module, name)
        )
    return get_group(holder).commands[name]


class _Table(TyperGroup):
    """Lists the rows of the table, and imports the command that is called."""

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Command | None, list[str]]:
        name, row, rest = super().resolve_command(ctx, args)
        if name is None or row is None:
            return name, row, rest
        called = command(name)
        make_readable(called, ctx)
        return name, called, rest

    def invoke(self, ctx: Context) -> object:
        with messages():
            return super().invoke(ctx)

    def get_params(self, ctx: Context) -> list[Parameter]:
        parameters = super().get_params(ctx)
        _tidy(parameters, ctx)
        return parameters


def make_readable(called: Command, ctx: Context) -> None:
    """Let the help of a command, and of those below it, fill the lines and name the arguments."""
    # Rich keeps the line breaks of the source.
    called.help = "\n\n".join(each.replace("\n", " ") for each in (called.help or "").split("\n\n"))
    _tidy(called.get_params(ctx), ctx)
    if isinstance(called, TyperGroup):
        for each in called.commands.values():
            make_readable(each, ctx)


def _tidy(parameters: Iterable[Parameter], ctx: Context) -> None:
    """Name each value in capitals, such as FILE or HOST, or by its choices: release|refuse.

    Typer 0.29 prints {url} for an argument, <bool> for a flag, <path> for a file, and <list[str]> for a list.
    """
    for parameter in parameters:
        if isinstance(parameter, TyperArgument):
            parameter.metavar = parameter.metavar or parameter.opts[0].upper()
            parameter.__class__ = _Argument  # no setting of Typer leaves the type out
        elif getattr(parameter, "is_flag", False):
            parameter.metavar = ""
        else:
            parameter.metavar = parameter.metavar or _value(parameter, ctx)


def _value(option: Parameter, ctx: Context) -> str:
    """The name of the value of an option, from its type or from the option's own name."""
    # Typer before 0.29 leaves it to click.
    shown: str = getattr(option, "display_type" if hasattr(option, "display_type") else "make_metavar")(ctx)
    shown = shown.strip("<>[]").removeprefix("list[")
    if "|" in shown:
        return shown
    kinds = {"path": "FILE", "int": "NUMBER", "integer": "NUMBER", "float": "NUMBER"}
    return kinds.get(shown.lower().removesuffix(" range"), option.opts[0].lstrip("-").upper())


class _Argument(TyperArgument):
    """An argument that is shown by its name, without a type of Python."""

    def get_usage_pieces(self, ctx: Context) -> list[str]:
        shown = f"{self.metavar}" if self.required else f"[{self.metavar}]"
        return [shown if self.nargs == 1 else f"{shown}..."]

    def display_type(self, ctx: Context) -> str:
        shown = super().display_type(ctx).strip("<>")
        return shown if "|" in shown else ""


app = typer.Typer(
    name="dynpin",
    cls=_Table,
    help="HTTP Public Key Pinning (RFC 7469): pin keys, remember them, and refuse all others.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"dynpin {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """HTTP Public Key Pinning (RFC 7469): pin keys, remember them, and refuse all others."""


def _row() -> None:
    """A placeholder that Typer lists for a command; a call imports the command itself."""


for _name, _listed in COMMANDS.items():
    app.command(name=_name, help=_listed.help, rich_help_panel=_listed.panel)(_row)
