"""`dynpin collect tokens`: the tokens of report-uris."""

from __future__ import annotations

import re
import secrets
import time
from string import ascii_letters, digits
from typing import TYPE_CHECKING, Annotated

import typer

from dynpin.cli.collect_verbs import ConfigFile, StorageOption, open_storage, settings_of
from dynpin.cli.consoles import table_console
from dynpin.cli.errors import fail, finding
from dynpin.cli.options import JsonOption
from dynpin.cli.printing import print_json, say
from dynpin.errors import InvalidHost
from dynpin.hosts import canonical_host
from dynpin.report import rfc3339

if TYPE_CHECKING:
    from dynpin.middleware.collector import Token

__all__ = ["app"]

app = typer.Typer(help="The tokens in a report-uri: one for each policy.", no_args_is_help=True)
_HOST = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")


@app.command("add")
def add(
    context: typer.Context,
    storage: StorageOption = None,
    config: ConfigFile = None,
    name: Annotated[str, typer.Option(help="A name for the policy.")] = "",
    host: Annotated[
        list[str] | None,
        typer.Option(help="Accept only reports about this host and its subdomains. Repeatable."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token and print it.

    Example: dynpin collect tokens add --name enforce --host www.example.com
    """
    from dynpin.middleware.collector import Token  # noqa: PLC0415

    hosts = tuple(map(_host, host or ()))
    # 71 bits. Only letters and digits, since a token that begins with a hyphen would be an option on the command line.
    token = Token("".join(secrets.choice(ascii_letters + digits) for _ in range(12)), name, hosts, time.time())
    with open_storage(settings_of(context, storage, config).settings.storage) as kept:
        kept.add_token(token)
    if as_json:
        print_json(_object(token, None))
    else:
        typer.echo(token.token)


def _host(text: str) -> str:
    try:
        host = canonical_host(text)
    except InvalidHost as error:
        fail(f"--host: {error}")
    if not _HOST.fullmatch(host):
        meant = host.removeprefix("*.")
        hint = f": {meant} covers its subdomains too" if meant != host and _HOST.fullmatch(meant) else ""
        fail(f"--host: {text!r} is not a host name{hint}")
    return host


@app.command("list")
def list_tokens(
    context: typer.Context, storage: StorageOption = None, config: ConfigFile = None, as_json: JsonOption = False
) -> None:
    """List all tokens, also revoked ones and those from settings.

    Example: dynpin collect tokens list --storage reports.sqlite
    """
    from dynpin.middleware.collector import Token  # noqa: PLC0415

    settings = settings_of(context, storage, config).settings
    with open_storage(settings.storage, must_exist=True) as kept:
        found: list[tuple[Token, float | None]] = [(token, None) for token in kept.tokens()]
        named = {**dict.fromkeys(settings.tokens, 0.0), **kept.named_tokens()}
    stored = {token.token for token, _ in found}
    found += [(Token(token), at) for token, at in named.items() if token not in stored]
    if as_json:
        print_json([_object(token, at) for token, at in found])
        return
    from rich.table import Table  # noqa: PLC0415

    table = Table("token", "name", "hosts", "made", "revoked")
    for token, named_at in found:
        made = rfc3339(token.created_at) if named_at is None else _named(named_at)
        revoked = "" if token.revoked_at is None else rfc3339(token.revoked_at)
        table.add_row(token.token, token.name, ", ".join(token.hosts) or "any", made, revoked)
    table_console().print(table)


def _named(at: float) -> str:
    return f"in the settings of a collector that started {rfc3339(at)}" if at else "in the settings"


# Tokens from settings may begin with a hyphen.
@app.command("revoke", context_settings={"ignore_unknown_options": True})
def revoke(
    context: typer.Context,
    token: Annotated[str, typer.Argument(help="The token.")],
    storage: StorageOption = None,
    config: ConfigFile = None,
    as_json: JsonOption = False,
) -> None:
    """Accept no more reports with a token. A running collector notices within a second.

    Example: dynpin collect tokens revoke TOKEN --storage reports.sqlite
    """
    settings = settings_of(context, storage, config).settings
    with open_storage(settings.storage, must_exist=True) as kept:
        was_there, is_named = kept.revoke_token(token), token in kept.named_tokens()
    if not was_there and is_named:
        finding(f"{token} is in the settings of a collector: remove it there, and start the collector again")
    if not was_there:
        finding(f"{kept.name} has no token {token} that can be revoked; dynpin collect tokens list shows the tokens")
    if as_json:
        print_json({"token": token, "revoked": True})
    else:
        say(f"{token} is revoked; reports to it are answered with 404")


def _object(token: Token, named_at: float | None) -> dict[str, object]:
    return {
        "token": token.token,
        "name": token.name,
        "hosts": list(token.hosts),
        "created_at": rfc3339(token.created_at) if named_at is None else None,
        "revoked_at": None if token.revoked_at is None else rfc3339(token.revoked_at),
        "from": "storage" if named_at is None else "settings",
        "named_at": rfc3339(named_at) if named_at else None,
    }
