"""What the store acknowledges is on the disk, though it waits for the disk behind the write lock."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dynpin import KnownPinnedHost, Pin, PublicKeyPins, StoreError
from dynpin.clientstore import PinStore, log

from ..scenarios import Clock

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="on Windows SQLite waits for the disk itself")

LEAF, BACKUP, OTHER = (Pin(bytes([number]) * 32) for number in range(3))


def header(*pins: Pin, max_age: int = 1_000_000) -> str:
    return str(PublicKeyPins(pins, max_age))


class Disk:
    """What a power failure would leave: the files as they were when the log was synced last."""

    def __init__(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file = file
        self.image = file.parent / "image"
        self.image.mkdir()
        self.syncs = 0
        self.meanwhile: Callable[[], object] | None = None
        sync = log._sync

        def synced(descriptor: int) -> None:
            act, self.meanwhile = self.meanwhile, None
            if act is not None:
                act()
            sync(descriptor)
            if os.path.samestat(os.fstat(descriptor), Path(f"{file}-wal").stat()):
                self.syncs += 1
                for suffix in ("", "-wal"):
                    shutil.copy(f"{file}{suffix}", self.image)

        monkeypatch.setattr(log, "_sync", synced)

    def hosts(self) -> dict[str, tuple[Pin, ...]]:
        copy = self.file.parent / f"after-{self.syncs}"
        shutil.copytree(self.image, copy)
        with PinStore(copy / self.file.name, clock=Clock()) as store:
            return {entry.host: entry.pins for entry in store.hosts()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "pins"


@pytest.fixture
def store(file: Path) -> Iterator[PinStore]:
    with PinStore(file, clock=Clock()) as store:
        store.pin("first.test", [LEAF])  # waited for by SQLite: an empty log cannot be told from another one
        yield store


@pytest.fixture
def disk(store: PinStore, file: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    with store.reading() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (1,)  # NORMAL, from the first write on
    return Disk(file, monkeypatch)


ENTRY = KnownPinnedHost("a.test", (LEAF, BACKUP), False, None, Clock().now, None, "static")
WRITES: dict[str, Callable[[PinStore], object]] = {
    "noted": lambda store: store.note("a.test", header(LEAF, BACKUP), [LEAF]),
    "updated": lambda store: store.note("a.test", header(LEAF, OTHER), [LEAF]),
    "removed": lambda store: store.note("a.test", "max-age=0", [LEAF]),
    "pinned": lambda store: store.pin("a.test", [OTHER]),
    "forgotten": lambda store: store.forget("a.test"),
    "preloaded": lambda store: store.preload([ENTRY], "app.toml"),
    "merged": lambda store: store.merge([ENTRY]),
}


ON_NOTHING = ("noted", "pinned", "preloaded", "merged")
CASES = [(None, name) for name in ON_NOTHING] + [("noted", name) for name in WRITES]


@pytest.mark.parametrize(("before", "name"), CASES)
def test_what_returns_is_on_the_disk(store: PinStore, disk: Disk, before: str | None, name: str) -> None:
    if before is not None:
        WRITES[before](store)
    WRITES[name](store)
    assert disk.hosts() == {entry.host: entry.pins for entry in store.hosts()}


def test_others_write_while_one_waits_for_the_disk(store: PinStore, disk: Disk, file: Path) -> None:
    with PinStore(file, clock=Clock()) as other:
        disk.meanwhile = lambda: other.pin("b.test", [OTHER])
        store.pin("a.test", [LEAF])
    assert disk.hosts() == {"a.test": (LEAF,), "b.test": (OTHER,), "first.test": (LEAF,)}


def test_what_another_has_noted_is_on_the_disk_before_it_is_said_again(store: PinStore, disk: Disk, file: Path) -> None:
    said: list[str] = []

    def meanwhile() -> None:
        # The other one has committed, and still waits; the same header comes to this one.
        said.append(store.note("a.test", header(LEAF, BACKUP), [LEAF]).outcome)
        assert "a.test" in disk.hosts()

    with PinStore(file, clock=Clock()) as other:
        other.pin("b.test", [OTHER])
        disk.meanwhile = meanwhile
        other.note("a.test", header(LEAF, BACKUP), [LEAF])
    assert said == ["updated"]


def test_while_nobody_writes_nothing_is_synced(store: PinStore, disk: Disk) -> None:
    for _ in range(3):
        store.note("a.test", header(LEAF, BACKUP), [LEAF])
        store.forget("nobody.test")
    assert disk.syncs == 1


@pytest.mark.parametrize("mode", ["PASSIVE", "RESTART", "TRUNCATE"])
def test_a_log_that_begins_anew_is_synced_all_the_same(store: PinStore, disk: Disk, file: Path, mode: str) -> None:
    connection = sqlite3.connect(file)
    connection.execute(f"PRAGMA wal_checkpoint({mode})")
    connection.close()
    store.pin("a.test", [LEAF])
    assert disk.hosts() == {"a.test": (LEAF,), "first.test": (LEAF,)}


def test_a_disk_that_fails_is_told_of(store: PinStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(log, "_sync", fail)
    for name in ("noted", "pinned", "forgotten"):
        with pytest.raises(StoreError, match=os.strerror(errno.EIO)):
            WRITES[name](store)


def test_the_log_of_another_file_is_trusted_with_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aside = file.with_name("aside")
    with PinStore(aside) as another, monkeypatch.context() as patch:
        another.pin("a.test", [LEAF])
        of = log.log_of
        patch.setattr("dynpin.clientstore.store.database.log_of", lambda _, index: of(aside, index))
        with PinStore(file) as misled:
            for name in ("a.test", "b.test"):
                misled.pin(name, [LEAF])
            with misled.reading() as connection:
                assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL: SQLite waits


def test_a_log_that_cannot_be_opened_is_left_to_sqlite(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynpin.clientstore.store.database.log_of", lambda *_: None)
    with PinStore(file) as store:
        store.pin("a.test", [LEAF])
        with store.reading() as connection:
            assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
