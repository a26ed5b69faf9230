"""`dynpin collect`: serve the report-uri endpoint, and keep its tokens and its storage."""

from __future__ import annotations

import json
import secrets
import socket
import ssl
import time
from dataclasses import asdict
from pathlib import Path
from string import ascii_letters, digits
from typing import TYPE_CHECKING, Annotated

import typer

from dynpin.cli.errors import fail, finding
from dynpin.cli.printing import say
from dynpin.pins import Pin
from dynpin.report import rfc3339

if TYPE_CHECKING:
    from dynpin.middleware.collector import SQLiteStorage, Token

__all__ = ["app"]

app = typer.Typer(help="Take violation reports (RFC 7469 §3), keep them, and say what they mean.")
tokens = typer.Typer(help="The tokens that stand in a report-uri: one for each policy.", no_args_is_help=True)
app.add_typer(tokens, name="tokens")

Storage = Annotated[Path, typer.Option(help="The SQLite file of the reports.", envvar="DYNPIN_REPORTS")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT_STORAGE = Path("reports.sqlite")


@app.callback(invoke_without_command=True)
def collect(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on; 0 takes a free one.", min=0, max=65535)] = 8080,
    storage: Storage = DEFAULT_STORAGE,
    token: Annotated[
        list[str] | None, typer.Option(help="A token of the report-uri, beside those that are stored. Repeatable.")
    ] = None,
    password: Annotated[
        str | None,
        typer.Option(
            envvar="DYNPIN_PASSWORD",
            help="What people sign in with: the text or its argon2 hash. Better in the environment than here.",
        ),
    ] = None,
    user_header: Annotated[
        str | None, typer.Option(help="The header in which a reverse proxy names the user that it has signed in.")
    ] = None,
    open_access: Annotated[
        bool, typer.Option("--open-access", help="Let everyone who reaches the address read the reports.")
    ] = False,
    key: Annotated[
        list[Path] | None,
        typer.Option(help="A certificate or key of yours: triage then knows your keys. Repeatable.", exists=True),
    ] = None,
    inventory: Annotated[
        Path | None, typer.Option(help="Your dynpin.toml: its keys and backups are yours, as with --key.", exists=True)
    ] = None,
    roots: Annotated[
        Path | None, typer.Option(help="Your own root certificates, PEM: triage then knows your CA.", exists=True)
    ] = None,
    alert: Annotated[
        list[str] | None,
        typer.Option(help="An Apprise URL to tell of new groups and sudden rises. Repeatable.", envvar="DYNPIN_ALERT"),
    ] = None,
    digest: Annotated[str | None, typer.Option(help="A summary by the same way: daily or weekly.")] = None,
    public_url: Annotated[
        str, typer.Option(help="Where people reach the pages, for the links in alerts.", envvar="DYNPIN_PUBLIC_URL")
    ] = "",
    keep_days: Annotated[float, typer.Option(help="How many days reports are kept.", min=0.01)] = 90,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="The certificate chain, PEM, to serve https with.", exists=True)
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key, PEM.", exists=True)] = None,
) -> None:
    """Take violation reports (RFC 7469 §3), keep them, and say what they mean.

    Reports go to /r/TOKEN/enforce and /r/TOKEN/report-only; the pages begin at /. Where nothing says who may read, a
    password is made and printed.
    """
    if context.invoked_subcommand is not None:
        return
    # The extra may be missing, and its import takes a while.
    try:
        import uvicorn  # noqa: PLC0415

        from dynpin.middleware.collector import Alerts, Retention, collector  # noqa: PLC0415
        from dynpin.middleware.collector.worker import apprise  # noqa: PLC0415
        from dynpin.middleware.policy import read_inventory  # noqa: PLC0415
    except ModuleNotFoundError as error:
        fail(f'the collector needs {error.name}: pip install "dynpin[collector]"')
    if digest not in (None, "daily", "weekly"):
        fail(f"--digest is daily or weekly, not {digest!r}")
    _check_tls(tls_certificate, tls_key)
    own = {} if inventory is None else read_inventory(inventory).own_keys()
    made = None
    if not (password or user_header or open_access):
        password = made = secrets.token_urlsafe(12)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            # Of two that start at once both may bind (SO_REUSEADDR), and one may listen. Who comes early waits.
            listener.listen(2048)
        except OSError as error:
            fail(f"cannot listen on {host} port {port}: {error.strerror}; name others with --host and --port")
        try:
            reports = collector(
                storage,
                tokens=token or (),
                password=password,
                user_header=user_header,
                open_access=open_access,
                keys={**own, **{Pin.from_file(file): str(file) for file in key or ()}},
                roots=b"" if roots is None else roots.read_bytes(),
                retention=Retention(days=keep_days),
                alerts=Alerts(
                    apprise(alert),
                    digest="weekly" if digest == "weekly" else "daily" if digest else None,
                    url=public_url,
                )
                if alert
                else None,
            )
        except ModuleNotFoundError as error:
            fail(error.msg)
        shown = f"[{host}]" if ":" in host else host
        base = f"{'http' if tls_certificate is None else 'https'}://{shown}:{listener.getsockname()[1]}"
        names = [one.token for one in reports.service.tokens() if one.revoked_at is None]
        _welcome(base, names, made, storage)
        config = uvicorn.Config(
            reports,
            ssl_certfile=tls_certificate,
            ssl_keyfile=tls_key,
            log_level="warning",
            access_log=False,
            server_header=False,
        )
        uvicorn.Server(config).run(sockets=[listener])


def _check_tls(certificate: Path | None, key: Path | None) -> None:
    """Refuse a pair that cannot be served, before anything is promised."""
    if certificate is None:
        if key is not None:
            fail(f"--tls-key {key} is of no use without --tls-certificate")
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        holder = f"{certificate} and {key}" if key is not None else f"{certificate} alone (name its key with --tls-key)"
        fail(f"https cannot be served with {holder}: not a certificate and its key in PEM ({error.reason or error})")


def _welcome(base: str, names: list[str], password: str | None, storage: Path) -> None:
    lines = [f"report-uri  {base}/r/{name}/{mode}" for name in names for mode in ("enforce", "report-only")]
    if not names:
        lines.append("report-uri  none yet: dynpin collect tokens add")
    if password is not None:
        lines.append(f"password    {password}   (made for this run; set DYNPIN_PASSWORD to choose one)")
    lines += [f"storage     {storage}", f"pages       {base}/"]
    for line in lines:
        say(line, err=True)


@tokens.command("add")
def add(
    storage: Storage = DEFAULT_STORAGE,
    name: Annotated[str, typer.Option(help="What people call the policy.")] = "",
    host: Annotated[
        list[str] | None,
        typer.Option(help="Take reports about this host and its subdomains alone. Repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a token, and print it."""
    from dynpin.hosts import canonical_host  # noqa: PLC0415
    from dynpin.middleware.collector import Token  # noqa: PLC0415

    hosts = tuple(canonical_host(one) for one in host or ())
    # 71 bits. Letters and digits alone: a token that begins with a hyphen reads as an option on the command line.
    token = Token("".join(secrets.choice(ascii_letters + digits) for _ in range(12)), name, hosts, time.time())
    kept = _open(storage)
    kept.add_token(token)
    kept.close()
    typer.echo(json.dumps(_token_object(token), indent=2) if as_json else token.token)


@tokens.command("list")
def list_tokens(storage: Storage = DEFAULT_STORAGE, as_json: AsJson = False) -> None:
    """Show every token, the revoked ones too."""
    kept = _open(storage, must_exist=True)
    found = kept.tokens()
    kept.close()
    if as_json:
        typer.echo(json.dumps([_token_object(token) for token in found], indent=2))
        return
    from rich.table import Table  # noqa: PLC0415

    from dynpin.cli.tables import table_console  # noqa: PLC0415

    table = Table("token", "name", "hosts", "made", "revoked")
    for token in found:
        revoked = "" if token.revoked_at is None else rfc3339(token.revoked_at)
        table.add_row(token.token, token.name, ", ".join(token.hosts) or "any", rfc3339(token.created_at), revoked)
    table_console().print(table)


# Tokens of earlier versions, and those of --token, may begin with a hyphen.
@tokens.command("revoke", context_settings={"ignore_unknown_options": True})
def revoke(
    token: Annotated[str, typer.Argument(help="The token.")],
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Take no more reports with a token; a running collector notices within a second."""
    kept = _open(storage, must_exist=True)
    was_there = kept.revoke_token(token)
    kept.close()
    if not was_there:
        finding(f"{storage} has no token {token} that could be revoked")
    say(f"{token} is revoked; reports to it are answered with 404")


@app.command("prune")
def prune(
    storage: Storage = DEFAULT_STORAGE,
    days: Annotated[float, typer.Option(help="Keep reports of so many days.", min=0)] = 90,
    megabytes: Annotated[int, typer.Option(help="Keep at most so much in all.", min=1)] = 1024,
    samples: Annotated[int, typer.Option(help="Keep so many report bodies of each group.", min=1)] = 200,
    as_json: AsJson = False,
) -> None:
    """Delete old reports now; a running collector does so by itself every hour."""
    from dynpin.middleware.collector import Retention  # noqa: PLC0415

    kept = _open(storage, must_exist=True)
    pruned = kept.prune(Retention(days, megabytes * 2**20, samples))
    kept.close()
    if as_json:
        typer.echo(json.dumps(asdict(pruned)))
    else:
        say(f"{pruned.reports} reports, {pruned.groups} groups and {pruned.samples} bodies deleted")


def _open(storage: Path, *, must_exist: bool = False) -> SQLiteStorage:
    from dynpin.middleware.collector import SQLiteStorage  # noqa: PLC0415

    if must_exist and not storage.exists():
        fail(f"there is no file {storage}; name the collector's with --storage")
    return SQLiteStorage(storage)


def _token_object(token: Token) -> dict[str, object]:
    return {
        "token": token.token,
        "name": token.name,
        "hosts": list(token.hosts),
        "created-at": rfc3339(token.created_at),
        "revoked-at": None if token.revoked_at is None else rfc3339(token.revoked_at),
    }
