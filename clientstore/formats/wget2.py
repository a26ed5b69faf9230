"""wget2's pin file (`--hpkp-file`): a line for each host, and one for each of its pins below it."""

from __future__ import annotations

from collections.abc import Iterable

from dynpin.clientstore.formats.fields import Fields
from dynpin.errors import InvalidPinFile
from dynpin.hosts import KnownPinnedHost
from dynpin.pins import Pin
from dynpin.report import rfc3339

__all__ = ["read_wget2", "write_wget2"]

# wget2 forgets when created + max-age has passed, so pins without an end get ten years.
_TEN_YEARS = 315_360_000
# datetime ends with the year 9999; a max-age beyond it is no different.
_LAST_MOMENT = 253_402_300_799


def read_wget2(text: str, *, now: float, origin: str | None = None) -> list[KnownPinnedHost]:
    """The entries of a pin file of wget2, as noted from headers.

    Raises:
        InvalidPinFile: for a line that is neither a host's nor a pin's.
    """
    found: list[tuple[Fields, list[Pin]]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        where = f"line {number}"
        if not words or words[0].startswith("#"):
            continue
        if words[0].startswith("*"):
            if len(words) != 2 or not found:
                raise InvalidPinFile(f"{where}: a pin line is `*sha256 PIN`, below the line of its host")
            if words[0] != "*sha256":
                continue  # RFC 7469 §2.1.1: pins of unknown algorithms are ignored
            found[-1][1].extend(Fields({"pin": [words[1]]}, where).pins("pin"))
            continue
        if len(words) != 4 or not all(word.isascii() and word.isdigit() and len(word) < 20 for word in words[1:]):
            raise InvalidPinFile(f"{where}: a host's line is `HOST SUBDOMAINS CREATED MAX-AGE`")
        created = min(int(words[2]), _LAST_MOMENT)
        expires = min(created + int(words[3]), _LAST_MOMENT)
        fields = {"host": words[0], "noted_at": rfc3339(created), "expires_at": rfc3339(expires)}
        found.append((Fields(fields | {"include_subdomains": words[1] != "0"}, where), []))
    return [fields.noted(pins, now, origin) for fields, pins in found]


def write_wget2(entries: Iterable[KnownPinnedHost]) -> str:
    """The text of a pin file for ``wget2 --hpkp --hpkp-file=FILE``; wget2 rewrites the file as it visits.

    What has no pins, but exact certificates, cannot be told to wget2 and is left out.
    """
    lines = ["# HPKP 1.0 file", "# wget2 --hpkp --hpkp-file=FILE; wget2 rewrites the file as it visits."]
    lines += ["#<hostname> <incl. subdomains> <created> <max-age>", ""]
    for entry in entries:
        created = int(entry.noted_at)
        max_age = _TEN_YEARS if entry.expires_at is None else max(0, int(entry.expires_at) - created)
        if entry.pins:
            lines.append(f"{entry.host} {int(entry.include_subdomains)} {created} {max_age}")
            lines += [f"*sha256 {pin}" for pin in entry.pins]
    return "\n".join(lines) + "\n"
