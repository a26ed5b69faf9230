"""wget2's pin file (`--hpkp-file`): one line for each host, followed by one line for each of its pins."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from dynpin.errors import InvalidPinFile
from dynpin.hosts import KnownPinnedHost
from dynpin.pins import Pin
from dynpin.report import LAST_SECOND

from .fields import pinnable_host

__all__ = ["lost_in_wget2", "read_wget2", "write_wget2"]

# wget2 forgets a host when created + max-age has passed, so pins without an end get ten years.
_TEN_YEARS = 315_360_000
_NUMBERS = re.compile("[0-9]{1,19} [0-9]{1,19} [0-9]{1,19}")


class _HostLine(NamedTuple):
    number: int
    host: str
    include_subdomains: bool
    created: int
    max_age: int
    pins: list[Pin]

    def entry(self, origin: str | None) -> KnownPinnedHost:
        if not self.pins:
            raise InvalidPinFile(f"line {self.number}: {self.host} has no pins")
        # A max-age may be any number (RFC 7469 §2.1.2), but an expiry must be in a year that can be written.
        expires_at = float(min(self.created + self.max_age, LAST_SECOND))
        pins = tuple(dict.fromkeys(self.pins))
        return KnownPinnedHost(
            self.host, pins, self.include_subdomains, None, float(self.created), expires_at, origin=origin
        )


def read_wget2(lines: Iterable[str], *, now: float, origin: str | None = None) -> Iterator[KnownPinnedHost]:
    """The entries of a pin file of wget2, as if noted from headers.

    Args:
        lines: an open text file, or lines of text. Only the lines of one host are held at a time.
        now: seconds since the epoch, UTC. Not used: each host's line has its time of noting.
        origin: the name of the file, for messages.

    Raises:
        InvalidPinFile: at the first line that is neither a host nor a pin, and for a host without pins.
    """
    above: _HostLine | None = None
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0][0] == "#":
            continue
        if words[0][0] != "*":
            if above is not None:
                yield above.entry(origin)
            above = _host_line(words, number)
        elif len(words) != 2 or above is None:
            raise InvalidPinFile(f"line {number}: a pin line is `*sha256 PIN`, below the line of its host")
        elif words[0] == "*sha256":  # RFC 7469 §2.1.1: pins of unknown algorithms are ignored
            try:
                above.pins.append(Pin.from_base64(words[1]))
            except ValueError as error:
                raise InvalidPinFile(f"line {number}: {error}") from None
    if above is not None:
        yield above.entry(origin)


def _host_line(words: list[str], number: int) -> _HostLine:
    if len(words) != 4 or _NUMBERS.fullmatch(" ".join(words[1:])) is None:
        raise InvalidPinFile(f"line {number}: a host's line is `HOST SUBDOMAINS CREATED MAX-AGE`")
    created = int(words[2])
    if created > LAST_SECOND:
        raise InvalidPinFile(f"line {number}: {created} seconds since 1970 are beyond the year 9999")
    try:
        host = pinnable_host(words[0])
    except ValueError as error:
        raise InvalidPinFile(f"line {number}: {error}") from None
    return _HostLine(number, host, words[1] != "0", created, int(words[3]), [])


def lost_in_wget2(entry: KnownPinnedHost) -> str | None:
    """The part of an entry that :func:`write_wget2` cannot write, as a sentence; None if it can write all of it."""
    if entry.host.startswith("*"):
        return f"{entry.host} is left out: wget2 takes a line that begins with * for a pin"
    if entry.certificates and not entry.pins:
        return f"{entry.host} is left out: it is pinned to certificates, and wget2's format has none"
    if entry.certificates:
        return f"{entry.host} is also pinned to certificates, and wget2's format has none"
    return None


def write_wget2(entries: Iterable[KnownPinnedHost]) -> Iterator[str]:
    """The text of a pin file for ``wget2 --hpkp --hpkp-file=FILE``. wget2 rewrites the file as it visits hosts.

    Leaves out entries that the format cannot hold: see :func:`lost_in_wget2`.
    """
    yield "# HPKP 1.0 file\n# wget2 --hpkp --hpkp-file=FILE; wget2 rewrites the file as it visits.\n"
    yield "#<hostname> <incl. subdomains> <created> <max-age>\n\n"
    for entry in entries:
        if not entry.pins or entry.host.startswith("*"):
            continue
        created = max(0, int(entry.noted_at))
        max_age = _TEN_YEARS if entry.expires_at is None else max(0, int(entry.expires_at) - created)
        pins = "".join([f"*sha256 {pin}\n" for pin in entry.pins])
        yield f"{entry.host} {int(entry.include_subdomains)} {created} {max_age}\n{pins}"
