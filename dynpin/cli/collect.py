"""`dynpin collect`: serve the report-uri endpoint, and manage its tokens and its storage."""

from __future__ import annotations

import logging
import secrets
import socket
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from dynpin.cli.collect_api_tokens import app as api_tokens_app
from dynpin.cli.collect_checks import listening_at, own_inventories, own_keys, own_roots, printed_base, tls_pair
from dynpin.cli.collect_move import move
from dynpin.cli.collect_settings import FLAGS, Settings, Sourced, described
from dynpin.cli.collect_status import status
from dynpin.cli.collect_tokens import app as tokens_app
from dynpin.cli.collect_verbs import ConfigFile, StorageOption, open_storage, settings_of
from dynpin.cli.consoles import table_console
from dynpin.cli.errors import fail, finding, lacking
from dynpin.cli.options import AcceptClockOption, JsonOption
from dynpin.cli.printing import print_json, say
from dynpin.counts import counted
from dynpin.errors import StoreError

if TYPE_CHECKING:
    from dynpin.middleware.collector import Alerts
    from dynpin.middleware.collector.app import Collector
    from dynpin.middleware.collector.settings import ServiceKeywords
    from dynpin.middleware.collector.storage import Pruned

__all__ = ["app"]

app = typer.Typer()
app.add_typer(tokens_app, name="tokens")
app.add_typer(api_tokens_app, name="api-tokens")
app.command("move")(move)
app.command("status")(status)


def _flag(name: str, *names: str) -> Any:  # noqa: ANN401 - as Typer has it
    repeatable = " Repeatable." if isinstance(Settings.model_fields[name].default, list) else ""
    return typer.Option(*(names or (FLAGS[name],)), help=described(name) + repeatable, show_default=False)


@app.callback(invoke_without_command=True)
def collect(
    context: typer.Context,
    config: ConfigFile = None,
    host: Annotated[str | None, _flag("host")] = None,
    port: Annotated[int | None, _flag("port")] = None,
    storage: Annotated[str | None, _flag("storage")] = None,
    parts: Annotated[list[str] | None, _flag("parts")] = None,
    tokens: Annotated[list[str] | None, _flag("tokens")] = None,
    password: Annotated[str | None, _flag("password")] = None,
    user_header: Annotated[str | None, _flag("user_header")] = None,
    trusted_proxies: Annotated[list[str] | None, _flag("trusted_proxies")] = None,
    open_access: Annotated[bool | None, _flag("open_access", "--open-access/--no-open-access")] = None,
    public_url: Annotated[str | None, _flag("public_url")] = None,
    keys: Annotated[list[Path] | None, _flag("keys")] = None,
    inventories: Annotated[list[str] | None, _flag("inventories")] = None,
    roots: Annotated[Path | None, _flag("roots")] = None,
    alerts: Annotated[list[str] | None, _flag("alerts")] = None,
    digest: Annotated[str | None, _flag("digest")] = None,
    keep_days: Annotated[float | None, _flag("keep_days")] = None,
    keep_megabytes: Annotated[int | None, _flag("keep_megabytes")] = None,
    source_address: Annotated[str | None, _flag("source_address")] = None,
    limit_source: Annotated[int | None, _flag("limit_source")] = None,
    limit_token: Annotated[int | None, _flag("limit_token")] = None,
    limit_all: Annotated[int | None, _flag("limit_all")] = None,
    connections: Annotated[int | None, _flag("connections")] = None,
    connections_source: Annotated[int | None, _flag("connections_source")] = None,
    head_seconds: Annotated[float | None, _flag("head_seconds")] = None,
    body_seconds: Annotated[float | None, _flag("body_seconds")] = None,
    tls_certificate: Annotated[Path | None, _flag("tls_certificate")] = None,
    tls_key: Annotated[Path | None, _flag("tls_key")] = None,
) -> None:
    """Receive violation reports (RFC 7469 §3), store them, and say what they mean.

    Reports go to /r/TOKEN/enforce and /r/TOKEN/report-only; the pages start at /. If no setting says who may read, a
    password is made and printed. Each setting can also be in collector.toml, or in the environment as DYNPIN_COLLECTOR_
    and its name. A flag wins over the environment, and the environment wins over the file.

    Example: dynpin collect --storage reports.sqlite --port 8080
    """
    # Typer gives an empty value for a repeatable flag that was not used.
    typed = {name: context.params[name] for name in Settings.model_fields}
    flags = {name: value for name, value in typed.items() if value is not None and value not in ([], ())}
    context.obj = (flags, config)
    if context.invoked_subcommand is None:
        _serve(settings_of(context).settings)


def _serve(settings: Settings) -> None:
    # The extra may be missing, and its import takes a while.
    try:
        from dynpin.middleware.collector.proxies import TrustedProxies  # noqa: PLC0415
        from dynpin.middleware.collector.server import ServerLimits, serve  # noqa: PLC0415
    except ModuleNotFoundError as error:
        lacking("the collector", error.name, "collector")
    tls_pair(settings.tls_certificate, settings.tls_key)
    # psycopg warns of each connection that was lost, in terms of its own code. The collector says what that means.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    made = None
    password = settings.password
    if not (password or settings.user_header or settings.open_access):
        password = made = secrets.token_urlsafe(12)
    host = settings.host
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, settings.port))
            # If two start at once, both may bind (SO_REUSEADDR), but only one may listen. Early connections wait.
            listener.listen(2048)
        except (OSError, TypeError) as error:  # TypeError: no host can have this name
            reason = getattr(error, "strerror", error)
            fail(f"cannot listen on {host} port {settings.port}: {reason}; name others with --host and --port")
        reports = _collector(settings, password)
        service = reports.service
        names: list[str] | None = None
        try:
            service.storage.name_tokens(settings.tokens, time.time())
            names = [one.token for one in service.tokens() if one.revoked_at is None]
        except StoreError as error:
            say(f"dynpin: {error}", err=True)
            say("dynpin: the collector starts, and answers reports with 503 until it can store them", err=True)
        listening = listening_at(settings, listener.getsockname()[1])
        base = printed_base(settings, listening)
        _welcome(base, names, made, listening, settings)
        proxies = TrustedProxies(settings.trusted_proxies)
        serve(
            reports,
            listener,
            ServerLimits(
                connections=settings.connections,
                connections_per_source=settings.connections_source,
                head_seconds=settings.head_seconds,
                body_seconds=settings.body_seconds,
            ),
            lambda peer: None if not peer or proxies.trusts(peer) else service.source_of(peer),
            certificate=settings.tls_certificate,
            key=settings.tls_key,
        )


def _collector(settings: Settings, password: str | None) -> Collector:
    from dynpin.middleware.collector import collector  # noqa: PLC0415

    return collector(
        settings.storage,
        password=password,
        user_header=settings.user_header,
        open_access=settings.open_access,
        parts=settings.parts,
        public_url=settings.public_url,
        **_of_service(settings),
    )


def _of_service(settings: Settings) -> ServiceKeywords:
    """The settings of the service. This reads the files that settings name."""
    from dynpin.middleware.collector import Limits, Retention  # noqa: PLC0415

    shared, of_tokens, roots = own_inventories(settings.inventories)
    return {
        "tokens": settings.tokens,
        "limits": Limits(
            per_token=settings.limit_token,
            per_source=settings.limit_source,
            in_all=settings.limit_all,
            body_seconds=settings.body_seconds,
        ),
        "keys": {**shared, **own_keys(settings.keys)},
        "inventories": of_tokens,
        "roots": own_roots([*filter(None, [settings.roots]), *roots]),
        "retention": Retention(settings.keep_days, settings.keep_megabytes * 2**20),
        "alerts": _alerts(settings),
        "source_address": settings.source_address,
        "trusted_proxies": settings.trusted_proxies,
    }


def _alerts(settings: Settings) -> Alerts | None:
    from dynpin.middleware.collector import Alerts  # noqa: PLC0415
    from dynpin.middleware.collector.worker import apprise  # noqa: PLC0415

    if not settings.alerts:
        if settings.digest:
            fail("--digest has no channel: name one with --alert (alerts in collector.toml), or leave the digest out")
        return None
    return Alerts(apprise(settings.alerts), digest=settings.digest, url=settings.public_url)


def _welcome(base: str, names: list[str] | None, password: str | None, listening: str, settings: Settings) -> None:
    from dynpin.middleware.collector.storage import shown  # noqa: PLC0415

    lines: list[str] = []
    if "intake" in settings.parts and names is not None:
        lines += [f"report-uri  {base}/r/{name}/{mode}" for name in names for mode in ("enforce", "report-only")]
        if not names:
            lines.append("report-uri  none yet: dynpin collect tokens add")
    own = {one.rpartition("=")[0] for one in settings.inventories} - {"", *(names or ())}
    lines += [
        f"inventory   no policy has the token {token}, so nothing is judged by its inventory; "
        "dynpin collect tokens list shows the tokens"
        for token in sorted(own)
        if names is not None
    ]
    if password is not None and "web" in settings.parts:
        lines.append(f"password    {password}   (made for this run; set DYNPIN_COLLECTOR_PASSWORD to choose one)")
    lines += [f"listening   {listening}", f"storage     {shown(settings.storage)}"]
    if "web" in settings.parts:
        lines.append(f"pages       {base}/")
    for line in lines:
        say(line, err=True)


@app.command("config")
def config(context: typer.Context, config: ConfigFile = None, as_json: JsonOption = False) -> None:
    """Print each setting and where it comes from. The collector reads the files that settings name when it starts.

    Example: dynpin collect config --config collector.toml
    """
    from dynpin.middleware.collector import ServiceSettings  # noqa: PLC0415

    found = settings_of(context, config=config)
    told = found.settings
    printed_base(told, "")
    rows = {name: (_shown(found, name), source) for name, source in found.sources.items()}
    if as_json:
        print_json({name: {"value": value, "from": source} for name, (value, source) in rows.items()})
    else:
        from rich.table import Table  # noqa: PLC0415

        table = Table("setting", "value", "from")
        for name, (value, source) in rows.items():
            table.add_row(name, _text(value), source)
        table_console().print(table)
    # Refuses values that the collector refuses.
    ServiceSettings(tokens=told.tokens, source_address=told.source_address, trusted_proxies=told.trusted_proxies)


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, cast("list[object]", value)))
    return "" if value is None else str(value)


def _shown(found: Sourced, name: str) -> object:
    """A setting as JSON, without secrets."""
    value: object = getattr(found.settings, name)
    if name == "password" and value:
        return "(set)"
    if name == "storage":
        from dynpin.middleware.collector.storage import shown  # noqa: PLC0415

        return shown(found.settings.storage)
    if name == "alerts":
        return [f"{url.partition('://')[0]}://…" for url in found.settings.alerts]
    if isinstance(value, list):
        return [str(one) for one in cast("list[object]", value)]
    return str(value) if isinstance(value, Path) else value


@app.command("prune")
def prune(
    context: typer.Context,
    storage: StorageOption = None,
    config: ConfigFile = None,
    days: Annotated[float | None, typer.Option(help="Keep reports for this many days.", min=0, max=36_500)] = None,
    megabytes: Annotated[int | None, typer.Option(help="Keep at most this much in total.", min=1)] = None,
    accept_clock: AcceptClockOption = False,
    as_json: JsonOption = False,
) -> None:
    """Delete old reports now. A running collector does this every hour.

    If the clock jumped a week or more ahead, old reports are kept until it has stood for three days, or you accept it.
    Then the exit code is 1.

    Example: dynpin collect prune --storage reports.sqlite --days 90
    """
    from dynpin.middleware.collector import Retention  # noqa: PLC0415
    from dynpin.middleware.collector.reserve import with_reserve  # noqa: PLC0415
    from dynpin.middleware.collector.worker import ClockJump  # noqa: PLC0415
    from dynpin.middleware.collector.worker import prune as prune_storage  # noqa: PLC0415

    settings = settings_of(context, storage, config).settings
    retention = Retention(
        settings.keep_days if days is None else days,
        (megabytes or settings.keep_megabytes) * 2**20,
    )

    def work() -> tuple[Pruned, ClockJump | None]:
        with open_storage(settings.storage, must_exist=True) as kept:
            return prune_storage(kept, retention, time.time(), accept_clock=accept_clock)

    pruned, jump = with_reserve(settings.storage, work) if isinstance(settings.storage, Path) else work()
    if as_json:
        print_json(asdict(pruned))
    else:
        say(f"{counted(pruned.reports, 'report')} and {counted(pruned.groups, 'group')} deleted")
    if jump is not None:
        finding(str(jump))


@app.command("migrate")
def migrate(
    context: typer.Context, storage: StorageOption = None, config: ConfigFile = None, as_json: JsonOption = False
) -> None:
    """Upgrade the storage to this version's schema. In an empty PostgreSQL database, make the tables.

    Example: dynpin collect migrate --storage postgresql://collector@db/reports
    """
    from dynpin.middleware.collector.storage import migrate_storage, shown  # noqa: PLC0415

    address = settings_of(context, storage, config).settings.storage
    migrate_storage(address)
    if as_json:
        print_json({"storage": shown(address), "ready": True})
    else:
        say(f"{shown(address)} is ready")
