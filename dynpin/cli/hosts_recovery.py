"""`dynpin hosts recover` and `follow`: signed lists, by hand."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from dynpin.cli.errors import fail, finding
from dynpin.cli.get import StoreOption
from dynpin.cli.options import CaOption
from dynpin.cli.printing import say
from dynpin.clientstore import PinStore
from dynpin.clientstore.store import Look, ask, look_at
from dynpin.clientstore.store import follow as follow_list
from dynpin.durations import duration
from dynpin.errors import RecoveryError
from dynpin.hosts import KnownPinnedHost, canonical_host
from dynpin.recovery import Recovery

__all__ = ["details", "follow", "recover"]


def recover(
    host: Annotated[
        str | None,
        typer.Argument(metavar="[HOST]", help="The host that is locked out; else every list of the store."),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Read the published files from this folder, a stick for one; a list of ssl-pinning from this file.",
            show_default=False,
        ),
    ] = None,
    ca: CaOption = None,
    store: StoreOption = None,
) -> None:
    """Look at the signed list of a host now. Exit code 1 where a list cannot be believed.

    Only a list that the noted root has signed counts, wherever it comes from. It gives no host more time than its last
    header.
    """
    if store is not None and not store.exists():
        fail(f"there is no pin store at {store}")
    if source is not None and not source.exists():
        fail(f"there is no {source}")
    from dynpin.deploy.reach import tls_context  # noqa: PLC0415 - `dynpin hosts` starts without it

    with PinStore(store) as pins:
        wanted = list(_roots(pins, host))
        if not wanted:
            finding(f"{host or 'no host'} has noted no recovery root, so no list can change its pins in {pins.path}")

        def job(connection: sqlite3.Connection) -> None:
            for recovery in wanted:
                ask(connection, recovery, pins.clock())

        pins.database.write(job)
        problems: list[str] = []
        for look in [each for each in pins.looks() if each.recovery in wanted]:
            changed = look_at(pins.database, look, pins.clock, source=source, context=tls_context(ca))
            after = next(each for each in pins.looks() if each.recovery == look.recovery)
            text = f"{source or look.recovery.uri}: {after.outcome}"
            if changed or "is no news" in str(after.outcome):
                say(text)
            else:
                problems.append(text)
    if problems:
        finding("\n        ".join(problems))


def _roots(pins: PinStore, host: str | None) -> Iterator[Recovery]:
    if host is None:
        known: Iterable[KnownPinnedHost] = pins.each()
    else:
        entry = pins.known_host(canonical_host(host))
        known = [] if entry is None else [entry]
    yield from dict.fromkeys(
        entry.recovery.standing for entry in known if entry.recovery is not None and entry.recovery.standing is not None
    )


def follow(
    uri: Annotated[str, typer.Argument(help="The folder where the list is published; of ssl-pinning, the file.")],
    root: Annotated[
        Path | None,
        typer.Argument(
            metavar="[ROOT]", help="Version 1 of its root.json, from somebody whom you trust.", show_default=False
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            "--key",
            metavar="FILE",
            help="For a list of ssl-pinning, in place of ROOT: the RSA public key that signs it, PEM, DER or base64.",
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Read it from this folder, or file, this time; daily from URI.", show_default=False
        ),
    ] = None,
    ca: CaOption = None,
    store: StoreOption = None,
) -> None:
    """Take the pins of a signed list before the first visit, and hear of changes daily.

    Exit code 1 where the list cannot be had or believed; it is tried again.
    """
    trusted = root or key
    if trusted is None or (root and key):
        fail("name what you trust: ROOT, the root.json of the list, or --key FILE for a list of ssl-pinning")
    if not trusted.is_file():
        fail(f"there is no file {trusted}")
    if source is not None and not source.exists():
        fail(f"there is no {source}")
    from dynpin.deploy.reach import tls_context  # noqa: PLC0415 - see above

    with PinStore(store) as pins:
        try:
            data, context = trusted.read_bytes(), tls_context(ca)
            look = follow_list(pins.database, uri, data, pins.clock, context=context, source=source)
        except RecoveryError as error:
            fail(f"{trusted} signs no list: {error}")
        held = sum(entry.origin == uri for entry in pins.each())
    if not held:
        finding(f"{uri}: {look.outcome}")
    say(f"{uri}: {look.outcome}; {held} host{'' if held == 1 else 's'} pinned by it")


def details(known: KnownPinnedHost, looks: Iterable[Look], now: float) -> Iterator[tuple[str, str]]:
    """What `dynpin hosts show` tells of the recovery of a host."""
    noted = known.recovery
    if noted is None:
        return
    if noted.standing is not None:
        yield "root", noted.standing.root_text
        yield "list", f"{noted.standing.uri}, version {noted.list_version or '0: none was applied'}"
        look = next((each for each in looks if each.recovery == noted.standing), None)
        if look is not None and look.looked_at is not None:
            yield "last look", f"{duration(now - look.looked_at)} ago: {look.outcome}"
    if noted.offered is not None and noted.offered_at is not None:
        since = duration(now - noted.offered_at)
        yield "offered", f"{noted.offered.root_text}, for {since}; believed after seven days of the same"
