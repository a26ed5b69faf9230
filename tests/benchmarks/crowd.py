"""Stores and pin files with any number of hosts."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from dynpin import KnownPinnedHost, Pin
from dynpin.clientstore import PinStore

PINS = 2


def host(number: int) -> str:
    """A name that stands somewhere in the middle of all the others."""
    digest = hashlib.sha256(number.to_bytes(4)).hexdigest()
    return f"{digest[:8]}.{digest[8:12]}.example"


def pins(number: int) -> bytes:
    return b"".join(hashlib.sha256(number.to_bytes(4) + bytes([index])).digest() for index in range(PINS))


def fill_store(path: Path, count: int) -> None:
    """A store with so many Known Pinned Hosts that live for a month."""
    now = float(int(time.time()))
    with PinStore(path) as store:
        store.merge(KnownPinnedHost(host(n), pins_of(n), False, None, now, now + 2_592_000.0) for n in range(count))


def pins_of(number: int) -> tuple[Pin, ...]:
    blob = pins(number)
    return tuple(Pin(blob[at : at + 32]) for at in range(0, len(blob), 32))


def fill_wget2(path: Path, count: int) -> None:
    """A pin file of wget2 with the same hosts."""
    import base64

    now = int(time.time())
    with path.open("w") as file:
        file.write("# HPKP 1.0 file\n\n")
        for number in range(count):
            file.write(f"{host(number)} 0 {now} 2592000\n")
            blob = pins(number)
            for at in range(0, len(blob), 32):
                file.write(f"*sha256 {base64.b64encode(blob[at : at + 32]).decode()}\n")
