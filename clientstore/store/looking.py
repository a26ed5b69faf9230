"""Look at a signed list once: fetch, verify and store the result."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dynpin.errors import RecoveryError
from dynpin.recovery import FIRST_ROOT, SIGNING_KEY, Recovery

from .database import Database
from .lists import Look, looks, record, register, trusted_files
from .memory import MemoryDatabase

if TYPE_CHECKING:
    from ..recovery import Verified

__all__ = ["NO_TUF", "follow", "look_at"]

_ABSENT = "is not installed, which verifies signed lists: install dynpin again with its extra, recovery"
NO_TUF = f"python-tuf {_ABSENT}"


def look_at(
    database: Database | MemoryDatabase,
    look: Look,
    clock: Callable[[], float],
    *,
    source: Path | None = None,
    context: ssl.SSLContext | None = None,
) -> tuple[str, ...]:
    """Look at a signed list now and apply it. Returns the hosts whose pins have changed.

    Args:
        database: the store's database.
        look: the list, one of :meth:`PinStore.looks`.
        clock: returns seconds since the epoch, UTC.
        source: read the files from this folder (a USB stick, for example), or read this one file; None for the URI.
        context: its roots verify an https URI; None for the system's.

    Raises:
        StoreError: if the file cannot be written. Any other error becomes the look's outcome.
    """
    seen: Verified | None = None
    problem: str | None
    before = trusted_files(database.select, look.recovery.root)
    try:
        # Imported here: it takes longer than a thousand handshakes.
        from ..recovery import FolderFetcher, HTTPFetcher, verify, verify_ssl_pinning  # noqa: PLC0415

        fetcher = HTTPFetcher(look.seconds, context) if source is None else FolderFetcher(source, look.recovery.uri)
        seen = (verify_ssl_pinning if SIGNING_KEY in before else verify)(look.recovery, before, fetcher, clock())
        problem = seen.problem
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        known = {"tuf": NO_TUF, "securesystemslib": NO_TUF, "rfc8785": f"rfc8785 {_ABSENT}"}
        problem = known.get(package, str(error))
    except (RecoveryError, OSError) as error:
        problem = str(error)
    except Exception as error:  # noqa: BLE001 - what is read is a stranger's, and the next look must come all the same
        problem = f"{type(error).__name__}: {error}"
    return database.write(lambda connection: record(connection, look, seen, problem, before=before, now=clock()))


def follow(
    database: Database | MemoryDatabase,
    uri: str,
    trusted: bytes,
    clock: Callable[[], float],
    *,
    context: ssl.SSLContext | None,
    source: Path | None = None,
    at_once: bool = False,
) -> Look:
    """See :meth:`dynpin.clientstore.PinStore.follow`. With `at_once` the look happens now, also if it is not due.

    `source` is that of :func:`look_at`.
    """
    # A root of TUF is JSON, and no form of a public key begins with a brace.
    name, data = FIRST_ROOT, trusted
    if not trusted.lstrip().startswith(b"{"):
        try:
            from ..recovery import read_signing_key  # noqa: PLC0415 - as above
        except ModuleNotFoundError:
            raise RecoveryError(NO_TUF) from None
        name, data = SIGNING_KEY, read_signing_key(trusted)
    recovery = Recovery(hashlib.sha256(data).digest(), uri)
    database.write(lambda connection: register(connection, recovery, name, data, clock()))
    look = _look_of(database, recovery)
    if at_once or (look.next_look_at is not None and look.next_look_at <= clock()):
        look_at(database, look, clock, source=source, context=context)
    return _look_of(database, recovery)


def _look_of(database: Database | MemoryDatabase, recovery: Recovery) -> Look:
    return next(each for each in looks(database.select) if each.recovery == recovery)
