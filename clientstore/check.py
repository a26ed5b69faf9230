"""Whether a store's file is sound, and how what is left of a damaged one is saved."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from dynpin.clientstore.advice import put_back
from dynpin.clientstore.last_seen import LastSeen
from dynpin.clientstore.salvage import rows_in_pages
from dynpin.clientstore.schema import OtherFile, open_database
from dynpin.clientstore.store import PinStore
from dynpin.clientstore.table import EVERYWHERE, counted, entry_of, put, recount
from dynpin.errors import InvalidHost, StoreError
from dynpin.hosts import KnownPinnedHost, canonical_host, is_ip_literal

__all__ = ["Repair", "check", "repair"]

_MAX_FAULTS = 20
_OTHER_TABLES = ("reports", "overrides", "uses")
# The columns of the hosts table in the order of the file; a row of the first schema ends with the domain.
_COLUMNS = (
    *("host", "pins", "include_subdomains", "report_uri", "noted_at", "expires_at", "source", "domain"),
    *("certificates", "on_expiry", "origin"),
)
_FIRST_SCHEMA = 8


@dataclass(frozen=True, slots=True)
class Repair:
    """What became of a damaged store.

    Attributes:
        kept: how many hosts the new file has.
        lost: how many fewer than the damaged file counted; None where that could not be read.
        aside: where the damaged file stands now.
    """

    kept: int
    lost: int | None
    aside: Path


def check(path: Path, now: float) -> list[str]:
    """Every fault of a store's file, in words; an empty list for a sound one. Nothing is changed."""
    if not path.exists():
        return [f"there is no pin store at {path}"]
    faults: list[str] = []
    if stat.S_IMODE(path.stat().st_mode) & 0o022:
        faults.append(f"others may write to {path}, and so change your pins: chmod go-w {path}")
    try:
        connection = open_database(path).connection
    except StoreError as error:
        return [*faults, str(error)]
    try:
        for (line,) in connection.execute(f"PRAGMA integrity_check({_MAX_FAULTS})"):
            if line != "ok":
                faults.append(f"SQLite finds: {line}")
        faults += _faulty_rows(connection)
        (rows,) = connection.execute("SELECT count(*) FROM hosts").fetchone()
        count = counted(connection, EVERYWHERE)[EVERYWHERE]
        if rows != count:
            faults.append(f"the store has {rows} hosts and has counted {count}")
        jump = LastSeen(connection).jump(connection, now)
        if jump is not None:
            faults.append(jump)
    except sqlite3.Error as error:
        faults.append(f"SQLite cannot read it to the end: {error}")
    finally:
        connection.close()
    return faults


def repair(path: Path, now: float) -> Repair:
    """Save what can be read of a damaged store into a new file in its place, and keep the damaged one aside.

    Stop the programs that use the store first: what they write meanwhile is lost.

    Raises:
        StoreError: where nothing can be read, or the file is not damaged but a newer dynpin's or another program's;
            it is left as it is.
    """
    _refuse_other_files(path)
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    aside = path.with_name(f"{path.name}.damaged-{moment}")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        fresh = Path(folder) / path.name
        with _salvaging(path, Path(folder)) as damaged:
            entries, expected = _salvage(damaged, path.read_bytes())
            if not entries and expected != 0:
                raise StoreError(
                    f"nothing of the pin store {path} can be read. To put a backup in its place, {put_back(path)}; or "
                    "move it away to start with no pins: each host is then trusted on first use again"
                )
            with PinStore(fresh) as store, store.writing() as connection:
                for entry in entries.values():
                    put(connection, entry)
                recount(connection)
                for table in _OTHER_TABLES:
                    _copy(damaged, connection, table)
        for suffix in ("", "-wal"):
            if path.with_name(path.name + suffix).exists():
                shutil.copy2(path.with_name(path.name + suffix), aside.with_name(aside.name + suffix))
        # The old -wal must not be read into the new file; until that is in place the damaged one stands there, so
        # that no process ever finds nothing and starts without pins.
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        fresh.replace(path)
    return Repair(len(entries), None if expected is None else max(0, expected - len(entries)), aside)


def _refuse_other_files(path: Path) -> None:
    """A file that this dynpin does not know would lose, in the repair, all that it does not know of it."""
    try:
        open_database(path).connection.close()
    except OtherFile:
        raise
    except StoreError:
        pass  # the damage


def _faulty_rows(connection: sqlite3.Connection) -> Iterator[str]:
    found = 0
    cursor = connection.execute("SELECT * FROM hosts")
    names = [column[0] for column in cursor.description]
    for row in cursor:
        fault = _fault(dict(zip(names, row, strict=True)))
        if fault is not None:
            yield fault
            found += 1
            if found == _MAX_FAULTS:
                return


def _fault(row: dict[str, object]) -> str | None:
    """What is wrong with one row, or None."""
    host, pins, certificates = row["host"], row["pins"], row.get("certificates", b"")
    if not isinstance(host, str) or _canonical(host) != host:
        return f"{str(host)[:100]!r} is not the name of a host"
    if not isinstance(pins, bytes) or not isinstance(certificates, bytes):
        return f"the pins of {host} are no bytes"
    if len(pins) % 32 or len(certificates) % 32 or not pins + certificates:
        return f"the pins of {host} are cut off"
    if not isinstance(row["noted_at"], float) or not isinstance(row["expires_at"], float | None):
        return f"the times of {host} are no times"
    return None


def _canonical(host: str) -> str | None:
    try:
        return None if is_ip_literal(canonical_host(host)) else canonical_host(host)
    except InvalidHost:
        return None


@contextmanager
def _salvaging(path: Path, folder: Path) -> Generator[sqlite3.Connection]:
    """A connection to a copy of the damaged file, which reads on where SQLite would give up at once."""
    copy = folder / "damaged"
    for suffix in ("", "-wal"):
        if path.with_name(path.name + suffix).exists():
            shutil.copyfile(path.with_name(path.name + suffix), copy.with_name(copy.name + suffix))
    connection = sqlite3.connect(copy, isolation_level=None)
    try:
        # Without it, a file that is shorter than its first page says is not read at all.
        with contextlib.suppress(sqlite3.DatabaseError):
            connection.execute("PRAGMA writable_schema=ON")
        yield connection
    finally:
        connection.close()


def _salvage(damaged: sqlite3.Connection, data: bytes) -> tuple[dict[str, KnownPinnedHost], int | None]:
    """Every sound row that can be reached, and how many hosts the file had counted."""
    entries: dict[str, KnownPinnedHost] = {}

    def take(sql: str, *parameters: str) -> None:
        # A damaged page ends the walk.
        with contextlib.suppress(sqlite3.DatabaseError):
            cursor = damaged.execute(sql, parameters)
            names = [column[0] for column in cursor.description]
            for values in cursor:
                row = dict(zip(names, values, strict=True))
                if _fault(row) is None:
                    entries[row["host"]] = entry_of(row)

    # From the first host to the damage, from the last one back to it, and what lies between by its name.
    take("SELECT * FROM hosts ORDER BY host")
    take("SELECT * FROM hosts ORDER BY host DESC")
    named: list[str] = []
    with contextlib.suppress(sqlite3.DatabaseError):
        for (host,) in damaged.execute("SELECT host FROM hosts INDEXED BY hosts_by_domain ORDER BY domain"):
            named.append(host)
    for host in named:
        if host not in entries:
            take("SELECT * FROM hosts WHERE host = ?", host)
    expected: int | None = None
    with contextlib.suppress(sqlite3.DatabaseError):
        expected = counted(damaged, EVERYWHERE)[EVERYWHERE]
    if expected is None or len(entries) < expected:
        _take_from_pages(data, entries)
    return entries, expected


def _take_from_pages(data: bytes, entries: dict[str, KnownPinnedHost]) -> None:
    """Add what no tree leads to any more; of several rows of a host the one that was noted last."""
    found: dict[str, KnownPinnedHost] = {}
    for values in rows_in_pages(data):
        row = dict(zip(_COLUMNS, values, strict=False))
        for moment in ("noted_at", "expires_at"):
            if isinstance(row.get(moment), int):  # SQLite keeps a whole number of a REAL column as an integer
                row[moment] = float(cast("int", row[moment]))
        if len(values) < _FIRST_SCHEMA or row["source"] not in ("header", "static") or _fault(row) is not None:
            continue
        entry = entry_of(row)
        if entry.host not in entries and (entry.host not in found or found[entry.host].noted_at < entry.noted_at):
            found[entry.host] = entry
    entries.update(found)


def _copy(damaged: sqlite3.Connection, fresh: sqlite3.Connection, table: str) -> None:
    with contextlib.suppress(sqlite3.DatabaseError):
        cursor = damaged.execute(f"SELECT * FROM {table}")  # noqa: S608 - one of the three above
        names = [column[0] for column in cursor.description]
        marks = ",".join("?" * len(names))
        for row in cursor:
            fresh.execute(f"INSERT OR IGNORE INTO {table} ({','.join(names)}) VALUES ({marks})", row)  # noqa: S608
