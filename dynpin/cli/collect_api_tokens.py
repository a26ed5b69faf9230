"""`dynpin collect api-tokens`: the tokens of programs that read reports and decide about groups."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from dynpin.cli.collect_verbs import ConfigFile, StorageOption, open_storage, settings_of
from dynpin.cli.consoles import table_console
from dynpin.cli.errors import fail, finding
from dynpin.cli.options import JsonOption
from dynpin.cli.printing import print_json, say
from dynpin.report import rfc3339

if TYPE_CHECKING:
    from dynpin.middleware.collector import APIToken

__all__ = ["app"]

app = typer.Typer(
    help="Secret tokens for programs that read reports or decide about groups, each for one purpose.",
    no_args_is_help=True,
)


@app.command("add")
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What the token is for. Two valid tokens cannot have the same name.")],
    scope: Annotated[
        list[str],
        typer.Option(
            help=(
                "What the token may do: read, triage, or site:HOST (read about a host, and share what its nodes "
                "share). Repeatable."
            )
        ),
    ],
    days: Annotated[float, typer.Option(help="After how many days it expires.", min=0.01)] = 90,
    storage: StorageOption = None,
    config: ConfigFile = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token and print it. It is shown only now, since it is not stored.

    Example: dynpin collect api-tokens add dashboard --scope read --storage reports.sqlite
    """
    from dynpin.middleware.collector import new_api_token  # noqa: PLC0415

    if not name.strip() or not name.isprintable():
        fail("a token needs a name that people can read, such as ramp-shop")
    text, token = new_api_token(name, scope, time.time(), days)
    with open_storage(settings_of(context, storage, config).settings.storage) as kept:
        is_new = kept.add_api_token(token)
    if not is_new:
        finding(f"the token {name} is still valid; revoke it first, or give this one another name")
    if as_json:
        print_json({"token": text, **_object(token)})
    else:
        typer.echo(text)


@app.command("list")
def list_tokens(
    context: typer.Context, storage: StorageOption = None, config: ConfigFile = None, as_json: JsonOption = False
) -> None:
    """List all tokens with the time of their last use, also expired and revoked ones. Their text is not shown.

    Example: dynpin collect api-tokens list --storage reports.sqlite
    """
    with open_storage(settings_of(context, storage, config).settings.storage, must_exist=True) as kept:
        found = kept.api_tokens()
    if as_json:
        print_json([_object(token) for token in found])
        return
    from rich.table import Table  # noqa: PLC0415

    table = Table("name", "scopes", "made", "ends", "last used", "state")
    now = time.time()
    for token in found:
        used = "never" if token.used_at is None else rfc3339(token.used_at)
        times = rfc3339(token.created_at), rfc3339(token.expires_at), used
        table.add_row(token.name, " ".join(token.scopes), *times, token.ended(now) or "in use")
    table_console().print(table)


@app.command("revoke")
def revoke(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Its name.")],
    storage: StorageOption = None,
    config: ConfigFile = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a token now.

    Example: dynpin collect api-tokens revoke dashboard --storage reports.sqlite
    """
    settings = settings_of(context, storage, config).settings
    with open_storage(settings.storage, must_exist=True) as kept:
        was_there = kept.revoke_api_token(name)
    if not was_there:
        finding(
            f"{kept.name} has no token {name} of the API that can be revoked; dynpin collect api-tokens list shows them"
        )
    if as_json:
        print_json({"name": name, "revoked": True})
    else:
        say(f"{name} is revoked")


def _object(token: APIToken) -> dict[str, object]:
    return {
        "name": token.name,
        "scopes": list(token.scopes),
        "created_at": rfc3339(token.created_at),
        "expires_at": rfc3339(token.expires_at),
        "used_at": None if token.used_at is None else rfc3339(token.used_at),
        "revoked_at": None if token.revoked_at is None else rfc3339(token.revoked_at),
    }
