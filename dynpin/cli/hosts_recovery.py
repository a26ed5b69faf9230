"""`dynpin hosts recover` and `follow`: look at signed lists by hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from dynpin.cli.errors import fail, finding
from dynpin.cli.options import CaOption, JsonOption
from dynpin.cli.printing import print_json, say
from dynpin.cli.stores import StoreOption, existing_store
from dynpin.clientstore import PinStore
from dynpin.clientstore.store import ask, list_expires_at, look_at
from dynpin.clientstore.store import follow as follow_list
from dynpin.counts import counted
from dynpin.durations import duration
from dynpin.errors import RecoveryError
from dynpin.files import read_file
from dynpin.hosts import KnownPinnedHost, canonical_host
from dynpin.recovery import Recovery
from dynpin.report import rfc3339

__all__ = ["ListState", "details", "follow", "recover"]


SourceOption = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="PLACE",
        help="Read the list from here now: a folder (on a USB stick, say), or the file of a list of ssl-pinning.",
        show_default=False,
    ),
]


def recover(
    host: Annotated[
        str | None,
        typer.Argument(metavar="HOST", help="The host that is locked out; without it, every list of the store."),
    ] = None,
    source: SourceOption = None,
    ca: CaOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look at the signed list of a host now. Exit code 1 if a list cannot be trusted.

    Only a list that the noted root has signed counts, from any place. It gives no host more time than its last header.

    Example: dynpin hosts recover www.example.com --from /media/stick
    """
    if source is not None and not source.exists():
        fail(f"there is no {source}: check the path of --from")
    from dynpin.deploy.trust import trusting  # noqa: PLC0415 - the other verbs do without

    with existing_store(store) as pins:
        wanted = _with_root(pins, host)
        if not wanted:
            if as_json:
                print_json([])
            none = "no host has noted a" if host is None else f"{host} has noted no"
            finding(
                f"{none} recovery root, so no list can change its pins in {pins.path}. Ask its owner whether its new "
                "key is right, before you forget the pins"
            )

        pins.database.write(lambda connection: ask(connection, wanted, pins.clock()))
        done: list[dict[str, object]] = []
        problems: list[str] = []
        for look in [each for each in pins.looks() if each.recovery in wanted.values()]:
            changed = look_at(pins.database, look, pins.clock, source=source, context=trusting(ca))
            after = next(each for each in pins.looks() if each.recovery == look.recovery)
            text = f"{source or look.recovery.uri}: {after.outcome}"
            is_trusted = changed or "is no news" in str(after.outcome)
            done.append({"uri": look.recovery.uri, "trusted": is_trusted, "changed": changed, "outcome": after.outcome})
            if not is_trusted:
                problems.append(text)
            elif not as_json:
                say(text)
    if as_json:
        print_json(done)
    if problems:
        finding("\n        ".join(problems))


def _with_root(pins: PinStore, host: str | None) -> dict[KnownPinnedHost, Recovery]:
    """The entries that a list may change, each with its root."""
    if host is None:
        known: Iterable[KnownPinnedHost] = pins.each()
    else:
        entry = pins.known_host(canonical_host(host))
        known = [] if entry is None else [entry]
    return {
        entry: entry.recovery.standing
        for entry in known
        if entry.recovery is not None and entry.recovery.standing is not None
    }


def follow(
    uri: Annotated[str, typer.Argument(help="The folder where the list is published; for ssl-pinning, the file.")],
    root: Annotated[
        Path | None,
        typer.Argument(
            metavar="ROOT", help="Version 1 of its root.json, from a person that you trust.", show_default=False
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            "--key",
            metavar="FILE",
            help="For a list of ssl-pinning, instead of ROOT: the RSA public key that verifies it: PEM, DER or base64.",
            show_default=False,
        ),
    ] = None,
    source: SourceOption = None,
    ca: CaOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take the pins of a signed list now, before the first visit. Clients then look for changes daily.

    Exit code 1 if the list cannot be read or trusted; dynpin tries again later.

    Example: dynpin hosts follow https://recovery.example.com root.json
    """
    trusted = root or key
    if trusted is None or (root and key):
        fail("name what you trust: ROOT, the root.json of the list, or --key FILE for a list of ssl-pinning")
    if not trusted.is_file():
        fail(f"there is no file {trusted}: check the path; the owner of the list has it")
    if source is not None and not source.exists():
        fail(f"there is no {source}: check the path of --from")
    from dynpin.deploy.trust import trusting  # noqa: PLC0415 - see above

    with PinStore(store) as pins:
        try:
            data, context = read_file(trusted), trusting(ca)
            look = follow_list(pins.database, uri, data, pins.clock, context=context, source=source, at_once=True)
        except RecoveryError as error:
            fail(f"{trusted} cannot sign a list: {error}")
        held = sum(entry.origin == uri for entry in pins.each())
    if as_json:
        print_json({"uri": uri, "hosts": held, "outcome": look.outcome})
    if not held:
        finding(f"{uri}: {look.outcome}; dynpin looks again later")
    if not as_json:
        say(f"{uri}: {look.outcome}; {counted(held, 'host')} pinned by it")


@dataclass(frozen=True, slots=True)
class ListState:
    """The state of the signed list of a host, from the store. Times are seconds since the epoch, UTC.

    Attributes:
        looked_at: when the store last looked at it, or None.
        outcome: the result of that look, as text, or None.
        expires_at: when the trusted list expires, or None if there is none.
    """

    looked_at: float | None = None
    outcome: str | None = None
    expires_at: float | None = None

    @classmethod
    def of(cls, pins: PinStore, known: KnownPinnedHost | None) -> ListState:
        """The state of the list whose root was noted for the host. Raises StoreError."""
        standing = None if known is None or known.recovery is None else known.recovery.standing
        if standing is None:
            return cls()
        look = next((each for each in pins.looks() if each.recovery == standing), None)
        expires_at = list_expires_at(pins.database.select, standing.root)
        return cls(None if look is None else look.looked_at, None if look is None else look.outcome, expires_at)

    def to_dict(self) -> dict[str, object]:
        """As JSON; times are RFC 3339 in UTC."""
        return {
            "list_looked_at": None if self.looked_at is None else rfc3339(self.looked_at),
            "list_outcome": self.outcome,
            "list_expires_at": None if self.expires_at is None else rfc3339(self.expires_at),
        }


def details(known: KnownPinnedHost, state: ListState, now: float) -> Iterator[tuple[str, str]]:
    """The lines of `dynpin hosts show` about the recovery of a host."""
    noted = known.recovery
    if noted is None:
        return
    if noted.standing is not None:
        yield "root", noted.standing.root_text
        yield "list", f"{noted.standing.uri}, version {noted.list_version or '0: none was applied'}"
        if state.expires_at is not None:
            is_over = state.expires_at <= now
            yield "list until", f"{rfc3339(state.expires_at)}{': its owner must sign it again' if is_over else ''}"
        if state.looked_at is not None:
            yield "last look", f"{duration(now - state.looked_at)} ago: {state.outcome}"
    if noted.offered is not None and noted.offered_at is not None:
        since = duration(now - noted.offered_at)
        yield "offered", f"{noted.offered.root_text}, for {since}; believed after seven days of the same"
