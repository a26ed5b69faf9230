"""Check a store's file for damage, and save what is left of a damaged one."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import stat
import tempfile
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from dynpin.errors import InvalidHost, StoreError
from dynpin.hosts import KnownPinnedHost, canonical_host, is_ip_literal

from .advice import DamagedRow, nothing_to_save, store_error
from .connection import readable
from .database import Database
from .files import log_of
from .last_seen import describe_jump, read_seen_at
from .schema import SCHEMA, OtherFile, check_head, create
from .table import COLUMNS, entry_of, put, rows_by_host

__all__ = ["Repair", "check", "repair"]

_MAX_FAULTS = 20
# How often a repair looks behind a page that cannot be read. Each look takes some hundredths of a millisecond.
_MAX_GAPS = 2_000
# Before the first name and after the last one.
_ALL_NAMES = ("", "\x7f")
_SELECT = f"SELECT {COLUMNS} FROM hosts"  # noqa: S608 - a constant
# sqlite_... are SQLite's own: ANALYZE makes some.
_PARTS = "SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
_OTHER_TABLES = ("overrides", "refusals", "facts", "reports", "attempts", "looks", "asked", "trusted")


@dataclass(frozen=True, slots=True)
class Repair:
    """The result of a repair.

    Attributes:
        kept: how many hosts the new file has.
        aside: where the damaged file is now.
    """

    kept: int
    aside: Path


def check(path: Path, now: float) -> list[str]:
    """Every fault of a store's file, in words; an empty list if there is none. Changes nothing.

    A row that is missing altogether cannot be detected.
    """
    path = path.resolve()
    if not path.exists():
        return [f"there is no pin store at {path}"]
    faults: list[str] = []
    if stat.S_IMODE(path.stat().st_mode) & 0o022:
        faults.append(f"others may write to {path}, and so change your pins: chmod go-w {path}")
    try:
        database = Database(path)
    except StoreError as error:
        return [*faults, str(error)]
    try:
        found = [line for (line,) in database.select(f"PRAGMA integrity_check({_MAX_FAULTS})") if line != "ok"]
        faults += [f"SQLite finds: {line}" for line in found]
        faults += _other_parts(database)
        faults += _faulty_rows(database)
        seen_at = read_seen_at(database)
        jump = None if seen_at is None else describe_jump(database, seen_at, now)
        if jump is not None:
            faults.append(jump)
    except StoreError as error:
        faults.append(str(error))
    finally:
        database.close()
    return faults


def repair(path: Path, now: float) -> Repair:
    """Copy what can be read of a damaged store into a new file in its place, and keep the damaged file beside it.

    Stop the programs that use the store first: those that still have it open refuse every connection afterwards.

    Raises:
        StoreError: if nothing can be read; the file is left as it is.
        OtherFile: if it is not damaged, but of another version of dynpin or of another program.
    """
    path = path.resolve()
    try:
        check_head(path)
    except OtherFile:
        raise
    except (StoreError, sqlite3.Error):
        pass  # this is the damage to repair
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    aside = path.with_name(f"{path.name}.damaged-{moment}")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        fresh = Path(folder) / path.name
        create(fresh)
        kept = _save(path, fresh, Path(folder) / "damaged")
        if not kept:
            raise StoreError(f"no host can be read from the pin store {path}. {nothing_to_save(path)}")
        for source, target in ((path, aside), (log_of(path), log_of(aside))):
            if source.exists():
                shutil.copy2(source, target)
        # SQLite must not apply the old log to the new file. The damaged file stays until the new one replaces it,
        # so that no process ever finds no file and starts without pins.
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        fresh.replace(path)
    return Repair(kept, aside)


def _other_parts(database: Database) -> list[str]:
    """The tables, indexes, views and triggers that are missing, or that another program has added.

    SQLite calls such a file sound, but a trigger may delete what is noted, and nothing is noted without an index.
    """
    with contextlib.closing(sqlite3.connect(":memory:")) as fresh:
        fresh.executescript(SCHEMA)
        made = set(fresh.execute(_PARTS).fetchall())
    found = set(database.select(_PARTS))
    return [
        *(f"the {kind} {name} is missing" for kind, name in sorted(made - found)),
        *(f"dynpin did not make the {kind} {str(name)[:100]!r}" for kind, name in sorted(found - made)),
    ]


def _faulty_rows(database: Database) -> list[str]:
    faults = (fault for row in rows_by_host(database.select) if (fault := _fault(row)) is not None)
    found: list[str] = []
    try:
        found.extend(islice(faults, _MAX_FAULTS))
    except sqlite3.Error as error:
        found.append(str(error))
    return found


def _fault(row: tuple[object, ...]) -> str | None:
    """What is wrong with one row, or None."""
    try:
        entry = entry_of(row)
        if canonical_host(entry.host) != entry.host or is_ip_literal(entry.host):
            return f"{entry.host!r} is not the name of a host"
    except (DamagedRow, InvalidHost) as error:
        return str(error)
    return None


def _save(path: Path, fresh: Path, copy: Path) -> int:
    """Copy every sound row that can be reached into the new file; return the number of hosts."""
    for source, target in ((path, copy), (log_of(path), log_of(copy))):
        if source.exists():
            shutil.copyfile(source, target)
    with (
        contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as damaged,
        contextlib.closing(sqlite3.connect(fresh, isolation_level=None)) as kept,
    ):
        damaged.text_factory = readable  # else the SELECT ends at a text that is no UTF-8
        # Without this, SQLite does not read a file that is shorter than its first page says.
        with contextlib.suppress(sqlite3.DatabaseError):
            damaged.execute("PRAGMA writable_schema=ON")
        entries = {entry.host: entry for entry in _reachable(damaged, path)}
        kept.execute("PRAGMA synchronous=FULL")
        kept.execute("BEGIN")
        put(kept, entries.values())
        for table in _OTHER_TABLES:
            _copy(damaged, kept, table)
        kept.execute("COMMIT")
    return len(entries)


def _reachable(damaged: sqlite3.Connection, path: Path) -> Iterator[KnownPinnedHost]:
    """Each sound row that can be read, some of them twice.

    A SELECT ends at a page that cannot be read. So the rows are read from the first one to the damage, and from the
    last one back to it. If other rows may lie in between, the same is done on both sides of a name in the middle.
    """
    gaps: deque[tuple[str, str]] = deque([_ALL_NAMES])
    for _ in range(_MAX_GAPS):
        if not gaps:
            return
        gap = gaps.popleft()
        ends = list(gap)
        for at, (sign, direction, farther) in enumerate(((">=", "ASC", max), ("<=", "DESC", min))):
            # At first without a WHERE: a damaged name would lead astray. Nor may one end the reading.
            where, start = ("", ()) if gap == _ALL_NAMES else (f"WHERE host {sign} ?", (gap[at],))
            try:
                for row in damaged.execute(f"{_SELECT} {where} ORDER BY host {direction}", start):
                    if _fault(row) is None:
                        entry = entry_of(row)
                        if not gap[0] <= entry.host <= gap[1]:
                            break
                        yield entry
                        ends[at] = farther(ends[at], entry.host)
                break  # no damage
            except sqlite3.DatabaseError as error:
                # A table that is not there may be lost to damage. One with other columns is of another version.
                if str(error).startswith("no such column"):
                    raise OtherFile(str(store_error(path, error))) from None
        else:
            middle = _halfway(*ends)
            gaps += [each for each in ((ends[0], middle), (middle, ends[1])) if each[0] < each[1]]


def _halfway(low: str, high: str) -> str:
    """A text of ASCII that is between two others, in SQLite's order."""
    width = max(len(low), len(high)) + 1
    total = 0
    for pair in zip(low.ljust(width, "\0"), high.ljust(width, "\0"), strict=True):
        total = total * 128 + sum(min(ord(char), 127) for char in pair)
    middle = total // 2
    return "".join(chr(middle >> 7 * place & 127) for place in reversed(range(width)))


def _copy(damaged: sqlite3.Connection, target: sqlite3.Connection, table: str) -> None:
    with contextlib.suppress(sqlite3.DatabaseError):
        cursor = damaged.execute(f"SELECT * FROM {table}")  # noqa: S608 - one of the above
        names = [column[0] for column in cursor.description]
        for row in cursor:
            target.execute(
                f"INSERT OR IGNORE INTO {table} ({','.join(names)}) VALUES ({','.join('?' * len(names))})",  # noqa: S608
                row,
            )
