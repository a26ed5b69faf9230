"""`dynpin export FORMAT`: the pins as a server's header line, as static pins for a client, or in a signed file."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from dynpin.cli.errors import fail, lacking
from dynpin.cli.options import (
    DEFAULT_INVENTORY,
    ExpiresOption,
    InventoryOption,
    NowOption,
    ReloadOption,
    ReportUriOption,
    moment,
)
from dynpin.cli.passphrase import PassphraseFileOption, passphrase_of_keys
from dynpin.cli.printing import say
from dynpin.cli.site import inventory_of
from dynpin.deploy.export import FORMATS, HEADER_FORMATS, export_header, export_static
from dynpin.deploy.keys import pin_of, read_private_key
from dynpin.deploy.mobile import SIGNED_FORMATS, export_ssl_pinning, export_wultra
from dynpin.durations import duration
from dynpin.hosts import KnownPinnedHost, canonical_host
from dynpin.middleware.policy import (
    LONGEST_MAX_AGE,
    Inventory,
    KeySource,
    Mode,
    in_chain,
    path_of,
    read_file,
)
from dynpin.pins import Pin, certificates
from dynpin.report import rfc3339

__all__ = ["export"]


def export(
    form: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT",
            help="A server (nginx, apache, caddy, haproxy, traefik) or a client (android, ios, okhttp, trustkit-ios, "
            "trustkit-android, curl, wget2, dynpin, go), or a signed file that apps fetch (wultra, ssl-pinning).",
        ),
    ],
    keys: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY",
            help="Pins, or files that have one: the deployed chain first, then the backup keys or CSRs. Without any, "
            "those of the inventory.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str | None, typer.Option("--host", help="The host that is pinned; static pins need it.", show_default=False)
    ] = None,
    max_age: Annotated[
        int | None,
        typer.Option(
            "--max-age",
            metavar="SECONDS",
            help="How long clients hold the pins, in a header or an ssl-pinning file. The default is 2592000.",
            min=1,
            show_default=False,
        ),
    ] = None,
    include_subdomains: Annotated[
        bool | None,
        typer.Option("--include-subdomains/--no-subdomains", help="Cover the subdomains too.", show_default=False),
    ] = None,
    report_uri: ReportUriOption = None,
    mode: Annotated[
        Mode | None, typer.Option("--mode", help="What the header does. The default is enforce.", show_default=False)
    ] = None,
    inventory: InventoryOption = None,
    expires: ExpiresOption = None,
    watch: Annotated[
        Path | None,
        typer.Option(
            "--watch",
            metavar="FILE",
            help="Keep running, and write the lines of the inventory to FILE whenever they change.",
            show_default=False,
        ),
    ] = None,
    reload: ReloadOption = None,
    once: Annotated[bool, typer.Option("--once", help="With --watch: look once, as from cron.")] = False,
    signing_key: Annotated[
        Path | None,
        typer.Option(
            "--signing-key",
            metavar="FILE",
            help="The private key that signs, PEM: EC P-256 for wultra; RSA of 2048 or 4096 bits for ssl-pinning.",
            show_default=False,
        ),
    ] = None,
    passphrase_file: PassphraseFileOption = None,
    now: NowOption = None,
) -> None:
    """Write the pins of KEY for FORMAT: header lines for a server, static pins for an app or a tool, a signed file.

    With --watch the lines follow dynpin.toml, its key files and its ramp:
    for a server that runs no app of yours.

    Example: dynpin export nginx tls/fullchain.pem backup.pub.pem

    Example: dynpin export nginx --watch pins.conf --reload "nginx -s reload"

    Example: dynpin export ssl-pinning --signing-key signing.pem > pins.json
    """
    if form not in (*FORMATS, *SIGNED_FORMATS):
        fail(f"{form} is not a format; there are {', '.join((*FORMATS, *SIGNED_FORMATS))}")
    at = moment(now)
    _check_ages(max_age, expires, at)
    if watch is not None:
        options = (host, max_age, include_subdomains, report_uri, mode, expires, signing_key, passphrase_file)
        if keys or any(each is not None for each in options):
            fail("--watch follows only dynpin.toml: leave keys and other options out, and write them there")
        _watch(form, inventory, watch, reload, once=once)
        return
    if reload is not None or once:
        fail("--reload and --once need --watch FILE")
    _check_signing(form, signing_key, passphrase_file)
    if keys and inventory is not None:
        fail("name keys or an inventory, not both")
    described = _of_keys(keys, host) if keys else inventory_of(inventory)
    if described is None:
        fail("name the keys: the deployed chain first, then the backup keys; or an --inventory that does")
    # Options come before the inventory.
    described = replace(
        described,
        max_age=described.max_age if max_age is None else max_age,
        include_subdomains=described.include_subdomains if include_subdomains is None else include_subdomains,
        report_uri=described.report_uri if report_uri is None else report_uri,
        mode=described.mode if mode is None else mode,
        ramp=described.ramp if max_age is None else None,
    )
    try:
        text = _text(form, described, host, expires, signing_key, passphrase_file, at)
    except ModuleNotFoundError as error:
        lacking(f"dynpin export {form}", error.name, "recovery")
    typer.echo(text, nl=False)


def _check_ages(max_age: int | None, expires: datetime | None, now: float) -> None:
    if max_age is not None and max_age > LONGEST_MAX_AGE:
        fail(
            f"--max-age is {duration(max_age)}: if you lose the keys, users are locked out for that long, and clients "
            f"cap it at about 60 days (RFC 7469 §4.1). Take {LONGEST_MAX_AGE} seconds or fewer; a dynpin.toml may say "
            "allow_long_max_age = true"
        )
    if expires is not None and expires.replace(tzinfo=UTC).timestamp() <= now:
        fail(f"--expires {expires.date()} is past: no client would enforce these pins. Name a later day")


def _check_signing(form: str, key: Path | None, passphrase_file: Path | None) -> None:
    if form in SIGNED_FORMATS and key is None:
        fail(f"{form} is a signed file: name the private key that signs it with --signing-key FILE")
    if form not in SIGNED_FORMATS and (key is not None or passphrase_file is not None):
        fail(f"--signing-key and --passphrase-file are only for {' and '.join(SIGNED_FORMATS)}; {form} is not signed")


def _text(
    form: str,
    described: Inventory,
    host: str | None,
    expires: datetime | None,
    key_file: Path | None,
    passphrase_file: Path | None,
    now: float,
) -> str:
    if form in HEADER_FORMATS:
        return _header_lines(form, described)
    end = None if expires is None else expires.replace(tzinfo=UTC).timestamp()
    if key_file is None:
        return _static_pins(form, described, host, end, now)
    key = read_private_key(key_file, lambda: passphrase_of_keys(passphrase_file))
    _check_key_is_apart(pin_of(key), key_file, described)
    if form == "wultra":
        return _wultra(described, key, host, end, now)
    return _ssl_pinning(described, key, host, end, now)


def _check_key_is_apart(pin: Pin, file: Path, described: Inventory) -> None:
    held = [pin for chain in described.read_chains() for pin in chain.pins]
    if pin in (*held, *(each.pin for each in described.read_backups())):
        fail(f"{file} is a key of the site: a thief of it could sign other pins. Make a key only for this")


def _of_keys(keys: list[str], host: str | None) -> Inventory:
    hosts = () if host is None else (canonical_host(host),)
    return Inventory(keys=(_source(keys[0]),), backups=tuple(map(_source, keys[1:])), hosts=hosts, max_age=2_592_000)


def _source(key: str) -> KeySource:
    try:
        return Pin.from_base64(key)
    except ValueError:
        pass
    if not Path(key).is_file():
        fail(f"{key} is neither a pin nor a file: check the path; a pin is 44 characters of base64")
    return Path(key)


def _header_lines(form: str, described: Inventory) -> str:
    if described.path is None:
        _check_keys(described)
    built = described.build()
    for warning in built.warnings:
        say(f"dynpin: {warning}", err=True)
    text = export_header(form, built.header)
    if described.ramp is None or not described.ramp.is_on:
        return text
    told = f"max-age is that of the ramp's step today, and does not follow it: dynpin export {form} --watch FILE does"
    say(f"dynpin: {told}", err=True)
    return f"# {told}.\n{text}"


def _check_keys(described: Inventory) -> None:
    """Refuse what Inventory would refuse, with this command's arguments instead of keywords in the message."""
    if described.mode != "unpin":
        reasons = [in_chain(key, described.read_chains()) for key in described.read_backups()]
        if not reasons:
            fail("a policy needs two pins: the deployed key's and a backup key's (dynpin keys new)")
        if all(reasons):
            fail(
                f"no backup is outside the deployed chain: {'; '.join(why for why in reasons if why)}. Clients "
                "ignore such a header (RFC 7469 §2.5): name a key that is not deployed (dynpin keys new)"
            )
    if described.report_uri and not described.hosts and described.read_chains()[0].names is None:
        fail("a pin or a key names no host, and reports must go to another one: name the pinned host with --host")
    if described.mode == "report-only" and not described.report_uri:
        fail("--mode report-only does nothing without --report-uri: clients send no reports (RFC 7469 §2.1.4)")


def _static_pins(form: str, described: Inventory, host: str | None, end: float | None, now: float) -> str:
    if host is None and len(described.hosts) == 1:
        host = described.hosts[0]
    if host is None:
        fail(f"static pins belong to a host: dynpin export {form} --host NAME …")
    if described.mode == "unpin":
        fail("the mode is unpin, and static pins would pin the host: remove them from the app instead")
    if described.mode == "report-only":
        say("dynpin: the mode is report-only, but clients enforce static pins", err=True)
    text = export_static(form, _entry(described, _pins(described), host, end, now))
    _tell_lone(described)
    return text


def _ssl_pinning(described: Inventory, key: object, host: str | None, end: float | None, now: float) -> str:
    hosts = described.hosts if host is None else (host,)
    if not hosts:
        fail("an ssl-pinning file names hosts: dynpin export ssl-pinning --host NAME …")
    if described.mode == "unpin":
        fail(
            "the mode is unpin, and an ssl-pinning file cannot take pins back: its SDKs refuse an empty list. "
            "Its pins end on the day of --expires"
        )
    # An inventory knows the current step of its ramp. Without an expiry date the file lasts as long as a header.
    header = None if described.path is None else described.build(now).header
    max_age = described.max_age if header is None else header.max_age
    if end is None:
        end = now + (max_age if isinstance(max_age, int) else 2_592_000)
    pins = _pins(described) if header is None else header.pins
    text = export_ssl_pinning([_entry(described, pins, each, end, now) for each in hosts], key, now=now)
    _tell_lone(described)
    say(f"dynpin: clients that follow this file forget it on {rfc3339(end)}; sign it again before then", err=True)
    return text


def _wultra(described: Inventory, key: object, host: str | None, end: float | None, now: float) -> str:
    if host is not None or end is not None or described.include_subdomains:
        fail(
            "a wultra file has the common name and the expiry of each certificate, but no hosts and no subdomains: "
            "leave out --host and --expires, and say --no-subdomains if dynpin.toml covers them"
        )
    leaves, others = list[bytes](), list[str]()
    for source in (*described.keys, *described.backups):
        path = path_of(source) if not isinstance(source, Pin) else None
        found = () if path is None else certificates(read_file(path))
        if found:
            leaves.append(found[0])
        else:
            others.append(str(path or source))
    text = export_wultra(leaves, key, now=now)
    if others:
        say(f"dynpin: left out, since it is not a certificate: {', '.join(others)}", err=True)
    say("dynpin: the SDKs refuse every other certificate: add the next one here before you deploy it", err=True)
    return text


def _entry(described: Inventory, pins: tuple[Pin, ...], host: str, end: float | None, now: float) -> KnownPinnedHost:
    name = canonical_host(host)
    return KnownPinnedHost(name, pins, described.include_subdomains, described.report_uri, int(now), end, "static")


def _pins(described: Inventory) -> tuple[Pin, ...]:
    if described.path is not None:
        return described.build().header.pins
    leaves = [pin for chain in described.read_chains() for pin in chain.pinnable[:1]]
    return tuple(dict.fromkeys([*leaves, *(key.pin for key in described.read_backups())]))


def _tell_lone(described: Inventory) -> None:
    reasons = [in_chain(key, described.read_chains(), described.roots) for key in described.read_backups()]
    if all(reasons):
        more = f": {'; '.join(why for why in reasons if why)}" if reasons else ""
        say(
            f"dynpin: no pin is that of a backup{more}. If you lose the key, users are locked out; add a backup key's",
            err=True,
        )


def _watch(form: str, inventory: Path | None, file: Path, command: str | None, *, once: bool) -> None:
    if form not in HEADER_FORMATS:
        fail(f"--watch is for servers: {', '.join(HEADER_FORMATS)}")
    if not file.absolute().parent.is_dir():
        fail(f"{file.parent} is not a folder: make it first, or name a file in another one")
    from dynpin.cli.export_watch import look_once, watch_file  # noqa: PLC0415 - beside what needs it

    (look_once if once else watch_file)(inventory or DEFAULT_INVENTORY, form, file, command)
