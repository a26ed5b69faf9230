"""One look at a signed list: fetch, verify, and keep what came of it."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dynpin.errors import RecoveryError
from dynpin.recovery import Recovery

from .database import Database
from .lists import Look, looks, record, register, trusted_files
from .memory import MemoryDatabase

if TYPE_CHECKING:
    from ..recovery import Verified

__all__ = ["NO_TUF", "follow", "look_at"]

NO_TUF = "python-tuf is not installed, which verifies signed lists: install dynpin again with its extra, recovery"


def look_at(
    database: Database | MemoryDatabase,
    look: Look,
    clock: Callable[[], float],
    *,
    folder: Path | None = None,
    context: ssl.SSLContext | None = None,
) -> tuple[str, ...]:
    """Look at a signed list now, and take it in; returns the hosts that have other pins now.

    Args:
        database: the store's.
        look: the list, one of :meth:`PinStore.looks`.
        clock: gives seconds since the epoch, UTC.
        folder: read the files from here, a stick for one, and not from the URI.
        context: whose roots an https URI is held against; None for the system's.

    Raises:
        StoreError: where the file cannot be written. Anything else is the look's outcome.
    """
    seen: Verified | None = None
    problem: str | None
    before = trusted_files(database.select, look.recovery.root)
    try:
        # Imported when there is something to verify: it takes longer than a thousand handshakes.
        from ..recovery import FolderFetcher, HTTPFetcher, verify  # noqa: PLC0415

        fetcher = HTTPFetcher(look.seconds, context) if folder is None else FolderFetcher(folder, look.recovery.uri)
        seen = verify(look.recovery, before, fetcher, clock())
        problem = seen.problem
    except ModuleNotFoundError as error:
        problem = NO_TUF if (error.name or "").partition(".")[0] in ("tuf", "securesystemslib") else str(error)
    except (RecoveryError, OSError) as error:
        problem = str(error)
    except Exception as error:  # noqa: BLE001 - what is read is a stranger's, and the next look must come all the same
        problem = f"{type(error).__name__}: {error}"
    return database.write(lambda connection: record(connection, look, seen, problem, before=before, now=clock()))


def follow(
    database: Database | MemoryDatabase,
    uri: str,
    root: bytes,
    clock: Callable[[], float],
    *,
    context: ssl.SSLContext | None,
) -> Look:
    """See :meth:`dynpin.clientstore.PinStore.follow`."""
    recovery = Recovery(hashlib.sha256(root).digest(), uri)
    database.write(lambda connection: register(connection, recovery, root, clock()))
    look = _look_of(database, recovery)
    if look.next_look_at is not None and look.next_look_at <= clock():
        look_at(database, look, clock, context=context)
    return _look_of(database, recovery)


def _look_of(database: Database | MemoryDatabase, recovery: Recovery) -> Look:
    return next(each for each in looks(database.select) if each.recovery == recovery)
