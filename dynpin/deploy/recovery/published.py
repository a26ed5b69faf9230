"""The published list: when it expires, and whether clients that take it can connect to the site.

A refused client takes the list instead of the last header. So the list and the header must always agree: if a key is
missing in the list, such a client refuses that key once it is deployed.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Signed  # pyright: ignore[reportPrivateImportUsage]

from dynpin.clientstore.recovery import FolderFetcher, HTTPFetcher, verify
from dynpin.errors import RecoveryError
from dynpin.header import PublicKeyPins
from dynpin.pin_list import PinList
from dynpin.pins import Pin
from dynpin.recovery import Recovery

from .expiry import Expiry, expiries
from .keys import ROLES

__all__ = ["PublishedList", "list_faults", "read_published"]

# TUF's client stores the roots in this folder of its trusted files.
_ROOTS = "root_history/"
_SIGN = "Do: dynpin recovery sign dynpin.toml, publish"


@dataclass(frozen=True, slots=True)
class PublishedList:
    """The list as a client with the noted root reads it.

    Attributes:
        place: the folder or the URI.
        version: the version of the list; 0 if there is none.
        pins: the list, or None if a client would not accept it.
        expiries: the expiry of each role's signature, as far as a client would accept it.
        problem: why a client would not accept the list; None if it would.
    """

    place: str
    version: int
    pins: PinList | None
    expiries: tuple[Expiry, ...]
    problem: str | None

    @property
    def problems(self) -> tuple[str, ...]:
        """Why the list is not accepted, or soon will not be: one sentence each."""
        if self.problem is not None:
            return (f"no client believes the list at {self.place}: {self.problem}",)
        return tuple(f"{self.place}: {each.problem}" for each in self.expiries if each.problem is not None)


def read_published(
    recovery: Recovery,
    now: float,
    *,
    folder: Path | None = None,
    context: ssl.SSLContext | None = None,
    seconds: float = 30.0,
) -> PublishedList:
    """Read the list as a client does that has noted this root and has not read the list yet.

    Args:
        recovery: the root, and the URI of its files.
        now: seconds since the epoch, UTC.
        folder: the folder of the published files; None to fetch them from the URI.
        context: its roots verify an https URI; None for the system's.
        seconds: the time limit for all files.
    """
    fetcher = HTTPFetcher(seconds, context) if folder is None else FolderFetcher(folder, recovery.uri)
    place = recovery.uri if folder is None else str(folder)
    try:
        seen = verify(recovery, {}, fetcher, now)
        ends = expiries(_signed(seen.files), now)
    except (RecoveryError, RepositoryError) as error:
        return PublishedList(place, 0, None, (), str(error))
    return PublishedList(place, seen.list_version, seen.pins, tuple(ends), seen.problem)


def _signed(files: Mapping[str, bytes]) -> dict[str, Signed]:
    """The files that a client trusts, by role; for the root the newest."""
    roots = [name for name in files if name.startswith(_ROOTS)]
    newest = max(roots, key=lambda name: int(name.removeprefix(_ROOTS).partition(".")[0]), default=None)
    found = {} if newest is None else {"root": files[newest]}
    found |= {role: files[f"{role}.json"] for role in ROLES if role != "root" and f"{role}.json" in files}
    return {role: _metadata(data) for role, data in found.items()}


def _metadata(data: bytes) -> Signed:
    read: Metadata[Root] = Metadata.from_bytes(data)  # pyright: ignore[reportUnknownVariableType] - of whatever role
    return read.signed


def list_faults(
    listed: PinList, host: str, header: PublicKeyPins, chains: Sequence[Sequence[Pin]] = ()
) -> Iterator[str]:
    """The differences between the list and the site: one sentence each, with the consequence and what to do.

    Args:
        listed: the list.
        host: the canonical name of the host.
        header: its enforced header.
        chains: the pins of each validated chain that it shows.
    """
    told = listed.hosts.get(host)
    if told is None:
        yield f"the list does not name {host}: a client that is refused finds nothing there. {_SIGN}"
        return
    if header.max_age == 0:
        if told.pins:
            yield f"{host} unpins, and the list pins it: a client that takes the list is pinned again. {_SIGN}"
        return
    if not told.pins:
        yield f"the list releases {host}, which sends pins: a client that takes it forgets them. {_SIGN}"
        return
    if any(set(told.pins).isdisjoint(chain) for chain in chains):
        yield f"the list names no key that {host} shows: a client that takes it is locked out. {_SIGN}"
    for pin in header.pins:
        if pin not in told.pins:
            yield f"the list lacks {pin}, which {host} sends: a client that takes the list refuses that key. {_SIGN}"
    for pin in told.pins:
        if pin not in header.pins:
            yield (
                f"the list has {pin}, which {host} does not send: a client that takes the list accepts that key. "
                f"{_SIGN}"
            )
    if told.include_subdomains != header.include_subdomains:
        covers = ("the subdomains", "the host alone") if told.include_subdomains else ("the host alone", "subdomains")
        yield f"the list covers {covers[0]}, and the header of {host} {covers[1]}. {_SIGN}"
